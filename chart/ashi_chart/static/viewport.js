/** Which stretch of time is in view, and how the reader moves it. */

/** @typedef {import("./timeline.js").Timeline} Timeline */
/** @typedef {import("./vendor/lightweight-charts/lightweight-charts.js").IChartApi} Chart */
/**
 * @typedef {object} Kept what was in view, so that it can be found again among other bars
 * @property {boolean} following the newest bar was in view
 * @property {number} offset of the right edge from the newest bar, in windows
 * @property {number} width in windows
 * @property {number} time open time of the window at the right edge, µs
 * @property {number} rest how far into that window
 */

/** Bars this close to the left edge of the view are asked for before they are seen. */
const AHEAD = 150;
const FEWEST_BARS = 8;
const BAR_SPACING = 7;
const WIDEST_BAR = 28;
const RIGHT_OFFSET = 6;

export class Viewport {
  /**
   * @param {Chart} chart
   * @param {() => Timeline} timeline
   */
  constructor(chart, timeline) {
    this.chart = chart;
    this.timeline = timeline;
  }

  /** Shows the newest bars, as close as at first. */
  reset() {
    const scale = this.chart.timeScale();
    // A few bars are drawn wider, so that they are no heap at the edge.
    const fitting = scale.width() / (this.#last + 1 + 2 * RIGHT_OFFSET);
    scale.applyOptions({ barSpacing: Math.min(WIDEST_BAR, Math.max(BAR_SPACING, fitting)), rightOffset: RIGHT_OFFSET });
    scale.resetTimeScale();
    this.chart.priceScale("right").applyOptions({ autoScale: true });
  }

  /** Shows the newest bar, at the width that bars have now. */
  toNewest() {
    this.chart.timeScale().scrollToPosition(RIGHT_OFFSET, false);
  }

  toOldest() {
    const range = this.#range();
    if (range) this.#set(-2, range.to - range.from - 2);
  }

  /** @param {number} share of what is in view; negative: into the past */
  scroll(share) {
    const range = this.#range();
    if (!range) return;
    const by = (range.to - range.from) * share;
    this.#set(range.from + by, range.to + by);
  }

  /** @param {number} factor above 1: more bars */
  zoom(factor) {
    const range = this.#range();
    if (!range) return;
    // The newest bar stays where it is while it is in view; else the middle does.
    const anchor = this.isFollowing ? this.#last : (range.from + range.to) / 2;
    const from = anchor - (anchor - range.from) * factor;
    const to = anchor + (range.to - anchor) * factor;
    if (to - from >= FEWEST_BARS) this.#set(from, to);
  }

  /**
   * Moves as little as is needed to have a window in view.
   * @param {number} time open time, µs
   */
  include(time) {
    const range = this.#range();
    if (!range) return;
    const place = Math.floor(this.timeline().placeOf(time));
    const by = place < range.from + 1 ? place - range.from - 2 : place > range.to - 1 ? place - range.to + 2 : 0;
    if (by) this.#set(range.from + by, range.to + by);
  }

  /** Whether the newest bar is in view. @returns {boolean} */
  get isFollowing() {
    const range = this.#range();
    return !range || this.#last < 0 || range.to >= this.#last;
  }

  /** Whether the oldest bar is near, or in view. @returns {boolean} */
  get isNearOldest() {
    const range = this.#range();
    return range !== null && range.from < AHEAD;
  }

  /** @returns {{from: number, to: number} | null} open times of the windows at the edges, µs */
  get times() {
    const range = this.#range();
    if (!range || this.#last < 0) return null;
    const timeline = this.timeline();
    return {
      from: timeline.timeAt(Math.max(0, Math.ceil(range.from))),
      to: timeline.timeAt(Math.min(this.#last, Math.floor(range.to))),
    };
  }

  /** @returns {Kept | null} */
  keep() {
    const range = this.#range();
    if (!range || this.#last < 0) return null;
    const right = Math.floor(range.to);
    return {
      following: this.isFollowing,
      offset: range.to - this.#last,
      width: range.to - range.from,
      time: this.timeline().timeAt(right),
      rest: range.to - right,
    };
  }

  /** @param {Kept | null} kept */
  restore(kept) {
    if (!kept || this.#last < 0) return;
    const to = kept.following ? this.#last + kept.offset : Math.floor(this.timeline().placeOf(kept.time)) + kept.rest;
    this.#set(to - kept.width, to);
  }

  get #last() {
    return this.timeline().times.length - 1;
  }

  #range() {
    return this.chart.timeScale().getVisibleLogicalRange();
  }

  /**
   * @param {number} from
   * @param {number} to
   */
  #set(from, to) {
    this.chart.timeScale().setVisibleLogicalRange({ from, to });
  }
}

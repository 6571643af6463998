/**
 * The drawing: candles, volume, moving averages, gaps and markers of one series. It is told what has changed and draws
 * that; the reader's view stays where it is, and follows the newest bar while that is in view.
 */

import {
  CandlestickSeries,
  createChartEx,
  createSeriesMarkers,
  HistogramSeries,
  LineSeries,
} from "./vendor/lightweight-charts/lightweight-charts.js";
import { average, lastAverage, periodsOf } from "./averages.js";
import { fullTime, markText, zonedScale } from "./axis.js";
import { rounded } from "./format.js";
import { GapShading, Gaps } from "./gaps.js";
import { language } from "./i18n.js";
import { markersOf, Signals } from "./markers.js";
import { chartOptions, SCALES, seriesOptions } from "./look.js";
import { faded, palette } from "./palette.js";
import { CLOSE, FLAGS, FLAT, HIGH, lengthOf, LOW, OPEN, OPEN_TIME, VOLUME } from "./protocol.js";
import { Series } from "./series.js";
import { settings } from "./settings.js";
import { Timeline } from "./timeline.js";

/** @typedef {import("./protocol.js").Bar} Bar */
/** @typedef {import("./vendor/lightweight-charts/lightweight-charts.js").Time} Time */
/** @typedef {import("./vendor/lightweight-charts/lightweight-charts.js").UTCTimestamp} Seconds */
/** @typedef {import("./vendor/lightweight-charts/lightweight-charts.js").IChartApi} Chart */
/** @typedef {import("./vendor/lightweight-charts/lightweight-charts.js").ISeriesApi<"Line">} Line */
/** @typedef {import("./vendor/lightweight-charts/lightweight-charts.js").Logical} Logical */
/** @typedef {{following: boolean, offset: number, width: number, time: number, rest: number}} View by time, in windows */
/** @typedef {{period: number, line: Line, values: Float64Array | number[]}} Average */

/** What is drawn anew as a whole rather than bar by bar. */
const MANY = 40;
/** Bars this close to the left edge of the view are asked for before they are seen. */
const AHEAD = 150;
const TEXT_FROM_SPACING = 5;
const BAR_SPACING = 7;
const RIGHT_OFFSET = 6;

export class ChartView {
  series = new Series("", "1m");
  gaps = new Gaps();
  signals = new Signals();
  timeline = new Timeline([], lengthOf("1m"));
  #length = lengthOf("1m");
  #places = 2;
  #colors = palette();
  #closes = /** @type {number[]} */ ([]);
  #averages = /** @type {Average[]} */ ([]);
  #texts = true;

  /**
   * @param {HTMLElement} element
   * @param {object} handlers
   * @param {() => number} handlers.now µs
   * @param {() => void} handlers.onLeftEdge the oldest bar comes near
   * @param {(openTime: number | null) => void} handlers.onPointer the window under the pointer; null: none is
   * @param {(following: boolean) => void} handlers.onFollowing whether the newest bar is in view
   */
  constructor(element, handlers) {
    this.element = element;
    this.handlers = handlers;
    const scale = zonedScale(() => this.#length);
    this.chart = /** @type {Chart} */ (createChartEx(element, scale, chartOptions(this.#colors, this.#texting())));
    this.candles = this.chart.addSeries(CandlestickSeries, { priceFormat: this.#priceFormat() });
    this.volume = this.chart.addSeries(HistogramSeries, seriesOptions.volume, 1);
    const [prices, volumes] = this.chart.panes();
    prices.setStretchFactor(5);
    volumes.setStretchFactor(1);
    volumes.setPreserveEmptyPane(true);
    this.volume.priceScale().applyOptions({ scaleMargins: { top: 0.12, bottom: 0 } });
    this.markers = createSeriesMarkers(this.candles, [], { autoScale: true });
    const source = { gaps: () => this.gaps.all(), timeline: () => this.timeline, now: handlers.now, palette: () => this.#colors };
    this.shading = [new GapShading({ ...source, labels: true }), new GapShading({ ...source, labels: false })];
    this.candles.attachPrimitive(this.shading[0]);
    this.volume.attachPrimitive(this.shading[1]);
    this.chart.timeScale().subscribeVisibleLogicalRangeChange(() => this.#viewMoved());
    this.chart.subscribeCrosshairMove((param) => {
      handlers.onPointer(param.time === undefined && param.logical === undefined ? null : this.#windowAt(Number(param.logical)));
    });
    this.applyTheme();
    this.applyAverages();
  }

  /**
   * Shows another series, or the same one anew.
   * @param {Series} series
   * @param {"keep" | "newest"} view `keep`: what is in view stays there
   */
  show(series, view) {
    const range = view === "keep" && this.series.bars.length ? this.#visible() : null;
    this.series = series;
    this.#length = lengthOf(series.timeframe);
    this.#draw();
    this.chart.timeScale().applyOptions({ secondsVisible: this.#length < 60_000_000, timeVisible: true });
    if (range) this.#restore(range);
    else if (view === "newest") this.newest();
  }

  /** Draws all bars anew, with the view where it is. */
  redraw() {
    const range = this.#visible();
    this.#draw();
    if (range) this.#restore(range);
  }

  #draw() {
    const { series } = this;
    this.timeline = new Timeline(series.bars, this.#length);
    this.#closes = series.bars.map((bar) => Number(bar[CLOSE]));
    // Empty before they are filled: what is left of another series would share the time axis for a moment.
    this.volume.setData([]);
    for (const { line } of this.#averages) line.setData([]);
    this.markers.setMarkers([]);
    const bars = new Map(series.bars.map((bar) => [bar[OPEN_TIME] / 1e6, bar]));
    this.candles.setData(this.timeline.times.map((time) => {
      const bar = bars.get(time);
      return bar ? this.#candle(bar) : { time: /** @type {Seconds} */ (time) };
    }));
    this.volume.setData(series.bars.map((bar) => this.#volume(bar)));
    for (const each of this.#averages) this.#drawAverage(each);
    this.applyFormat();
    this.drawMarkers();
  }

  /**
   * Takes bars that have changed.
   * @param {Bar[]} bars
   * @returns {boolean} whether one was news
   */
  apply(bars) {
    let [rebuild, marked, news] = [bars.length > MANY, false, false];
    for (const bar of bars) {
      const before = this.series.at(bar[OPEN_TIME])?.[FLAGS] ?? 0;
      const { kind, index } = this.series.apply(bar);
      if (kind === "nothing") continue;
      news = true;
      marked ||= ((before ^ bar[FLAGS]) & 2) !== 0;
      if (kind === "rebuilt" || (kind === "appended" && !this.timeline.continues(bar[OPEN_TIME]))) rebuild = true;
      if (rebuild) continue;
      if (kind === "appended") this.timeline.append(bar[OPEN_TIME]);
      this.#closes[index] = Number(bar[CLOSE]);
      this.candles.update(this.#candle(bar), kind === "older");
      this.volume.update(this.#volume(bar), kind === "older");
      for (const each of this.#averages) this.#updateAverage(each, index, kind === "older");
    }
    if (!news) return false;
    if (rebuild) this.redraw();
    else {
      this.applyFormat();
      if (marked) this.drawMarkers();
    }
    return true;
  }

  drawMarkers() {
    this.markers.setMarkers(markersOf(this.series, this.signals, this.#colors, this.#texts));
  }

  drawGaps() {
    for (const shading of this.shading) shading.refresh();
  }

  applyTheme() {
    this.#colors = palette();
    const colors = this.#colors;
    this.chart.applyOptions(chartOptions(colors, this.#texting()));
    this.candles.applyOptions({
      upColor: colors.up, downColor: colors.down, wickUpColor: colors.up, wickDownColor: colors.down, borderVisible: false,
    });
    this.#averages.forEach(({ line }, nth) => line.applyOptions({ color: colors.averages[nth] }));
    this.chart.priceScale("right").applyOptions({ mode: SCALES[settings().scale] });
    if (this.series.bars.length) this.redraw();
  }

  /** Makes the lines of the averages that are chosen. */
  applyAverages() {
    for (const { line } of this.#averages) this.chart.removeSeries(line);
    this.#averages = periodsOf(settings().averages).map((period, nth) => ({
      period,
      values: [],
      line: this.chart.addSeries(LineSeries, { ...seriesOptions.average, color: this.#colors.averages[nth] }),
    }));
    this.#places = -1;
    this.applyFormat();
    for (const each of this.#averages) this.#drawAverage(each);
  }

  /**
   * How many digits prices have: as the venue says, or else as many as were seen.
   * @param {string | null} [tickSize]
   */
  applyFormat(tickSize = this.tickSize) {
    this.tickSize = tickSize;
    const places = tickSize ? Math.max(0, tickSize.replace(/\.?0+$/, "").split(".")[1]?.length ?? 0) : this.series.places;
    if (places === this.#places) return;
    this.#places = places;
    const priceFormat = this.#priceFormat();
    this.candles.applyOptions({ priceFormat });
    for (const { line } of this.#averages) line.applyOptions({ priceFormat });
  }

  /** @type {string | null} */
  tickSize = null;

  /** @returns {number} */
  get places() {
    return Math.max(0, this.#places);
  }

  /**
   * The averages at a bar, in the order of the settings.
   * @param {number} index of the bar
   * @returns {{period: number, value: number, color: string}[]}
   */
  averagesAt(index) {
    return this.#averages.map(({ period, values }, nth) => ({ period, value: values[index] ?? NaN, color: this.#colors.averages[nth] }));
  }

  /** Shows the newest bars, as close as at first. */
  newest() {
    const scale = this.chart.timeScale();
    scale.applyOptions({ barSpacing: BAR_SPACING, rightOffset: RIGHT_OFFSET });
    scale.resetTimeScale();
    this.chart.priceScale("right").applyOptions({ autoScale: true });
  }

  /** Shows the newest bar, at the width that bars have now. */
  toNewest() {
    this.chart.timeScale().scrollToPosition(RIGHT_OFFSET, false);
  }

  toOldest() {
    const range = this.#logical();
    if (range) this.chart.timeScale().setVisibleLogicalRange({ from: -2, to: range.to - range.from - 2 });
  }

  /** @param {number} share of what is in view; negative: into the past */
  scroll(share) {
    const range = this.#logical();
    if (!range) return;
    const by = (range.to - range.from) * share;
    this.chart.timeScale().setVisibleLogicalRange({ from: range.from + by, to: range.to + by });
  }

  /** @param {number} factor above 1: more bars */
  zoom(factor) {
    const range = this.#logical();
    if (!range) return;
    // The newest bar stays where it is while it is in view; else the middle does.
    const anchor = this.isFollowing ? this.timeline.times.length - 1 : (range.from + range.to) / 2;
    const from = anchor - (anchor - range.from) * factor;
    const to = anchor + (range.to - anchor) * factor;
    if (to - from >= 8) this.chart.timeScale().setVisibleLogicalRange({ from, to });
  }

  /**
   * Puts the crosshair on a bar, and the bar into view.
   * @param {number} index of the bar
   */
  point(index) {
    const bar = this.series.bars[index];
    const range = this.#logical();
    if (!bar || !range) return;
    const place = this.timeline.placeOf(bar[OPEN_TIME]);
    const by = place < range.from + 1 ? place - range.from - 2 : place > range.to - 1 ? place - range.to + 2 : 0;
    if (by) this.chart.timeScale().setVisibleLogicalRange({ from: range.from + by, to: range.to + by });
    this.chart.setCrosshairPosition(Number(bar[CLOSE]), /** @type {Seconds} */ (bar[OPEN_TIME] / 1e6), this.candles);
  }

  /** Whether the newest bar is in view. @returns {boolean} */
  get isFollowing() {
    const range = this.#logical();
    return !range || this.timeline.times.length === 0 || range.to >= this.timeline.times.length - 1;
  }

  /** Whether the left edge is near, or in view. @returns {boolean} */
  get isNearOldest() {
    const range = this.#logical();
    return range !== null && range.from < AHEAD;
  }

  /**
   * Where a time is in the chart, CSS pixels of the page.
   * @param {number} time µs
   * @returns {number | null}
   */
  pixelOf(time) {
    const x = this.shading[0].xOf(time);
    return x === null ? null : x + this.element.getBoundingClientRect().left;
  }

  /** @returns {{from: number, to: number} | null} open times of the windows at the edges of the view, µs */
  get visible() {
    const range = this.#logical();
    if (!range || !this.timeline.times.length) return null;
    const last = this.timeline.times.length - 1;
    return {
      from: this.timeline.timeAt(Math.max(0, Math.ceil(range.from))),
      to: this.timeline.timeAt(Math.min(last, Math.floor(range.to))),
    };
  }

  #logical() {
    return this.chart.timeScale().getVisibleLogicalRange();
  }

  /** What is in view, by time, so that it can be found again among other bars. @returns {View | null} */
  #visible() {
    const range = this.#logical();
    if (!range || !this.timeline.times.length) return null;
    const right = Math.floor(range.to);
    return {
      following: this.isFollowing,
      offset: range.to - (this.timeline.times.length - 1),
      width: range.to - range.from,
      time: this.timeline.timeAt(right),
      rest: range.to - right,
    };
  }

  /** @param {View} view */
  #restore(view) {
    const last = this.timeline.times.length - 1;
    const to = view.following ? last + view.offset : this.timeline.placeOf(view.time) + view.rest;
    this.chart.timeScale().setVisibleLogicalRange({ from: to - view.width, to });
  }

  #viewMoved() {
    this.handlers.onFollowing(this.isFollowing);
    if (this.isNearOldest) this.handlers.onLeftEdge();
    const texts = this.chart.timeScale().options().barSpacing >= TEXT_FROM_SPACING;
    if (texts !== this.#texts) {
      this.#texts = texts;
      this.drawMarkers();
    }
  }

  /**
   * @param {number} logical
   * @returns {number | null}
   */
  #windowAt(logical) {
    if (!Number.isFinite(logical) || !this.timeline.times.length) return null;
    return this.timeline.timeAt(Math.round(logical));
  }

  /** @param {Bar} bar */
  #candle(bar) {
    const point = {
      time: /** @type {Seconds} */ (bar[OPEN_TIME] / 1e6),
      open: Number(bar[OPEN]), high: Number(bar[HIGH]), low: Number(bar[LOW]), close: Number(bar[CLOSE]),
    };
    // Nobody traded: a dash in grey, so that it is not taken for a trade at that price.
    return bar[FLAGS] & FLAT ? { ...point, color: this.#colors.faint, wickColor: this.#colors.faint } : point;
  }

  /** @param {Bar} bar */
  #volume(bar) {
    const color = Number(bar[CLOSE]) >= Number(bar[OPEN]) ? this.#colors.up : this.#colors.down;
    return { time: /** @type {Seconds} */ (bar[OPEN_TIME] / 1e6), value: Number(bar[VOLUME]), color: faded(color, 0.45) };
  }

  /** @param {Average} each */
  #drawAverage(each) {
    each.values = average(this.#closes, each.period, settings().averageKind);
    each.line.setData(this.#points(each, 0));
  }

  /**
   * @param {Average} each
   * @param {number} index of the bar that has changed
   * @param {boolean} older
   */
  #updateAverage(each, index, older) {
    const values = Array.isArray(each.values) ? each.values : Array.from(each.values);
    each.values = values;
    if (older) {
      const fresh = average(this.#closes, each.period, settings().averageKind);
      each.values = fresh;
      each.line.setData(this.#points(each, 0));
      return;
    }
    values[index] = lastAverage(this.#closes, each.period, settings().averageKind, values[index - 1] ?? NaN);
    for (const point of this.#points(each, index)) each.line.update(point);
  }

  /**
   * @param {Average} each
   * @param {number} from
   */
  #points(each, from) {
    const points = [];
    for (let index = from; index < this.series.bars.length; index += 1) {
      const value = each.values[index];
      if (!Number.isNaN(value)) points.push({ time: /** @type {Seconds} */ (this.series.bars[index][OPEN_TIME] / 1e6), value });
    }
    return points;
  }

  #priceFormat() {
    const places = this.places;
    const formatter = (/** @type {number} */ price) => rounded(price, places);
    return { type: /** @type {const} */ ("custom"), formatter, minMove: 10 ** -places, base: 10 ** places };
  }

  #texting() {
    return {
      locale: language() === "ja" ? "ja-JP" : "en-GB",
      mark: (/** @type {Time} */ time, /** @type {number} */ type) => markText(time, type, this.#length),
      crosshair: (/** @type {Time} */ time) => fullTime(Number(time) * 1e6, this.#length),
    };
  }
}

/**
 * The windows along the time axis: those of the bars, and those that have none in between, so that time runs evenly and
 * what is missing is seen to be missing. A very long stretch without bars is shortened.
 */

import { OPEN_TIME } from "./protocol.js";

/** @typedef {import("./protocol.js").Bar} Bar */

/** A stretch of more windows than this without a bar is drawn as so many. */
export const LONGEST_HOLE = 300;

export class Timeline {
  /** Open times, s, of the windows on the axis, ascending. @type {number[]} */
  times = [];
  /** Places in `times` before which a stretch was shortened. @type {Set<number>} */
  breaks = new Set();

  /**
   * @param {Bar[]} bars
   * @param {number} length of a window, µs
   */
  constructor(bars, length) {
    this.length = length;
    for (const bar of bars) this.#extend(bar[OPEN_TIME]);
  }

  /** @param {number} openTime µs */
  #extend(openTime) {
    const { times } = this;
    const step = this.length / 1e6;
    const second = openTime / 1e6;
    const last = times[times.length - 1];
    if (last !== undefined) {
      const missing = Math.round((second - last) / step) - 1;
      const half = LONGEST_HOLE / 2;
      for (let nth = 1; nth <= missing; nth += 1) {
        if (missing > LONGEST_HOLE && nth === half + 1) {
          nth = missing - half + 1;
          this.breaks.add(times.length);
        }
        times.push(last + nth * step);
      }
    }
    times.push(second);
  }

  /**
   * Whether a bar goes on where the axis ends, with no window in between.
   * @param {number} openTime µs
   * @returns {boolean}
   */
  continues(openTime) {
    const last = this.times[this.times.length - 1];
    return last === undefined || openTime / 1e6 === last + this.length / 1e6;
  }

  /** @param {number} openTime µs, of a bar that continues it */
  append(openTime) {
    this.times.push(openTime / 1e6);
  }

  /**
   * The place of a time along the axis, in windows: 3.5 is the middle of the fourth. Before the first and after the
   * last it goes on evenly.
   * @param {number} time µs
   * @returns {number}
   */
  placeOf(time) {
    const { times } = this;
    const second = time / 1e6;
    const step = this.length / 1e6;
    if (times.length === 0) return 0;
    if (second < times[0]) return (second - times[0]) / step;
    let low = 0;
    let high = times.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (times[middle] <= second) low = middle + 1;
      else high = middle;
    }
    const index = low - 1;
    const into = (second - times[index]) / step;
    // Inside of a stretch that was shortened all times are at its break.
    return index + (index === times.length - 1 ? into : Math.min(into, 1));
  }

  /**
   * The open time of the window at a place, µs, also where the axis has ended.
   * @param {number} index
   * @returns {number}
   */
  timeAt(index) {
    const { times } = this;
    if (times.length === 0) return 0;
    const known = times[Math.max(0, Math.min(index, times.length - 1))] * 1e6;
    return known + (index - Math.max(0, Math.min(index, times.length - 1))) * this.length;
  }
}

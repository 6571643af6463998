/** The bars of the series that is looked at: in order of open time, by version, bounded. Nothing here draws. */

import { HIGH, LOW, CLOSE, MAX_BARS, OPEN, OPEN_TIME, VERSION } from "./protocol.js";
import { placesOf } from "./format.js";

/** @typedef {import("./protocol.js").Bar} Bar */
/** @typedef {{kind: "nothing" | "last" | "older" | "appended" | "rebuilt", index: number}} Change what became of a bar */

/** Bars are dropped at the old end this many at a time, so that it is not done with each new bar. */
const SLACK = 1_000;
/** Prices with more digits after the point are shown with so many on the axis. */
const MOST_PLACES = 12;

export class Series {
  /** @type {Bar[]} */
  bars = [];
  /** Whether the store has older ones. */
  more = false;
  /** The most digits after the point among the prices so far. */
  places = 0;

  /**
   * @param {string} symbol
   * @param {string} timeframe
   */
  constructor(symbol, timeframe) {
    this.symbol = symbol;
    this.timeframe = timeframe;
  }

  /**
   * Takes a snapshot: it replaces what was held.
   * @param {Bar[]} bars oldest first
   * @param {boolean} more
   */
  reset(bars, more) {
    this.bars = bars.slice(-MAX_BARS);
    this.more = more || bars.length > MAX_BARS;
    this.places = 0;
    for (const bar of this.bars) this.#look(bar);
  }

  /**
   * Takes a bar that has changed, as the server sends them: in order, so of equal versions the last counts (a bar that
   * is rolled up may change without its version, and so may its flags).
   * @param {Bar} bar
   * @returns {Change}
   */
  apply(bar) {
    const { bars } = this;
    const index = this.placeOf(bar[OPEN_TIME]);
    const held = bars[index];
    if (held?.[OPEN_TIME] === bar[OPEN_TIME]) {
      if (bar[VERSION] < held[VERSION]) return { kind: "nothing", index };
      bars[index] = bar;
      this.#look(bar);
      return { kind: index === bars.length - 1 ? "last" : "older", index };
    }
    // What is older than all that is held comes with its page.
    if (index === 0 && bars.length > 0) return { kind: "nothing", index };
    bars.splice(index, 0, bar);
    this.#look(bar);
    if (index < bars.length - 1) return { kind: "rebuilt", index };
    if (bars.length < MAX_BARS + SLACK) return { kind: "appended", index };
    bars.splice(0, bars.length - MAX_BARS);
    this.more = true;
    return { kind: "rebuilt", index: bars.length - 1 };
  }

  /**
   * Takes a page of older bars. What is held already is replaced by a greater version only.
   * @param {Bar[]} page oldest first
   * @param {boolean} more
   */
  prepend(page, more) {
    const oldest = this.bars[0]?.[OPEN_TIME] ?? Infinity;
    const older = page.filter((bar) => bar[OPEN_TIME] < oldest);
    const room = Math.max(0, MAX_BARS - this.bars.length);
    const taken = room ? older.slice(-room) : [];
    for (const bar of taken) this.#look(bar);
    this.bars = taken.concat(this.bars);
    for (const bar of page) {
      const index = this.placeOf(bar[OPEN_TIME]);
      const held = this.bars[index];
      if (held?.[OPEN_TIME] === bar[OPEN_TIME] && bar[VERSION] > held[VERSION]) this.bars[index] = bar;
    }
    // A page that brings nothing would be asked for again and again.
    this.more = more && older.length > 0;
  }

  /** Whether another page may be asked for. @returns {boolean} */
  get wantsMore() {
    return this.more && this.bars.length > 0 && this.bars.length < MAX_BARS;
  }

  /**
   * Where a bar of this open time is, or would be put.
   * @param {number} openTime µs
   * @returns {number}
   */
  placeOf(openTime) {
    const { bars } = this;
    if (bars.length > 0 && openTime > bars[bars.length - 1][OPEN_TIME]) return bars.length;
    let low = 0;
    let high = bars.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (bars[middle][OPEN_TIME] < openTime) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /**
   * The bar of an open time.
   * @param {number} openTime µs
   * @returns {Bar | undefined}
   */
  at(openTime) {
    const bar = this.bars[this.placeOf(openTime)];
    return bar?.[OPEN_TIME] === openTime ? bar : undefined;
  }

  /** @returns {Bar | undefined} */
  get last() {
    return this.bars[this.bars.length - 1];
  }

  /** @param {Bar} bar */
  #look(bar) {
    for (const field of /** @type {const} */ ([OPEN, HIGH, LOW, CLOSE])) {
      const places = placesOf(bar[field]);
      if (places > this.places) this.places = Math.min(places, MOST_PLACES);
    }
  }
}

/**
 * The exact difference of two decimals, as text: `difference("10.5", "11")` is `-0.5`.
 * @param {string} first
 * @param {string} second
 * @returns {string}
 */
export function difference(first, second) {
  const places = Math.max(placesOf(first), placesOf(second));
  const whole = (/** @type {string} */ decimal) => BigInt(decimal.replace(".", "") + "0".repeat(places - placesOf(decimal)));
  const value = whole(first) - whole(second);
  const digits = (value < 0n ? -value : value).toString().padStart(places + 1, "0");
  const point = digits.length - places;
  return (value < 0n ? "-" : "") + digits.slice(0, point) + (places ? `.${digits.slice(point)}` : "");
}

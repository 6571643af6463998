/** Moving averages of closes, in floating point: lines on a chart, no amounts. */

/** @typedef {"sma" | "ema"} Kind */

/** So many lines at most; each has a colour of its own. */
export const MOST_AVERAGES = 4;
export const LONGEST_PERIOD = 1_000;

/**
 * The periods in what somebody has written: `20, 50` is `[20, 50]`. What is no period is left out.
 * @param {string} text
 * @returns {number[]}
 */
export function periodsOf(text) {
  const numbers = (text.match(/\d+/g) ?? []).map(Number).filter((period) => period >= 2 && period <= LONGEST_PERIOD);
  return [...new Set(numbers)].slice(0, MOST_AVERAGES);
}

/**
 * The average at each close; NaN where there are not enough closes before it. An exponential one begins with the mean of
 * the first `period` closes, as charts do.
 * @param {number[]} closes
 * @param {number} period
 * @param {Kind} kind
 * @returns {number[]}
 */
export function average(closes, period, kind) {
  const result = new Array(closes.length).fill(NaN);
  const weight = 2 / (period + 1);
  for (let index = period - 1; index < closes.length; index += 1) {
    const before = result[index - 1];
    result[index] = kind === "ema" && !Number.isNaN(before ?? NaN) ? before + weight * (closes[index] - before) : mean(closes, index, period);
  }
  return result;
}

/**
 * The average at the last close alone, when the one before it is known.
 * @param {number[]} closes
 * @param {number} period
 * @param {Kind} kind
 * @param {number} before that of the close before; NaN: there was none
 * @returns {number} NaN: not enough closes
 */
export function lastAverage(closes, period, kind, before) {
  if (closes.length < period) return NaN;
  if (kind === "sma" || Number.isNaN(before)) return mean(closes, closes.length - 1, period);
  return before + (2 / (period + 1)) * (closes[closes.length - 1] - before);
}

/**
 * The mean of the `period` closes that end at a place. Summed anew each time: a running sum drifts, and a page runs for days.
 * @param {number[]} closes
 * @param {number} index
 * @param {number} period
 * @returns {number}
 */
function mean(closes, index, period) {
  let sum = 0;
  for (let place = index - period + 1; place <= index; place += 1) sum += closes[place];
  return sum / period;
}

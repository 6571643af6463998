/** The moving averages as lines of the chart, kept up with the bars. */

import { LineSeries } from "./vendor/lightweight-charts/lightweight-charts.js";
import { average, lastAverage, periodsOf } from "./averages.js";
import { seriesOptions } from "./look.js";
import { OPEN_TIME } from "./protocol.js";
import { settings } from "./settings.js";

/** @typedef {import("./protocol.js").Bar} Bar */
/** @typedef {import("./vendor/lightweight-charts/lightweight-charts.js").IChartApi} Chart */
/** @typedef {import("./vendor/lightweight-charts/lightweight-charts.js").UTCTimestamp} Seconds */
/** @typedef {import("./vendor/lightweight-charts/lightweight-charts.js").PriceFormat} PriceFormat */
/** @typedef {{period: number, line: import("./vendor/lightweight-charts/lightweight-charts.js").ISeriesApi<"Line">, values: number[]}} Average */

export class Lines {
  /** @type {Average[]} */
  #averages = [];
  /** @type {string[]} */
  #colors = [];

  /** @param {Chart} chart */
  constructor(chart) {
    this.chart = chart;
  }

  /**
   * Makes the lines that are chosen, empty.
   * @param {string[]} colors
   * @param {PriceFormat} priceFormat
   */
  choose(colors, priceFormat) {
    for (const { line } of this.#averages) this.chart.removeSeries(line);
    this.#colors = colors;
    this.#averages = periodsOf(settings().averages).map((period, nth) => ({
      period,
      values: [],
      line: this.chart.addSeries(LineSeries, { ...seriesOptions.average, priceFormat, color: colors[nth] }),
    }));
  }

  /** @param {string[]} colors */
  color(colors) {
    this.#colors = colors;
    this.#averages.forEach(({ line }, nth) => line.applyOptions({ color: colors[nth] }));
  }

  /** @param {PriceFormat} priceFormat */
  format(priceFormat) {
    for (const { line } of this.#averages) line.applyOptions({ priceFormat });
  }

  clear() {
    for (const { line } of this.#averages) line.setData([]);
  }

  /**
   * @param {Bar[]} bars
   * @param {number[]} closes of the bars
   */
  draw(bars, closes) {
    for (const each of this.#averages) {
      each.values = average(closes, each.period, settings().averageKind);
      each.line.setData(points(bars, each.values, 0));
    }
  }

  /**
   * After the newest bar has changed, or a new one has come.
   * @param {Bar[]} bars
   * @param {number[]} closes
   */
  drawNewest(bars, closes) {
    const index = bars.length - 1;
    for (const { values, line, period } of this.#averages) {
      values[index] = lastAverage(closes, period, settings().averageKind, values[index - 1] ?? NaN);
      for (const point of points(bars, values, index)) line.update(point);
    }
  }

  /**
   * The averages at a bar, in the order of the settings.
   * @param {number} index of the bar
   * @returns {{period: number, value: number, color: string}[]}
   */
  at(index) {
    return this.#averages.map(({ period, values }, nth) => ({ period, value: values[index] ?? NaN, color: this.#colors[nth] }));
  }
}

/**
 * @param {Bar[]} bars
 * @param {number[]} values
 * @param {number} from
 * @returns {{time: Seconds, value: number}[]}
 */
function points(bars, values, from) {
  const found = [];
  for (let index = from; index < bars.length; index += 1) {
    if (!Number.isNaN(values[index])) {
      found.push({ time: /** @type {Seconds} */ (bars[index][OPEN_TIME] / 1e6), value: values[index] });
    }
  }
  return found;
}

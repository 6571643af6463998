/**
 * The drawing: candles, volume, moving averages, gaps and markers of one series. It is told what has changed and draws
 * that; the reader's view stays where it is, and follows the newest bar while that is in view.
 */

import {
  CandlestickSeries,
  createChartEx,
  createSeriesMarkers,
  HistogramSeries,
} from "./vendor/lightweight-charts/lightweight-charts.js";
import { fullTime, markText, zonedScale } from "./axis.js";
import { rounded } from "./format.js";
import { GapShading, Gaps } from "./gaps.js";
import { language } from "./i18n.js";
import { Lines } from "./lines.js";
import { chartOptions, SCALES, seriesOptions } from "./look.js";
import { markersOf, roomFor, Signals } from "./markers.js";
import { faded, palette } from "./palette.js";
import { CLOSE, CORRECTED, FLAGS, FLAT, HIGH, lengthOf, LOW, OPEN, OPEN_TIME, VENUE, VOLUME } from "./protocol.js";
import { Series } from "./series.js";
import { settings } from "./settings.js";
import { Timeline } from "./timeline.js";
import { Viewport } from "./viewport.js";

/** @typedef {import("./protocol.js").Bar} Bar */
/** @typedef {import("./vendor/lightweight-charts/lightweight-charts.js").Time} Time */
/** @typedef {import("./vendor/lightweight-charts/lightweight-charts.js").UTCTimestamp} Seconds */
/** @typedef {import("./vendor/lightweight-charts/lightweight-charts.js").IChartApi} Chart */

/** So many changed bars are drawn anew as a whole rather than one by one. */
const MANY = 40;

export class ChartView {
  series = new Series("", "1m");
  gaps = new Gaps();
  signals = new Signals();
  timeline = new Timeline([], lengthOf("1m"));
  /** Of the venue; null: it does not say. @type {string | null} */
  #tickSize = null;
  #length = lengthOf("1m");
  #places = 0;
  #colors = palette();
  /** @type {number[]} */
  #closes = [];
  #room = 2;

  /**
   * @param {HTMLElement} element
   * @param {object} handlers
   * @param {() => number} handlers.now µs
   * @param {() => void} handlers.onMoved what is in view has moved
   * @param {(openTime: number | null) => void} handlers.onPointer the window under the pointer; null: none is
   */
  constructor(element, handlers) {
    this.element = element;
    this.chart = /** @type {Chart} */ (
      createChartEx(element, zonedScale(() => this.#length), chartOptions(this.#colors, this.#texting()))
    );
    this.viewport = new Viewport(this.chart, () => this.timeline);
    this.candles = this.chart.addSeries(CandlestickSeries, { priceFormat: this.#priceFormat() });
    this.volume = this.chart.addSeries(HistogramSeries, seriesOptions.volume, 1);
    this.lines = new Lines(this.chart);
    const [prices, volumes] = this.chart.panes();
    prices.setStretchFactor(5);
    volumes.setStretchFactor(1);
    this.volume.priceScale().applyOptions({ scaleMargins: { top: 0.12, bottom: 0 } });
    this.markers = createSeriesMarkers(this.candles, [], { autoScale: true });
    const source = { gaps: () => this.gaps.all(), timeline: () => this.timeline, now: handlers.now, palette: () => this.#colors };
    this.shading = [new GapShading({ ...source, labels: true }), new GapShading({ ...source, labels: false })];
    this.candles.attachPrimitive(this.shading[0]);
    this.volume.attachPrimitive(this.shading[1]);
    this.applyTheme();
    this.applyAverages();
    this.chart.timeScale().subscribeVisibleLogicalRangeChange(() => {
      this.#fitMarkers();
      handlers.onMoved();
    });
    this.chart.subscribeCrosshairMove(({ logical }) => handlers.onPointer(this.#windowAt(logical)));
  }

  /**
   * Shows another series, or the same one anew.
   * @param {Series} series
   * @param {string | null} tickSize
   * @param {boolean} keep whether what is in view stays there; else the newest bars are shown
   */
  show(series, tickSize, keep) {
    const kept = keep ? this.viewport.keep() : null;
    this.series = series;
    this.#tickSize = tickSize;
    this.#length = lengthOf(series.timeframe);
    this.chart.timeScale().applyOptions({ secondsVisible: this.#length < 60_000_000, timeVisible: true });
    this.#draw();
    if (kept) this.viewport.restore(kept);
    else this.viewport.reset();
  }

  /** Draws all bars anew, with the view where it is. */
  redraw() {
    const kept = this.viewport.keep();
    this.#draw();
    this.viewport.restore(kept);
  }

  #draw() {
    const { series } = this;
    this.timeline = new Timeline(series.bars, this.#length);
    this.#closes = series.bars.map((bar) => Number(bar[CLOSE]));
    // Emptied before they are filled: what is left of another series would share the time axis for a moment.
    this.volume.setData([]);
    this.lines.clear();
    this.markers.setMarkers([]);
    const bars = new Map(series.bars.map((bar) => [bar[OPEN_TIME] / 1e6, bar]));
    this.candles.setData(this.timeline.times.map((time) => {
      const bar = bars.get(time);
      return bar ? this.#candle(bar) : { time: /** @type {Seconds} */ (time) };
    }));
    this.volume.setData(series.bars.map((bar) => this.#volume(bar)));
    this.lines.draw(series.bars, this.#closes);
    this.#fitFormat();
    this.drawMarkers();
  }

  /**
   * Takes bars that have changed.
   * @param {Bar[]} bars
   * @returns {boolean} whether one was news
   */
  apply(bars) {
    const kept = this.viewport.keep();
    let [whole, marks, lines, news] = [bars.length > MANY, false, false, false];
    for (const bar of bars) {
      const flags = this.series.at(bar[OPEN_TIME])?.[FLAGS] ?? 0;
      const { kind, index } = this.series.apply(bar);
      if (kind === "nothing") continue;
      news = true;
      marks ||= ((flags ^ bar[FLAGS]) & CORRECTED) !== 0;
      whole ||= kind === "rebuilt" || (kind === "appended" && !this.timeline.continues(bar[OPEN_TIME]));
      if (whole) continue;
      if (kind === "appended") this.timeline.append(bar[OPEN_TIME]);
      lines ||= kind === "older" && this.#closes[index] !== Number(bar[CLOSE]);
      this.#closes[index] = Number(bar[CLOSE]);
      this.candles.update(this.#candle(bar), kind === "older");
      this.volume.update(this.#volume(bar), kind === "older");
      if (kind !== "older") this.lines.drawNewest(this.series.bars, this.#closes);
    }
    if (whole) {
      this.#draw();
      this.viewport.restore(kept);
    } else if (news) {
      if (lines) this.lines.draw(this.series.bars, this.#closes);
      if (marks) this.drawMarkers();
      this.#fitFormat();
    }
    return news;
  }

  drawMarkers() {
    this.markers.setMarkers(markersOf(this.series, this.signals, this.#colors, this.#spacing));
  }

  drawGaps() {
    for (const shading of this.shading) shading.refresh();
  }

  /** Takes over colours, language, zone and price scale from the settings. */
  applyTheme() {
    this.#colors = palette();
    const { up, down, averages } = this.#colors;
    this.chart.applyOptions(chartOptions(this.#colors, this.#texting()));
    this.candles.applyOptions({ upColor: up, downColor: down, wickUpColor: up, wickDownColor: down, borderVisible: false });
    this.lines.color(averages);
    this.chart.priceScale("right").applyOptions({ mode: SCALES[settings().scale] });
    if (this.series.bars.length) this.redraw();
  }

  /** Makes the lines of the averages that are chosen. */
  applyAverages() {
    this.lines.choose(this.#colors.averages, this.#priceFormat());
    this.lines.draw(this.series.bars, this.#closes);
  }

  /** @param {string | null} tickSize */
  setTickSize(tickSize) {
    this.#tickSize = tickSize;
    this.#fitFormat();
  }

  /** How many digits prices have: as the venue says, or else as many as were seen. @returns {number} */
  get places() {
    if (this.#tickSize === null) return this.series.places;
    const [, fraction = ""] = this.#tickSize.split(".");
    return fraction.replace(/0+$/, "").length;
  }

  /**
   * Puts the crosshair on a bar, and the bar into view.
   * @param {number} index of the bar
   */
  point(index) {
    const bar = this.series.bars[index];
    if (!bar) return;
    this.viewport.include(bar[OPEN_TIME]);
    this.chart.setCrosshairPosition(Number(bar[CLOSE]), /** @type {Seconds} */ (bar[OPEN_TIME] / 1e6), this.candles);
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

  get #spacing() {
    return this.chart.timeScale().options().barSpacing;
  }

  #fitMarkers() {
    const room = roomFor(this.#spacing);
    if (room === this.#room) return;
    this.#room = room;
    this.drawMarkers();
  }

  #fitFormat() {
    if (this.places === this.#places) return;
    this.#places = this.places;
    const priceFormat = this.#priceFormat();
    this.candles.applyOptions({ priceFormat });
    this.lines.format(priceFormat);
  }

  /**
   * @param {number | undefined} logical
   * @returns {number | null}
   */
  #windowAt(logical) {
    return logical === undefined || !this.timeline.times.length ? null : this.timeline.timeAt(Math.round(logical));
  }

  /** @param {Bar} bar */
  #candle(bar) {
    const point = {
      time: /** @type {Seconds} */ (bar[OPEN_TIME] / 1e6),
      open: Number(bar[OPEN]),
      high: Number(bar[HIGH]),
      low: Number(bar[LOW]),
      close: Number(bar[CLOSE]),
    };
    // Nobody traded: a dash in grey, so that it is not taken for a trade at that price.
    if (bar[FLAGS] & FLAT) return { ...point, color: this.#colors.faint, wickColor: this.#colors.faint };
    if (!(bar[FLAGS] & VENUE)) return point;
    // Not of trades: pale, so that nobody takes it for one of ours.
    const color = faded(point.close >= point.open ? this.#colors.up : this.#colors.down, 0.4);
    return { ...point, color, wickColor: color };
  }

  /** @param {Bar} bar */
  #volume(bar) {
    const color = Number(bar[CLOSE]) >= Number(bar[OPEN]) ? this.#colors.up : this.#colors.down;
    return { time: /** @type {Seconds} */ (bar[OPEN_TIME] / 1e6), value: Number(bar[VOLUME]), color: faded(color, 0.45) };
  }

  #priceFormat() {
    const places = this.#places;
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

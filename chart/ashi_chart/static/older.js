/** Older bars, a page at a time, when the left edge of what is held comes near. */

import { fetchJson } from "./connection.js";
import { setText } from "./dom.js";
import { grouped } from "./format.js";
import { t } from "./i18n.js";
import { MAX_BARS, OPEN_TIME } from "./protocol.js";

/** @typedef {import("./chart.js").ChartView} ChartView */
/** @typedef {import("./protocol.js").Bar} Bar */

const PAGE = 1_000;
const RETRY_MS = 3_000;
const NOTE_MS = 4_000;
/** The server tells of so many of the newest bars whether they are complete now; of older ones it need not. */
const TOLD_OF = 1_000;
const REFRESH_MS = 5_000;

export class Older {
  /** @type {AbortController | null} */
  #request = null;
  #timer = 0;
  #notAgainUntil = 0;
  #refreshTimer = 0;

  /**
   * @param {ChartView} view
   * @param {HTMLElement} note where it is said that something is loaded
   * @param {() => void} onLoaded
   * @param {() => void} onStale what is held is to be asked for again
   */
  constructor(view, note, onLoaded, onStale) {
    this.view = view;
    this.note = note;
    this.onLoaded = onLoaded;
    this.onStale = onStale;
  }

  /** @returns {boolean} */
  get isLoading() {
    return this.#request !== null;
  }

  /** Nothing of the series before is wanted any more. */
  stop() {
    this.#request?.abort();
    this.#request = null;
    clearTimeout(this.#timer);
    clearTimeout(this.#refreshTimer);
    this.#refreshTimer = 0;
    this.#notAgainUntil = 0;
  }

  /** A snapshot is there: what it leaves of the view is loaded at once. */
  begin() {
    this.stop();
    this.#say("");
    if (this.view.viewport.isNearOldest) this.wanted();
  }

  /**
   * Something else is known of a stretch of time: bars of it that were scrolled back to may be complete now, or no longer.
   * @param {number} from µs
   * @param {number | null} to µs; null: it goes on
   */
  checked(from, to) {
    const { bars } = this.view.series;
    if (this.#refreshTimer || bars.length <= TOLD_OF) return;
    if (from >= bars[bars.length - TOLD_OF][OPEN_TIME] || (to !== null && to < bars[0][OPEN_TIME])) return;
    this.#refreshTimer = setTimeout(() => {
      this.#refreshTimer = 0;
      this.onStale();
    }, REFRESH_MS);
  }

  /** The oldest bar comes near. */
  wanted() {
    const { series } = this.view;
    if (this.#request || Date.now() < this.#notAgainUntil) return;
    if (!series.wantsMore) {
      if (series.bars.length >= MAX_BARS) this.#note(t("chart.most", { count: grouped(String(MAX_BARS)) }));
      return;
    }
    void this.#load();
  }

  async #load() {
    const { series } = this.view;
    const request = new AbortController();
    this.#request = request;
    this.#say(t("chart.older"));
    try {
      const page = await fetchJson(
        "api/bars",
        { symbol: series.symbol, timeframe: series.timeframe, before: series.bars[0][OPEN_TIME], limit: PAGE },
        request.signal,
      );
      if (request !== this.#request || series !== this.view.series) return;
      this.#request = null;
      series.prepend(/** @type {Bar[]} */ (page.bars), page.more);
      this.view.gaps.add(page.gaps ?? []);
      this.view.signals.add(page.signals ?? []);
      this.view.redraw();
      this.onLoaded();
      if (series.more) this.#say("");
      else this.#note(t("chart.beginning"));
      if (this.view.viewport.isNearOldest) this.wanted();
    } catch (error) {
      if (request !== this.#request) return;
      this.#request = null;
      this.#notAgainUntil = Date.now() + RETRY_MS;
      this.#say(t("chart.olderFailed", { message: error instanceof Error ? error.message : String(error) }));
      this.#timer = setTimeout(() => {
        this.#say("");
        if (this.view.viewport.isNearOldest) this.wanted();
      }, RETRY_MS);
    }
  }

  /** @param {string} text said for a while */
  #note(text) {
    this.#say(text);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#say(""), NOTE_MS);
  }

  /** @param {string} text empty: nothing */
  #say(text) {
    setText(this.note, text);
    this.note.classList.toggle("hidden", !text);
  }
}

/** The strip above the chart: the bar under the pointer, or the newest one, exact to the last digit. */

import { fullTime } from "./axis.js";
import { byId, make, setAttributes, setText } from "./dom.js";
import { compact, duration, grouped, percent, rounded, stamp, zoneFor } from "./format.js";
import { t } from "./i18n.js";
import * as P from "./protocol.js";
import { difference } from "./series.js";
import { settings } from "./settings.js";

/** @typedef {import("./protocol.js").Bar} Bar */
/** @typedef {import("./protocol.js").Gap} Gap */
/** @typedef {import("./chart.js").ChartView} ChartView */

/** A gap that begins here, µs, begins before all that was ever asked for: no time of a message is less. */
const EVER = 1e15;
/** Sums of bars have up to 165 digits; so many are shown, and all of them in the tooltip. */
const LONGEST_AMOUNT = 18;

export class Legend {
  /** The window under the pointer, µs; null: none. @type {number | null} */
  #pointed = null;

  /**
   * @param {ChartView} view
   * @param {() => number} now µs
   */
  constructor(view, now) {
    this.view = view;
    this.now = now;
    this.time = byId("legend-time", HTMLElement);
    this.state = byId("legend-state", HTMLElement);
    this.note = byId("legend-note", HTMLElement);
    this.averages = byId("legend-averages", HTMLElement);
    this.said = byId("said-bar", HTMLElement);
    this.fields = Object.fromEntries(
      ["open", "high", "low", "close", "change", "volume", "quote", "trades", "taker"].map((name) => [name, byId(`legend-${name}`, HTMLElement)]),
    );
  }

  /** @param {number | null} openTime of the window under the pointer, µs */
  point(openTime) {
    if (openTime === this.#pointed) return;
    this.#pointed = openTime;
    this.show();
  }

  /** @returns {number | null} */
  get pointed() {
    return this.#pointed;
  }

  /** Writes what is to be said of the bar now. */
  show() {
    const { series, timeline } = this.view;
    const openTime = this.#pointed ?? series.last?.[P.OPEN_TIME];
    document.body.classList.toggle("pointing", this.#pointed !== null);
    document.body.classList.toggle("without-bars", openTime === undefined);
    if (openTime === undefined) return this.#clear("", "");
    const length = P.lengthOf(series.timeframe);
    setText(this.time, fullTime(openTime, length));
    const bar = series.at(openTime);
    const gaps = this.view.gaps.within(openTime, openTime + length);
    if (!bar) {
      const before = openTime < timeline.timeAt(0);
      this.#clear(t(before ? "bar.none.before" : openTime > this.now() ? "bar.none.after" : "bar.none"), "none");
    } else {
      this.#bar(bar, series.bars[series.placeOf(openTime) - 1]);
    }
    const signals = this.#signals(openTime);
    setText(this.note, [...gaps.map((gap) => gapText(gap, length, this.now())), ...signals].join(" · "));
    const worst = gaps[0]?.state ?? "repaired";
    setAttributes(this.note, { title: this.note.textContent || undefined, "data-state": signals.length ? "signal" : worst });
  }

  /** Says the bar under the pointer aloud, for who moves it by keyboard. */
  say() {
    const names = ["open", "high", "low", "close"].map((name) => `${t(`legend.${name}.long`)} ${this.fields[name].textContent}`);
    const volume = `${t("legend.volume")} ${this.fields.volume.textContent}`;
    setText(this.said, [this.time.textContent, ...names, volume, this.state.textContent, this.note.textContent].filter(Boolean).join(", "));
  }

  /**
   * @param {Bar} bar
   * @param {Bar | undefined} before
   */
  #bar(bar, before) {
    const { places } = this.view;
    const rises = Number(bar[P.CLOSE]) >= Number(bar[P.OPEN]);
    const tone = bar[P.FLAGS] & P.FLAT ? "" : rises ? "up-text" : "down-text";
    for (const [name, place] of /** @type {[string, 1 | 2 | 3 | 4][]} */ ([["open", P.OPEN], ["high", P.HIGH], ["low", P.LOW], ["close", P.CLOSE]])) {
      setText(this.fields[name], grouped(bar[place], places));
      this.fields[name].className = tone;
    }
    this.#change(bar, before);
    this.#amount("volume", bar[P.VOLUME]);
    this.#amount("quote", bar[P.QUOTE_VOLUME]);
    setText(this.fields.trades, grouped(String(bar[P.TRADE_COUNT])));
    const volume = Number(bar[P.VOLUME]);
    setText(this.fields.taker, volume > 0 ? `${((Number(bar[P.TAKER_BUY_VOLUME]) / volume) * 100).toFixed(0)}%` : "–");
    this.#completeness(bar);
    const index = this.view.series.placeOf(bar[P.OPEN_TIME]);
    const kind = settings().averageKind.toUpperCase();
    const lines = this.view.lines.at(index).map(({ period, value, color }) => {
      const line = make("span", { class: "average" }, `${t("legend.average", { kind, period })} `);
      line.append(make("b", {}, Number.isNaN(value) ? "–" : rounded(value, places)));
      line.style.color = color;
      return line;
    });
    this.averages.replaceChildren(...lines);
  }

  /**
   * What the close is above or below the close before it, exactly.
   * @param {Bar} bar
   * @param {Bar | undefined} before
   */
  #change(bar, before) {
    const field = this.fields.change;
    if (!before) return setText(field, "");
    const change = difference(bar[P.CLOSE], before[P.CLOSE]);
    const falls = change.startsWith("-");
    const is = Number(change);
    const from = Number(before[P.CLOSE]);
    const share = from ? ` (${percent(is / from)})` : "";
    setText(field, `${is === 0 ? "" : falls ? "−" : "+"}${grouped(change.replace("-", ""), this.view.places)}${share}`);
    field.className = is === 0 ? "" : falls ? "down-text" : "up-text";
  }

  /**
   * @param {"volume" | "quote"} name
   * @param {string} amount
   */
  #amount(name, amount) {
    const exact = grouped(amount);
    setText(this.fields[name], exact.length > LONGEST_AMOUNT ? compact(Number(amount)) : exact);
    setAttributes(this.fields[name], { title: exact });
  }

  /** @param {Bar} bar */
  #completeness(bar) {
    const flags = bar[P.FLAGS];
    const closesIn = bar[P.OPEN_TIME] + P.lengthOf(this.view.series.timeframe) - this.now();
    const words = [];
    let level = "";
    if (!(flags & P.CLOSED)) {
      words.push(closesIn > 0 ? t("bar.progress", { time: duration(Math.ceil(closesIn / 1e6) * 1e6) }) : t("bar.due"));
      if (flags & P.INCOMPLETE) [words[1], level] = [t("bar.incomplete"), "bad"];
    } else if (flags & P.VENUE) {
      words.push(t("bar.venue"));
    } else if (flags & P.INCOMPLETE) {
      words.push(t("bar.incomplete"));
      level = "bad";
    } else if (flags & P.COMPLETE) {
      words.push(t("bar.complete"));
      level = "good";
    } else {
      words.push(t("bar.unknown"));
    }
    if (flags & P.FLAT) words.push(t("bar.flat"));
    if (flags & P.CORRECTED) words.push(t("bar.corrected"));
    setText(this.state, words.join(" · "));
    setAttributes(this.state, { "data-level": level });
    this.state.classList.remove("hidden");
  }

  /**
   * @param {string} words
   * @param {string} level
   */
  #clear(words, level) {
    for (const field of Object.values(this.fields)) {
      setText(field, words ? "–" : "");
      field.className = "";
    }
    setText(this.fields.change, "");
    setText(this.state, words);
    setAttributes(this.state, { "data-level": level });
    this.state.classList.toggle("hidden", !words);
    this.averages.replaceChildren();
    if (!words) setText(this.time, "");
    setText(this.note, "");
  }

  /**
   * @param {number} openTime µs
   * @returns {string[]}
   */
  #signals(openTime) {
    const { signals, series } = this.view;
    return signals.at(openTime, series.timeframe).map((signal) => {
      const strength = signal.strength ? ` ${signal.strength}` : "";
      const reason = signal.reason ? ` (${signal.reason})` : "";
      return `${t(`signal.${signal.target}`)}${strength}: ${signal.strategy}${reason}`;
    });
  }
}

/**
 * A gap in words.
 * @param {Gap} gap
 * @param {number} length of the window it is told of, µs
 * @param {number} now µs
 * @returns {string}
 */
function gapText(gap, length, now) {
  const zone = zoneFor(length);
  const state = t(`gap.${gap.state}`) + (gap.final ? ` ${t("gap.final")}` : "");
  const words = t("gap.text", {
    state,
    from: gap.from <= EVER ? t("gap.ever") : stamp(gap.from, zone, now),
    to: gap.to === null ? t("gap.now") : stamp(gap.to, zone, now),
    length: duration(Math.max(gap.to ?? now, gap.from) - gap.from),
    count: grouped(String(gap.trades_recovered)),
  });
  return gap.reason ? `${words}: ${gap.reason}` : words;
}

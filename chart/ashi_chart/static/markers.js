/** What stands at a candle: that it was corrected, and what strategies wanted from its close on. */

import { CORRECTED, FLAGS, OPEN_TIME, openTimeOf } from "./protocol.js";
import { t } from "./i18n.js";

/** @typedef {import("./protocol.js").Signal} Signal */
/** @typedef {import("./series.js").Series} Series */
/** @typedef {import("./palette.js").Palette} Palette */
/** @typedef {import("./vendor/lightweight-charts/lightweight-charts.js").SeriesMarker<import("./vendor/lightweight-charts/lightweight-charts.js").Time>} Marker */
/** @typedef {import("./vendor/lightweight-charts/lightweight-charts.js").UTCTimestamp} Seconds */

/** The signals of a symbol, by the rule of docs/messages.md: the greatest version, of these the greatest revision. */
export class Signals {
  /** @type {Map<string, Signal>} */
  #held = new Map();
  /** Those that hold, the oldest first. @type {Signal[]} */
  #active = [];
  /** Those that hold, by the window of a timeframe that they are in. @type {Map<string, Map<number, Signal[]>>} */
  #windows = new Map();

  /** @param {Signal[]} signals */
  reset(signals) {
    this.#held.clear();
    this.add(signals);
  }

  /** @param {Signal[]} signals */
  add(signals) {
    for (const signal of signals) {
      const key = JSON.stringify([signal.strategy, signal.timeframe, signal.open_time]);
      const held = this.#held.get(key);
      if (!held || rank(signal) >= rank(held)) this.#held.set(key, signal);
    }
    this.#active = [...this.#held.values()]
      .filter((signal) => signal.status !== "superseded")
      .sort((a, b) => a.open_time - b.open_time || (a.strategy < b.strategy ? -1 : 1));
    this.#windows.clear();
  }

  /** @returns {readonly Signal[]} those that hold, the oldest first */
  active() {
    return this.#active;
  }

  /**
   * Those of one window.
   * @param {number} openTime µs
   * @param {string} timeframe
   * @returns {Signal[]}
   */
  at(openTime, timeframe) {
    let windows = this.#windows.get(timeframe);
    if (!windows) {
      windows = new Map();
      for (const signal of this.#active) {
        const window = openTimeOf(signal.open_time, timeframe);
        windows.set(window, [...(windows.get(window) ?? []), signal]);
      }
      this.#windows.set(timeframe, windows);
    }
    return windows.get(openTime) ?? [];
  }
}

/**
 * A number that orders what was said of one signal. Versions are below 2^53 and differ by one at least, and revisions
 * stay small in practice, so text is compared: wide enough for both.
 * @param {Signal} signal
 * @returns {string}
 */
function rank(signal) {
  const padded = (/** @type {number} */ value) => String(value).padStart(16, "0");
  return padded(signal.version) + padded(signal.revision ?? 0) + (signal.status === "superseded" ? "1" : "0");
}

/**
 * What there is room for: 0 signals, 1 corrections as well, 2 words as well.
 * @param {number} spacing from bar to bar, CSS pixels
 * @returns {number}
 */
export function roomFor(spacing) {
  return spacing >= 5 ? 2 : spacing >= 1.5 ? 1 : 0;
}

/**
 * All markers, in the order of time, as lightweight-charts wants them.
 * @param {Series} series
 * @param {Signals} signals
 * @param {Palette} colors
 * @param {number} spacing from bar to bar, CSS pixels: narrow bars have no room for all of it
 * @returns {Marker[]}
 */
export function markersOf(series, signals, colors, spacing) {
  /** @type {Marker[]} */
  const markers = [];
  for (const bar of roomFor(spacing) > 0 ? series.bars : []) {
    if (bar[FLAGS] & CORRECTED) {
      markers.push({ time: seconds(bar[OPEN_TIME]), position: "aboveBar", shape: "circle", color: colors.corrected, size: 0.5 });
    }
  }
  for (const signal of signals.active()) {
    const openTime = openTimeOf(signal.open_time, series.timeframe);
    if (!series.at(openTime)) continue;
    markers.push({ time: seconds(openTime), ...look(signal, colors), size: 1, text: roomFor(spacing) > 1 ? t(`signal.${signal.target}`) : undefined });
  }
  return markers.sort((a, b) => Number(a.time) - Number(b.time));
}

/**
 * @param {Signal} signal
 * @param {Palette} colors
 * @returns {{position: "aboveBar" | "belowBar", shape: "arrowUp" | "arrowDown" | "square", color: string}}
 */
function look(signal, colors) {
  if (signal.target === "long") return { position: "belowBar", shape: "arrowUp", color: colors.up };
  if (signal.target === "short") return { position: "aboveBar", shape: "arrowDown", color: colors.down };
  return { position: "aboveBar", shape: "square", color: colors.muted };
}

/**
 * @param {number} openTime µs
 * @returns {Seconds}
 */
function seconds(openTime) {
  return /** @type {Seconds} */ (openTime / 1e6);
}

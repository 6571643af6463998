/** The keyboard. What a key does stands in the help of the page (`?`); keys in a field, or with Ctrl, Alt or Meta, are none of ours. */

import { language } from "./i18n.js";
import { change, toggleTheme } from "./settings.js";

/** @typedef {import("./chart.js").ChartView} ChartView */
/** @typedef {import("./controls.js").Controls} Controls */
/** @typedef {import("./legend.js").Legend} Legend */
/** @typedef {import("./search.js").Search} Search */

const STEP = 0.12;
const CLOSER = 0.8;

/**
 * @param {object} page
 * @param {ChartView} page.view
 * @param {Controls} page.controls
 * @param {Legend} page.legend
 * @param {Search} page.search
 * @param {(timeframe: string) => void} page.onTimeframe
 */
export function listenToKeys({ view, controls, legend, search, onTimeframe }) {
  /** @param {number} by bars */
  const step = (by) => {
    const { series } = view;
    const from = legend.pointed === null ? series.bars.length : series.placeOf(legend.pointed);
    view.point(Math.max(0, Math.min(series.bars.length - 1, from + by)));
    legend.say();
  };
  /** @type {Record<string, () => void>} */
  const keys = {
    "ArrowLeft": () => view.viewport.scroll(-STEP),
    "ArrowRight": () => view.viewport.scroll(STEP),
    "Shift+ArrowLeft": () => step(-1),
    "Shift+ArrowRight": () => step(1),
    "ArrowUp": () => view.viewport.zoom(CLOSER),
    "ArrowDown": () => view.viewport.zoom(1 / CLOSER),
    "+": () => view.viewport.zoom(CLOSER),
    "=": () => view.viewport.zoom(CLOSER),
    "-": () => view.viewport.zoom(1 / CLOSER),
    "Home": () => view.viewport.toOldest(),
    "End": () => view.viewport.toNewest(),
    "/": () => search.open(),
    "t": () => toggleTheme(),
    "l": () => change({ language: language() === "ja" ? "en" : "ja" }),
    "s": () => controls.openSettings(),
    "m": () => location.assign("./"),
    "?": () => controls.openHelp(),
    "Escape": () => {
      view.chart.clearCrosshairPosition();
      legend.point(null);
    },
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing || isTakenBy(event.target, event.key)) return;
    if (document.querySelector("dialog[open]")) return;
    const timeframe = /^[1-9]$/.test(event.key) ? controls.timeframes[Number(event.key) - 1] : undefined;
    const arrow = event.key.startsWith("Arrow");
    const act = timeframe ? () => onTimeframe(timeframe) : keys[event.shiftKey && arrow ? `Shift+${event.key}` : event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}

/**
 * Whether what has the focus does something of its own with a key.
 * @param {EventTarget | null} target
 * @param {string} key
 * @returns {boolean}
 */
function isTakenBy(target, key) {
  if (!(target instanceof Element)) return false;
  if (target.closest("input, select, textarea, [contenteditable]")) return true;
  return target.closest("button, a") !== null && (key === "Enter" || key === " ");
}

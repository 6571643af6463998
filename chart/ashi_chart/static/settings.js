/** What the reader has chosen, kept in this browser (localStorage) and told to whoever wants to know. */

/**
 * @typedef {object} Settings
 * @property {"system" | "dark" | "light"} theme
 * @property {"" | "en" | "ja"} language empty: the browser's
 * @property {"utc" | "local" | "jst"} zone
 * @property {"green-red" | "red-blue" | "blue-orange"} candles colours of rising and falling candles
 * @property {string} averages periods of the moving averages, as `20, 50`; empty: none
 * @property {"sma" | "ema"} averageKind
 * @property {"linear" | "log" | "percent"} scale of prices
 * @property {string} timeframe the one looked at last
 * @property {string} symbol the one looked at last
 */

/** @type {Settings} */
const DEFAULTS = {
  theme: "system",
  language: "",
  zone: "local",
  candles: "green-red",
  averages: "20, 50",
  averageKind: "sma",
  scale: "linear",
  timeframe: "1m",
  symbol: "",
};
/** What a stored value may be; what is not listed may be any text. @type {Partial<Record<keyof Settings, string[]>>} */
const CHOICES = {
  theme: ["system", "dark", "light"],
  language: ["", "en", "ja"],
  zone: ["utc", "local", "jst"],
  candles: ["green-red", "red-blue", "blue-orange"],
  averageKind: ["sma", "ema"],
  scale: ["linear", "log", "percent"],
};
// theme-early.js reads the same key, before anything is drawn.
const KEY = "ashi.settings";

/** @type {Settings} */
let current = read();
/** @type {Set<(settings: Settings, changed: (keyof Settings)[]) => void>} */
const listeners = new Set();

/** @returns {Settings} */
function read() {
  const settings = { ...DEFAULTS };
  try {
    const stored = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    for (const name of /** @type {(keyof Settings)[]} */ (Object.keys(DEFAULTS))) {
      const value = stored[name];
      if (typeof value === "string" && (CHOICES[name]?.includes(value) ?? true)) Object.assign(settings, { [name]: value });
    }
  } catch {
    // Storage is forbidden, or holds what is none of ours: then nothing has been chosen.
  }
  return settings;
}

/** @returns {Readonly<Settings>} */
export function settings() {
  return current;
}

/** @param {Partial<Settings>} changes */
export function change(changes) {
  const changed = /** @type {(keyof Settings)[]} */ (Object.keys(changes)).filter((name) => changes[name] !== current[name]);
  if (!changed.length) return;
  current = { ...current, ...changes };
  try {
    localStorage.setItem(KEY, JSON.stringify(current));
  } catch {
    // Then it holds until the page is closed.
  }
  tell(changed);
}

/** @param {(settings: Settings, changed: (keyof Settings)[]) => void} listener called after each change */
export function onChange(listener) {
  listeners.add(listener);
}

/** @param {(keyof Settings)[]} changed */
function tell(changed) {
  applyTheme();
  for (const listener of listeners) listener(current, changed);
}

const prefersLight = matchMedia("(prefers-color-scheme: light)");

/** The theme that is shown. @returns {"dark" | "light"} */
export function shownTheme() {
  if (current.theme !== "system") return current.theme;
  return prefersLight.matches ? "light" : "dark";
}

function applyTheme() {
  document.documentElement.dataset.theme = shownTheme();
  document.documentElement.dataset.candles = current.candles;
}

/** The other theme than the one that is shown. */
export function toggleTheme() {
  change({ theme: shownTheme() === "dark" ? "light" : "dark" });
}

applyTheme();
prefersLight.addEventListener("change", () => tell(["theme"]));
addEventListener("storage", (event) => {
  if (event.key !== KEY) return;
  // Another tab has changed something; what is looked at stays this tab's own.
  const { symbol, timeframe } = current;
  current = { ...read(), symbol, timeframe };
  tell(/** @type {(keyof Settings)[]} */ (Object.keys(DEFAULTS)));
});

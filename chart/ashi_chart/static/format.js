/** Numbers and times as text. Amounts are exact decimal strings and stay so: nothing here rounds one it is given whole. */

import { language } from "./i18n.js";
import { settings } from "./settings.js";

/** @typedef {"utc" | "local" | "jst"} Zone */

/**
 * An exact decimal with its thousands parted: `12345678.5` is `12,345,678.5`.
 * @param {string} decimal
 * @param {number} [places] digits after the point at least: zeros are added, nothing is taken away
 * @returns {string}
 */
export function grouped(decimal, places = 0) {
  const [whole, fraction = ""] = decimal.split(".");
  const digits = fraction.padEnd(places, "0");
  return whole.replace(/\B(?=(\d{3})+(?!\d))/g, ",") + (digits ? `.${digits}` : "");
}

/**
 * A number with so many digits after its point, for axes: rounded.
 * @param {number} value
 * @param {number} places
 * @returns {string}
 */
export function rounded(value, places) {
  if (Math.abs(value) >= 1e21) return value.toExponential(6);
  const text = Math.abs(value).toFixed(Math.min(places, 20));
  return (value < 0 && Number(text) !== 0 ? "−" : "") + grouped(text);
}

/**
 * How many digits an exact decimal has after its point.
 * @param {string} decimal
 * @returns {number}
 */
export function placesOf(decimal) {
  const point = decimal.indexOf(".");
  return point < 0 ? 0 : decimal.length - point - 1;
}

/**
 * A large number in a few characters: `1.23M`, `456`, `0.0012`. Rounded.
 * @param {number} value
 * @returns {string}
 */
export function compact(value) {
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e15) return value.toExponential(2);
  for (const [from, unit] of /** @type {[number, string][]} */ ([[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e4, "K"]])) {
    if (size >= from) return digits(value / (unit === "K" ? 1e3 : from), 4) + unit;
  }
  return digits(value, 4);
}

/**
 * @param {number} value
 * @param {number} significant
 * @returns {string}
 */
function digits(value, significant) {
  const places = Math.max(0, significant - 1 - Math.floor(Math.log10(Math.abs(value))));
  const text = value.toFixed(Math.min(places, 20));
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

/**
 * A fraction as percent with its sign: `+1.23%`.
 * @param {number} fraction
 * @returns {string}
 */
export function percent(fraction) {
  const value = (fraction * 100).toFixed(2);
  return Number(value) === 0 ? "0.00%" : `${fraction > 0 ? "+" : "−"}${value.replace("-", "")}%`;
}

const JST_MS = 9 * 3_600_000;

/**
 * A Date whose UTC fields are those of the clock on the wall of a zone.
 * @param {number} time µs
 * @param {Zone} zone
 * @returns {Date}
 */
export function wallClock(time, zone) {
  const ms = Math.floor(time / 1000);
  if (zone === "jst") return new Date(ms + JST_MS);
  if (zone === "local") return new Date(ms - new Date(ms).getTimezoneOffset() * 60_000);
  return new Date(ms);
}

/** @param {number} value @returns {string} */
const two = (value) => String(value).padStart(2, "0");

/**
 * `14:05` or `14:05:09`.
 * @param {number} time µs
 * @param {Zone} zone
 * @param {boolean} [seconds]
 * @returns {string}
 */
export function clockTime(time, zone, seconds = false) {
  const wall = wallClock(time, zone);
  return `${two(wall.getUTCHours())}:${two(wall.getUTCMinutes())}${seconds ? `:${two(wall.getUTCSeconds())}` : ""}`;
}

/**
 * The day, as a reader of the language writes it, with its weekday: `Sat 28 Nov 2026`, `2026/11/28(土)`.
 * @param {number} time µs
 * @param {Zone} zone
 * @returns {string}
 */
export function day(time, zone) {
  const wall = wallClock(time, zone);
  const weekday = named({ weekday: "short" }, wall);
  if (language() === "ja") {
    return `${wall.getUTCFullYear()}/${two(wall.getUTCMonth() + 1)}/${two(wall.getUTCDate())}(${weekday})`;
  }
  return `${weekday} ${two(wall.getUTCDate())} ${named({ month: "short" }, wall)} ${wall.getUTCFullYear()}`;
}

/**
 * A time of today as its clock time, and any other with its day before it.
 * @param {number} time µs
 * @param {Zone} zone
 * @param {number} now µs
 * @returns {string}
 */
export function stamp(time, zone, now) {
  const clock = clockTime(time, zone, true);
  const date = day(time, zone);
  return date === day(now, zone) ? clock : `${date} ${clock}`;
}

/** @type {Map<string, Intl.DateTimeFormat>} */
const formats = new Map();

/**
 * Part of a date in words of the language, such as the month.
 * @param {Intl.DateTimeFormatOptions} part
 * @param {Date} wall as `wallClock` gives it
 * @returns {string}
 */
export function named(part, wall) {
  const key = language() + JSON.stringify(part);
  let format = formats.get(key);
  if (!format) {
    format = new Intl.DateTimeFormat(language() === "ja" ? "ja-JP" : "en-GB", { ...part, timeZone: "UTC" });
    formats.set(key, format);
  }
  return format.format(wall);
}

/**
 * The zone of a time as readers know it: `UTC`, `JST`, `GMT+2`.
 * @param {Zone} zone
 * @param {number} time µs: a place has another one in summer
 * @returns {string}
 */
export function zoneName(zone, time) {
  if (zone !== "local") return zone.toUpperCase();
  const minutes = -new Date(time / 1000).getTimezoneOffset();
  if (minutes === 0) return "UTC";
  const hours = Math.floor(Math.abs(minutes) / 60);
  return `UTC${minutes < 0 ? "−" : "+"}${hours}${minutes % 60 ? `:${two(Math.abs(minutes) % 60)}` : ""}`;
}

/**
 * The zone in which the windows of a timeframe are shown: those of days and weeks are days of UTC, whoever looks.
 * @param {number} length of the timeframe, µs
 * @returns {Zone}
 */
export function zoneFor(length) {
  return length >= 86_400_000_000 ? "utc" : settings().zone;
}

/**
 * A stretch of time in its two greatest units: `3 d 4 h`, `1 m 29 s`, `0.35 s`.
 * @param {number} length µs
 * @returns {string}
 */
export function duration(length) {
  const names = language() === "ja" ? ["日", "時間", "分", "秒"] : ["d", "h", "m", "s"];
  const space = language() === "ja" ? "" : " ";
  const seconds = length / 1_000_000;
  if (seconds < 10) return `${Number(seconds.toPrecision(2))}${space}${names[3]}`;
  const parts = [Math.floor(seconds / 86_400), Math.floor(seconds / 3_600) % 24, Math.floor(seconds / 60) % 60, Math.floor(seconds) % 60];
  const first = parts.findIndex((part) => part > 0);
  return [first, first + 1]
    .filter((place) => place < 4 && parts[place] > 0)
    .map((place) => `${parts[place]}${space}${names[place]}`)
    .join(" ");
}

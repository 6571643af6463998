/**
 * The time axis in the reader's zone. lightweight-charts knows UTC only; days, months and hours begin here where they do
 * on the reader's wall, summer time included, while the bars keep their own times.
 */

import { defaultHorzScaleBehavior } from "./vendor/lightweight-charts/lightweight-charts.js";
import { clockTime, day, named, wallClock, zoneFor, zoneName } from "./format.js";

/** @typedef {import("./vendor/lightweight-charts/lightweight-charts.js").Time} Time */
/** @typedef {import("./vendor/lightweight-charts/lightweight-charts.js").TimeScalePoint} TimeScalePoint */
/** @typedef {import("./vendor/lightweight-charts/lightweight-charts.js").TickMarkWeightValue} Weight */

/** How much a mark weighs that begins such a stretch, ms: the library's own numbers. @type {[number, number][]} */
const WEIGHTS = [
  [43_200_000, 33],
  [21_600_000, 32],
  [10_800_000, 31],
  [3_600_000, 30],
  [1_800_000, 22],
  [300_000, 21],
  [60_000, 20],
  [1_000, 10],
];
const DAY = 50;
const MONTH = 60;
const YEAR = 70;

/**
 * @param {Date} wall
 * @param {Date} before
 * @returns {number}
 */
function weightOf(wall, before) {
  if (wall.getUTCFullYear() !== before.getUTCFullYear()) return YEAR;
  if (wall.getUTCMonth() !== before.getUTCMonth()) return MONTH;
  if (wall.getUTCDate() !== before.getUTCDate()) return DAY;
  for (const [length, weight] of WEIGHTS) {
    if (Math.floor(wall.getTime() / length) !== Math.floor(before.getTime() / length)) return weight;
  }
  return 0;
}

/**
 * A time scale whose marks are where days and hours begin in the zone that is shown.
 * @param {() => number} lengthOfWindow of the timeframe that is shown, µs
 */
export function zonedScale(lengthOfWindow) {
  const Base = defaultHorzScaleBehavior();
  return new (class extends Base {
    /**
     * @param {readonly import("./vendor/lightweight-charts/lightweight-charts.js").Mutable<TimeScalePoint>[]} points
     * @param {number} start
     */
    fillWeightsForPoints(points, start) {
      const zone = zoneFor(lengthOfWindow());
      const wallOf = (/** @type {TimeScalePoint} */ point) => wallClock(Number(point.originalTime) * 1e6, zone);
      let before = points.length > 0 && start > 0 ? wallOf(points[start - 1]) : null;
      for (let index = start; index < points.length; index += 1) {
        const wall = wallOf(points[index]);
        if (before) points[index].timeWeight = /** @type {Weight} */ (weightOf(wall, before));
        before = wall;
      }
      // The first point has nothing before it: it weighs as if one window had gone by.
      if (start === 0 && points.length > 1) {
        const first = wallOf(points[0]);
        points[0].timeWeight = /** @type {Weight} */ (weightOf(first, new Date(first.getTime() - lengthOfWindow() / 1e3)));
      }
    }
  })();
}

/**
 * The text of a mark on the axis.
 * @param {Time} time s
 * @param {number} type year, month, day, time, time with seconds: as the library counts them
 * @param {number} length of a window, µs
 * @returns {string}
 */
export function markText(time, type, length) {
  const zone = zoneFor(length);
  const us = Number(time) * 1e6;
  const wall = wallClock(us, zone);
  if (type === 0) return String(wall.getUTCFullYear());
  if (type === 1) return named({ month: "short" }, wall);
  if (type === 2) return named({ day: "numeric" }, wall);
  return clockTime(us, zone, type === 4);
}

/**
 * A window's open time in full, for the crosshair and the legend.
 * @param {number} openTime µs
 * @param {number} length µs
 * @returns {string}
 */
export function fullTime(openTime, length) {
  const zone = zoneFor(length);
  const date = day(openTime, zone);
  if (length >= 86_400_000_000) return `${date} UTC`;
  return `${date} ${clockTime(openTime, zone, length < 60_000_000)} ${zoneName(zone, openTime)}`;
}

/** A row of the markets table: its cells, and what they say. */

import { compact, duration, grouped, percent } from "./format.js";
import { t } from "./i18n.js";
import { feedState, number } from "./markets_model.js";
import { splitSymbol, venueName } from "./protocol.js";
import { drawSpark, makeSpark } from "./spark.js";

/** @typedef {import("./markets_model.js").Row} Row */

/** The columns, from left to right. */
export const SHOWN_COLUMNS = ["symbol", "last", "change", "spark", "volume", "quote_volume", "feed", "updated"];

/** How each state of a feed is drawn: what is wrong differs in form, too, not in its colour alone. */
const FEEDS = /** @type {Record<string, [level: string, sign: string]>} */ ({
  connected: ["good", "●"],
  silent: ["warn", "○"],
  repairing: ["warn", "◐"],
  down: ["bad", "✕"],
  stale: ["warn", "◌"],
  unknown: ["", "?"],
});

/**
 * A row without a market yet. Its parts that change are kept in `ashi`, so that an update touches nothing else.
 * @returns {HTMLTableRowElement}
 */
export function makeRow() {
  const row = document.createElement("tr");
  const cells = Object.fromEntries(
    SHOWN_COLUMNS.map((column) => {
      const cell = document.createElement(column === "symbol" ? "th" : "td");
      cell.className = `column-${column}`;
      row.append(cell);
      return [column, cell];
    }),
  );
  cells.symbol.scope = "row";
  const link = cells.symbol.appendChild(document.createElement("a"));
  const parts = {
    link,
    market: link.appendChild(span("market")),
    venue: link.appendChild(span("venue")),
    tag: cells.symbol.appendChild(span("tag")),
    spark: cells.spark.appendChild(makeSpark()),
    sign: cells.feed.appendChild(span("feed-sign")),
    word: cells.feed.appendChild(span("feed-word")),
  };
  parts.sign.setAttribute("aria-hidden", "true");
  row.ashi = { cells, parts, symbol: null, last: null };
  return row;
}

/**
 * Make an element show a market as it is now.
 * @param {HTMLTableRowElement} element
 * @param {Row} row
 * @param {number} now µs
 */
export function fillRow(element, row, now) {
  const { cells, parts } = element.ashi;
  const same = element.ashi.symbol === row.symbol;
  if (!same) {
    const [venue, market] = splitSymbol(row.symbol);
    parts.link.href = `chart?symbol=${encodeURIComponent(row.symbol)}`;
    write(parts.market, market);
    write(parts.venue, venueName(venue));
    cells.symbol.title = row.symbol;
    element.ashi.symbol = row.symbol;
  }
  fillTag(parts.tag, row.state);
  fillPrice(element, row.last, same);
  fillChange(cells.change, parts.spark, row.change);
  drawSpark(parts.spark, row.spark ? [...row.spark, row.last] : []);
  fillAmount(cells.volume, row.volume);
  fillAmount(cells.quote_volume, row.quote_volume);
  fillFeed(cells.feed, parts, row);
  fillAge(element, row, now);
}

/**
 * Say anew how long ago the last trade was.
 * @param {HTMLTableRowElement} element
 * @param {Row} row
 * @param {number} now µs
 */
export function fillAge(element, row, now) {
  const age = row.updated === null ? null : now - row.updated;
  writeOrUnknown(element.ashi.cells.updated, age === null ? null : duration(wholeUnit(Math.max(0, age))));
}

/** Whole seconds below a minute, whole minutes below an hour, and so on: an age that is read, not measured. */
function wholeUnit(age) {
  const unit = [86_400, 3_600, 60].find((seconds) => age >= seconds * 1e6) ?? 1;
  return Math.floor(age / (unit * 1e6)) * unit * 1e6;
}

function fillTag(tag, state) {
  const text = state === null || state === "trading" ? "" : t(`market.${state}`);
  write(tag, text);
  tag.hidden = text === "";
}

function fillPrice(element, last, same) {
  const cell = element.ashi.cells.last;
  const before = element.ashi.last;
  element.ashi.last = last;
  writeOrUnknown(cell, last === null ? null : grouped(last));
  if (last !== null) cell.title = cell.textContent; // for where it has no room
  if (same && before === last) {
    return;
  }
  cell.classList.remove("moved-up", "moved-down");
  if (same && before !== null && last !== null) {
    void cell.offsetWidth; // so that an animation that is under way begins anew
    cell.classList.add(number(last) > number(before) ? "moved-up" : "moved-down");
  }
}

function fillChange(cell, spark, change) {
  const text = change === null ? null : percent(change);
  writeOrUnknown(cell, text);
  const isNone = text === percent(0); // too little to be shown
  for (const element of [cell, spark]) {
    element.classList.toggle("up-text", change > 0 && !isNone);
    element.classList.toggle("down-text", change < 0 && !isNone);
  }
}

function fillAmount(cell, amount) {
  writeOrUnknown(cell, amount === null ? null : compact(number(amount)));
  if (amount !== null) {
    cell.title = grouped(amount);
  }
}

function fillFeed(cell, parts, row) {
  const state = feedState(row);
  const [level, sign] = FEEDS[state];
  cell.dataset.level = level;
  write(parts.sign, sign);
  write(parts.word, t(`feed.${state}`));
  cell.title = row.feed?.reason ? `${t(`feed.${state}`)}: ${row.feed.reason}` : t(`feed.${state}`);
}

function span(className) {
  const element = document.createElement("span");
  element.className = className;
  return element;
}

/** Only what differs is written: thousands of writes a minute that change nothing would still cost layout. */
function write(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

function writeOrUnknown(cell, text) {
  write(cell, text ?? "–");
  cell.title = text === null ? t("markets.unknown") : "";
}

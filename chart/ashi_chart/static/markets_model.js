/**
 * The markets: one row a symbol, and which of them are shown in what order. Pure; knows neither page nor connection.
 */

import { splitSymbol, venueName } from "./protocol.js";

/**
 * @typedef {{state: string, since?: number, reason?: ?string, updated_at?: number}} Feed
 * @typedef {{
 *   symbol: string, last: ?string, change: ?number, volume: ?string, quote_volume: ?string, state: ?string,
 *   feed: ?Feed, updated: ?number, spark?: ?string[],
 * }} Row  As the protocol has it (docs/chart.md): amounts are decimal strings, `change` a fraction, `updated` µs, `spark`
 *   the closes of the hours of the last day that have closed, oldest first.
 * @typedef {{query: string, column: string, descending: boolean}} Choice
 */

/** Feed states, the worst first: whoever sorts by them looks for trouble. */
export const FEED_STATES = ["down", "stale", "repairing", "silent", "unknown", "connected"];

const SIGNS = /[^\p{L}\p{N}]/gu;

/** By what rows can be sorted. A key of null stands for "not known", which comes last in either direction. */
const KEYS = {
  symbol: (row) => row.symbol,
  last: (row) => number(row.last),
  change: (row) => row.change ?? null,
  volume: (row) => number(row.volume),
  quote_volume: (row) => number(row.quote_volume),
  feed: (row) => FEED_STATES.indexOf(feedState(row)),
  updated: (row) => row.updated ?? null,
};

export const COLUMNS = Object.keys(KEYS);

/** @param {Row} row */
export function feedState(row) {
  const state = row.feed?.state;
  return FEED_STATES.includes(state) ? state : "unknown";
}

/** Whether sorting by a column begins with its greatest: people look for the largest volume, but for the letter A. */
export function beginsDescending(column) {
  return !["symbol", "feed"].includes(column);
}

/** A decimal for comparing and drawing only: what is written is always the string. */
export function number(decimal) {
  return decimal === null || decimal === undefined ? null : Number(decimal);
}

export class Markets {
  constructor() {
    /** @type {Map<string, Row>} */
    this.rows = new Map();
  }

  /**
   * Take what has changed; with `all` what is not among the rows is gone.
   * @param {Row[]} rows
   * @param {boolean} all
   */
  merge(rows, all) {
    if (all) {
      this.rows = new Map();
    }
    for (const row of rows) {
      const before = this.rows.get(row.symbol);
      this.rows.set(row.symbol, row.spark ? row : { ...row, spark: before?.spark ?? null }); // it comes when it changes
    }
  }

  /**
   * The symbols to be shown, in order.
   * @param {Choice} choice
   * @returns {string[]}
   */
  chosen({ query, column, descending }) {
    const words = query.toLowerCase().split(/\s+/).filter(Boolean);
    const key = KEYS[column] ?? KEYS.symbol;
    const entries = [];
    for (const row of this.rows.values()) {
      if (matches(row.symbol, words)) {
        entries.push([key(row), row.symbol]);
      }
    }
    const sign = descending ? -1 : 1;
    entries.sort(([a, symbolA], [b, symbolB]) => {
      if (a === null || b === null) {
        return (a === null) - (b === null) || compare(symbolA, symbolB);
      }
      return sign * compare(a, b) || compare(symbolA, symbolB);
    });
    return entries.map(([, symbol]) => symbol);
  }
}

function compare(a, b) {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Whether all words are in the symbol or in the venue's name as people write it; `btcjpy` finds `BTC_JPY` as well. */
function matches(symbol, words) {
  if (words.length === 0) {
    return true;
  }
  const text = `${symbol} ${venueName(splitSymbol(symbol)[0])}`.toLowerCase();
  const bare = text.replace(SIGNS, "");
  return words.every((word) => text.includes(word) || bare.includes(word.replace(SIGNS, "") || word));
}

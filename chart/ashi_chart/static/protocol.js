/**
 * What the server and the pages say to each other (docs/chart.md, "Protocol"): types, and the places of a bar's fields.
 */

/**
 * A bar as it comes: times in µs, amounts as exact decimal strings.
 * @typedef {[openTime: number, open: string, high: string, low: string, close: string, volume: string,
 *   tradeCount: number, version: number, flags: number, quoteVolume: string, takerBuyVolume: string]} Bar
 */

/**
 * @typedef {object} Gap a stretch of time in which trades were not received as they happened; `from` names it
 * @property {number} from µs
 * @property {number | null} to µs, exclusive; null: the feed has not come back
 * @property {"open" | "repaired" | "lost"} state
 * @property {boolean} final lost for good
 * @property {number} trades_recovered
 * @property {string} reason
 */

/**
 * @typedef {object} Feed how trades of the symbol are received
 * @property {"connected" | "silent" | "repairing" | "down" | "stale" | "unknown"} state
 * @property {number | null} since µs
 * @property {string | null} reason
 * @property {number | null} complete_until µs: all trades before it are there, but for those in gaps
 * @property {number | null} updated_at µs
 * @property {number | null} last_traded_at µs
 */

/**
 * @typedef {object} Instrument what the venue says of the market
 * @property {string} symbol
 * @property {string | null} base
 * @property {string | null} quote
 * @property {string | null} tick_size
 * @property {string | null} lot_size
 * @property {"trading" | "halted" | "delisted"} state
 */

/**
 * @typedef {object} Signal what a strategy wants, from a candle's close on
 * @property {string} strategy
 * @property {string} timeframe
 * @property {number} open_time µs
 * @property {number} close_time µs
 * @property {number} version
 * @property {number} revision
 * @property {"long" | "short" | "flat"} target
 * @property {string | null} [strength]
 * @property {string} price
 * @property {string | null} reason
 * @property {"active" | "superseded"} status
 */

/**
 * @typedef {object} MarketRow
 * @property {string} symbol
 * @property {string | null} last
 * @property {string | number | null} change fraction over 24 h
 * @property {string | null} volume
 * @property {string | null} quote_volume
 * @property {string | null} state of the instrument
 * @property {string | null} feed
 * @property {number | null} updated µs
 * @property {(string | number)[]} [spark]
 */

/** @typedef {{t: "hello", protocol: number, timeframes: string[], now: number, server: string}} Hello */
/**
 * @typedef {{t: "snapshot", symbol: string, timeframe: string, bars: Bar[], more: boolean, gaps: Gap[],
 *   signals: Signal[], instrument: Instrument | null, feed: Feed | null}} Snapshot
 */
/** @typedef {{t: "bars", symbol: string, timeframe: string, bars: Bar[]}} BarsChanged */
/** @typedef {{t: "gaps", symbol: string, gaps: Gap[]}} GapsChanged */
/** @typedef {{t: "feed", symbol: string, feed: Feed}} FeedChanged */
/** @typedef {{t: "signals", symbol: string, signals: Signal[]}} SignalsChanged */
/** @typedef {{t: "instrument", symbol: string, instrument: Instrument}} InstrumentChanged */
/** @typedef {{t: "markets", rows: MarketRow[], all: boolean}} MarketsChanged */
/** @typedef {{t: "state", kafka: "ok" | "lagging" | "down", lag_s: number | null, now: number}} ServerState */
/** @typedef {{t: "error", about: string, message: string}} ServerError */
/**
 * @typedef {Hello | Snapshot | BarsChanged | GapsChanged | FeedChanged | SignalsChanged | InstrumentChanged |
 *   MarketsChanged | ServerState | ServerError} Message
 */

/** The protocol that these pages speak. */
export const PROTOCOL = 1;

// Places in a bar.
export const OPEN_TIME = 0;
export const OPEN = 1;
export const HIGH = 2;
export const LOW = 3;
export const CLOSE = 4;
export const VOLUME = 5;
export const TRADE_COUNT = 6;
export const VERSION = 7;
export const FLAGS = 8;
export const QUOTE_VOLUME = 9;
export const TAKER_BUY_VOLUME = 10;

// Flags of a bar. Neither COMPLETE nor INCOMPLETE: it is not known yet.
export const CLOSED = 1;
export const CORRECTED = 2;
export const COMPLETE = 4;
export const INCOMPLETE = 8;
export const FLAT = 16;
/** It is, or has a part that is, the venue's own candle: made of no trades that Ashi has. */
export const VENUE = 32;

/** No page asks for or holds more bars of a series. */
export const MAX_BARS = 20_000;

const UNITS = /** @type {Record<string, number>} */ ({ s: 1, m: 60, h: 3_600, d: 86_400, w: 604_800 });
/** The epoch was a Thursday; weeks begin on Monday, 00:00 UTC. */
const FIRST_MONDAY_S = 4 * 86_400;

/**
 * The length of a timeframe in µs.
 * @param {string} timeframe `1m`, `4h`, `1w`
 * @returns {number}
 */
export function lengthOf(timeframe) {
  const match = /^([1-9]\d*)([smhdw])$/.exec(timeframe);
  if (!match) throw new Error(`${JSON.stringify(timeframe)} is no timeframe such as 1m, 4h or 1w`);
  return Number(match[1]) * UNITS[match[2]] * 1_000_000;
}

/**
 * When the window that holds a time begins, µs.
 * @param {number} time µs
 * @param {string} timeframe
 * @returns {number}
 */
export function openTimeOf(time, timeframe) {
  const length = lengthOf(timeframe);
  const shift = timeframe.endsWith("w") ? FIRST_MONDAY_S * 1_000_000 : 0;
  return Math.floor((time - shift) / length) * length + shift;
}

/**
 * Venue and market of a symbol: `binance:BTCUSDT` is `["binance", "BTCUSDT"]`.
 * @param {string} symbol
 * @returns {[venue: string, market: string]}
 */
export function splitSymbol(symbol) {
  const colon = symbol.indexOf(":");
  return colon < 0 ? ["", symbol] : [symbol.slice(0, colon), symbol.slice(colon + 1)];
}

const VENUES = /** @type {Record<string, string>} */ ({
  bitflyer: "bitFlyer",
  gmo: "GMO Coin",
  gmocoin: "GMO Coin",
  binance: "Binance",
  "binance-usdm": "Binance USD-M",
  bybit: "Bybit",
});

/**
 * A venue as people write it.
 * @param {string} venue
 * @returns {string}
 */
export function venueName(venue) {
  return VENUES[venue] ?? venue;
}

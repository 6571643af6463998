/**
 * The chart page: what the server says goes to the series and the drawing, what the reader does goes to the server.
 *
 * One series at a time. While another one is asked for, the one before stays, dimmed; only when its snapshot is there the
 * page changes, at once and as a whole.
 */

import "./words.js";
import { ChartView } from "./chart.js";
import { Connection } from "./connection.js";
import { Controls } from "./controls.js";
import { byId, setAttributes, setText } from "./dom.js";
import { language, t, translate } from "./i18n.js";
import { listenToKeys } from "./keys.js";
import { Legend } from "./legend.js";
import { Older } from "./older.js";
import { CLOSE, lengthOf, MAX_BARS, OPEN_TIME, PROTOCOL, splitSymbol, venueName } from "./protocol.js";
import { Quote } from "./quote.js";
import { Search } from "./search.js";
import { Series } from "./series.js";
import { change, onChange, settings } from "./settings.js";
import { Status } from "./status.js";

/** @typedef {import("./protocol.js").Message} Message */
/** @typedef {import("./protocol.js").Snapshot} Snapshot */
/** @typedef {import("./protocol.js").Instrument} Instrument */
/** @typedef {import("./protocol.js").Feed} Feed */

/** So many bars fill a wide screen several times over. */
const FIRST_BARS = 1_000;
/** What could not be shown is asked for again after so long: a server that has just started has not heard of all markets. */
const AGAIN_MS = 5_000;

/** What is asked for; what is shown is `view.series`. */
const asked = { symbol: "", timeframe: "" };
/** @type {Instrument | null} */
let instrument = null;
/** @type {Feed | null} */
let feed = null;
/** Whether nobody has asked for this market: it is only the one that was looked at last. */
let isGuess = false;
let again = 0;
let wrongVersion = "";

const now = () => connection.now();
const connection = new Connection({ onMessage: receive, onLink });
const view = new ChartView(byId("chart", HTMLElement), {
  now,
  onPointer: (openTime) => legend.point(openTime),
  onMoved,
});
const legend = new Legend(view, now);
const older = new Older(view, byId("loading", HTMLElement), () => legend.show(), () => isShown() && ask());
const status = new Status(now, () => connection.retryNow());
const quote = new Quote(() => status.isStale);
const search = new Search({
  onChosen: (symbol) => {
    isGuess = false;
    go(symbol, asked.timeframe, true);
  },
  onOpen: (wanted) => connection.markets(wanted || !asked.symbol),
  current: () => asked.symbol,
});
const onTimeframe = (/** @type {string} */ timeframe) => go(asked.symbol, timeframe, true);
const controls = new Controls({ onTimeframe, onSearch: () => search.open() });

/**
 * Asks for a series.
 * @param {string} symbol
 * @param {string} timeframe
 * @param {boolean} remember as a step that the browser's "back" takes back
 */
function go(symbol, timeframe, remember) {
  if (symbol === asked.symbol && timeframe === asked.timeframe) return;
  Object.assign(asked, { symbol, timeframe });
  change({ symbol, timeframe });
  const address = `?${new URLSearchParams({ symbol, timeframe })}`.replaceAll("%3A", ":");
  if (remember) history.pushState(null, "", address);
  else history.replaceState(history.state, "", address);
  controls.show(symbol, timeframe);
  if (!symbol) return;
  showMessage("", "");
  byId("loading", HTMLElement).classList.toggle("hidden", view.series.bars.length > 0);
  document.body.classList.add("switching");
  older.stop();
  ask();
}

/** Asks for what is to be shown, with as many bars as are held of it. */
function ask() {
  clearTimeout(again);
  const { symbol, timeframe } = asked;
  if (!symbol) return;
  connection.series(symbol, timeframe, () => (isShown() ? Math.min(MAX_BARS, Math.max(FIRST_BARS, view.series.bars.length)) : FIRST_BARS));
}

function onMoved() {
  const { viewport, series } = view;
  byId("newest", HTMLElement).classList.toggle("hidden", viewport.isFollowing || series.bars.length === 0);
  if (viewport.isNearOldest) older.wanted();
}

/** Whether what is asked for is what is shown. @returns {boolean} */
function isShown() {
  return view.series.symbol === asked.symbol && view.series.timeframe === asked.timeframe;
}

/** @param {Message} message */
function receive(message) {
  switch (message.t) {
    case "hello":
      wrongVersion = message.protocol === PROTOCOL ? "" : t("banner.protocol");
      status.problem(wrongVersion);
      controls.setTimeframes(message.timeframes);
      if (!message.timeframes.includes(asked.timeframe)) go(asked.symbol, message.timeframes[0] ?? "1m", false);
      break;
    case "snapshot":
      if (message.symbol === asked.symbol && message.timeframe === asked.timeframe) takeSnapshot(message);
      break;
    case "bars":
      if (message.symbol !== view.series.symbol || message.timeframe !== view.series.timeframe) break;
      if (view.apply(message.bars)) afterBars();
      break;
    case "gaps":
      if (message.symbol !== view.series.symbol) break;
      view.gaps.add(message.gaps);
      for (const gap of message.gaps) older.checked(gap.from, gap.to);
      view.drawGaps();
      legend.show();
      break;
    case "signals":
      if (message.symbol !== view.series.symbol) break;
      view.signals.add(message.signals);
      view.drawMarkers();
      legend.show();
      break;
    case "feed":
      if (message.symbol !== view.series.symbol) break;
      if (feed && feed.complete_until !== message.feed.complete_until) {
        older.checked(feed.complete_until ?? 0, message.feed.complete_until);
      }
      feed = message.feed;
      status.setMarket(message.symbol, feed, instrument);
      break;
    case "instrument":
      if (message.symbol !== view.series.symbol) break;
      instrument = message.instrument;
      view.setTickSize(instrument?.tick_size ?? null);
      status.setMarket(message.symbol, feed, instrument);
      legend.show();
      break;
    case "markets":
      search.take(message.rows);
      if (!asked.symbol) begin();
      break;
    case "state":
      status.server(message);
      quote.writeTitle();
      break;
    case "error":
      takeError(message.about, message.message);
      break;
  }
}

/** @param {Snapshot} snapshot */
function takeSnapshot(snapshot) {
  clearTimeout(again);
  const isSame = isShown();
  const sameTimeframe = view.series.timeframe === snapshot.timeframe && view.series.bars.length > 0;
  const series = new Series(snapshot.symbol, snapshot.timeframe);
  series.reset(snapshot.bars, snapshot.more);
  ({ instrument, feed } = snapshot);
  view.gaps.reset(snapshot.gaps);
  view.signals.reset(snapshot.signals ?? []);
  isGuess = false;
  view.show(series, instrument?.tick_size ?? null, isSame || (sameTimeframe && view.viewport.isFollowing));
  document.body.classList.remove("switching");
  older.begin();
  status.problem(wrongVersion);
  status.setMarket(snapshot.symbol, feed, instrument);
  const [venue, market] = splitSymbol(snapshot.symbol);
  if (!series.bars.length) showMessage(t("chart.empty"), t("chart.empty.text", { market }));
  else showMessage("", "");
  describe();
  if (!isSame) {
    setText(byId("said-shown", HTMLElement), t("said.shown", { market, venue: venueName(venue), timeframe: series.timeframe, count: series.bars.length }));
  }
  afterBars();
  quote.writeTitle();
}

/** After bars have come: the strip, and the price. */
function afterBars() {
  const { symbol, last } = view.series;
  legend.show();
  if (last) showMessage("", "");
  quote.show(symbol, last?.[CLOSE] ?? "", view.places);
}

/** @param {import("./connection.js").Link} link */
function onLink(link) {
  status.link(link);
  quote.writeTitle();
}

/**
 * @param {string} about
 * @param {string} message
 */
function takeError(about, message) {
  if (about !== "series") return status.problem(message);
  document.body.classList.remove("switching");
  if (isShown() && view.series.bars.length) return status.problem(message);
  if (isGuess && asked.symbol) {
    // This server does not have the market that was looked at last, of another one perhaps: then another market.
    isGuess = false;
    asked.symbol = "";
    return connection.markets(true);
  }
  byId("loading", HTMLElement).classList.add("hidden");
  showMessage(t("chart.error"), message);
  again = setTimeout(ask, AGAIN_MS);
}

/**
 * What stands in the place of a chart; empty: the chart.
 * @param {string} title
 * @param {string} text
 */
function showMessage(title, text) {
  const element = byId("message", HTMLElement);
  element.classList.toggle("hidden", !title);
  setText(byId("message-title", HTMLElement), title);
  setText(byId("message-text", HTMLElement), text);
}

/** Without a market in the address: the one looked at last, or else the first one there is. */
function begin() {
  const first = search.first();
  if (!first) return showMessage(t("chart.noMarket"), t("chart.noMarket.text"));
  go(first, asked.timeframe, false);
  connection.markets(search.dialog.open);
}

/** Says what the page shows, for who does not see it. */
function describe() {
  const { symbol, timeframe } = view.series;
  const [venue, market] = splitSymbol(symbol);
  const label = symbol ? t("chart.label", { market, venue: venueName(venue), timeframe }) : t("page.chart");
  setAttributes(byId("chart", HTMLElement), { "aria-label": label });
  setText(byId("title", HTMLElement), label);
}

/** Goes where the address says. @param {boolean} first */
function followAddress(first) {
  const query = new URLSearchParams(location.search);
  const symbol = query.get("symbol") ?? (first ? settings().symbol : asked.symbol);
  isGuess = first && !query.has("symbol");
  go(symbol, query.get("timeframe") ?? (first ? settings().timeframe : asked.timeframe), false);
}

function showLanguage() {
  translate();
  controls.translate();
  describe();
  legend.show();
  status.show();
}

onChange((_, changed) => {
  if (changed.includes("language")) showLanguage();
  if (changed.some((name) => ["theme", "candles", "language", "zone", "scale"].includes(name))) view.applyTheme();
  if (changed.some((name) => ["averages", "averageKind"].includes(name))) view.applyAverages();
  controls.translate();
  legend.show();
  status.show();
});
addEventListener("popstate", () => followAddress(false));
byId("newest", HTMLButtonElement).addEventListener("click", () => view.viewport.toNewest());
byId("message-search", HTMLButtonElement).addEventListener("click", () => search.open());
listenToKeys({ view, controls, legend, search, onTimeframe });
setInterval(() => {
  status.show();
  quote.writeTitle();
  // What is in progress counts down, and a gap that is open grows.
  legend.show();
  if (view.gaps.isOpenEnded) view.drawGaps();
}, 1_000);

setText(byId("loading", HTMLElement), t("chart.loading"));
showLanguage();
followAddress(true);
if (!asked.symbol) connection.markets(true);
connection.start();
// Canvases draw with the fonts that are there: once more, when ours is.
document.fonts.load('12px "Inter"').then(() => view.applyTheme());

/** For tests and for who wants to look closer (docs/chart.md): reads, and changes nothing. */
Object.assign(window, {
  ashi: {
    /** The bars that are shown, as they came. */
    bars: () => structuredClone(view.series.bars),
    state: () => ({
      symbol: view.series.symbol,
      timeframe: view.series.timeframe,
      asked: { ...asked },
      switching: document.body.classList.contains("switching"),
      link: connection.link.state,
      feed,
      instrument,
      more: view.series.more,
      loading: older.isLoading,
      gaps: view.gaps.all(),
      signals: view.signals.active(),
      visible: view.viewport.times,
      language: language(),
    }),
    /** Where the window of an open time is, CSS pixels from the left of the page. */
    pixelOf: (/** @type {number} */ openTime) => view.pixelOf(openTime + lengthOf(view.series.timeframe) / 2),
    /** Where a price is, CSS pixels from the top of the page. */
    pixelOfPrice: (/** @type {number} */ price) => {
      const y = view.candles.priceToCoordinate(price);
      return y === null ? null : y + view.element.getBoundingClientRect().top;
    },
    oldest: () => view.series.bars[0]?.[OPEN_TIME] ?? null,
    chart: view.chart,
    series: view.candles,
  },
});

/** What is always in view: how the connection is, how the market's feed is, what time it is, and what colours mean. */

import { byId, setAttributes, setText } from "./dom.js";
import { clockTime, day, stamp, zoneName } from "./format.js";
import { hasWords, t } from "./i18n.js";
import { splitSymbol } from "./protocol.js";
import { settings } from "./settings.js";

/** @typedef {import("./protocol.js").Feed} Feed */
/** @typedef {import("./protocol.js").Instrument} Instrument */
/** @typedef {import("./protocol.js").ServerState} ServerState */
/** @typedef {import("./connection.js").Link} Link */

const FEED_LEVELS = /** @type {Record<string, string>} */ ({
  connected: "good", silent: "warn", repairing: "warn", stale: "warn", unknown: "", down: "bad",
});
const LINK_LEVELS = { connecting: "", open: "good", lost: "bad", refused: "bad" };

export class Status {
  /** @type {Link} */
  #link = { state: "connecting", since: Date.now(), retryAt: null };
  /** @type {ServerState | null} */
  #server = null;
  /** @type {Feed | null} */
  #feed = null;
  /** @type {Instrument | null} */
  #instrument = null;
  #symbol = "";
  #problem = "";

  /**
   * @param {() => number} now µs
   * @param {() => void} retry
   */
  constructor(now, retry) {
    this.now = now;
    this.linkChip = byId("link", HTMLElement);
    this.feedChip = byId("feed", HTMLElement);
    this.feedNote = byId("feed-note", HTMLElement);
    this.market = byId("market-state", HTMLElement);
    this.clock = byId("clock", HTMLElement);
    this.banner = byId("banner", HTMLElement);
    this.bannerText = byId("banner-text", HTMLElement);
    this.retryButton = byId("banner-retry", HTMLButtonElement);
    this.saidLink = byId("said-link", HTMLElement);
    this.saidFeed = byId("said-feed", HTMLElement);
    this.retryButton.addEventListener("click", retry);
  }

  /** @param {Link} link */
  link(link) {
    this.#link = link;
    // Of a server that is not heard of nothing is known.
    if (link.state !== "open") this.#server = null;
    this.show();
  }

  /** @param {ServerState} state */
  server(state) {
    this.#server = state;
    this.show();
  }

  /**
   * @param {string} symbol
   * @param {Feed | null} feed
   * @param {Instrument | null} instrument
   */
  setMarket(symbol, feed, instrument) {
    this.#symbol = symbol;
    this.#feed = feed;
    this.#instrument = instrument;
    this.show();
  }

  /** @returns {Feed | null} */
  get feed() {
    return this.#feed;
  }

  /** Whether what is shown may be old. @returns {boolean} */
  get isStale() {
    return this.#link.state === "lost" || this.#link.state === "refused" || this.#server?.kafka === "down";
  }

  /** @param {string} problem in words of the server; empty: none any more */
  problem(problem) {
    this.#problem = problem;
    this.show();
  }

  /** Writes all of it; once a second, too. */
  show() {
    this.#showLink();
    this.#showFeed();
    this.#showBanner();
    const now = this.now();
    const { zone } = settings();
    setText(this.clock, `${clockTime(now, zone, true)} ${zoneName(zone, now)}`);
    setAttributes(this.clock, { title: day(now, zone) });
  }

  #showLink() {
    let level = LINK_LEVELS[this.#link.state];
    let words = t(`link.${this.#link.state}`);
    const kafka = this.#server?.kafka ?? "ok";
    if (this.#link.state === "open" && kafka !== "ok") {
      level = kafka === "down" ? "bad" : "warn";
      words = t(`kafka.${kafka}`, { seconds: Math.max(1, Math.round(this.#server?.lag_s ?? 0)) });
    }
    setText(this.linkChip, words);
    setAttributes(this.linkChip, { "data-level": level });
    // The seconds of a lag are not read out each time.
    setText(this.saidLink, t("said.link", { state: kafka === "lagging" ? t("link.open") : words }));
  }

  #showFeed() {
    const [, market] = splitSymbol(this.#symbol);
    const live = this.#link.state === "open";
    const state = live && this.#feed ? this.#feed.state : "unknown";
    const words = hasWords(`feed.${state}`) ? t(`feed.${state}`) : state;
    setText(this.feedChip, words);
    // Connected, and something is wrong all the same: a clock that is off, say.
    const level = state === "connected" && this.#feed?.reason ? "warn" : FEED_LEVELS[state] ?? "";
    setAttributes(this.feedChip, { "data-level": level, title: this.#feed?.reason ?? undefined });
    this.feedChip.classList.toggle("hidden", !this.#symbol);
    const notes = [];
    const { zone } = settings();
    const now = this.now();
    if (this.#feed && state !== "unknown") {
      if (state !== "connected" && this.#feed.since) notes.push(t("feed.since", { time: stamp(this.#feed.since, zone, now) }));
      if (this.#feed.reason) notes.push(this.#feed.reason);
    }
    if (this.#feed?.complete_until) notes.push(t("feed.complete", { time: stamp(this.#feed.complete_until, zone, now) }));
    else if (this.#feed?.last_traded_at) notes.push(t("feed.lastTrade", { time: stamp(this.#feed.last_traded_at, zone, now) }));
    setText(this.feedNote, notes.join(" · "));
    setAttributes(this.feedNote, { title: notes.join(" · ") || undefined });
    const halted = this.#instrument && this.#instrument.state !== "trading" ? this.#instrument.state : "";
    setText(this.market, halted ? t(`market.${halted}`) : "");
    this.market.classList.toggle("hidden", !halted);
    if (this.#symbol) setText(this.saidFeed, t("said.feed", { market, state: words }));
  }

  #showBanner() {
    let text = this.#problem;
    const lost = this.#link.state === "lost" || this.#link.state === "refused";
    if (this.#link.state === "refused") text = t("link.refused");
    else if (lost) {
      const seconds = Math.max(0, Math.ceil(((this.#link.retryAt ?? 0) - Date.now()) / 1000));
      const next = this.#link.retryAt === null ? t("link.connecting") : t("link.retry", { seconds });
      text = `${t("banner.lost", { time: clockTime(this.#link.since * 1000, settings().zone, true) })} (${next})`;
    } else if (this.#server?.kafka === "down") text = t("banner.kafka");
    setText(this.bannerText, text);
    this.banner.classList.toggle("hidden", !text);
    this.retryButton.classList.toggle("hidden", !lost);
    document.body.classList.toggle("stale", this.isStale);
  }
}

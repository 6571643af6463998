/** The dialog in which a market is found: words in any order, of market and venue. A combobox with a list below it. */

import { byId, closable, make, setAttributes, setText } from "./dom.js";
import { grouped, percent } from "./format.js";
import { hasWords, t } from "./i18n.js";
import { splitSymbol, venueName } from "./protocol.js";

/** @typedef {import("./protocol.js").MarketRow} MarketRow */

/** More than a list that somebody reads; thousands are on the page of markets. */
const MOST_SHOWN = 100;

export class Search {
  /** @type {Map<string, MarketRow>} */
  #rows = new Map();
  /** @type {string[]} */
  #found = [];
  #active = 0;
  #redraw = 0;

  /**
   * @param {object} handlers
   * @param {(symbol: string) => void} handlers.onChosen
   * @param {(wanted: boolean) => void} handlers.onOpen rows are wanted while it is open
   * @param {() => string} handlers.current the symbol that is shown
   */
  constructor(handlers) {
    this.handlers = handlers;
    this.dialog = byId("search", HTMLDialogElement);
    this.input = byId("search-text", HTMLInputElement);
    this.list = byId("search-list", HTMLElement);
    this.count = byId("search-count", HTMLElement);
    closable(this.dialog);
    this.dialog.addEventListener("close", () => handlers.onOpen(false));
    this.input.addEventListener("input", () => this.#show(true));
    this.input.addEventListener("keydown", (event) => this.#key(event));
    this.list.addEventListener("click", (event) => {
      const option = event.target instanceof Element ? event.target.closest("[role=option]") : null;
      if (option instanceof HTMLElement && option.dataset.symbol) this.#choose(option.dataset.symbol);
    });
  }

  open() {
    if (this.dialog.open) return;
    this.input.value = "";
    this.dialog.showModal();
    this.input.focus();
    this.handlers.onOpen(true);
    this.#show(true);
  }

  /**
   * Takes rows of the server; those that have changed, after the first.
   * @param {MarketRow[]} rows
   */
  take(rows) {
    for (const row of rows) this.#rows.set(row.symbol, { ...this.#rows.get(row.symbol), ...row });
    if (!this.dialog.open || this.#redraw) return;
    this.#redraw = requestAnimationFrame(() => {
      this.#redraw = 0;
      this.#show(false);
    });
  }

  /** A market to begin with: the first by name of those that have a price. @returns {string | null} */
  first() {
    const rows = [...this.#rows.values()].sort((a, b) => Number(b.last !== null) - Number(a.last !== null) || (a.symbol < b.symbol ? -1 : 1));
    return rows[0]?.symbol ?? null;
  }

  /** @param {boolean} anew whether other words were written: then the first one found is marked */
  #show(anew) {
    const words = this.input.value.toLowerCase().split(/[\s:/]+/).filter(Boolean);
    const all = [...this.#rows.keys()].filter((symbol) => matches(symbol, words)).sort(byFit(words));
    const marked = this.#found[this.#active];
    anew ||= marked === undefined;
    this.#found = all.slice(0, MOST_SHOWN);
    const current = this.#found.indexOf(this.handlers.current());
    this.#active = anew ? (words.length || current < 0 ? 0 : current) : Math.max(0, this.#found.indexOf(marked));
    this.list.replaceChildren(...this.#found.map((symbol, nth) => this.#option(symbol, nth)));
    const more = all.length - this.#found.length;
    const none = this.#rows.size ? "search.none" : "search.empty";
    setText(this.count, all.length === 0 ? t(none) : more > 0 ? t("search.more", { count: more }) : t("search.found", { count: all.length }));
    this.#mark();
  }

  /**
   * @param {string} symbol
   * @param {number} nth
   */
  #option(symbol, nth) {
    const row = /** @type {MarketRow} */ (this.#rows.get(symbol));
    const [venue, market] = splitSymbol(symbol);
    const change = row.change === null ? NaN : Number(row.change);
    // A feed is told as a word by some servers and whole by others.
    const feed = String(row.feed && typeof row.feed === "object" ? /** @type {{state: string}} */ (row.feed).state : row.feed ?? "unknown");
    const level = feed === "connected" ? "good" : feed === "down" ? "bad" : "warn";
    return make(
      "div",
      { role: "option", id: `search-${nth}`, "data-symbol": symbol, class: "market-row" },
      make("span", { class: "dot", "data-level": feed === "unknown" ? "" : level, title: hasWords(`feed.${feed}`) ? t(`feed.${feed}`) : feed }),
      make("span", { class: "name" }, market),
      make("span", { class: "venue" }, venueName(venue)),
      make("span", { class: "last" }, row.last ? grouped(row.last) : "–"),
      make("span", { class: change > 0 ? "change up-text" : change < 0 ? "change down-text" : "change" }, Number.isNaN(change) ? "" : percent(change)),
    );
  }

  #mark() {
    [...this.list.children].forEach((option, nth) => {
      setAttributes(option, { "aria-selected": String(nth === this.#active) });
      if (nth === this.#active) option.scrollIntoView({ block: "nearest" });
    });
    setAttributes(this.input, { "aria-activedescendant": this.#found.length ? `search-${this.#active}` : undefined });
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const last = this.#found.length - 1;
    const to = /** @type {Record<string, number>} */ ({
      ArrowDown: this.#active + 1, ArrowUp: this.#active - 1, PageDown: this.#active + 8, PageUp: this.#active - 8,
    })[event.key];
    if (to !== undefined) {
      event.preventDefault();
      this.#active = Math.max(0, Math.min(last, to));
      this.#mark();
    } else if (event.key === "Enter" && !event.isComposing && this.#found[this.#active]) {
      event.preventDefault();
      this.#choose(this.#found[this.#active]);
    }
  }

  /** @param {string} symbol */
  #choose(symbol) {
    this.dialog.close();
    this.handlers.onChosen(symbol);
  }
}

/**
 * @param {string} symbol
 * @param {string[]} words
 * @returns {boolean}
 */
function matches(symbol, words) {
  const [venue] = splitSymbol(symbol);
  const text = `${symbol} ${venueName(venue)}`.toLowerCase();
  // `btcjpy` finds BTC_JPY as well.
  const plain = text.replace(/[^\p{L}\p{N} ]/gu, "");
  return words.every((word) => text.includes(word) || plain.includes(word.replace(/[^\p{L}\p{N}]/gu, "")));
}

/**
 * Those that begin with what was written come first.
 * @param {string[]} words
 * @returns {(a: string, b: string) => number}
 */
function byFit(words) {
  const begins = (/** @type {string} */ symbol) => (words.some((word) => splitSymbol(symbol)[1].toLowerCase().startsWith(word)) ? 0 : 1);
  return (a, b) => begins(a) - begins(b) || (splitSymbol(a)[1] < splitSymbol(b)[1] ? -1 : splitSymbol(a)[1] > splitSymbol(b)[1] ? 1 : a < b ? -1 : 1);
}

/** The last price: in the head of the page, where it flashes as it moves, and in the title of the tab. */

import { byId, setAttributes, setText } from "./dom.js";
import { grouped } from "./format.js";
import { splitSymbol } from "./protocol.js";

const FLASH_MS = 350;

export class Quote {
  #price = "";
  #symbol = "";
  #title = document.title;
  #flash = 0;

  /** @param {() => boolean} isStale whether what is shown may be old */
  constructor(isStale) {
    this.isStale = isStale;
    this.element = byId("last", HTMLElement);
  }

  /**
   * @param {string} symbol
   * @param {string} price exact; empty: there is none
   * @param {number} places of the market's prices
   */
  show(symbol, price, places) {
    const shown = price && grouped(price, places);
    setText(this.element, shown);
    const [, market] = splitSymbol(symbol);
    this.#title = [shown, market].filter(Boolean).join(" ") + " · Ashi";
    if (symbol === this.#symbol && this.#price && price && price !== this.#price) {
      setAttributes(this.element, { "data-moved": Number(price) > Number(this.#price) ? "up" : "down" });
      clearTimeout(this.#flash);
      this.#flash = setTimeout(() => setAttributes(this.element, { "data-moved": undefined }), FLASH_MS);
    }
    [this.#symbol, this.#price] = [symbol, price];
  }

  /**
   * Writes the title of the tab, which may be all of the page that is seen: it says so when what it shows may be old.
   * Not with each price, as browsers take their time for it.
   */
  writeTitle() {
    const title = this.isStale() ? `⚠ ${this.#title}` : this.#title;
    if (document.title !== title) document.title = title;
  }
}

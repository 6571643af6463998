/** The head of the page and its settings: timeframes, theme, language, zone, averages. */

import { LONGEST_PERIOD, periodsOf } from "./averages.js";
import { byId, closable, make, setAttributes, setText } from "./dom.js";
import { zoneName } from "./format.js";
import { language, t } from "./i18n.js";
import { splitSymbol, venueName } from "./protocol.js";
import { change, settings } from "./settings.js";

/** @typedef {import("./settings.js").Settings} Settings */

export class Controls {
  /** @type {string[]} */
  timeframes = [];
  #symbol = "";
  #timeframe = "";

  /**
   * @param {object} handlers
   * @param {(timeframe: string) => void} handlers.onTimeframe
   * @param {() => void} handlers.onSearch
   */
  constructor(handlers) {
    this.handlers = handlers;
    this.symbolButton = byId("symbol", HTMLButtonElement);
    this.row = byId("timeframes", HTMLElement);
    this.settingsDialog = byId("settings", HTMLDialogElement);
    this.helpDialog = byId("help", HTMLDialogElement);
    this.averages = byId("set-averages", HTMLInputElement);
    this.hint = byId("set-averages-hint", HTMLElement);
    closable(this.settingsDialog);
    closable(this.helpDialog);
    this.symbolButton.addEventListener("click", handlers.onSearch);
    byId("settings-button", HTMLButtonElement).addEventListener("click", () => this.openSettings());
    byId("settings-help", HTMLButtonElement).addEventListener("click", () => {
      this.settingsDialog.close();
      this.openHelp();
    });
    byId("help-button", HTMLButtonElement).addEventListener("click", () => this.openHelp());
    for (const input of this.settingsDialog.querySelectorAll("input[type=radio]")) {
      input.addEventListener("change", () => {
        const { name, value } = /** @type {HTMLInputElement} */ (input);
        change({ [name]: value });
      });
    }
    this.averages.addEventListener("input", () => this.#averagesWritten());
    this.averages.addEventListener("change", () => (this.averages.value = periodsOf(this.averages.value).join(", ")));
    this.row.addEventListener("click", (event) => {
      const button = event.target instanceof Element ? event.target.closest("button") : null;
      if (button?.dataset.timeframe) handlers.onTimeframe(button.dataset.timeframe);
    });
  }

  /** @param {string[]} timeframes that the server has, the shortest first */
  setTimeframes(timeframes) {
    if (timeframes.join() === this.timeframes.join()) return;
    this.timeframes = timeframes;
    this.row.replaceChildren(...timeframes.map((timeframe, nth) =>
      make("button", { type: "button", "data-timeframe": timeframe, title: nth < 9 ? `${timeframe} (${nth + 1})` : timeframe }, timeframe)));
    this.#mark();
  }

  /**
   * @param {string} symbol
   * @param {string} timeframe
   */
  show(symbol, timeframe) {
    [this.#symbol, this.#timeframe] = [symbol, timeframe];
    const [venue, market] = splitSymbol(symbol);
    setText(byId("symbol-market", HTMLElement), market || t("symbol.choose"));
    setText(byId("symbol-venue", HTMLElement), venueName(venue));
    setAttributes(this.symbolButton, {
      "aria-label": symbol ? t("symbol.current", { market, venue: venueName(venue) }) : t("symbol.choose"),
      title: symbol || undefined,
    });
    this.#mark();
  }

  openSettings() {
    if (this.#aDialogIsOpen()) return;
    this.translate();
    this.settingsDialog.showModal();
  }

  openHelp() {
    if (!this.#aDialogIsOpen()) this.helpDialog.showModal();
  }

  /** Writes what depends on the language and is not in the page itself. */
  translate() {
    const local = byId("set-zone-local", HTMLElement);
    setText(local, t("set.zone.local", { name: zoneName("local", Date.now() * 1000) }));
    for (const input of this.settingsDialog.querySelectorAll("input[type=radio]")) {
      const radio = /** @type {HTMLInputElement} */ (input);
      const chosen = radio.name === "language" ? language() : settings()[/** @type {keyof Settings} */ (radio.name)];
      radio.checked = radio.value === chosen;
    }
    if (document.activeElement !== this.averages) this.averages.value = settings().averages;
    this.show(this.#symbol, this.#timeframe);
  }

  #aDialogIsOpen() {
    return document.querySelector("dialog[open]") !== null;
  }

  #averagesWritten() {
    const text = this.averages.value;
    const periods = periodsOf(text);
    const wrong = text.trim() !== "" && periods.length === 0;
    setText(this.hint, t(wrong ? "set.averages.none" : "set.averages.hint", { most: LONGEST_PERIOD }));
    setAttributes(this.averages, { "aria-invalid": wrong ? "true" : undefined });
    if (!wrong) change({ averages: periods.join(", ") });
  }

  #mark() {
    for (const button of this.row.querySelectorAll("button")) {
      const chosen = button.dataset.timeframe === this.#timeframe;
      setAttributes(button, { "aria-pressed": String(chosen) });
      if (chosen) button.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
  }
}

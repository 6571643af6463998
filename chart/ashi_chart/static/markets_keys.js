/** The keyboard on the markets page: one row is where Tab comes to, and the arrows go on from it. */

/**
 * @typedef {object} Acts what keys do beside walking
 * @property {() => void} search
 * @property {() => void} clear
 * @property {() => void} theme
 * @property {() => void} language
 * @property {() => void} help
 */

/** Keys and what they do, for the list of them. @type {[keys: string, word: string][]} */
const KEYS = [
  ["/", "keys.search"],
  ["↑ ↓", "keys.rows"],
  ["PgUp PgDn", "keys.pages"],
  ["Home End", "keys.ends"],
  ["Enter", "keys.open"],
  ["Esc", "keys.clear"],
  ["t", "keys.theme"],
  ["l", "keys.language"],
  ["?", "keys.help"],
];

/**
 * @param {import("./markets_table.js").VirtualTable} table
 * @param {Acts} acts
 */
export function walk(table, acts) {
  /** The symbol from whose row the arrows go on. @type {?string} */
  let active = null;

  function linkOf(symbol) {
    return table.shown.get(symbol)?.ashi.parts.link;
  }

  function setActive(symbol) {
    active = symbol;
    mark();
  }

  /** Tab comes to one row only: the active one, or the first of those that are there. */
  function mark() {
    const [first] = table.body.rows;
    const marked = table.shown.get(active) ?? first;
    for (const element of table.shown.values()) {
      element.ashi.parts.link.tabIndex = element === marked ? 0 : -1;
    }
  }

  function goTo(place) {
    if (table.symbols.length === 0) return;
    const bounded = Math.max(0, Math.min(table.symbols.length - 1, place));
    table.reveal(bounded);
    setActive(table.symbols[bounded]);
    linkOf(active).focus({ preventScroll: true });
  }

  function isAmongRows() {
    return table.body.contains(document.activeElement) || document.activeElement === table.scroller;
  }

  const walks = {
    ArrowDown: (place) => (isAmongRows() ? place + 1 : place),
    ArrowUp: (place) => (isAmongRows() ? place - 1 : place),
    PageDown: (place) => place + table.rowsInSight,
    PageUp: (place) => place - table.rowsInSight,
    Home: () => 0,
    End: () => table.symbols.length - 1,
  };
  const others = { "/": acts.search, Escape: acts.clear, t: acts.theme, l: acts.language, "?": acts.help };

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const { key, target } = event;
    const searching = target.matches("input[type=search]");
    if (searching && key === "Enter") {
      linkOf(table.symbols[0])?.click();
    } else if (searching && key === "ArrowDown") {
      goTo(0);
    } else if (searching && key === "Escape") {
      acts.clear();
      goTo(Math.max(0, table.symbols.indexOf(active)));
    } else if (!target.matches("input, select") && key in walks) {
      goTo(walks[key](Math.max(0, table.symbols.indexOf(active))));
    } else if (!target.matches("input, select") && key in others) {
      others[key]();
    } else {
      return;
    }
    event.preventDefault();
  }

  document.addEventListener("keydown", onKey);
  table.body.addEventListener("focusin", (event) => setActive(event.target.closest("tr").ashi.symbol));
  table.onRendered = mark;
  return { keys: KEYS };
}

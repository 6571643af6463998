/**
 * The page of the markets: what the server says becomes rows of a table that is searched, sorted and walked through.
 */

import { Connection } from "./connection.js";
import { language, register, t, translate } from "./i18n.js";
import { walk } from "./markets_keys.js";
import { COLUMNS, Markets, beginsDescending } from "./markets_model.js";
import { SHOWN_COLUMNS, fillAge, fillRow, makeRow } from "./markets_rows.js";
import { VirtualTable } from "./markets_table.js";
import { WORDS } from "./markets_words.js";
import { change, onChange, toggleTheme } from "./settings.js";

/** @param {string} id @returns {any} */
const $ = (id) => document.getElementById(id);

register(WORDS);
const markets = new Markets();
const choice = choiceOfAddress();
const table = new VirtualTable($("scroller"), $("markets"), makeRow, (element, symbol) => {
  fillRow(element, markets.rows.get(symbol), connection.now());
});
const connection = new Connection({ onMessage: take, onLink: sayLink });
/** What the server said last of itself. @type {?import("./protocol.js").ServerState} */
let server = null;
/** Whether the server has told of the markets. */
let told = false;
/** Whether rows are not where they belong, because somebody is among them. */
let held = false;

const walking = walk(table, {
  search: () => $("query").select(),
  clear: () => choice.query && searchFor(""),
  theme: toggleTheme,
  language: toggleLanguage,
  help: () => $("keys").showModal(),
});

// What is chosen stands in the address, so that a view can be kept and sent to others.

/** @returns {import("./markets_model.js").Choice} */
function choiceOfAddress() {
  const parameters = new URLSearchParams(location.search);
  const sort = parameters.get("sort") ?? "";
  const column = sort.replace(/^-/, "");
  if (!COLUMNS.includes(column)) return { query: parameters.get("q") ?? "", column: "symbol", descending: false };
  return { query: parameters.get("q") ?? "", column, descending: sort.startsWith("-") };
}

function sortValue() {
  return (choice.descending ? "-" : "") + choice.column;
}

function keepInAddress() {
  const address = new URL(location.href);
  address.searchParams.delete("q");
  address.searchParams.delete("sort");
  if (choice.query) address.searchParams.set("q", choice.query);
  if (sortValue() !== "symbol") address.searchParams.set("sort", sortValue());
  history.replaceState(history.state, "", address);
}

// What the server says.

/** @param {import("./protocol.js").Message} message */
function take(message) {
  if (message.t === "state") {
    server = message;
    sayLink();
  }
  if (message.t !== "markets") return;
  told = true;
  markets.merge(message.rows, message.all);
  // Rows do not change places under a pointer that is about to click, nor under the keyboard.
  if (message.all || !isHeld()) {
    order();
  } else {
    held = held || table.symbols.join() !== markets.chosen(choice).join();
    sayCount();
  }
  table.refresh(message.rows.map((row) => row.symbol));
}

function isHeld() {
  return table.body.matches(":hover") || table.body.contains(document.activeElement);
}

function order() {
  held = false;
  table.show(markets.chosen(choice));
  sayCount();
}

// What the page says.

function sayCount() {
  const count = markets.rows.size;
  const some = table.symbols.length;
  const key = some !== count ? "markets.some" : count === 1 ? "markets.count.one" : "markets.count";
  write($("count"), told ? t(key, { count: count.toLocaleString("en"), some: some.toLocaleString("en") }) : "");
  $("held").hidden = !held;
  const nothing = !told ? t("markets.waiting") : count === 0 ? t("markets.none") : t("markets.nomatch", { query: choice.query });
  write($("nothing"), told && some > 0 ? "" : nothing);
}

function sayLink() {
  const link = connection.link;
  const behind = link.state === "open" && server !== null && server.kafka !== "ok" ? server.kafka : null;
  const level = { open: "good", connecting: "warn", lost: "bad", refused: "bad" }[link.state];
  const chip = $("link");
  chip.dataset.level = behind === null ? level : { lagging: "warn", down: "bad" }[behind];
  write(chip, behind === null ? t(`link.${link.state}`) : t(`kafka.${behind}`, { seconds: Math.round(server?.lag_s ?? 0) }));
  $("scroller").classList.toggle("is-old", told && (link.state !== "open" || behind === "down"));
}

function sayAll() {
  translate();
  document.title = `${t("page.markets")} · Ashi`;
  for (const head of document.querySelectorAll("#markets thead th")) {
    write(head.querySelector(".head-word"), t(`column.${head.dataset.column}`));
  }
  $("sort").replaceChildren(...COLUMNS.flatMap(sortOptions));
  $("key-list").replaceChildren(...walking.keys.flatMap(([keys, word]) => [keyTerm(keys), element("dd", t(word))]));
  saySort();
  sayCount();
  sayLink();
  table.refresh();
}

function saySort() {
  $("sort").value = sortValue();
  for (const head of document.querySelectorAll("#markets thead th")) {
    if (head.dataset.column === choice.column) {
      head.setAttribute("aria-sort", choice.descending ? "descending" : "ascending");
    } else {
      head.removeAttribute("aria-sort");
    }
  }
}

/** Both orders of a column, for where there is no room for all columns. @param {string} column */
function sortOptions(column) {
  const values = beginsDescending(column) ? [`-${column}`, column] : [column, `-${column}`];
  const name = t(`column.${column}`);
  return values.map((value) => {
    const [key, sign] = value.startsWith("-") ? ["order.descending", "▼"] : ["order.ascending", "▲"];
    const option = new Option(`${name} ${sign}`, value);
    option.setAttribute("aria-label", t(key, { column: name }));
    return option;
  });
}

/** @param {string} keys */
function keyTerm(keys) {
  const term = element("dt", "");
  term.append(...keys.split(" ").map((key) => element("kbd", key)));
  return term;
}

/** @param {string} name @param {string} text */
function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

/** What a screen reader is told when it changes is not written when it does not. */
function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// What people do.

function searchFor(text) {
  if ($("query").value !== text) $("query").value = text;
  choice.query = text.trim();
  again();
}

/** @param {string} value a column, with a minus in front for the greatest first */
function sortBy(value) {
  choice.column = value.replace(/^-/, "");
  choice.descending = value.startsWith("-");
  saySort();
  again();
}

function again() {
  $("scroller").scrollTop = 0;
  keepInAddress();
  order();
}

function toggleLanguage() {
  change({ language: language() === "ja" ? "en" : "ja" });
}

function makeHead() {
  for (const column of SHOWN_COLUMNS) {
    const head = element("th", "");
    head.scope = "col";
    head.className = `column-${column}`;
    head.dataset.column = column;
    const sortable = COLUMNS.includes(column);
    const label = head.appendChild(element(sortable ? "button" : "span", ""));
    label.className = sortable ? "" : "plain";
    label.appendChild(element("span", "")).className = "head-word";
    if (sortable) {
      label.type = "button";
      label.addEventListener("click", () => {
        const descending = choice.column === column ? !choice.descending : beginsDescending(column);
        sortBy((descending ? "-" : "") + column);
      });
    }
    $("markets").tHead.rows[0].append(head);
  }
}

/** Once a second: ages grow, and rows that were held go where they belong when they are left. */
function tick() {
  if (held && !isHeld()) order();
  for (const [symbol, shown] of table.shown) {
    fillAge(shown, markets.rows.get(symbol), connection.now());
  }
}

makeHead();
$("query").value = choice.query;
$("query").addEventListener("input", () => searchFor($("query").value));
$("sort").addEventListener("change", () => sortBy($("sort").value));
$("language").addEventListener("click", toggleLanguage);
$("theme").addEventListener("click", toggleTheme);
$("help").addEventListener("click", () => $("keys").showModal());
onChange((_, changed) => changed.includes("language") && sayAll());
sayAll();
setInterval(tick, 1000);
connection.markets(true);
connection.start();

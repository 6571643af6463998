/**
 * The pages in English and Japanese. A page registers its words; elements name theirs:
 * `data-i18n` for the text, `data-i18n-label` for aria-label, `data-i18n-title` for title, `data-i18n-placeholder`.
 */

import { settings } from "./settings.js";

/** @typedef {"en" | "ja"} Language */
/** @typedef {Record<Language, Record<string, string>>} Words */

/** @type {Words} */
const words = { en: {}, ja: {} };

/** @param {Words} more words of a page, by language and key; a key that one language lacks is an error */
export function register(more) {
  const english = Object.keys(more.en);
  const missing = english.filter((key) => !(key in more.ja)).concat(Object.keys(more.ja).filter((key) => !(key in more.en)));
  if (missing.length) throw new Error(`words in one language only: ${missing.join(", ")}`);
  Object.assign(words.en, more.en);
  Object.assign(words.ja, more.ja);
}

/** The language that is shown. @returns {Language} */
export function language() {
  const chosen = settings().language || navigator.language;
  return chosen.toLowerCase().startsWith("ja") ? "ja" : "en";
}

/**
 * A text in the language that is shown. `{name}` in it is replaced.
 * @param {string} key
 * @param {Record<string, string | number>} [values]
 * @returns {string}
 */
export function t(key, values = {}) {
  const text = words[language()][key];
  if (text === undefined) throw new Error(`there are no words for ${JSON.stringify(key)}`);
  return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? `{${name}}`));
}

/**
 * Whether there are words for a key: for states that a newer server may have.
 * @param {string} key
 * @returns {boolean}
 */
export function hasWords(key) {
  return key in words.en;
}

/**
 * Writes the texts of all elements below a root that name some.
 * @param {ParentNode} [root]
 */
export function translate(root = document) {
  document.documentElement.lang = language();
  for (const element of root.querySelectorAll("[data-i18n]")) {
    element.textContent = t(/** @type {HTMLElement} */ (element).dataset.i18n ?? "");
  }
  for (const [attribute, name] of [
    ["aria-label", "data-i18n-label"],
    ["title", "data-i18n-title"],
    ["placeholder", "data-i18n-placeholder"],
  ]) {
    for (const element of root.querySelectorAll(`[${name}]`)) {
      element.setAttribute(attribute, t(element.getAttribute(name) ?? ""));
    }
  }
}

// What both pages say.
register({
  en: {
    "feed.connected": "Live",
    "feed.silent": "Silent",
    "feed.repairing": "Repairing",
    "feed.down": "Feed down",
    "feed.stale": "No word from the feed",
    "feed.unknown": "Feed unknown",
    "market.trading": "Trading",
    "market.halted": "Halted",
    "market.delisted": "Delisted",
    "link.connecting": "Connecting…",
    "link.open": "Connected",
    "link.lost": "Connection lost",
    "link.refused": "Not allowed: a token is needed",
    "link.retry": "next try in {seconds} s",
    "kafka.ok": "Kafka reachable",
    "kafka.lagging": "{seconds} s behind Kafka",
    "kafka.down": "Kafka not reachable",
    "theme.toggle": "Dark or light",
    "language.toggle": "日本語で表示",
    "page.markets": "Markets",
    "page.chart": "Chart",
    "close": "Close",
  },
  ja: {
    "feed.connected": "ライブ",
    "feed.silent": "無音",
    "feed.repairing": "修復中",
    "feed.down": "フィード停止",
    "feed.stale": "フィードから応答なし",
    "feed.unknown": "フィード不明",
    "market.trading": "取引中",
    "market.halted": "取引停止",
    "market.delisted": "上場廃止",
    "link.connecting": "接続中…",
    "link.open": "接続済み",
    "link.lost": "接続が切れました",
    "link.refused": "許可されていません（トークンが必要です）",
    "link.retry": "{seconds} 秒後に再接続",
    "kafka.ok": "Kafka 接続中",
    "kafka.lagging": "Kafka より {seconds} 秒遅れ",
    "kafka.down": "Kafka に接続できません",
    "theme.toggle": "ダーク／ライト",
    "language.toggle": "Show in English",
    "page.markets": "マーケット",
    "page.chart": "チャート",
    "close": "閉じる",
  },
});

/**
 * The websocket to the server: asks again after every reconnect for what the page looks at, so nothing is missed.
 *
 * A connection that says nothing for 15 s is dead (the server says how it is every 5 s). Who waits for the next try
 * waits for a random time that grows, so that a server that was restarted does not meet all pages at once; a page that
 * comes into view, and a machine that comes back to the net, try at once.
 */

/** @typedef {import("./protocol.js").Message} Message */
/**
 * @typedef {object} Link how the connection is
 * @property {"connecting" | "open" | "lost" | "refused"} state `refused`: the server is there, and wants a token
 * @property {number} since ms since the epoch
 * @property {number | null} retryAt ms since the epoch, of the next try; null while one is under way
 */

const SILENCE_MS = 15_000;
const FIRST_RETRY_MS = 400;
const LAST_RETRY_MS = 15_000;
const REFUSED_RETRY_MS = 60_000;
/** A narrow line may not get many bars through before it is taken for dead; so few it will. */
const LEAST_BARS = 500;
/** Close codes that mean: not with this token, not from this page. */
const REFUSALS = new Set([1008, 4401, 4403]);
const TOKEN_KEY = "ashi.token";
/** @type {string | null} */
let token = null;

/**
 * The token of the page, if there is one. It comes as `#token=…`, which is taken out of the address bar, and is kept
 * for this tab only.
 * @returns {string | null}
 */
export function pageToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    token = given;
    history.replaceState(history.state, "", location.pathname + location.search);
  }
  try {
    if (given) sessionStorage.setItem(TOKEN_KEY, given);
    return token ?? sessionStorage.getItem(TOKEN_KEY);
  } catch {
    // Storage is forbidden: it holds until the page is left.
    return token;
  }
}

// At once, before the page writes another address over it.
pageToken();

/**
 * The address of something of the server, below whatever base path it is served.
 * @param {string} path without a leading slash
 * @param {Record<string, string | number>} [query]
 * @returns {URL}
 */
export function serverUrl(path, query = {}) {
  const url = new URL(path, document.baseURI);
  url.hash = "";
  url.search = new URLSearchParams(Object.entries(query).map(([name, value]) => [name, String(value)])).toString();
  return url;
}

/**
 * Something of the server's HTTP interface, read as JSON. Raises an Error with the server's own words.
 * @param {string} path
 * @param {Record<string, string | number>} query
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 */
export async function fetchJson(path, query, signal) {
  const shown = pageToken();
  const headers = shown ? { Authorization: `Bearer ${shown}` } : undefined;
  const response = await fetch(serverUrl(path, query), { headers, signal });
  const text = await response.text();
  /** @type {any} */
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    throw new Error(`${response.status} ${response.statusText}: ${text.slice(0, 200)}`);
  }
  if (!response.ok) throw new Error(answer.message ?? answer.error ?? `${response.status} ${response.statusText}`);
  return answer;
}

export class Connection {
  /** @type {WebSocket | null} */
  #socket = null;
  /** What is asked for anew after a reconnect, by what it is about. @type {Map<string, () => object>} */
  #wanted = new Map();
  #attempt = 0;
  /** How many connections have been asked for a series since one has given it. */
  #unanswered = 0;
  #retryTimer = 0;
  #silenceTimer = 0;
  #running = false;
  /** @type {Link} */
  #link = { state: "connecting", since: Date.now(), retryAt: null };
  /** The server's clock less ours, ms, as of the last message that told its own. */
  #clockOffset = 0;

  /**
   * @param {object} handlers
   * @param {(message: Message) => void} handlers.onMessage
   * @param {(link: Link) => void} handlers.onLink
   */
  constructor({ onMessage, onLink }) {
    this.onMessage = onMessage;
    this.onLink = onLink;
  }

  /** Connects, and stays connected until `stop`. */
  start() {
    if (this.#running) return;
    this.#running = true;
    addEventListener("online", this.#soon);
    addEventListener("hashchange", this.#soon);
    addEventListener("pageshow", this.#soon);
    document.addEventListener("visibilitychange", this.#soon);
    this.#connect();
  }

  stop() {
    this.#running = false;
    removeEventListener("online", this.#soon);
    removeEventListener("hashchange", this.#soon);
    removeEventListener("pageshow", this.#soon);
    document.removeEventListener("visibilitychange", this.#soon);
    clearTimeout(this.#retryTimer);
    this.#drop();
  }

  /** @returns {Link} */
  get link() {
    return this.#link;
  }

  /** The server's clock, µs since the epoch, as far as it is known. @returns {number} */
  now() {
    return (Date.now() + this.#clockOffset) * 1000;
  }

  /**
   * Looks at a series from now on; the one before is not told of any more. `bars` is asked at each (re)connect.
   * @param {string} symbol
   * @param {string} timeframe
   * @param {() => number} bars how many of the newest are wanted
   */
  series(symbol, timeframe, bars) {
    this.#want("series", () => ({ op: "series", symbol, timeframe, bars: bars() }));
  }

  /**
   * Whether the summary of all markets is wanted.
   * @param {boolean} wanted
   */
  markets(wanted) {
    if (wanted) {
      this.#want("markets", () => ({ op: "markets" }));
    } else if (this.#wanted.delete("markets")) {
      this.#send({ op: "markets-off" });
    }
  }

  /** Tries now, if a try is due later. */
  retryNow() {
    if (!this.#running || this.#link.retryAt === null) return;
    clearTimeout(this.#retryTimer);
    this.#connect();
  }

  #soon = () => {
    if (document.visibilityState !== "visible" || !navigator.onLine) return;
    this.#attempt = 0;
    this.retryNow();
  };

  /**
   * @param {string} about
   * @param {() => object} request
   */
  #want(about, request) {
    this.#wanted.set(about, request);
    this.#send(request());
  }

  /** @param {object} request */
  #send(request) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(request));
  }

  #connect() {
    this.#drop();
    this.#tell("connecting", null);
    const shown = pageToken();
    const url = serverUrl("ws", shown ? { token: shown } : {});
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(url);
    this.#socket = socket;
    // One that does not get through is given up after the same time as one that falls silent.
    this.#heard();
    socket.addEventListener("open", () => {
      if (socket !== this.#socket) return;
      this.#heard();
      this.#askAgain();
    });
    socket.addEventListener("message", (event) => {
      if (socket !== this.#socket) return;
      this.#heard();
      this.#receive(JSON.parse(event.data));
    });
    socket.addEventListener("close", (event) => {
      if (socket === this.#socket) this.#lost(REFUSALS.has(event.code));
    });
  }

  /** Asks for what is wanted, of a series for fewer bars at each connection that has ended before they were there. */
  #askAgain() {
    for (const [about, make] of this.#wanted) {
      const request = /** @type {{bars?: number}} */ (make());
      if (about === "series" && request.bars !== undefined) {
        request.bars = Math.max(LEAST_BARS, request.bars >> Math.max(0, this.#unanswered - 1));
        this.#unanswered += 1;
      }
      this.#send(request);
    }
  }

  /** @param {Message} message */
  #receive(message) {
    if (message.t === "snapshot" || message.t === "error") this.#unanswered = 0;
    if (message.t === "hello" || message.t === "state") this.#clockOffset = message.now / 1000 - Date.now();
    if (this.#link.state !== "open") {
      this.#attempt = 0;
      this.#tell("open", null);
    }
    this.onMessage(message);
  }

  #heard() {
    clearTimeout(this.#silenceTimer);
    this.#silenceTimer = setTimeout(() => this.#lost(false), SILENCE_MS);
  }

  /** @param {boolean} refused */
  #lost(refused) {
    this.#drop();
    if (!this.#running) return;
    const longest = Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** this.#attempt);
    this.#attempt = Math.min(this.#attempt + 1, 10);
    const wait = refused ? REFUSED_RETRY_MS : longest / 2 + (Math.random() * longest) / 2;
    this.#tell(refused ? "refused" : "lost", Date.now() + wait);
    this.#retryTimer = setTimeout(() => this.#connect(), wait);
  }

  #drop() {
    clearTimeout(this.#silenceTimer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  /**
   * @param {Link["state"]} state
   * @param {number | null} retryAt
   */
  #tell(state, retryAt) {
    // While tries follow each other, the connection is lost since the first of them, and stays so until one is through.
    const before = this.#link;
    const still = before.state === state || (before.state !== "open" && state !== "open");
    const shown = state === "connecting" && before.state !== "open" && before.retryAt !== null ? before.state : state;
    this.#link = { state: shown, since: still ? before.since : Date.now(), retryAt };
    this.onLink(this.#link);
  }
}

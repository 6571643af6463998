/**
 * Gaps of the feed, drawn as what they are: a stretch of time behind the candles, in every pane. Lost: red and crossed
 * out; open: amber hatching, up to now; repaired: faint grey. A bar along the top is there even where a gap is a hair.
 */

import { faded } from "./palette.js";
import { duration } from "./format.js";
import { t } from "./i18n.js";

/** @typedef {import("./protocol.js").Gap} Gap */
/** @typedef {import("./palette.js").Palette} Palette */
/** @typedef {import("./timeline.js").Timeline} Timeline */
/** @typedef {import("./vendor/lightweight-charts/lightweight-charts.js").IChartApiBase<import("./vendor/lightweight-charts/lightweight-charts.js").Time>} Chart */
/** @typedef {import("./vendor/lightweight-charts/lightweight-charts.js").SeriesAttachedParameter<import("./vendor/lightweight-charts/lightweight-charts.js").Time>} Attached */
/** @typedef {import("./vendor/lightweight-charts/lightweight-charts.js").Logical} Logical */
/** @typedef {Parameters<import("./vendor/lightweight-charts/lightweight-charts.js").IPrimitivePaneRenderer["draw"]>[0]} Target */

/** What is behind lies first. */
const ORDER = /** @type {const} */ (["repaired", "open", "lost"]);
const NARROWEST = 2;
/** Narrower, there is no room for lines: a stronger colour instead. CSS pixels. */
const HATCHED_FROM = 6;
const LABEL_FROM = 64;

/** The gaps of a symbol, by when they began: what comes of the same one later replaces it. */
export class Gaps {
  /** @type {Map<number, Gap>} */
  #held = new Map();
  /** In the order in which they are drawn. @type {Gap[]} */
  #sorted = [];

  /** @param {Gap[]} gaps */
  reset(gaps) {
    this.#held.clear();
    this.add(gaps);
  }

  /** @param {Gap[]} gaps */
  add(gaps) {
    for (const gap of gaps) this.#held.set(gap.from, gap);
    this.#sorted = [...this.#held.values()].sort((a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state) || a.from - b.from);
  }

  /** @returns {readonly Gap[]} in the order in which they are drawn */
  all() {
    return this.#sorted;
  }

  /** @returns {boolean} whether one goes on until now */
  get isOpenEnded() {
    return this.#sorted.some((gap) => gap.to === null);
  }

  /**
   * The gaps that overlap a window, the worst first.
   * @param {number} from µs
   * @param {number} to µs, exclusive
   * @returns {Gap[]}
   */
  within(from, to) {
    return this.#sorted.filter((gap) => gap.from < to && (gap.to === null || gap.to > from || gap.from >= from)).reverse();
  }
}

/** Draws them in one pane. */
export class GapShading {
  /** @type {Chart | null} */
  #chart = null;
  /** @type {(() => void) | null} */
  #redraw = null;

  /**
   * @param {object} source
   * @param {() => readonly Gap[]} source.gaps
   * @param {() => Timeline} source.timeline
   * @param {() => number} source.now µs
   * @param {() => Palette} source.palette
   * @param {boolean} source.labels
   */
  constructor(source) {
    this.source = source;
    const renderer = { draw: () => {}, drawBackground: (/** @type {Target} */ target) => this.#draw(target) };
    const view = { zOrder: () => /** @type {const} */ ("bottom"), renderer: () => renderer };
    this.views = [view];
  }

  /** @param {Attached} attached */
  attached({ chart, requestUpdate }) {
    this.#chart = chart;
    this.#redraw = requestUpdate;
  }

  detached() {
    this.#chart = null;
    this.#redraw = null;
  }

  paneViews() {
    return this.views;
  }

  refresh() {
    this.#redraw?.();
  }

  /**
   * Where a time is, in CSS pixels from the left of the pane.
   * @param {number} time µs
   * @returns {number | null}
   */
  xOf(time) {
    const scale = this.#chart?.timeScale();
    const first = scale?.logicalToCoordinate(/** @type {Logical} */ (0)) ?? null;
    if (!scale || first === null) return null;
    // The coordinate of a window is its middle.
    return first + (this.source.timeline().placeOf(time) - 0.5) * scale.options().barSpacing;
  }

  /** @param {Target} target */
  #draw(target) {
    const { gaps, now, palette, labels } = this.source;
    const colors = palette();
    target.useBitmapCoordinateSpace(({ context, bitmapSize, mediaSize, horizontalPixelRatio: ratio }) => {
      // Where nothing is held yet nothing is said either: a gap may reach back to the beginning of time.
      const oldest = this.source.timeline().timeAt(0);
      for (const gap of gaps()) {
        const end = gap.to ?? Math.max(now(), gap.from);
        if (end <= oldest) continue;
        const left = this.xOf(Math.max(gap.from, oldest));
        const right = this.xOf(end);
        if (left === null || right === null || right < 0 || left > mediaSize.width) continue;
        const from = Math.round(Math.max(left, -2) * ratio);
        const to = Math.max(Math.round(Math.min(right, mediaSize.width + 2) * ratio), from + Math.round(NARROWEST * ratio));
        shade(context, gap, from, to - from, bitmapSize.height, ratio, colors);
        if (labels && (to - from) / ratio >= LABEL_FROM) label(context, gap, from, to - from, ratio, now(), colors);
      }
    });
  }
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Gap} gap
 * @param {number} x
 * @param {number} width
 * @param {number} height
 * @param {number} ratio
 * @param {Palette} colors
 */
function shade(context, gap, x, width, height, ratio, colors) {
  const color = colorOf(gap, colors);
  context.save();
  context.beginPath();
  context.rect(x, 0, width, height);
  context.clip();
  const isHair = width < HATCHED_FROM * ratio;
  context.fillStyle = faded(color, gap.state === "repaired" ? 0.07 : isHair ? 0.5 : 0.14);
  context.fillRect(x, 0, width, height);
  if (gap.state !== "repaired" && !isHair) {
    context.strokeStyle = faded(color, gap.state === "open" ? 0.4 : 0.28);
    context.lineWidth = ratio;
    const step = Math.round(9 * ratio);
    context.beginPath();
    // Lines stand still on the page while a gap grows, so they are counted from the left of the pane.
    for (let at = Math.floor((x - height) / step) * step; at < x + width; at += step) {
      context.moveTo(at, height);
      context.lineTo(at + height, 0);
    }
    if (gap.state === "lost") {
      for (let at = Math.floor(x / step) * step; at < x + width + height; at += step) {
        context.moveTo(at, height);
        context.lineTo(at - height, 0);
      }
    }
    context.stroke();
  }
  context.fillStyle = gap.state === "repaired" ? faded(color, 0.7) : color;
  context.fillRect(x, 0, width, Math.round((gap.state === "repaired" ? 2 : 3) * ratio));
  context.restore();
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Gap} gap
 * @param {number} x
 * @param {number} width
 * @param {number} ratio
 * @param {number} now
 * @param {Palette} colors
 */
function label(context, gap, x, width, ratio, now, colors) {
  const name = t(`gap.${gap.state}`);
  const long = `${name} · ${duration((gap.to ?? now) - gap.from)}`;
  context.save();
  context.font = `600 ${11 * ratio}px ${colors.font}`;
  context.textBaseline = "top";
  const text = context.measureText(long).width + 12 * ratio <= width ? long : name;
  const room = context.measureText(text).width;
  if (room + 8 * ratio <= width) {
    const left = Math.max(x, 0) + 6 * ratio;
    context.fillStyle = faded(colors.ground, 0.8);
    context.fillRect(left - 3 * ratio, 7 * ratio, room + 6 * ratio, 16 * ratio);
    context.fillStyle = colorOf(gap, colors);
    context.fillText(text, left, 10 * ratio);
  }
  context.restore();
}

/**
 * @param {Gap} gap
 * @param {Palette} colors
 * @returns {string}
 */
function colorOf(gap, colors) {
  if (gap.state === "lost") return colors.gapLost;
  return gap.state === "open" ? colors.gapOpen : colors.gapRepaired;
}

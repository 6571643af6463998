/** The colours of theme.css for what is drawn on a canvas. */

/**
 * @typedef {Record<"ground" | "panel" | "text" | "muted" | "faint" | "line" | "lineStrong" | "grid" | "crosshair" | "raised" |
 *   "hover" | "accent" | "up" | "down" | "corrected" | "gapLost" | "gapOpen" | "gapRepaired", string> & {averages: string[], font: string}} Palette
 */

/** @returns {Palette} as the theme is just now */
export function palette() {
  const style = getComputedStyle(document.documentElement);
  const of = (/** @type {string} */ name) => style.getPropertyValue(`--${name}`).trim();
  return {
    ground: of("ground"),
    panel: of("panel"),
    text: of("text"),
    muted: of("muted"),
    faint: of("faint"),
    line: of("line"),
    lineStrong: of("line-strong"),
    grid: of("grid"),
    crosshair: of("crosshair"),
    raised: of("raised"),
    hover: of("hover"),
    accent: of("accent"),
    up: of("up"),
    down: of("down"),
    corrected: of("corrected"),
    gapLost: of("gap-lost"),
    gapOpen: of("gap-open"),
    gapRepaired: of("gap-repaired"),
    averages: [1, 2, 3, 4].map((nth) => of(`average-${nth}`)),
    font: of("font"),
  };
}

/**
 * A colour `#rrggbb` that lets through what is behind it.
 * @param {string} color
 * @param {number} alpha 0 to 1
 * @returns {string}
 */
export function faded(color, alpha) {
  return color + Math.round(alpha * 255).toString(16).padStart(2, "0");
}

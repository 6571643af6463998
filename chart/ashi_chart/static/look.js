/** What lightweight-charts is told of how things look. */

import { CrosshairMode, LineStyle, PriceScaleMode } from "./vendor/lightweight-charts/lightweight-charts.js";
import { compact, percent } from "./format.js";

/** @typedef {import("./palette.js").Palette} Palette */
/** @typedef {import("./vendor/lightweight-charts/lightweight-charts.js").Time} Time */
/** @typedef {{locale: string, mark: (time: Time, type: number) => string, crosshair: (time: Time) => string}} Texting */

export const SCALES = {
  linear: PriceScaleMode.Normal,
  log: PriceScaleMode.Logarithmic,
  percent: PriceScaleMode.Percentage,
};

/**
 * @param {Palette} colors
 * @param {Texting} texting
 */
export function chartOptions(colors, texting) {
  const crosshairLine = { color: colors.crosshair, labelBackgroundColor: colors.lineStrong, style: LineStyle.Dashed, width: /** @type {1} */ (1) };
  return {
    autoSize: true,
    layout: {
      background: { color: colors.ground },
      textColor: colors.muted,
      fontFamily: colors.font,
      fontSize: 11,
      // Its logo would bring a style sheet of its own, which the page's security policy refuses. The page names
      // TradingView, with a link, in its status line instead.
      attributionLogo: false,
      panes: { separatorColor: colors.line, separatorHoverColor: colors.hover, enableResize: true },
    },
    grid: { vertLines: { color: colors.grid }, horzLines: { color: colors.grid } },
    rightPriceScale: { borderColor: colors.line, scaleMargins: { top: 0.1, bottom: 0.08 } },
    timeScale: { borderColor: colors.line, minBarSpacing: 0.05, rightOffset: 6, barSpacing: 7, tickMarkFormatter: texting.mark, shiftVisibleRangeOnNewBar: true },
    crosshair: { mode: CrosshairMode.Normal, vertLine: crosshairLine, horzLine: crosshairLine },
    localization: { locale: texting.locale, timeFormatter: texting.crosshair, percentageFormatter: (/** @type {number} */ value) => percent(value / 100) },
    hoveredSeriesOnTop: false,
    kineticScroll: { touch: true, mouse: false },
  };
}

export const seriesOptions = {
  volume: {
    priceFormat: { type: /** @type {const} */ ("custom"), formatter: compact, minMove: 1e-8 },
    lastValueVisible: false,
    priceLineVisible: false,
  },
  average: {
    lineWidth: /** @type {1} */ (1),
    lastValueVisible: false,
    priceLineVisible: false,
    crosshairMarkerVisible: false,
  },
};

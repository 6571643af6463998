/** A line of closes, drawn small. */

const WIDTH = 96;
const HEIGHT = 24;
const SVG = "http://www.w3.org/2000/svg";

/** An empty line, for `drawSpark`. It is hidden from screen readers: the change beside it says what it shows. */
export function makeSpark() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "spark");
  svg.append(document.createElementNS(SVG, "polyline"));
  return svg;
}

/**
 * @param {SVGElement} svg
 * @param {?(string | number | null)[]} closes  oldest first, evenly spaced; null where there is none
 */
export function drawSpark(svg, closes) {
  svg.firstElementChild.setAttribute("points", sparkPoints(closes ?? []));
}

/** The points of the line; nothing of fewer than two closes. A market that stands still is a line in the middle. */
export function sparkPoints(closes) {
  const values = closes.map((close) => (close === null ? null : Number(close)));
  const known = values.filter((value) => value !== null);
  if (known.length < 2) {
    return "";
  }
  const least = Math.min(...known);
  const range = Math.max(...known) - least;
  const step = WIDTH / (values.length - 1);
  return values
    .map((value, index) => {
      if (value === null) {
        return null;
      }
      const share = range === 0 ? 0.5 : (value - least) / range;
      return `${round(index * step)},${round(1 + (1 - share) * (HEIGHT - 2))}`;
    })
    .filter((point) => point !== null)
    .join(" ");
}

function round(value) {
  return Math.round(value * 10) / 10;
}

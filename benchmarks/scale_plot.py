"""The plot of `scale.py`: a small SVG, by hand, as there are only lines in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from itertools import pairwise

WIDTH, HEIGHT = 300, 190
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 34, 30
ACROSS = 3
HEAD = 34
COLOURS = ("#b0b0b0", "#1f6fb4", "#d1701f", "#3a8f3a")
INK, GRID, PAPER = "#333333", "#e4e4e4", "#ffffff"

Point = tuple[float, float]


def _live(result: dict, place: int, field: str) -> float | None:
    return result["live"][place][field] if result["live"] else None


PANELS: tuple[tuple[str, Callable[[dict], float | None]], ...] = (
    ("CPU for a trade, µs", lambda each: each["cpu_us_per_trade"]),
    ("candles/s", lambda each: each["candles_per_second"]),
    ("memory, MB", lambda each: max([each["memory_mb"], *(live["memory_last_mb"] for live in each["live"])])),
    ("SIGKILL to ready, s", lambda each: each["ready_s"]),
    ("close delay p99, first rate, ms", lambda each: _live(each, 0, "delay_p99_ms")),
    ("state KB/s, last rate", lambda each: _scaled(_live(each, -1, "state_bytes_per_second"), 1e-3)),
)


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """The powers of ten that hold all values."""
    least, most = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return least, max(most, least + 1)


def _number(value: float) -> str:
    if value >= 1_000:
        return f"{value / 1_000:.0f}k" if value >= 10_000 else f"{value / 1_000:.1f}k"
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


class _Panel:
    """One diagram, both axes logarithmic."""

    def __init__(self, left: float, top: float, xs: Sequence[float], ys: Sequence[float]) -> None:
        self._left, self._top = left, top
        self._x, self._y = _decades(xs), _decades(ys)

    def x(self, value: float) -> float:
        least, most = self._x
        return self._left + LEFT + (math.log10(value) - least) / (most - least) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        least, most = self._y
        return self._top + HEIGHT - BOTTOM - (math.log10(value) - least) / (most - least) * (HEIGHT - TOP - BOTTOM)

    def frame(self, title: str) -> list[str]:
        """Title, grid and scales."""
        lines = [_text(self._left + LEFT, self._top + TOP - 12, title, weight="bold")]
        x_least, x_most = self._x
        y_least, y_most = self._y
        for power in range(y_least, y_most + 1):
            y = self.y(10.0**power)
            lines.append(_line((self.x(10.0**x_least), y), (self.x(10.0**x_most), y), GRID))
            lines.append(_text(self._left + LEFT - 6, y + 4, _number(10.0**power), anchor="end"))
        for power in range(x_least, x_most + 1):
            x = self.x(10.0**power)
            lines.append(_line((x, self.y(10.0**y_least)), (x, self.y(10.0**y_most)), GRID))
            lines.append(_text(x, self._top + HEIGHT - BOTTOM + 16, _number(10.0**power), anchor="middle"))
        return lines

    def series(self, points: Sequence[Point], colour: str, above: bool) -> list[str]:
        """A line through the points, each with its value."""
        lines = [
            _line((self.x(one[0]), self.y(one[1])), (self.x(two[0]), self.y(two[1])), colour, 2)
            for one, two in pairwise(points)
        ]
        for x, y in points:
            lines.append(f'<circle cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="3" fill="{colour}"/>')
            lines.append(
                _text(self.x(x), self.y(y) + (-7 if above else 15), _number(y), anchor="middle", colour=colour, size=10)
            )
        return lines


def _line(begin: Point, end: Point, colour: str, width: float = 1) -> str:
    return (
        f'<line x1="{begin[0]:.1f}" y1="{begin[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" '
        f'stroke="{colour}" stroke-width="{width}"/>'
    )


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", colour: str = INK, size: int = 11, weight: str = "normal"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="{colour}">{escape(text)}</text>'
    )


def draw(results: Sequence[dict]) -> str:
    """A panel for each thing measured, over the number of symbols; a line for each version."""
    versions = list(dict.fromkeys(each["version"] for each in results))
    colours = dict(zip(versions, COLOURS if len(versions) > 1 else COLOURS[1:], strict=False))
    body: list[str] = []
    for place, version in enumerate(versions):
        body.append(_text(LEFT + 150 * place, 22, f"● {version}", colour=colours[version], size=13, weight="bold"))
    body.append(_text(ACROSS * WIDTH - RIGHT, 22, "over the number of symbols", anchor="end"))
    drawn = 0
    for title, value_of in PANELS:
        points = {
            version: [
                (float(each["symbols"]), float(value))
                for each in results
                if each["version"] == version and (value := value_of(each))
            ]
            for version in versions
        }
        every = [point for each in points.values() for point in each]
        if not every:
            continue
        row, column = divmod(drawn, ACROSS)
        panel = _Panel(column * WIDTH, HEAD + row * HEIGHT, [x for x, _ in every], [y for _, y in every])
        body += panel.frame(title)
        for number, version in enumerate(versions):
            body += panel.series(points[version], colours[version], above=number == 0)
        drawn += 1
    height = HEAD + math.ceil(drawn / ACROSS) * HEIGHT
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {ACROSS * WIDTH} {height}" '
            f'width="{ACROSS * WIDTH}" height="{height}" font-family="sans-serif">',
            f'<rect width="100%" height="100%" fill="{PAPER}"/>',
            *body,
            "</svg>\n",
        ]
    )

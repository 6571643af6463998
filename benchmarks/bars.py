"""The plot of `side_by_side.py`: bars, longer by powers of ten, as a small SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, ROW, TOP, NAMES, BAR = 900, 22, 40, 130, 290
PANELS = (("trades/s", "trades_per_second", "{:,.0f}"), ("CPU for a trade, µs", "cpu_us_per_trade", "{:,.2f}"))
INK, PAPER, OWN, OTHER, WRONG = "#333333", "#ffffff", "#1f6fb4", "#b0b0b0", "#d1701f"


def _text(x: float, y: float, text: str, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="12" font-weight="{weight}" text-anchor="{anchor}" fill="{INK}">'
        f"{escape(text)}</text>"
    )


def draw(rows: Sequence[Mapping[str, Any]]) -> str:
    """A bar for each engine in each panel; the longest is at the top. Orange: of wrong or missing candles."""
    rows = sorted(rows, key=lambda row: -row["trades_per_second"])
    height = TOP + ROW * len(rows) + 10
    body = [_text(NAMES - 8, TOP + ROW * number + 15, row["engine"], "end") for number, row in enumerate(rows)]
    for place, (title, field, form) in enumerate(PANELS):
        left = NAMES + place * (BAR + 95)
        body.append(_text(left, 24, title, weight="bold"))
        if not rows:
            continue
        least = math.floor(math.log10(min(row[field] for row in rows)))
        most = math.log10(max(row[field] for row in rows))
        for number, row in enumerate(rows):
            length = max(2.0, BAR * (math.log10(row[field]) - least) / max(most - least, 1e-9))
            colour = OWN if row["engine"].startswith("ashi") else WRONG if row["wrong"] or row["missing"] else OTHER
            y = TOP + ROW * number
            body.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{ROW - 5}" fill="{colour}"/>')
            body.append(_text(left + length + 5, y + 13, form.format(row[field])))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
            f'height="{height}" font-family="sans-serif">',
            f'<rect width="100%" height="100%" fill="{PAPER}"/>',
            *body,
            "</svg>\n",
        ]
    )

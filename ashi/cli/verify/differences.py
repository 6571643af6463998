"""Differences between candles and what they are compared with: how they are kept, explained and printed."""

from __future__ import annotations

import json
import sys
from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple

from ashi.cli.show import format_time
from ashi.contracts.candle import Candle
from ashi.contracts.decimals import format_decimal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import Console

SHOWN: Final = 100
"""Rows of a table; all of them with --json."""
CONTENT: Final = tuple(
    field for field in Candle.__struct_fields__ if field not in {"symbol", "timeframe", "open_time", "version"}
)
WHOLE: Final = "candle"
"""In place of a field, where one of the two candles is not there."""
NONE: Final = "-"


class Difference(NamedTuple):
    """One field of one candle that is not as it should be.

    Attributes:
        field: of the message, or `candle` where one of the two is missing.
        stored: what the store has; `expected` what it is compared with. As text, `-` for nothing.
        why: why it may differ; empty when nothing is known.
        explained: the reason is known to be this one, and it is no fault of the candle.

    """

    symbol: str
    timeframe: str
    open_time: int
    field: str
    stored: str
    expected: str
    why: str
    explained: bool


def same_content(one: Candle, other: Candle) -> bool:
    """Whether two candles of one window have the same content, whatever their versions."""
    return all(getattr(one, field) == getattr(other, field) for field in CONTENT)


def text_of(value: Decimal | str | int | None) -> str:
    """A field as text; a missing value is a dash."""
    if value is None:
        return NONE
    return format_decimal(value) if isinstance(value, Decimal) else str(value)


def trades_text(count: int) -> str:
    """`1 trade`, `2 trades`."""
    return f"{count:,} trade" if count == 1 else f"{count:,} trades"


def field_differences(stored: Candle, expected: Candle, why: str, *, explained: bool) -> Iterator[Difference]:
    """A difference for each field that differs, versions aside."""
    for field in CONTENT:
        mine, other = getattr(stored, field), getattr(expected, field)
        if mine != other:
            yield Difference(
                stored.symbol,
                stored.timeframe,
                stored.open_time,
                field,
                text_of(mine),
                text_of(other),
                why,
                explained=explained,
            )


class Report:
    """Takes differences as they are found, and says in the end how it is."""

    def __init__(self, console: Console, *, expected: str, as_json: bool) -> None:
        """`expected`: the heading of what the store is compared with. With `as_json` each goes to stdout as a line."""
        self._console = console
        self._expected = expected
        self._json = as_json
        self._shown: list[Difference] = []
        self._hidden = 0
        self.counts: Counter[str] = Counter()
        self.notes: list[str] = []

    def add(self, differences: Iterable[Difference]) -> None:
        """Take the differences of one candle."""
        explained = True
        some = False
        for one in differences:
            some = True
            explained = explained and one.explained
            if self._json:
                print(json.dumps(one._asdict()))
            elif len(self._shown) < SHOWN:
                self._shown.append(one)
            else:
                self._hidden += 1
        if some:
            self.counts["explained" if explained else "different"] += 1

    def note(self, sentence: str) -> None:
        """Something that whoever reads the result must know."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def finish(self) -> int:
        """Print the table and the summary; the exit status: 1 when something differs and is not explained."""
        counts = {name: self.counts[name] for name in ("compared", "explained", "different", "open")}
        status = 1 if counts["different"] else 0
        if self._json:
            print(json.dumps({"summary": {**counts, "notes": self.notes, "equal": not status}}))
            return status
        if self._shown:
            show_differences(self._console, self._shown, self._expected)
        if self._hidden:
            print(f"and {self._hidden:,} more rows; --json has all", file=sys.stderr)
        for sentence in self.notes:
            print(f"note: {sentence}", file=sys.stderr)
        not_yet = f", {counts['open']:,} still open or not final" if counts["open"] else ""
        print(
            f"{counts['compared']:,} candles compared: {counts['different']:,} differ, "
            f"{counts['explained']:,} differ as explained{not_yet}"
        )
        return status


def show_differences(
    console: Console, differences: Iterable[Difference], expected: str, stored: str = "stored"
) -> None:
    """Print them as a table in plain lines; `expected` and `stored` head the two values."""
    header = ("symbol", "timeframe", "open time (UTC)", "field", stored, expected, "why")
    rows = [
        (
            one.symbol,
            one.timeframe,
            format_time(one.open_time),
            one.field,
            one.stored,
            one.expected,
            f"explained: {one.why}" if one.explained else one.why,
        )
        for one in differences
    ]
    widths = [max(len(row[place]) for row in (header, *rows)) for place in range(len(header) - 1)]
    for row in (header, *rows):
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)]
        console.out("  ".join([*cells, row[-1]]).rstrip(), highlight=False)

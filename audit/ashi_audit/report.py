"""Differences between candles and what they are compared with: how they are kept, explained and printed."""

from __future__ import annotations

import json
import sys
from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple

from ashi.contracts.candle import Candle
from ashi.contracts.decimals import format_decimal
from ashi.contracts.timeframe import Timeframe, format_time
from ashi.runtime.words import counted

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


def same_content(candle: Candle, other: Candle) -> bool:
    """Whether two candles of one window have the same content, whatever their versions."""
    return all(getattr(candle, field) == getattr(other, field) for field in CONTENT)


def excused(differences: list[Difference], why: str | None) -> list[Difference]:
    """The differences of a candle, each explained by `why`, unless it is already or that is None."""
    if why is None:
        return differences
    return [
        difference if difference.explained else difference._replace(why=why, explained=True)
        for difference in differences
    ]


def text_of(value: Decimal | str | int | None) -> str:
    """A field as text; a missing value is a dash."""
    if value is None:
        return NONE
    return format_decimal(value) if isinstance(value, Decimal) else str(value)


def field_differences(stored: Candle, expected: Candle, why: str, *, explained: bool) -> Iterator[Difference]:
    """A difference for each field that differs, versions aside."""
    for field in CONTENT:
        has, should_have = getattr(stored, field), getattr(expected, field)
        if has != should_have:
            yield Difference(
                stored.symbol,
                stored.timeframe,
                stored.open_time,
                field,
                text_of(has),
                text_of(should_have),
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
        all_explained = True
        differs = False
        for difference in differences:
            differs = True
            all_explained = all_explained and difference.explained
            if self._json:
                print(json.dumps(difference._asdict()))
            else:
                self._shown.append(difference)
        if len(self._shown) > 20 * SHOWN:
            self._keep_first()
        if differs:
            self.counts["explained" if all_explained else "different"] += 1

    def _keep_first(self) -> None:
        """Partitions come one after the other: only in the end is it known which rows are the first."""
        self._shown.sort(key=_place)
        self._hidden += len(self._shown[SHOWN:])
        del self._shown[SHOWN:]

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
        self._keep_first()
        if self._shown:
            show_differences(self._console, self._shown, self._expected)
        if self._hidden:
            print(f"and {self._hidden:,} more rows; --json has all", file=sys.stderr)
        for sentence in self.notes:
            print(f"note: {sentence}", file=sys.stderr)
        not_yet = f", {counts['open']:,} still open or not final" if counts["open"] else ""
        print(
            f"{counted(counts['compared'], 'candle')} compared: {_differ(counts['different'])}, "
            f"{_differ(counts['explained'])} as explained{not_yet}"
        )
        return status


def _differ(count: int) -> str:
    return f"{count:,} differs" if count == 1 else f"{count:,} differ"


def _place(row: Difference) -> tuple[str, int, int]:
    """Where a row stands: those of one candle, which come in the order of its fields, stay together."""
    return row.symbol, Timeframe.parse(row.timeframe).length_us, row.open_time


def show_differences(
    console: Console, differences: Iterable[Difference], expected: str, stored: str = "stored"
) -> None:
    """Print them as a table in plain lines; `expected` and `stored` head the two values.

    What may be the reason stands once for each candle, and only where there is any.
    """
    header: tuple[str, ...] = ("symbol", "timeframe", "open time (UTC)", "field", stored, expected, "why")
    lines: list[tuple[str, ...]] = []
    before: tuple[object, ...] = ()
    for row in differences:
        why = f"explained: {row.why}" if row.explained else row.why
        reason = (row.symbol, row.timeframe, row.open_time, why)
        cells = (row.symbol, row.timeframe, format_time(row.open_time), row.field, row.stored, row.expected)
        lines.append((*cells, "" if reason == before else why))
        before = reason
    if not any(line[-1] for line in lines):
        header, lines = header[:-1], [line[:-1] for line in lines]
    widths = [max(len(line[place]) for line in (header, *lines)) for place in range(len(header))]
    for line in (header, *lines):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        console.out(text.rstrip(), highlight=False)

"""Candles for people and for spreadsheets: tables with times in UTC, and CSV with the fields of the message.

A mark says that trades may be missing from a candle: the state of the feed gap that it overlaps, or that the feed has
not been checked up to its end. It is empty when the candle is complete, or when nothing is known of the feed.
"""

from __future__ import annotations

import csv
from typing import IO, TYPE_CHECKING, Final

from ashi.contracts.candle import Candle, candle_fields
from ashi.contracts.decimals import format_decimal
from ashi.contracts.timeframe import MINUTE_US, format_time
from ashi.contracts.venue_candle import source_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

COLUMNS: Final = ("open time (UTC)", "open", "high", "low", "close", "volume", "trades")
OPEN_MARK: Final = "open"
GAP_COLUMN: Final = "gap"
UNCHECKED: Final = "unchecked"
GAP_MEANINGS: Final = {
    "open": "the feed was interrupted and what was missed is not fetched yet; the candle may still change",
    "lost": "trades may be missing: they could not be fetched, or came too late for it (see `ashi status`)",
    UNCHECKED: "the feed has not been checked up to the candle's end yet; the candle may still change",
}
"""The marks, and what each says of its candle."""
CSV_GAP_COLUMN: Final = "feed_gap"
SOURCE_COLUMN: Final = "source"


def show_candles(
    console: Console,
    candles: Sequence[Candle],
    still_open: Sequence[Candle] = (),
    *,
    marks: Sequence[str] = (),
    with_source: bool = False,
) -> None:
    """Print a table: closed candles, then open ones, marked as such. Plain lines where it is no terminal.

    `marks` are those of `candles`; if there is any, they get a column, and what they mean is said below the table.
    `with_source`: a column says what each was made by.
    """
    header: tuple[str, ...] = COLUMNS
    rows = [_row(candle) for candle in (*candles, *still_open)]
    if with_source:
        header = (*header, SOURCE_COLUMN)
        rows = [(*row, source_of(candle)) for row, candle in zip(rows, (*candles, *still_open), strict=True)]
    if any(marks):
        header = (*header, GAP_COLUMN)
        rows = [(*row, mark) for row, mark in zip(rows, (*marks, *("" for _ in still_open)), strict=True)]
    if still_open:
        header = (*header, "")
        rows = [(*row, OPEN_MARK if place >= len(candles) else "") for place, row in enumerate(rows)]
    if console.is_terminal:
        _show_on_terminal(console, header, rows, dim_from=len(candles))
    else:
        _show_as_lines(console, [header, *rows])
    for mark, meaning in GAP_MEANINGS.items():
        if mark in marks:
            console.print(f"{GAP_COLUMN} {mark}: {meaning}", highlight=False, soft_wrap=not console.is_terminal)


class CandleLines:
    """A table that goes on: plain lines, whose columns are as wide as the first ones need. With the column of marks."""

    def __init__(self, console: Console, *, with_source: bool = False) -> None:
        self._console = console
        self._with_source = with_source
        self._widths: list[int] = []

    def show(self, candles: Sequence[Candle], marks: Sequence[str]) -> None:
        """Print these after those before."""
        extra = [(source_of(candle),) if self._with_source else () for candle in candles]
        rows = [(*_row(candle), *more, mark) for candle, more, mark in zip(candles, extra, marks, strict=True)]
        column = (SOURCE_COLUMN,) if self._with_source else ()
        header = [] if self._widths else [(*COLUMNS, *column, GAP_COLUMN)]
        self._widths = _show_as_lines(self._console, [*header, *rows], self._widths)


def _show_as_lines(console: Console, rows: Sequence[Sequence[str]], least: Sequence[int] = ()) -> list[int]:
    """Print rows below each other, the columns at least so wide; gives how wide they are."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    widths = [max(pair) for pair in zip(widths, least, strict=True)] if least else widths
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        console.out("  ".join([row[0].ljust(widths[0]), *cells]).rstrip(), highlight=False)
    return widths


def _show_on_terminal(console: Console, header: Sequence[str], rows: Iterable[Sequence[str]], dim_from: int) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in header:
        # A number that is cut would be a wrong number, so a narrow terminal gets it on two lines.
        table.add_column(name, justify="left" if name == COLUMNS[0] else "right", overflow="fold")
    for place, row in enumerate(rows):
        table.add_row(*row, style="dim" if place >= dim_from else None)
    console.print(table)


def _row(candle: Candle) -> tuple[str, ...]:
    prices = (candle.open, candle.high, candle.low, candle.close, candle.volume)
    time = format_time(candle.open_time, with_seconds=bool(candle.open_time % MINUTE_US))
    return (time, *(format_decimal(value) for value in prices), f"{candle.trade_count:,}")


def write_csv_header(file: IO[str], *, with_source: bool = False) -> None:
    """The names of the message's fields, of the mark, and of the source if it is wanted."""
    source = [SOURCE_COLUMN] if with_source else []
    csv.writer(file, lineterminator="\n").writerow([*Candle.__struct_fields__, CSV_GAP_COLUMN, *source])


def write_csv_rows(
    file: IO[str], candles: Iterable[Candle], marks: Iterable[str], *, with_source: bool = False
) -> None:
    """The values of the message: times in µs, decimals in plain notation, an empty field for null; then the mark."""
    csv.writer(file, lineterminator="\n").writerows(
        [*candle_fields(candle).values(), mark, *([source_of(candle)] if with_source else [])]
        for candle, mark in zip(candles, marks, strict=True)
    )

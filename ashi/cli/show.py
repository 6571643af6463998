"""Candles for people and for spreadsheets: tables with times in UTC, and CSV with the fields of the message."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Final

from ashi.contracts.candle import Candle, candle_fields
from ashi.contracts.decimals import format_decimal
from ashi.contracts.timeframe import MICROSECONDS_PER_UNIT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

COLUMNS: Final = ("open time (UTC)", "open", "high", "low", "close", "volume", "trades")
OPEN_MARK: Final = "open"


def show_candles(console: Console, candles: Sequence[Candle], still_open: Sequence[Candle] = ()) -> None:
    """Print a table: closed candles, then open ones, marked as such. Plain lines where it is no terminal."""
    rows = [_row(candle) for candle in candles] + [(*_row(candle), OPEN_MARK) for candle in still_open]
    header = (*COLUMNS, "") if still_open else COLUMNS
    rows = [row + ("",) * (len(header) - len(row)) for row in rows]
    if console.is_terminal:
        _show_on_terminal(console, header, rows)
        return
    widths = [max(len(row[place]) for row in (header, *rows)) for place in range(len(header))]
    for row in (header, *rows):
        cells = [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True)]
        line = "  ".join([row[0].ljust(widths[0]), *cells, row[-1].rjust(widths[-1])])
        console.out(line.rstrip(), highlight=False)


def _show_on_terminal(console: Console, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in header:
        # A number that is cut would be a wrong number, so a narrow terminal gets it on two lines.
        table.add_column(name, justify="left" if name == COLUMNS[0] else "right", overflow="fold")
    for row in rows:
        table.add_row(*row, style="dim" if row[-1] == OPEN_MARK else None)
    console.print(table)


def _row(candle: Candle) -> tuple[str, ...]:
    prices = (candle.open, candle.high, candle.low, candle.close, candle.volume)
    time = format_time(candle.open_time, with_seconds=bool(candle.open_time % MICROSECONDS_PER_UNIT["m"]))
    return (time, *(format_decimal(value) for value in prices), f"{candle.trade_count:,}")


def format_time(time_us: int, *, with_seconds: bool = True) -> str:
    """`2024-08-09 00:01:00` in UTC, of a time in µs since the epoch."""
    time = datetime.fromtimestamp(time_us // 1_000_000, UTC)
    return time.strftime("%Y-%m-%d %H:%M:%S" if with_seconds else "%Y-%m-%d %H:%M")


def write_csv_header(file: IO[str]) -> None:
    """The names of the message's fields."""
    csv.writer(file, lineterminator="\n").writerow(Candle.__struct_fields__)


def write_csv_rows(file: IO[str], candles: Iterable[Candle]) -> None:
    """The values of the message: times in µs, decimals in plain notation, an empty field for null."""
    csv.writer(file, lineterminator="\n").writerows(candle_fields(candle).values() for candle in candles)

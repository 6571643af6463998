"""`ashi candles`: one series out of a store, as a table or as CSV, with marks where trades may be missing."""

from __future__ import annotations

import asyncio
import sys
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import ContractError, UsageError
from ashi.contracts.timeframe import Timeframe
from ashi_cli.printing.tables import UNCHECKED, show_candles, write_csv_header, write_csv_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashi.contracts.candle import Candle
    from ashi_sinks.protocol import CandleReader

TABLE_ROWS: Final = 200
"""How many of the latest candles a table shows when no limit is given; CSV then has all."""
_CSV_CHUNK: Final = 1_000


def print_series(storage: str, symbol: str, timeframe: str, *, as_csv: bool, limit: int | None) -> int:
    """Print the candles of a series to stdout, the latest `limit` of them if given; the exit status.

    Raises UsageError for a series that the store has not, StorageError when there is no store.
    """
    return asyncio.run(_candles(storage, symbol, _canonical(timeframe), as_csv=as_csv, limit=limit))


def _canonical(timeframe: str) -> str:
    try:
        return str(Timeframe.parse(timeframe))  # 60s is stored as 1m
    except ContractError as error:
        raise UsageError(str(error)) from None


async def _candles(storage: str, symbol: str, timeframe: str, *, as_csv: bool, limit: int | None) -> int:
    from rich.console import Console

    from ashi_sinks.registry import open_reader

    async with open_reader(storage) as reader:
        await _check_series(reader, symbol, timeframe)
        if as_csv:
            await _write_csv(reader, symbol, timeframe, limit)
            return 0
        rows = limit or TABLE_ROWS
        candles = [candle async for candle in reader.read(symbol, timeframe, limit=rows)]
        marks = await _marks(reader, candles)
        stored = await reader.count(symbol, timeframe)
    show_candles(Console(), candles, marks=marks)
    if limit is None and stored > len(candles):
        print(f"the last {len(candles):,} of {stored:,}; --limit N shows more, --csv all", file=sys.stderr)
    return 0


async def _check_series(reader: CandleReader, symbol: str, timeframe: str) -> None:
    series = await reader.series()
    if (symbol, timeframe) in series:
        return
    if not series:
        raise UsageError("there are no candles in this store yet: run `ashi sink` on it while candles come")
    timeframes = [stored for name, stored in series if name == symbol]
    if timeframes:
        raise UsageError(f"there are no {timeframe} candles of {symbol}; there are {', '.join(timeframes)}")
    symbols = [name for name, _ in groupby(series, key=itemgetter(0))]
    raise UsageError(f"there are no candles of {symbol!r}; there are {', '.join(symbols)}")


async def _write_csv(reader: CandleReader, symbol: str, timeframe: str, limit: int | None) -> None:
    write_csv_header(sys.stdout)
    chunk = []
    async for candle in reader.read(symbol, timeframe, limit=limit):
        chunk.append(candle)
        if len(chunk) == _CSV_CHUNK:
            write_csv_rows(sys.stdout, chunk, await _marks(reader, chunk))
            chunk.clear()
    write_csv_rows(sys.stdout, chunk, await _marks(reader, chunk))


async def _marks(reader: CandleReader, candles: Sequence[Candle]) -> list[str]:
    """Why each candle of a series may lack trades: the state of an unrepaired gap, of several the lost one; unchecked.

    Where nothing was ever said of the feed, as after a replay of recordings, nothing is said here either.
    """
    from ashi.contracts.feed import is_complete, overlaps

    if not candles:
        return []
    gaps = await reader.gaps(candles[0].symbol, candles[0].open_time, candles[-1].close_time)
    unrepaired = sorted((gap for gap in gaps if gap.state != "repaired"), key=lambda gap: gap.state != "lost")
    status = await reader.status(candles[0].symbol)

    def mark(candle: Candle) -> str:
        window = candle.open_time, candle.close_time
        if status is not None and is_complete(*window, status.complete_until, unrepaired):
            return ""
        in_gap = next((gap.state for gap in unrepaired if overlaps(gap, *window)), None)
        return in_gap or ("" if status is None else UNCHECKED)

    return [mark(candle) for candle in candles]

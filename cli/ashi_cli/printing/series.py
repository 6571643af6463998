"""`ashi candles`: one series out of a store, as a table or as CSV, with marks where trades may be missing."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from ashi.contracts.errors import ContractError, UsageError
from ashi.contracts.timeframe import Timeframe, format_time
from ashi_cli.printing.symbols import NO_CANDLES
from ashi_cli.printing.tables import (
    UNCHECKED,
    CandleLines,
    show_candles,
    write_csv_header,
    write_csv_rows,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from rich.console import Console

    from ashi.contracts.candle import Candle
    from ashi_sinks.protocol import CandleReader

TABLE_ROWS: Final = 200
"""How many of the latest candles a table shows when no limit is given; CSV then has all."""
FOLLOWED_ROWS: Final = 200
"""Of so many candles, the latest, it is followed whether they are corrected."""
FOLLOW_INTERVAL_S: Final = 1.0
_CSV_CHUNK: Final = 1_000


class SeriesRequest(NamedTuple):
    """Which candles are wanted: those of [start, end), µs, and of them the latest `limit`."""

    symbol: str
    timeframe: str
    start: int | None = None
    end: int | None = None
    limit: int | None = None


class _Output(Protocol):
    """Where candles go, a few at a time."""

    def show(self, candles: Sequence[Candle], marks: Sequence[str]) -> None:
        """Print these after those before."""


def print_series(
    storage: str, wanted: SeriesRequest, *, source: str = "trades", as_csv: bool, follow: bool = False
) -> int:
    """Print candles to stdout; the exit status. With `follow`, go on with those that come, for ever.

    `source`: those of `trades`, the `venue`'s own, or `any`: then each says what it is.

    Raises UsageError for a series that the store has not, StorageError when there is no store.
    """
    wanted = wanted._replace(timeframe=_canonical(wanted.timeframe))
    return asyncio.run(_candles(storage, wanted, source=source, as_csv=as_csv, follow=follow))


def _canonical(timeframe: str) -> str:
    try:
        return str(Timeframe.parse(timeframe))  # 60s is stored as 1m
    except ContractError as error:
        raise UsageError(str(error)) from None


async def _candles(storage: str, wanted: SeriesRequest, *, source: str, as_csv: bool, follow: bool) -> int:
    from rich.console import Console

    from ashi_sinks.known_series import check_known
    from ashi_sinks.registry import open_reader

    with_source = source != "trades"
    async with open_reader(storage) as opened:
        reader = await _chosen(opened, wanted, source)
        check_known(await reader.spans(), [(wanted.symbol, wanted.timeframe)], NO_CANDLES)
        if as_csv:
            await _write(_Csv(with_source=with_source), reader, wanted, follow=follow)
        elif follow:
            rows = wanted.limit or TABLE_ROWS
            lines = CandleLines(Console(), with_source=with_source)
            await _write(lines, reader, wanted._replace(limit=rows), follow=True)
        else:
            await _show_table(Console(), reader, wanted, with_source=with_source)
    return 0


async def _chosen(reader: CandleReader, wanted: SeriesRequest, source: str) -> CandleReader:
    """What is read of the store. Raises UsageError where it only has candles of another source."""
    from ashi_sinks.joined import OfVenueOnly, WithVenueCandles

    if source == "any":
        return WithVenueCandles(reader)
    if source == "venue":
        return OfVenueOnly(reader)
    series = wanted.symbol, wanted.timeframe
    venue = next((span for span in await reader.venue_spans() if span[:2] == series), None)
    if venue is not None:
        there = (
            f"the venue's own candles, from {format_time(venue.first)} to {format_time(venue.last)} UTC, which "
            "--source any shows, marked"
        )
        if not any(span[:2] == series for span in await reader.spans()):
            raise UsageError(f"of this series the store has only {there}")
        print(f"note: the store also has {there}", file=sys.stderr)
    return reader


async def _show_table(
    console: Console, reader: CandleReader, wanted: SeriesRequest, *, with_source: bool = False
) -> None:
    rows = wanted.limit or TABLE_ROWS
    candles = [candle async for candle in reader.read(*wanted._replace(limit=rows + 1))]
    is_cut = len(candles) > rows
    candles = candles[-rows:]
    show_candles(console, candles, marks=await _marks(reader, candles), with_source=with_source)
    if is_cut and wanted.limit is None:
        print(f"only the last {rows:,}; --limit N shows more, --csv all", file=sys.stderr)


class _Csv:
    def __init__(self, *, with_source: bool) -> None:
        self._with_source = with_source
        write_csv_header(sys.stdout, with_source=with_source)

    def show(self, candles: Sequence[Candle], marks: Sequence[str]) -> None:
        write_csv_rows(sys.stdout, candles, marks, with_source=self._with_source)


async def _write(output: _Output, reader: CandleReader, wanted: SeriesRequest, *, follow: bool) -> None:
    versions: dict[int, int] = {}
    async for chunk in _chunks(reader.read(*wanted)):
        output.show(chunk, await _marks(reader, chunk))
        _remember(versions, chunk)
    while follow:
        sys.stdout.flush()
        await asyncio.sleep(FOLLOW_INTERVAL_S)
        start = min(versions, default=wanted.start)
        later = reader.read(wanted.symbol, wanted.timeframe, start)
        async for chunk in _chunks(later):
            new = [candle for candle in chunk if versions.get(candle.open_time) != candle.version]
            if new:
                output.show(new, await _marks(reader, new))
                _remember(versions, new)


def _remember(versions: dict[int, int], candles: Sequence[Candle]) -> None:
    versions.update((candle.open_time, candle.version) for candle in candles)
    for open_time in sorted(versions)[:-FOLLOWED_ROWS]:
        del versions[open_time]


async def _chunks(candles: AsyncIterator[Candle]) -> AsyncIterator[list[Candle]]:
    chunk = []
    async for candle in candles:
        chunk.append(candle)
        if len(chunk) == _CSV_CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


async def _marks(reader: CandleReader, candles: Sequence[Candle]) -> list[str]:
    """Why each candle of a series may lack trades: the state of an unrepaired gap, of several the lost one; unchecked.

    Where nothing was ever said of the feed, as after a replay of recordings, nothing is said here either.
    """
    from ashi.contracts.feed import is_complete, overlaps
    from ashi.contracts.venue_candle import source_of

    if not candles:
        return []
    gaps = await reader.gaps(candles[0].symbol, candles[0].open_time, candles[-1].close_time)
    unrepaired = sorted((gap for gap in gaps if gap.state != "repaired"), key=lambda gap: gap.state != "lost")
    status = await reader.status(candles[0].symbol)

    def mark(candle: Candle) -> str:
        if source_of(candle) == "venue":
            return ""  # what a feed lacked is none of its business
        window = candle.open_time, candle.close_time
        if status is not None and is_complete(*window, status.complete_until, unrepaired):
            return ""
        in_gap = next((gap.state for gap in unrepaired if overlaps(gap, *window)), None)
        return in_gap or ("" if status is None else UNCHECKED)

    return [mark(candle) for candle in candles]

"""One store filled from another: what a lake has kept into a database that was lost, say. Kafka has no part in it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar

from ashi.contracts.errors import StorageError
from ashi_sinks.registry import make_sink, open_reader

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ashi.contracts.candle import Candle
    from ashi.contracts.venue_candle import VenueCandle
    from ashi_sinks.protocol import CandleReader, Sink

_Message = TypeVar("_Message")

BATCH: Final = 20_000


def restore_store(url: str, source: str, tell: Callable[[str], None]) -> None:
    """Bring all candles, gaps and statuses of the store `source` into that of `url`, where they are newer than there.

    What is there and newer stays, so it may be repeated, also while workers write. `tell` is given a sentence for each
    table. Raises UsageError for a wrong URL, StorageError when either store cannot be used.
    """
    asyncio.run(_restore(url, source, tell))


async def _restore(url: str, source: str, tell: Callable[[str], None]) -> None:
    sink = make_sink(url)
    async with open_reader(source) as reader:
        try:
            await sink.open()
            spans = await reader.spans()
            if not spans:
                raise StorageError("the store to restore from holds no candles: look at its URL")
            venue_read, venue_changed = await _venue_candles(reader, sink)
            if venue_read:
                tell(f"candles of venues' own: {venue_read:,} read, {venue_changed:,} of them were missing or newer")
            symbols = list(dict.fromkeys(span.symbol for span in spans))
            read, changed = await _candles(reader, sink)
            tell(f"candles: {read:,} read, {changed:,} of them were missing or newer, {len(spans):,} series")
            statuses = await reader.statuses()
            # Of markets that never traded there are gaps as well.
            known = dict.fromkeys([*symbols, *(status.symbol for status in statuses)])
            gaps = [gap for symbol in known for gap in await reader.gaps(symbol)]
            tell(f"gaps: {len(gaps):,} read, {await _in_batches(sink.write_gaps, gaps):,} were missing or newer")
            # Last, as they say what of the rest is complete.
            written = await _in_batches(sink.write_statuses, statuses)
            tell(f"statuses of feeds: {len(statuses):,} read, {written:,} were missing or newer")
        finally:
            await sink.close()


async def _candles(reader: CandleReader, sink: Sink) -> tuple[int, int]:
    """How many were read, and how many rows they have changed."""
    read = changed = 0
    batch: list[Candle] = []
    for span in await reader.spans():
        async for candle in reader.read(span.symbol, span.timeframe):
            batch.append(candle)
            if len(batch) == BATCH:
                read, changed = read + len(batch), changed + await sink.write(batch)
                batch = []
    if batch:
        read, changed = read + len(batch), changed + await sink.write(batch)
    return read, changed


async def _venue_candles(reader: CandleReader, sink: Sink) -> tuple[int, int]:
    """How many were read, and how many rows they have changed."""
    read = changed = 0
    for span in await reader.venue_spans():
        batch: list[VenueCandle] = []
        async for candle in reader.venue_candles(span.symbol, span.timeframe):
            batch.append(candle)
            if len(batch) == BATCH:
                read, changed, batch = read + BATCH, changed + await sink.write_venue_candles(batch), []
        if batch:
            read, changed = read + len(batch), changed + await sink.write_venue_candles(batch)
    return read, changed


async def _in_batches(write: Callable[[Sequence[_Message]], Awaitable[int]], rows: Sequence[_Message]) -> int:
    return sum([await write(rows[place : place + BATCH]) for place in range(0, len(rows), BATCH)])

"""Candles of trades together with the venue's own where there are none: for whoever has asked for those too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ashi_sinks.protocol import by_symbol_and_length

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ashi.contracts.candle import Candle
    from ashi.contracts.feed import FeedGap, FeedStatus
    from ashi.contracts.venue_candle import VenueCandle
    from ashi_sinks.protocol import CandleReader, SeriesSpan


class WithVenueCandles:
    """A `CandleReader` that also gives a venue's candles, of windows of which there is none of trades.

    They come as `VenueCandle.as_candle` makes them, so that `ashi.contracts.venue_candle.source_of` tells them apart.
    """

    def __init__(self, reader: CandleReader) -> None:
        """`reader`: open, and closed by whoever opened it."""
        self._reader = reader
        self._venue: set[tuple[str, str]] | None = None

    async def open(self) -> None:
        """See `CandleReader.open`."""
        await self._reader.open()

    async def read(
        self, symbol: str, timeframe: str, start: int | None = None, end: int | None = None, limit: int | None = None
    ) -> AsyncIterator[Candle]:
        """See `CandleReader.read`. Raises StorageError."""
        if not await self._has_venue(symbol, timeframe):
            async for candle in self._reader.read(symbol, timeframe, start, end, limit):
                yield candle
        elif limit is None:
            ours = self._reader.read(symbol, timeframe, start, end)
            async for candle in _merged(ours, self._reader.venue_candles(symbol, timeframe, start, end)):
                yield candle
        else:
            # The latest of both are among the latest of each.
            ours = self._reader.read(symbol, timeframe, start, end, limit)
            theirs = self._reader.venue_candles(symbol, timeframe, start, end, limit)
            found = [candle async for candle in _merged(ours, theirs)]
            for candle in found[max(len(found) - limit, 0) :]:
                yield candle

    async def _has_venue(self, symbol: str, timeframe: str) -> bool:
        """Whether there are any of the series: asked once, as nearly all series have none."""
        if self._venue is None:
            self._venue = {(span.symbol, span.timeframe) for span in await self._reader.venue_spans()}
        return (symbol, timeframe) in self._venue

    async def spans(self) -> list[SeriesSpan]:
        """See `CandleReader.spans`. Raises StorageError."""
        spans = {(span.symbol, span.timeframe): span for span in await self._reader.spans()}
        venue = await self._reader.venue_spans()
        self._venue = {(span.symbol, span.timeframe) for span in venue}
        for span in venue:
            ours = spans.get((span.symbol, span.timeframe), span)
            joined = span._replace(first=min(span.first, ours.first), last=max(span.last, ours.last))
            spans[span.symbol, span.timeframe] = joined
        return by_symbol_and_length(spans.values())

    async def venue_spans(self) -> list[SeriesSpan]:
        """See `CandleReader.venue_spans`. Raises StorageError."""
        return await self._reader.venue_spans()

    def venue_candles(
        self, symbol: str, timeframe: str, start: int | None = None, end: int | None = None, limit: int | None = None
    ) -> AsyncIterator[VenueCandle]:
        """See `CandleReader.venue_candles`. Raises StorageError."""
        return self._reader.venue_candles(symbol, timeframe, start, end, limit)

    async def count(self, symbol: str | None = None, timeframe: str | None = None) -> int:
        """Of those of trades; see `CandleReader.count`. Raises StorageError."""
        return await self._reader.count(symbol, timeframe)

    async def greatest_version(self) -> int | None:
        """See `CandleReader.greatest_version`. Raises StorageError."""
        return await self._reader.greatest_version()

    async def gaps(self, symbol: str, start: int | None = None, end: int | None = None) -> list[FeedGap]:
        """See `CandleReader.gaps`. Raises StorageError."""
        return await self._reader.gaps(symbol, start, end)

    async def status(self, symbol: str) -> FeedStatus | None:
        """See `CandleReader.status`. Raises StorageError."""
        return await self._reader.status(symbol)

    async def statuses(self) -> list[FeedStatus]:
        """See `CandleReader.statuses`. Raises StorageError."""
        return await self._reader.statuses()

    async def close(self) -> None:
        """See `CandleReader.close`."""
        await self._reader.close()


class OfVenueOnly(WithVenueCandles):
    """The same of the venue's candles alone, also where there are some of trades."""

    async def read(
        self, symbol: str, timeframe: str, start: int | None = None, end: int | None = None, limit: int | None = None
    ) -> AsyncIterator[Candle]:
        """See `CandleReader.read`. Raises StorageError."""
        async for candle in self._reader.venue_candles(symbol, timeframe, start, end, limit):
            yield candle.as_candle()

    async def spans(self) -> list[SeriesSpan]:
        """See `CandleReader.spans`. Raises StorageError."""
        return await self._reader.venue_spans()


async def _merged(ours: AsyncIterator[Candle], theirs: AsyncIterator[VenueCandle]) -> AsyncIterator[Candle]:
    """Both in the order of time; of one window that of trades."""
    mine, other = await anext(ours, None), await anext(theirs, None)
    while mine is not None or other is not None:
        if other is None or (mine is not None and mine.open_time <= other.open_time):
            assert mine is not None  # noqa: S101  (one of the two is there)
            if other is not None and other.open_time == mine.open_time:
                other = await anext(theirs, None)
            yield mine
            mine = await anext(ours, None)
        else:
            yield other.as_candle()
            other = await anext(theirs, None)

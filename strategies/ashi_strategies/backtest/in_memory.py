"""Candles that are in memory, as a source of them."""

from __future__ import annotations

from bisect import bisect_left
from operator import attrgetter
from typing import TYPE_CHECKING

from ashi_sinks.protocol import SeriesSpan, by_symbol_and_length

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from ashi.contracts.candle import Candle
    from ashi.contracts.feed import FeedGap, FeedStatus

_open_time = attrgetter("open_time")


class CandlesInMemory:
    """See `sources.CandleSource`. Of its feeds nothing is known."""

    def __init__(self, candles: Iterable[Candle]) -> None:
        """`candles`: in any order; of two of one window that with the greater version counts, the first of equals."""
        newest: dict[tuple[str, str], dict[int, Candle]] = {}
        for candle in candles:
            of_series = newest.setdefault((candle.symbol, candle.timeframe), {})
            known = of_series.setdefault(candle.open_time, candle)
            if candle.version > known.version:
                of_series[candle.open_time] = candle
        self._series = {key: [of_series[time] for time in sorted(of_series)] for key, of_series in newest.items()}

    def has(self, symbol: str, timeframe: str) -> bool:
        """Whether there is a candle of the series."""
        return (symbol, timeframe) in self._series

    async def read(
        self, symbol: str, timeframe: str, start: int | None = None, end: int | None = None, limit: int | None = None
    ) -> AsyncIterator[Candle]:
        """See `CandleSource.read`."""
        candles = self._series.get((symbol, timeframe), [])
        first = 0 if start is None else bisect_left(candles, start, key=_open_time)
        last = len(candles) if end is None else bisect_left(candles, end, key=_open_time)
        if limit is not None:
            first = max(first, last - limit)
        for place in range(first, last):
            yield candles[place]

    async def spans(self) -> list[SeriesSpan]:
        """See `CandleSource.spans`."""
        return by_symbol_and_length(
            SeriesSpan(symbol, timeframe, candles[0].open_time, candles[-1].open_time)
            for (symbol, timeframe), candles in self._series.items()
        )

    async def gaps(self, symbol: str, start: int | None = None, end: int | None = None) -> list[FeedGap]:  # noqa: ARG002
        """None is known."""
        return []

    async def status(self, symbol: str) -> FeedStatus | None:  # noqa: ARG002
        """Nothing was said."""
        return None

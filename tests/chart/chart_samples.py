"""A store for the tests of the chart that need no real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from ashi.contracts import Candle
from ashi.contracts.feed import FeedGap, FeedStatus, overlaps
from ashi_sinks.protocol import SeriesSpan
from candle_samples import BTC


class StoreInMemory:
    """A `CandleReader` of what it is given."""

    def __init__(self, candles: list[Candle], gaps: list[FeedGap] | None = None) -> None:
        self._candles = sorted(candles, key=lambda candle: candle.open_time)
        self._gaps = gaps or []

    async def open(self) -> None: ...

    async def read(
        self, symbol: str, timeframe: str, start: int | None = None, end: int | None = None, limit: int | None = None
    ) -> AsyncIterator[Candle]:
        chosen = [
            candle
            for candle in self._candles
            if (candle.symbol, candle.timeframe) == (symbol, timeframe)
            and (start is None or candle.open_time >= start)
            and (end is None or candle.open_time < end)
        ]
        for candle in chosen if limit is None else chosen[max(len(chosen) - limit, 0) :]:
            await asyncio.sleep(0)
            yield candle

    async def spans(self) -> list[SeriesSpan]:
        raise NotImplementedError

    async def count(self, symbol: str | None = None, timeframe: str | None = None) -> int:
        raise NotImplementedError

    async def gaps(self, symbol: str, start: int | None = None, end: int | None = None) -> list[FeedGap]:
        assert symbol == BTC
        return [gap for gap in self._gaps if overlaps(gap, start or 0, end or 2**62)]

    async def status(self, symbol: str) -> FeedStatus | None:
        raise NotImplementedError

    async def statuses(self) -> list[FeedStatus]:
        raise NotImplementedError

    async def close(self) -> None: ...

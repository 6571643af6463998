"""Candles, and a source of them, for the tests of backtests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from decimal import Decimal
from typing import Any

from ashi.contracts import Candle
from ashi.contracts.feed import FeedGap, FeedStatus
from ashi.contracts.timeframe import Timeframe
from ashi_sinks.protocol import SeriesSpan

SYMBOL, OTHER = "binance:ETHUSDT", "bitflyer:BTC_JPY"
START = 1_700_000_040_000_000
"""A minute's start, µs."""
MINUTE = 60_000_000


def make_candle(
    open_time: int, open_: Any, close: Any, *, symbol: str = SYMBOL, timeframe: str = "1m", trades: int = 1
) -> Candle:
    open_, close = Decimal(open_), Decimal(close)
    volume = Decimal(trades)
    return Candle(
        symbol=symbol,
        timeframe=timeframe,
        open_time=open_time,
        close_time=open_time + Timeframe.parse(timeframe).length_us,
        open=open_,
        high=max(open_, close),
        low=min(open_, close),
        close=close,
        volume=volume,
        quote_volume=volume * close,
        trade_count=trades,
        taker_buy_volume=Decimal(0),
        taker_buy_quote_volume=Decimal(0),
        first_trade_id="1" if trades else None,
        last_trade_id="1" if trades else None,
        version=open_time // MINUTE,
    )


def series_of(
    closes: Sequence[Any], *, start: int = START, symbol: str = SYMBOL, timeframe: str = "1m"
) -> list[Candle]:
    """Candles one after the other, each opening where the one before it closed."""
    length = Timeframe.parse(timeframe).length_us
    return [
        make_candle(start + n * length, closes[max(n - 1, 0)], close, symbol=symbol, timeframe=timeframe)
        for n, close in enumerate(closes)
    ]


class CandlesInMemory:
    """A source as a store is one."""

    def __init__(
        self, candles: Iterable[Candle], gaps: Sequence[FeedGap] = (), statuses: Sequence[FeedStatus] = ()
    ) -> None:
        self.candles = sorted(candles, key=lambda candle: candle.open_time)
        self._gaps = gaps
        self._statuses = {status.symbol: status for status in statuses}

    async def read(
        self, symbol: str, timeframe: str, start: int | None = None, end: int | None = None, limit: int | None = None
    ) -> AsyncIterator[Candle]:
        found = [
            candle
            for candle in self.candles
            if (candle.symbol, candle.timeframe) == (symbol, timeframe)
            and (start is None or candle.open_time >= start)
            and (end is None or candle.open_time < end)
        ]
        for candle in found if limit is None else found[max(len(found) - limit, 0) :]:
            yield candle

    async def spans(self) -> list[SeriesSpan]:
        spans: dict[tuple[str, str], SeriesSpan] = {}
        for candle in self.candles:
            key = candle.symbol, candle.timeframe
            spans[key] = SeriesSpan(*key, spans[key].first if key in spans else candle.open_time, candle.open_time)
        return list(spans.values())

    async def gaps(self, symbol: str, start: int | None = None, end: int | None = None) -> list[FeedGap]:
        return [gap for gap in self._gaps if gap.symbol == symbol]

    async def status(self, symbol: str) -> FeedStatus | None:
        return self._statuses.get(symbol)

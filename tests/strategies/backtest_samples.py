"""Candles, and a source of them, for the tests of backtests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from ashi.contracts import Candle
from ashi.contracts.feed import FeedGap, FeedStatus
from ashi.contracts.timeframe import Timeframe
from ashi_strategies.backtest.in_memory import CandlesInMemory

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


class WatchedCandles(CandlesInMemory):
    """Candles whose feeds have said something."""

    def __init__(self, candles: Iterable[Candle], gaps: Sequence[FeedGap], statuses: Sequence[FeedStatus]) -> None:
        super().__init__(candles)
        self._gaps = gaps
        self._statuses = {status.symbol: status for status in statuses}

    async def gaps(self, symbol: str, start: int | None = None, end: int | None = None) -> list[FeedGap]:
        return [gap for gap in self._gaps if gap.symbol == symbol]

    async def status(self, symbol: str) -> FeedStatus | None:
        return self._statuses.get(symbol)

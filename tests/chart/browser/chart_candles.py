"""Candles of markets that wander, made up for tests of the pages."""

from __future__ import annotations

import random
from decimal import Decimal

from ashi.contracts.candle import Candle
from ashi.contracts.timeframe import Timeframe


def made_candles(symbol: str, timeframe: str, count: int, end: int) -> list[Candle]:
    """Closed candles of a market that wanders, the last one closing at a time."""
    length = Timeframe.parse(timeframe).length_us
    return [wandering_candle(symbol, timeframe, end - (count - number) * length) for number in range(count)]


def wandering_candle(symbol: str, timeframe: str, open_time: int, version: int = 0) -> Candle:
    length = Timeframe.parse(timeframe).length_us
    chance = random.Random(f"{symbol}/{open_time}")
    start, end = (Decimal(100_000 + (open_time // length + step) % 997 * 7) / 100 for step in (0, 1))
    wick = Decimal(chance.randint(0, 500)) / 100
    volume = Decimal(chance.randint(1, 10**7)) / 10**5
    return Candle(
        symbol=symbol,
        timeframe=timeframe,
        open_time=open_time,
        close_time=open_time + length,
        open=start,
        high=max(start, end) + wick,
        low=min(start, end) - wick,
        close=end,
        volume=volume,
        quote_volume=volume * end,
        trade_count=chance.randint(1, 900),
        taker_buy_volume=volume / 2,
        taker_buy_quote_volume=volume / 2 * end,
        first_trade_id="1",
        last_trade_id="2",
        version=version or open_time // length,
    )

"""Candles for the tests of series, strategies and operations."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from ashi.contracts.candle import Candle
from ashi.contracts.timeframe import Timeframe

BTC, ETH = "bitflyer:BTC_JPY", "binance:ETHUSDT"
MINUTE_US = 60_000_000
FIRST_US = 1_640_995_200_000_000
"""The start of a day, µs."""


def a_candle(
    window: int = 0, version: int = 1, symbol: str = BTC, timeframe: str = "1m", price: str | None = None, **more: Any
) -> Candle:
    """The candle of the window with that number; its prices are its version, unless told otherwise."""
    length_us = Timeframe.parse(timeframe).length_us
    open_time = FIRST_US + window * length_us
    close = Decimal(version if price is None else price)
    candle = Candle(
        symbol=symbol,
        timeframe=timeframe,
        open_time=open_time,
        close_time=open_time + length_us,
        open=close,
        high=close + 1,
        low=close,
        close=close,
        volume=Decimal("1.5"),
        quote_volume=close,
        trade_count=3,
        taker_buy_volume=Decimal("0.5"),
        taker_buy_quote_volume=Decimal(0),
        first_trade_id="1",
        last_trade_id="3",
        version=version,
    )
    return msgspec.structs.replace(candle, **more) if more else candle

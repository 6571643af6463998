"""From a fold to the candle of the public contract, and from a candle to the flat ones that carry its close."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from ashi.contracts.candle import Candle
from ashi_aggregate.core.fold import Fold

_ZERO: Final = Decimal(0)


def candle_of(fold: Fold, symbol: str, timeframe: str, length_us: int, version: int) -> Candle:
    """The candle of a window: the sums of its trades."""
    # By position: at the end of an hour there are tens of thousands at once, and names take twice as long.
    return Candle(
        symbol,
        timeframe,
        fold.open_time,
        fold.open_time + length_us,
        fold.first[3],
        fold.high,
        fold.low,
        fold.last[3],
        fold.volume,
        fold.quote_volume,
        fold.trade_count,
        fold.taker_buy_volume,
        fold.taker_buy_quote_volume,
        fold.first[2],
        fold.last[2],
        version,
    )


def flat_candles(carried: Candle, begin: int, end: int, max_flat: int) -> list[Candle]:
    """The candles of the windows in [begin, end), µs, none of which has trades, that carry the close of `carried`.

    At most `max_flat` in a row.
    """
    length_us = carried.close_time - carried.open_time
    end = min(end, carried.open_time + (max_flat + 1) * length_us)
    return [_flat_candle(carried, open_time) for open_time in range(begin, end, length_us)]


def _flat_candle(carried: Candle, open_time: int) -> Candle:
    """The candle of a window without trades, which carries the close and the version of `carried`."""
    return Candle(
        symbol=carried.symbol,
        timeframe=carried.timeframe,
        open_time=open_time,
        close_time=open_time + carried.close_time - carried.open_time,
        open=carried.close,
        high=carried.close,
        low=carried.close,
        close=carried.close,
        volume=_ZERO,
        quote_volume=_ZERO,
        trade_count=0,
        taker_buy_volume=_ZERO,
        taker_buy_quote_volume=_ZERO,
        first_trade_id=None,
        last_trade_id=None,
        version=carried.version,
    )

"""Candles recomputed of their trades: sort them, add them up. Nothing of the workers' code is used."""

from __future__ import annotations

from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Final

import msgspec

from ashi.contracts.candle import Candle
from ashi.contracts.decimals import EXACT
from ashi.contracts.timeframe import Timeframe
from ashi.contracts.trade import Trade

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ZERO: Final = Decimal(0)


def market_order(trade: Trade) -> tuple[int, int, str, Decimal]:
    """The order of a symbol's trades: (`traded_at`, `sequence`), and should these be equal the id and the price."""
    return trade.traded_at, trade.sequence, trade.trade_id, trade.price


class Totals(msgspec.Struct, frozen=True):
    """What some trades of one window add up to.

    Attributes:
        first: in the order of the market, whose price is the open; `last` likewise, whose price is the close.
        volume: base currency; `quote_volume` quote currency, the sum of price * size.
        offset: the greatest in the log among these trades.

    """

    first: Trade
    last: Trade
    high: Decimal
    low: Decimal
    volume: Decimal
    quote_volume: Decimal
    trade_count: int
    taker_buy_volume: Decimal
    taker_buy_quote_volume: Decimal
    offset: int

    def candle(self, timeframe: Timeframe, version: int) -> Candle:
        """The candle of the window of that length that the trades are in."""
        open_time = timeframe.open_time(self.first.traded_at)
        return Candle(
            symbol=self.first.symbol,
            timeframe=str(timeframe),
            open_time=open_time,
            close_time=open_time + timeframe.length_us,
            open=self.first.price,
            high=self.high,
            low=self.low,
            close=self.last.price,
            volume=self.volume,
            quote_volume=self.quote_volume,
            trade_count=self.trade_count,
            taker_buy_volume=self.taker_buy_volume,
            taker_buy_quote_volume=self.taker_buy_quote_volume,
            first_trade_id=self.first.trade_id,
            last_trade_id=self.last.trade_id,
            version=version,
        )


def add_up(trades: Iterable[Trade], offset: int) -> Totals:
    """The totals of trades of one symbol and window, at least one; `offset` is the greatest of theirs."""
    ordered = sorted(trades, key=market_order)
    volume = quote_volume = taker_buy_volume = taker_buy_quote_volume = ZERO
    with localcontext(EXACT):
        for trade in ordered:
            quote = trade.price * trade.size
            volume += trade.size
            quote_volume += quote
            if trade.side == "buy":
                taker_buy_volume += trade.size
                taker_buy_quote_volume += quote
    prices = [trade.price for trade in ordered]
    return Totals(
        first=ordered[0],
        last=ordered[-1],
        high=max(prices),
        low=min(prices),
        volume=volume,
        quote_volume=quote_volume,
        trade_count=len(ordered),
        taker_buy_volume=taker_buy_volume,
        taker_buy_quote_volume=taker_buy_quote_volume,
        offset=offset,
    )


def join(parts: Sequence[Totals]) -> Totals:
    """The totals of all the trades of `parts`, at least one, none of which is in two of them."""
    if len(parts) == 1:
        return parts[0]
    with localcontext(EXACT):
        return Totals(
            first=min((part.first for part in parts), key=market_order),
            last=max((part.last for part in parts), key=market_order),
            high=max(part.high for part in parts),
            low=min(part.low for part in parts),
            volume=sum((part.volume for part in parts), ZERO),
            quote_volume=sum((part.quote_volume for part in parts), ZERO),
            trade_count=sum(part.trade_count for part in parts),
            taker_buy_volume=sum((part.taker_buy_volume for part in parts), ZERO),
            taker_buy_quote_volume=sum((part.taker_buy_quote_volume for part in parts), ZERO),
            offset=max(part.offset for part in parts),
        )


def flat_candle(carried: Candle, open_time: int) -> Candle:
    """The candle of a window without trades (µs): the close before it, all sums zero, the version of that close."""
    close = carried.close
    return msgspec.structs.replace(
        carried,
        open_time=open_time,
        close_time=open_time + carried.close_time - carried.open_time,
        open=close,
        high=close,
        low=close,
        volume=ZERO,
        quote_volume=ZERO,
        trade_count=0,
        taker_buy_volume=ZERO,
        taker_buy_quote_volume=ZERO,
        first_trade_id=None,
        last_trade_id=None,
    )


def flat_candles(carried: Candle, begin: int, until: int, max_flat: int) -> list[Candle]:
    """The flat candles after `carried` in a hole [begin, until), µs; no more than `max_flat` in a row."""
    length_us = carried.close_time - carried.open_time
    until = min(until, carried.close_time + max_flat * length_us)
    return [flat_candle(carried, open_time) for open_time in range(begin, until, length_us)]

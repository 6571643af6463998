"""Bars: what a page is sent of candles, small and exact. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from ashi.contracts.decimals import format_decimal
from ashi.contracts.venue_candle import source_of

if TYPE_CHECKING:
    from ashi_chart.candles.coverage import Coverage
    from ashi_chart.candles.rollup import Rolled

CLOSED: Final = 1
"""Its window is over."""
CORRECTED: Final = 2
"""It has become another one since it was first closed, as far as this server has seen."""
COMPLETE: Final = 4
"""No trade is missing from it."""
INCOMPLETE: Final = 8
"""It overlaps a gap that is open or lost. Neither this nor COMPLETE: it is not known yet."""
FLAT: Final = 16
"""Nobody traded: the four prices are the close before."""
VENUE: Final = 32
"""It is the venue's own candle, or one of these is a part of it: whether a trade is missing Ashi cannot say."""


class Bar(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One bar; in JSON an array of these fields in this order.

    Attributes:
        open_time: µs, inclusive.
        open: as in the candle, and all amounts: decimals in plain notation, exact. Quote currency.
        volume: base currency.
        version: of what is pushed with the same one the last counts: see `Rolled.candle`.
        flags: the sum of CLOSED, CORRECTED, COMPLETE, INCOMPLETE, FLAT and VENUE where they hold.
        quote_volume: quote currency.
        taker_buy_volume: base currency.

    """

    open_time: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    trade_count: int
    version: int
    flags: int
    quote_volume: str
    taker_buy_volume: str


def bar_of(rolled: Rolled, coverage: Coverage) -> Bar:
    """The bar of a candle, with what is known of its time: `coverage` is its symbol's."""
    candle = rolled.candle
    flags = FLAT if candle.trade_count == 0 else 0
    if rolled.corrected:
        flags |= CORRECTED
    if rolled.closed:
        flags |= CLOSED
    if source_of(candle) == "venue":
        flags |= VENUE
    elif rolled.closed and rolled.whole and coverage.has_all(candle.open_time, candle.close_time):
        flags |= COMPLETE
    if not flags & (COMPLETE | VENUE) and coverage.lacks(candle.open_time, candle.close_time):
        flags |= INCOMPLETE
    return Bar(
        candle.open_time,
        format_decimal(candle.open),
        format_decimal(candle.high),
        format_decimal(candle.low),
        format_decimal(candle.close),
        format_decimal(candle.volume),
        candle.trade_count,
        candle.version,
        flags,
        format_decimal(candle.quote_volume),
        format_decimal(candle.taker_buy_volume),
    )

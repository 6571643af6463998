"""A venue's own candle, as it is kept beside those that are made of trades: in no topic, and marked wherever seen."""

from __future__ import annotations

from decimal import Decimal
from typing import Final, Literal, TypeAlias

import msgspec

from ashi.contracts.candle import Candle

Source: TypeAlias = Literal["trades", "venue"]
"""What a candle was made by: by Ashi of trades, or by the venue."""

VENUE_VERSION: Final = -1
"""The version of a venue's candle where it stands in for one of trades: below all that a candle of trades may have."""

_NONE: Final = Decimal(0)


class VenueCandle(msgspec.Struct, frozen=True, gc=False):
    """One closed candle as the venue publishes it.

    Attributes:
        symbol: `venue:MARKET`.
        timeframe: `1m`.
        open_time: µs, inclusive; `close_time` exclusive.
        open: quote currency, as `high`, `low` and `close`.
        volume: base currency; `quote_volume`, `taker_buy_quote_volume` in quote currency. None where the venue does not
            tell, as for `trade_count`.
        source: `venue`.
        fetched_at: when it was asked for, µs: of two of one window the later one stays.

    """

    symbol: str
    timeframe: str
    open_time: int
    close_time: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal | None
    trade_count: int | None
    taker_buy_volume: Decimal | None
    taker_buy_quote_volume: Decimal | None
    source: str
    fetched_at: int

    def as_candle(self) -> Candle:
        """It in the place of a candle of trades, for whoever has asked for that: by its version it is told from those.

        What the venue does not tell is 0; the number of trades is 1 then where there was a volume, as a candle of no
        trades is a flat one.
        """
        count = self.trade_count
        return Candle(
            symbol=self.symbol,
            timeframe=self.timeframe,
            open_time=self.open_time,
            close_time=self.close_time,
            open=self.open,
            high=self.high,
            low=self.low,
            close=self.close,
            volume=self.volume,
            quote_volume=_NONE if self.quote_volume is None else self.quote_volume,
            trade_count=int(self.volume > 0) if count is None else count,
            taker_buy_volume=_NONE if self.taker_buy_volume is None else self.taker_buy_volume,
            taker_buy_quote_volume=_NONE if self.taker_buy_quote_volume is None else self.taker_buy_quote_volume,
            first_trade_id=None,
            last_trade_id=None,
            version=VENUE_VERSION,
        )


VENUE_NULLABLE: Final = frozenset({"quote_volume", "trade_count", "taker_buy_volume", "taker_buy_quote_volume"})
"""What not every venue tells."""


def source_of(candle: Candle) -> Source:
    """What a candle was made by, as `VenueCandle.as_candle` marks it."""
    return "venue" if candle.version == VENUE_VERSION else "trades"

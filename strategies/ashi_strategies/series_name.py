"""What a series is called."""

from __future__ import annotations

from typing import NamedTuple

from ashi.contracts.timeframe import Timeframe


class SeriesName(NamedTuple):
    """Symbol (`venue:MARKET`) and timeframe as candles have them, `1m`."""

    symbol: str
    timeframe: str

    @property
    def length_us(self) -> int:
        """That of a window, µs."""
        return Timeframe.parse(self.timeframe).length_us

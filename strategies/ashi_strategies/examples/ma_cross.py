"""Two moving averages that cross: the strategy that everybody writes first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import talib

from ashi.contracts.errors import UsageError
from ashi_strategies import Strategy, StrategySeries, Target, flat, long

if TYPE_CHECKING:
    from ashi.contracts.candle import Candle

_EQUAL: Final = 1e-9
"""Means that differ by less, as a part of them, are equal: TA-Lib's running sums leave noise in the last digits."""


class MaCross(Strategy):
    """Long while the mean of the last `fast` closes is above that of the last `slow`, and says so where they cross."""

    fast: int = 9
    slow: int = 21

    def __post_init__(self) -> None:
        """Raises UsageError for lengths that cannot cross."""
        if not 1 < self.fast < self.slow:
            raise UsageError(f"ma_cross: fast is {self.fast} and slow {self.slow}: it must be 1 < fast < slow")

    @property
    def startup_candles(self) -> int:
        """One more than the longer mean needs, as a cross is seen by the candle before."""
        return self.slow + 1

    def on_candle(self, candle: Candle, series: StrategySeries) -> Target | None:
        """Long where the fast mean comes above the slow one, flat where it no longer is."""
        closes = series.closes()
        fast, slow = talib.SMA(closes, self.fast)[-2:], talib.SMA(closes, self.slow)[-2:]
        was_above, is_above = fast - slow > _EQUAL * abs(slow)
        if was_above == is_above:
            return None
        if is_above:
            return long(f"{self.fast} above {self.slow}", fast=fast[-1], slow=slow[-1])
        return flat(f"{self.fast} not above {self.slow}", fast=fast[-1], slow=slow[-1])

"""Two timeframes: buys what is cheap in the fine one while the coarse one goes up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import talib

from ashi.contracts.errors import UsageError
from ashi_strategies import Strategy, StrategySeries, Target, flat, long

if TYPE_CHECKING:
    from ashi.contracts.candle import Candle


class TrendPullback(Strategy):
    """Long where the fine RSI is low and the coarse close is above its mean; flat where the fine RSI is high."""

    timeframes = ("5m", "1h")

    rsi: int = 14
    low: float = 30.0
    high: float = 60.0
    mean: int = 20

    def __post_init__(self) -> None:
        """Raises UsageError for parameters that cannot be meant."""
        if self.rsi < 2 or self.mean < 2 or not 0 < self.low < self.high < 100:
            raise UsageError(
                f"trend_pullback: rsi {self.rsi} and mean {self.mean} must be 2 or more, "
                f"and 0 < low {self.low} < high {self.high} < 100"
            )
        self._fine, self._coarse = self.timeframes

    @property
    def startup_candles(self) -> Mapping[str, int]:
        """Wilder's RSI is smoothed without end: ten lengths of it are enough that what was before does not show."""
        return {self._fine: 10 * self.rsi, self._coarse: self.mean}

    def on_candle(self, candle: Candle, series: StrategySeries) -> Target | None:
        """Decides at the fine candles; the coarse ones only say where the trend is."""
        if candle.timeframe != self._fine:
            return None
        rsi = talib.RSI(series.closes(), self.rsi)[-1]
        if rsi > self.high:
            return flat(f"RSI above {self.high}", rsi=rsi)
        trend = series.of(timeframe=self._coarse).closes()
        if rsi < self.low and trend[-1] > trend.mean():
            return long(f"RSI below {self.low} in an upward trend", rsi=rsi)
        return None

"""Two venues: the spread between what one market costs here and there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import talib

from ashi.contracts.errors import UsageError
from ashi_strategies import Strategy, StrategySeries, Target, flat, long, short

if TYPE_CHECKING:
    from ashi.contracts.candle import Candle


class VenueSpread(Strategy):
    """Short the dear one and long the cheap one where their ratio is `entry` deviations off its mean, else flat at it.

    It gives a signal of its own for each of the two symbols.
    """

    symbols_together = True

    window: int = 60
    entry: float = 2.0

    def __post_init__(self) -> None:
        """Raises UsageError unless there are two symbols."""
        if len(self.symbols) != 2:
            raise UsageError(
                f"venue_spread is of two symbols, and {len(self.symbols)} are given: {', '.join(self.symbols)}"
            )
        if self.window < 2 or self.entry <= 0:
            raise UsageError(f"venue_spread: window {self.window} must be 2 or more, and entry {self.entry} above 0")

    @property
    def startup_candles(self) -> int:
        """The window."""
        return self.window

    def on_candle(self, candle: Candle, series: StrategySeries) -> Target | None:
        """The first symbol by the second; where a venue's candles do not meet the other's, nothing is said."""
        here, there = (series.of(symbol) for symbol in self.symbols)
        if (here.column("open_time") != there.column("open_time")).any():
            return None
        ratio = here.closes() / there.closes()
        deviation = talib.STDDEV(ratio, self.window)[-1]
        if not deviation > 0:
            return None
        score = (ratio[-1] - ratio.mean()) / deviation
        is_first = candle.symbol == self.symbols[0]
        if abs(score) >= self.entry:
            return (short if (score > 0) == is_first else long)(f"{self.entry} deviations apart", score=score)
        before = (ratio[-2] - ratio.mean()) / deviation
        return flat("back at the mean", score=score) if before * score <= 0 else None

"""What a strategy is handed with a candle: its series up to that candle, and the others up to the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from ashi.contracts.errors import UsageError
from ashi.contracts.timeframe import Timeframe
from ashi_series.series import SeriesView

if TYPE_CHECKING:
    from collections.abc import Sequence

SeriesKey: TypeAlias = tuple[str, Timeframe]
"""Symbol and timeframe: what a series is of."""


class StrategySeries(SeriesView):
    """The last `startup_candles` closed candles of one series, the newest last, read-only.

    `series.of(…)` gives the strategy's other series. Nothing that closed later can be reached from here.
    """

    __slots__ = ("_others",)

    def __init__(self, view: SeriesView, others: Sequence[SeriesView]) -> None:
        """`view`: the series of the candle; `others`: all of the strategy, this one too."""
        super().__init__(view.symbol, view.timeframe, view._chunk, view._start, view._end)
        self._others = others

    def of(self, symbol: str | None = None, timeframe: str | None = None) -> SeriesView:
        """Another series of the strategy, as far as it has closed: the last `startup_candles` candles.

        `symbol`, `timeframe`: this one's where they are left out. Raises UsageError for one that was not declared.
        """
        wanted = self.symbol if symbol is None else symbol
        length = self.timeframe if timeframe is None else Timeframe.parse(timeframe)
        for view in self._others:
            if view.symbol == wanted and view.timeframe == length:
                return view
        there = ", ".join(view.name for view in self._others)
        raise UsageError(f"the strategy has no series {wanted} {length}: it declares {there}")

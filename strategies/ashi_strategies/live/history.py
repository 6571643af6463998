"""The candles that were there when a strategy began: of each window the newest version, in the order of steps. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ashi_series.order import step_order
from ashi_strategies.series_name import SeriesName

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ashi.contracts.candle import Candle


class History:
    """Takes candles in any order and from several places, as a store and the topic; by version none counts twice."""

    def __init__(self, wanted: Mapping[SeriesName, int]) -> None:
        """`wanted`: of each series, how many candles the strategy needs before the first that it decides by."""
        self._wanted = wanted
        self._candles: dict[SeriesName, dict[int, Candle]] = {name: {} for name in wanted}

    def __len__(self) -> int:
        return sum(map(len, self._candles.values()))

    def add(self, candles: Iterable[Candle]) -> None:
        """Take candles; those of other series are left out."""
        for candle in candles:
            of_series = self._candles.get(SeriesName(candle.symbol, candle.timeframe))
            if of_series is None:
                continue
            known = of_series.get(candle.open_time)
            if known is None or candle.version > known.version:
                of_series[candle.open_time] = candle

    def in_order(self) -> list[Candle]:
        """All, by (close time, timeframe, symbol)."""
        return sorted((candle for of_series in self._candles.values() for candle in of_series.values()), key=step_order)

    def short_series(self, redo_from: int) -> list[str]:
        """The series that have fewer candles than are needed that closed before a time, µs: `bitflyer:BTC_JPY 1m`."""
        return [
            " ".join(name)
            for name, of_series in self._candles.items()
            if sum(candle.close_time < redo_from for candle in of_series.values()) < self._wanted[name]
        ]

    def empty_series(self) -> list[SeriesName]:
        """The series that have no candle at all."""
        return [name for name, of_series in self._candles.items() if not of_series]

    def newest_close_time(self) -> int:
        """The greatest close time, µs; 0 where there is no candle."""
        return max(
            (candle.close_time for of_series in self._candles.values() for candle in of_series.values()), default=0
        )

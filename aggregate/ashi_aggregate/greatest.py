"""The greatest row and the most ids of those that were written of late: what comes near its limit is told in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ashi.runtime.of_late import GreatestOfLate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Gauge

PERIOD_S: Final = 150.0
"""What was seen in the last one to two periods counts. Every row is written within one, whether or not it changes."""


class Greatest:
    """The greatest of what was seen in the last few minutes, as a metric."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._of_late = GreatestOfLate(PERIOD_S)

    def see(self, values: Iterable[int], now_s: float) -> None:
        """Values that are there now (monotonic, s)."""
        self._of_late.turn(now_s)
        self._of_late.see(max(values, default=0))
        self._gauge.set(self._of_late.value or 0)

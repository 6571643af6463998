"""The greatest row and the most ids of those that were written of late: what comes near its limit is told in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Gauge

PERIOD_S: Final = 150.0
"""What was seen in the last one to two periods counts. Every row is written within one, whether or not it changes."""


class Greatest:
    """The greatest of what was seen in the last few minutes, as a metric."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._now = self._before = 0
        self._since_s: float | None = None

    def see(self, values: Iterable[int], now_s: float) -> None:
        """Values that are there now (monotonic, s)."""
        if self._since_s is None or now_s - self._since_s >= PERIOD_S:
            self._before, self._now, self._since_s = self._now, 0, now_s
        self._now = max(self._now, max(values, default=0))
        self._gauge.set(max(self._now, self._before))

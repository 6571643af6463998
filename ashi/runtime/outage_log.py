"""Telling of what fails again and again: at most once a minute, and once more when it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ashi.runtime.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL_S: Final = 60.0
"""A line at most once in so many seconds; and what has not failed for so long, and works, is over."""

_log = get_logger(__name__)


class OutageLog:
    """One thing that is tried again and again. Markets and reasons may differ: it is one cause."""

    def __init__(self, failing: str, works: str, monotonic_s: Callable[[], float]) -> None:
        """`failing` and `works`: the sentences that say so."""
        self._failing = failing
        self._works = works
        self._monotonic_s = monotonic_s
        self._told_s: float | None = None
        self._failed_s = 0.0
        self._untold = 0
        self._failures = 0

    def failed(self, reason: str, **where: str) -> None:
        """It has failed for this reason."""
        self._failed_s = now_s = self._monotonic_s()
        self._failures += 1
        if self._told_s is not None and now_s - self._told_s < INTERVAL_S:
            self._untold += 1
            return
        _log.warning(self._failing, reason=reason, held_back=self._untold or None, **where)
        self._told_s, self._untold = now_s, 0

    def worked(self) -> None:
        """It works. That is told when it has not failed for a while."""
        if self._told_s is not None and self._monotonic_s() - self._failed_s >= INTERVAL_S:
            _log.info(self._works, failures=self._failures)
            self._told_s, self._untold, self._failures = None, 0, 0

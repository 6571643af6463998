"""The greatest of what was seen of late. Pure: it is told the time."""

from __future__ import annotations


class GreatestOfLate:
    """The greatest value seen in the last one to two periods.

    Periods turn when that is told, so whoever turns them only when something is seen keeps what was seen last.
    """

    def __init__(self, period: float) -> None:
        """`period`: in the unit of the times that are told."""
        self._period = period
        self._begun: float | None = None
        self._now: int | None = None
        self._before: int | None = None

    def turn(self, now: float) -> None:
        """It is this late. Also after a clock was set back."""
        if self._begun is None:
            self._begun = now
        elif abs(now - self._begun) >= self._period:
            self._begun, self._before, self._now = now, self._now, None

    def see(self, value: int) -> None:
        """A value was seen now."""
        if self._now is None or value > self._now:
            self._now = value

    @property
    def value(self) -> int | None:
        """The greatest; None when nothing was seen of late."""
        return max((each for each in (self._now, self._before) if each is not None), default=None)

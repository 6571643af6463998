"""How much of a core this process takes, and how much CPU something may take beside what the process is there for.

Under a tenth of what the process takes, where that is 0.3 of a core or more. Of one that takes less up to 0.024 of a
core, with what is not measured 0.03, which may be more than a tenth: a third of one that takes 0.07.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

SHARE: Final = 0.08
"""Of the CPU time of the process. What is measured is to encode and to compress; with the requests it is a tenth."""
LEAST_CORE: Final = 0.3
"""A process that takes less of a core is taken to take so much: there is nothing then that could be held up.

A tenth of the little that it takes would make updates seldom just where they cost nobody anything.
"""
LOOK_EVERY_S: Final = 1.0
"""How much of a core the process takes is measured over so long: by the moment it is all or nothing."""
MOST_AHEAD_S: Final = 0.05
"""Of what was not taken so much may be taken later, at once."""


class CpuMeter:
    """How much of a core this process takes, measured anew each time that so long has passed."""

    def __init__(
        self,
        *,
        process_s: Callable[[], float] = time.process_time,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """The CPU time of this process, and the time, s."""
        self.core = 0.0
        self._process_s = process_s
        self._clock_s = clock_s
        self._looked = process_s(), clock_s()

    def look(self) -> float:
        """Measure if it is time; over how long it was measured, s, 0 where it was not time yet."""
        process_s, looked_s = self._looked
        now_s = self._clock_s()
        if now_s - looked_s < LOOK_EVERY_S:
            return 0.0
        self._looked = self._process_s(), now_s
        self.core = (self._looked[0] - process_s) / (now_s - looked_s)
        return now_s - looked_s


class CpuShare:
    """A share of the CPU time of this process. Whoever takes of it says how much, and asks before the next time."""

    def __init__(
        self,
        share: float = SHARE,
        *,
        process_s: Callable[[], float] = time.process_time,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._share = share
        self._clock_s = clock_s
        self._meter = CpuMeter(process_s=process_s, clock_s=clock_s)
        self._seen_s = clock_s()
        self._left_s = MOST_AHEAD_S

    def has_left(self) -> bool:
        """Whether there is something left of it now."""
        now_s = self._clock_s()
        self._meter.look()
        core = max(self._meter.core, LEAST_CORE)
        self._left_s = min(self._left_s + self._share * core * (now_s - self._seen_s), MOST_AHEAD_S)
        self._seen_s = now_s
        return self._left_s > 0

    def took(self, seconds: float) -> None:
        """So much CPU time was taken, more perhaps than there was left: then it is longer until there is something."""
        self._left_s -= seconds

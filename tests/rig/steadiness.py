"""Whether processes grow: their memory and their open files, in the calm parts of a long run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import psutil

LOOK_S = 2.0
LEAST_LOOKS = 5
"""A calm part with fewer says nothing."""
LEAST_PARTS = 4
"""Of fewer calm parts no slope is told."""
COLD = 3
"""Of so many parts the first does not count: caches fill, up to the horizon and the series that are shown."""
MOST_MB_PER_HOUR = 8.0
"""What surely grows faster (the lower end of its confidence interval says so) leaks."""
MOST_MORE_FILES = 8
"""A process may have so many more open in its last calm part than in its first: connections come and go."""

# Student's t, two-sided 95 %, by degrees of freedom.
_T = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120)
_T_OF_MANY = 2.11


class Look(NamedTuple):
    """What a process took at a time (monotonic, s): its resident set, bytes, and its open files."""

    at_s: float
    part: int
    memory: int
    files: int


class Trend(NamedTuple):
    """How a process went on from its last start.

    Attributes:
        name: of the process.
        parts: calm parts that it lived through.
        memory_mb: in the last of them, median.
        slope: MB per hour, with the ends of its 95 % confidence interval; None of too few parts.
        files: open in the first and in the last part, medians.

    """

    name: str
    parts: int
    memory_mb: float
    slope: tuple[float, float, float] | None
    files: tuple[int, int]

    @property
    def wrong(self) -> list[str]:
        """What is wrong with it, in sentences."""
        found = []
        if self.slope is not None and self.slope[1] > MOST_MB_PER_HOUR:
            slope, low, high = self.slope
            found.append(f"{self.name} grows by {slope:.1f} MB an hour ({low:.1f} to {high:.1f})")
        if self.files[1] > self.files[0] + MOST_MORE_FILES:
            found.append(f"{self.name} has {self.files[1]} files open, and had {self.files[0]}")
        return found


class Steadiness:
    """Looks at processes while it is calm. Each calm part counts as one observation of each process.

    Looks that follow each other within seconds are not independent of each other, so that a confidence interval of
    them would be too narrow.
    """

    def __init__(self) -> None:
        self.is_calm = False
        self._part = 0
        self._looked_s = 0.0
        self._looks: dict[tuple[str, int], list[Look]] = {}

    def begin_calm(self) -> None:
        """From now on it is calm, until told otherwise."""
        self._part += 1
        self.is_calm = True

    def look(self, processes: Mapping[str, int]) -> None:
        """Look at each process (its pid by its name), if it is calm and time to."""
        now_s = time.monotonic()
        if not self.is_calm or now_s - self._looked_s < LOOK_S:
            return
        self._looked_s = now_s
        for name, pid in processes.items():
            try:
                process = psutil.Process(pid)
                look = Look(now_s, self._part, process.memory_info().rss, process.num_fds())
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            self._looks.setdefault((name, pid), []).append(look)

    def trends(self) -> list[Trend]:
        """How each process has gone on since its last start that it lived through a calm part of."""
        newest = dict(sorted(self._looks, key=lambda each: self._looks[each][-1].at_s))
        return [trend for name, pid in sorted(newest.items()) if (trend := _trend(name, self._looks[name, pid]))]


def _trend(name: str, looks: Sequence[Look]) -> Trend | None:
    parts: dict[int, list[Look]] = {}
    for look in looks:
        parts.setdefault(look.part, []).append(look)
    known = [each for each in parts.values() if len(each) >= LEAST_LOOKS]
    if not known:
        return None
    times_h = [statistics.median(look.at_s for look in each) / 3_600 for each in known]
    memory_mb = [statistics.median(look.memory for look in each) / 1e6 for each in known]
    files = [int(statistics.median(look.files for look in each)) for each in known]
    cold = len(known) // COLD
    slope = slope_of(times_h[cold:], memory_mb[cold:]) if len(known) - cold >= LEAST_PARTS else None
    return Trend(name, len(known), memory_mb[-1], slope, (files[0], files[-1]))


def slope_of(times: Sequence[float], values: Sequence[float]) -> tuple[float, float, float]:
    """The slope of the line of least squares through points, three or more, and its 95 % confidence interval."""
    slope, intercept = statistics.linear_regression(times, values)
    freedom = len(times) - 2
    residual = sum((value - slope * at - intercept) ** 2 for at, value in zip(times, values, strict=True))
    middle = statistics.fmean(times)
    error = (residual / freedom / sum((at - middle) ** 2 for at in times)) ** 0.5
    reach = (_T[freedom - 1] if freedom <= len(_T) else _T_OF_MANY) * error
    return slope, slope - reach, slope + reach

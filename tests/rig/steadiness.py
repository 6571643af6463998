"""Whether processes grow: their memory and their open files, in the calm parts of a long run.

A process may grow in two ways, which are told apart, since only one is a leak whatever the other does:

- *while nothing happens*: by the hour, by the trade, by the commit. The slope within each calm part says so.
- *by what happens*: a fault lets it hold more for a while than ever before (a backlog, rows read again), and an
  allocator does not give all of that back. The first time that is a step to a new height; were anything kept each
  time, the second and the third time would be steps as well.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import comb
from typing import NamedTuple

import psutil

LOOK_S = 2.0
LEAST_LOOKS = 5
"""A calm part with fewer says nothing."""
LEAST_PARTS = 6
"""Of fewer calm parts no slope is told: six are the least whose median has an interval of 95 % without assumptions."""
COLD = 3
"""Of so many parts the first does not count: caches fill, up to the horizon and the series that are shown."""
MOST_MB_PER_HOUR = 8.0
"""What surely grows faster (the lower end of its confidence interval says so) leaks."""
MOST_MB_AGAIN = 1.0
"""A fault that is not the first of its kind may raise a process by so much, in the median of all such."""
MOST_MORE_FILES = 8
"""A process may have so many more open in its last calm part than in its first: connections come and go."""


class Look(NamedTuple):
    """What a process took at a time (monotonic, s): its resident set, bytes, and its open files.

    `after`: the fault that the calm part follows; empty for none.
    """

    at_s: float
    part: int
    memory: int
    files: int
    after: str = ""


class Trend(NamedTuple):
    """How a process went on from its last start.

    Attributes:
        name: of the process.
        parts: calm parts that it lived through.
        memory_mb: in the last of them, median.
        slope: MB per hour within calm parts: the median of their slopes, with the ends of its 95 % confidence interval;
            None of too few parts.
        files: open in the first and in the last part, medians.
        steps_mb: from calm part to calm part, all together.
        again_mb: the median of the steps at faults that had been there before; None where none was repeated.

    """

    name: str
    parts: int
    memory_mb: float
    slope: tuple[float, float, float] | None
    files: tuple[int, int]
    steps_mb: float = 0.0
    again_mb: float | None = None

    @property
    def wrong(self) -> list[str]:
        """What is wrong with it, in sentences."""
        found = []
        if self.slope is not None and self.slope[1] > MOST_MB_PER_HOUR:
            slope, low, high = self.slope
            found.append(f"{self.name} grows by {slope:.1f} MB an hour ({low:.1f} to {high:.1f})")
        if self.again_mb is not None and self.again_mb > MOST_MB_AGAIN:
            found.append(f"{self.name} grows by {self.again_mb:.1f} MB each time that a fault comes again")
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
        self._after = ""
        self._looked_s = 0.0
        self._looks: dict[tuple[str, int], list[Look]] = {}

    def begin_calm(self, after: str = "") -> None:
        """From now on, after that fault, it is calm, until told otherwise."""
        self._part += 1
        self._after = after
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
                look = Look(now_s, self._part, process.memory_info().rss, process.num_fds(), self._after)
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
    files = [int(statistics.median(look.files for look in each)) for each in known]
    slopes = [_slope(each) for each in known[len(known) // COLD :]]
    steps = [_memory_mb(after[:LEAST_LOOKS]) - _memory_mb(before[-LEAST_LOOKS:]) for before, after in pairwise(known)]
    seen: set[str] = set()
    again = []
    for part, step in zip(known[1:], steps, strict=True):
        if part[0].after in seen:
            again.append(step)
        seen.add(part[0].after)
    return Trend(
        name,
        len(known),
        _memory_mb(known[-1]),
        median_of(slopes) if len(slopes) >= LEAST_PARTS else None,
        (files[0], files[-1]),
        sum(steps),
        statistics.median(again) if again else None,
    )


def _memory_mb(looks: Sequence[Look]) -> float:
    return statistics.median(look.memory for look in looks) / 1e6


def _slope(looks: Sequence[Look]) -> float:
    """MB an hour, by least squares."""
    return statistics.linear_regression(
        [look.at_s / 3_600 for look in looks], [look.memory / 1e6 for look in looks]
    ).slope


def median_of(values: Sequence[float]) -> tuple[float, float, float]:
    """The median of six values or more, and its 95 % confidence interval: that of the sign test.

    It asks nothing of how the values are spread. An allocator that gives back a hundred megabytes in one part would
    widen an interval of means so far that nothing could be found in it.
    """
    ordered = sorted(values)
    count = len(ordered)
    beyond = 0
    while sum(comb(count, each) for each in range(beyond + 2)) / 2**count <= 0.025:
        beyond += 1
    return statistics.median(ordered), ordered[beyond], ordered[-1 - beyond]

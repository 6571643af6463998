"""Which times of a symbol lack no trade, as far as its feed has said. Pure; built for ten thousands of bars at once."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ashi.contracts.feed import FeedGap

FOR_EVER: Final = 2**62
"""The end of a gap that has none yet, µs."""


class Coverage:
    """What `feed.status` and `feed.gaps` say of one symbol at one moment; never changes.

    The rule is `ashi.contracts.feed.is_complete`; here gaps that are open or lost are one list of stretches that do not
    meet, so that a bar costs a look-up whatever the number of gaps.
    """

    __slots__ = ("_ends", "_starts", "complete_until")

    def __init__(self, complete_until: int | None = None, gaps: Iterable[FeedGap] = ()) -> None:
        """`gaps`: of each its last message, in whatever state; `complete_until`: of the last status, µs."""
        self.complete_until = complete_until
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in sorted(_stretch(gap) for gap in gaps if gap.state != "repaired"):
            if self._ends and start <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end)
            else:
                self._starts.append(start)
                self._ends.append(end)

    def lacks(self, start: int, end: int) -> bool:
        """Whether trades between `start` (inclusive) and `end` (exclusive), µs, are known to be missing, or may be."""
        place = bisect_right(self._ends, start)  # the first stretch that ends after `start`
        return place < len(self._starts) and self._starts[place] < end

    def has_all(self, start: int, end: int) -> bool:
        """Whether no trade of that time is missing. Where neither this nor `lacks`, it is not known yet."""
        return self.complete_until is not None and end <= self.complete_until and not self.lacks(start, end)

    def differs(self, other: Coverage) -> list[tuple[int, int]]:
        """The stretches of time, µs, of which the two may say something else, in order; they may meet."""
        mine, theirs = (set(zip(each._starts, each._ends, strict=True)) for each in (self, other))
        stretches = list(mine ^ theirs)
        if self.complete_until != other.complete_until:
            # A bar is complete once the whole of it is before `complete_until`: the one that it lies in changes, too.
            until, before = sorted((self.complete_until or 0, other.complete_until or 0))[::-1]
            stretches.append((before, until))
        return sorted(stretches)


def _stretch(gap: FeedGap) -> tuple[int, int]:
    """As `ashi.contracts.feed.overlaps`: without an end it goes on for ever, and each covers at least its first µs."""
    return gap.from_time, FOR_EVER if gap.to_time is None else max(gap.to_time, gap.from_time + 1)

"""Times that the files say nothing of: between files, and where numbers of trades are missing. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ashi_ingest.history.settled_gaps import Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ashi.contracts.timeframe import Timeframe
    from ashi_history.merge import MergedWindow


class FileSpan(NamedTuple):
    """From the first to the last trade of a file, µs, both inclusive."""

    first: int
    last: int


def between_files(spans: Iterable[FileSpan], adjacent_us: int) -> list[Span]:
    """Where one file has ended and the next one not begun: trades may be missing there.

    Not where files overlap, nor where no more than `adjacent_us` lies between the last trade and the next one. A trade
    that is missing may have the time of the one before or after it, so a hole has both of these.
    """
    holes: list[Span] = []
    reached: int | None = None
    for first, last in sorted(spans):
        if reached is not None and first - reached > adjacent_us:
            holes.append(Span(reached, first + 1))
        reached = last if reached is None else max(reached, last)
    return holes


class _Missing(NamedTuple):
    """Numbers that no trade had so far, from `start` to `end` (exclusive), and when they would have been."""

    start: int
    end: int
    span: Span


class HoleFinder:
    """Looks at the finest windows one after the other.

    Attributes:
        found: the holes so far, oldest first.

    """

    def __init__(self, finest: Timeframe, between: Sequence[Span], *, contiguous: bool) -> None:
        """`between`: the holes between files. `contiguous`: the numbers of the trades follow each other.

        Numbers tell it exactly, so where there are such the files' beginnings and ends say nothing.
        """
        self.found: list[Span] = [] if contiguous else list(between)
        self._after = frozenset() if contiguous else frozenset(finest.open_time(hole.to_us - 1) for hole in between)
        self._contiguous = contiguous
        self._next: int | None = None
        self._reached = 0
        self._missing: list[_Missing] = []

    def look(self, window: MergedWindow) -> bool:
        """Take in the next window; whether trades may be missing between it and the one before."""
        if not self._contiguous:
            return window.fold.open_time in self._after
        pairs = list(zip(window.ids[::2], window.ids[1::2], strict=True))
        # Venues send a little out of order: what seemed to be missing in the window before may stand in this one.
        self._settle(pairs)
        first, last = window.fold.first[0], window.fold.last[0]
        is_after = False
        for place, (start, end) in enumerate(pairs):
            if self._next is not None and start > self._next:
                span = Span(first, last + 1) if place else Span(self._reached, first + 1)
                self._missing.append(_Missing(self._next, start, span))
                is_after = is_after or not place
            self._next = end if self._next is None else max(self._next, end)
        self._reached = max(self._reached, last)
        return is_after

    def finish(self) -> list[Span]:
        """All holes, oldest first, those that meet joined."""
        self._settle([])
        joined: list[Span] = []
        for hole in sorted(self.found):
            if joined and hole.from_us <= joined[-1].to_us:
                joined[-1] = Span(joined[-1].from_us, max(joined[-1].to_us, hole.to_us))
            else:
                joined.append(hole)
        return joined

    def _settle(self, pairs: Sequence[tuple[int, int]]) -> None:
        for missing in self._missing:
            there = sum(max(min(end, missing.end) - max(start, missing.start), 0) for start, end in pairs)
            if there < missing.end - missing.start:
                self.found.append(missing.span)
        self._missing = []

"""Times that the files say nothing of: between files, and where numbers of trades are missing. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ashi_ingest.history.settled_gaps import Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ashi.contracts.timeframe import Timeframe
    from ashi_history.merge import MergedWindow


class FileSpan(NamedTuple):
    """From the first to the last trade of a file, µs, both inclusive; `unread` as of `FileReader`."""

    first: int
    last: int
    unread: Sequence[tuple[int, int | None]] = ()


def between_files(spans: Iterable[FileSpan], adjacent_us: int) -> list[Span]:
    """Where one file has ended and the next one not begun: trades may be missing there.

    Not where files overlap, nor where no more than `adjacent_us` lies between the last trade and the next one. A trade
    that is missing may have the time of the one before or after it, so a hole has both of these.
    """
    holes: list[Span] = []
    reached: int | None = None
    files = sorted(spans, key=lambda span: span[:2])
    for first, last, _ in files:
        if reached is not None and first - reached > adjacent_us:
            holes.append(Span(reached, first + 1))
        reached = last if reached is None else max(reached, last)
    return _joined([*holes, *_unread(files)])


def _unread(files: Sequence[FileSpan]) -> Iterator[Span]:
    """What could not be read in some file, as far as no other one has it."""
    own = [_holes_of(file, files) for file in files]
    for place, holes in enumerate(own):
        left = holes
        for other, file in enumerate(files):
            if left and other != place and file.first < left[-1].to_us and left[0].from_us < file.last:
                left = _outside(left, _outside([Span(file.first + 1, file.last)], own[other]))
        yield from left


def _outside(spans: Sequence[Span], taken: Sequence[Span]) -> list[Span]:
    """What is left of spans when others are taken out of them; both oldest first, none meets another."""
    left: list[Span] = []
    place = 0
    for span in spans:
        while place < len(taken) and taken[place].to_us <= span.from_us:
            place += 1
        begin, next_one = span.from_us, place
        while next_one < len(taken) and taken[next_one].from_us < span.to_us:
            if begin < taken[next_one].from_us:
                left.append(Span(begin, taken[next_one].from_us))
            begin = taken[next_one].to_us
            next_one += 1
        if begin < span.to_us:
            left.append(Span(begin, span.to_us))
    return left


def _holes_of(file: FileSpan, files: Sequence[FileSpan]) -> list[Span]:
    """Before its first trade a hole goes back to the end of the file before, and after its last one likewise."""
    holes = []
    for begin, end in file.unread:
        start = begin or max((each.last for each in files if each.last <= file.first), default=file.first)
        until = min((each.first for each in files if each.first > start), default=start) if end is None else end
        if start != until or (begin and end):
            holes.append(Span(min(start, until), max(start, until) + 1))
    return _joined(holes)


def _joined(holes: Iterable[Span]) -> list[Span]:
    """Oldest first, those that meet as one."""
    joined: list[Span] = []
    for hole in sorted(holes):
        if joined and hole.from_us <= joined[-1].to_us:
            joined[-1] = Span(joined[-1].from_us, max(joined[-1].to_us, hole.to_us))
        else:
            joined.append(hole)
    return joined


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
        """`between`: the holes between files, oldest first, none meets another.

        `contiguous`: the numbers of the trades follow each other.

        Numbers tell it exactly, so where there are such the files' beginnings and ends say nothing.
        """
        self.found: list[Span] = [] if contiguous else list(between)
        self._between = list(reversed(between))
        self._length_us = finest.length_us
        self._ended = 0
        self._contiguous = contiguous
        self._next: int | None = None
        self._reached = 0
        self._missing: list[_Missing] = []

    def look(self, window: MergedWindow) -> bool:
        """Take in the next window; whether trades may be missing between it and the one before."""
        if not self._contiguous:
            return self._is_after_hole(window.fold.open_time)
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
        return _joined(self.found)

    def _is_after_hole(self, open_time: int) -> bool:
        """Whether some of a hole lies between the window before and this one; not where all of it is within one."""
        between, ended = self._between, self._ended
        while between and between[-1].to_us <= ended:
            between.pop()
        self._ended = open_time + self._length_us
        return bool(between) and between[-1].from_us < open_time

    def _settle(self, pairs: Sequence[tuple[int, int]]) -> None:
        for missing in self._missing:
            there = sum(max(min(end, missing.end) - max(start, missing.start), 0) for start, end in pairs)
            if there < missing.end - missing.start:
                self.found.append(missing.span)
        self._missing = []

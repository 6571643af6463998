"""What a store has of a series, in the timeframes of a chart, joined with what is newer than the store."""

from __future__ import annotations

import asyncio
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple

from ashi_chart.candles.rolling import Tail
from ashi_chart.candles.rollup import NEVER, Rolled

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ashi.contracts.candle import Candle
    from ashi.contracts.feed import FeedGap
    from ashi_chart.candles.rollup import Rollup
    from ashi_sinks.protocol import CandleReader

MOST_PARTS: Final = 50_000
"""So many candles are read for one page at most, so of longer timeframes it may be shorter than was asked: a second."""
LARGE: Final = 2_000
"""A page of so many candles, or more, is made in a thread: it takes some 20 ms and more."""
NOTHING: Final = Tail()

_open_time = attrgetter("open_time")
_close_time = attrgetter("close_time")


class HistoryPage(NamedTuple):
    """Windows of a series that follow each other.

    Attributes:
        rolled: oldest first.
        more: whether there are older ones.
        parts: the closed parts that these are made of, by open time.
        since: from this time on, µs, `parts` are all there are; 0: the series has no older ones. With both a
            `RollingSeries` begins.
        lacking: a stretch of time, µs, of which parts have closed that are neither in the store nor in the tail, as the
            store lags too far behind. None: there is none.

    """

    rolled: list[Rolled]
    more: bool
    parts: list[Candle]
    since: int
    lacking: tuple[int, int] | None = None


class History:
    """Reads what a chart shows from a store; as many at a time as the reader allows. Its errors are the reader's."""

    def __init__(self, reader: CandleReader) -> None:
        """`reader`: open, and closed by whoever opened it."""
        self._reader = reader

    async def page(
        self, symbol: str, rollup: Rollup, before: int | None = None, limit: int = 1_000, tail: Tail = NOTHING
    ) -> HistoryPage:
        """The newest windows that open before a time, µs, or of all; `limit` at most.

        `tail`: what is known beside the store: parts that it lacks, newer versions, and what is in progress. What has
        the greater version counts, and of what is in progress only what has not closed.
        """
        limit = max(min(limit, MOST_PARTS // rollup.parts), 1)
        most = limit * rollup.parts + 1  # of more windows than are wanted, so that the first of these is not cut
        end = None if before is None else rollup.window_of(before - 1)[1]
        read = [part async for part in self._reader.read(symbol, str(rollup.source), end=end, limit=most)]
        stored_until = read[-1].close_time if read else 0
        if end is not None and stored_until < end:  # what is stored behind tells whether something is still to come
            stored_until = max(stored_until, await self._closes_after(symbol, rollup, end))
        asked = _Asked(rollup, limit, end, tail, stored_until, is_cut=len(read) == most)
        if len(read) < LARGE:
            return _page(asked, read)
        return await asyncio.to_thread(_page, asked, read)  # others are not to wait for it

    async def window(self, symbol: str, rollup: Rollup, start: int) -> tuple[list[Candle], bool]:
        """What `RollingSeries.rebuild` wants of the window that opens at `start`, µs.

        The closed parts that the store has of it, and whether the series began before it.
        """
        end = rollup.window_of(start)[1]
        parts = [part async for part in self._reader.read(symbol, str(rollup.source), start=start, end=end)]
        if parts and parts[0].open_time == start:
            return parts, True
        older = [part async for part in self._reader.read(symbol, str(rollup.source), end=start, limit=1)]
        return parts, bool(older)

    async def gaps(self, symbol: str, start: int, end: int, known: Iterable[FeedGap] = ()) -> list[FeedGap]:
        """The gaps that overlap a time, µs, `end` exclusive, by `from_time`: the stored and the known, as said last.

        Topic `feed.gaps` keeps them for some time only, a store for ever.
        """
        newest = {gap.from_time: gap for gap in await self._reader.gaps(symbol, start, end)}
        for gap in known:
            stored = newest.get(gap.from_time)
            if stored is None or gap.updated_at > stored.updated_at:
                newest[gap.from_time] = gap
        return [newest[from_time] for from_time in sorted(newest)]

    async def _closes_after(self, symbol: str, rollup: Rollup, time: int) -> int:
        """When the newest stored part closed, if it opened at this time or later; else NEVER."""
        later = [part async for part in self._reader.read(symbol, str(rollup.source), start=time, limit=1)]
        return later[-1].close_time if later else NEVER


class _Asked(NamedTuple):
    """Which page is to be made of what was read.

    Attributes:
        end: the windows of parts that open before this time, µs; None: all.
        stored_until: the newest part in the store closed then, µs; 0: there is none.
        is_cut: whether there may be older parts than those read.

    """

    rollup: Rollup
    limit: int
    end: int | None
    tail: Tail
    stored_until: int
    is_cut: bool


def _page(asked: _Asked, read: list[Candle]) -> HistoryPage:
    rollup, tail, end = asked.rollup, asked.tail, asked.end
    parts = _joined(read, tail.closed, read[0].open_time if asked.is_cut else 0, end)
    closed = {part.open_time for part in parts}
    ahead = [part for part in tail.in_progress if part.open_time not in closed and _is_before(part, end)]
    windows = rollup.windows_of(sorted([*parts, *ahead], key=_open_time))
    begins = NEVER if asked.is_cut or not windows else windows[0][0].open_time
    more, windows = asked.is_cut or len(windows) > asked.limit, windows[-asked.limit :]
    closed_through = max(map(_close_time, tail.closed), default=0)
    closed_through = max(closed_through, asked.stored_until)
    is_open = {rollup.target.open_time(part.open_time) for part in ahead}
    rolled = [
        Rolled(
            candle,
            closed=candle.close_time <= closed_through and candle.open_time not in is_open,
            corrected=candle.open_time in tail.corrected,
            whole=begins <= candle.open_time,
        )
        for candle in map(rollup.candle_of, windows)
    ]
    since = rolled[0].candle.open_time if more and rolled else 0
    lacking = asked.stored_until, tail.let_go_until if end is None else min(end, tail.let_go_until)
    is_lacking = lacking[0] < lacking[1]
    return HistoryPage(
        rolled, more, [part for part in parts if part.open_time >= since], since, lacking if is_lacking else None
    )


def _joined(read: list[Candle], more: Iterable[Candle], start: int, end: int | None) -> list[Candle]:
    """What was read and what else is known between two open times, of each the greater version, by open time."""
    newest = {part.open_time: part for part in read}
    for part in more:
        known = newest.get(part.open_time)
        if start <= part.open_time and _is_before(part, end) and (known is None or part.version > known.version):
            newest[part.open_time] = part
    return [newest[time] for time in sorted(newest)]


def _is_before(part: Candle, end: int | None) -> bool:
    return end is None or part.open_time < end

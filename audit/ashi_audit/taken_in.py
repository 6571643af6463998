"""Which gaps of late trades a rebuild ends: those of which every candle of every timeframe has all trades. Pure.

See docs/decisions/0019-candles-that-lack-late-trades.md.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ashi.contracts.feed import FeedGap
from ashi.contracts.late_gaps import TAKEN_IN

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

    from ashi.contracts.timeframe import Timeframe
    from ashi_audit.recount import SeriesRange

Key = tuple[str, str, int]


class TakenIn:
    """The gaps that are `lost` for late trades, and what has been counted again of their times."""

    def __init__(self, gaps: Iterable[FeedGap], timeframes: Sequence[Timeframe], end: int) -> None:
        """`end`: windows that begin then, µs, or later are not counted."""
        self._gaps: dict[str, list[FeedGap]] = {}
        for gap in gaps:
            self._gaps.setdefault(gap.symbol, []).append(gap)
        self._timeframes = timeframes
        self._end = end
        self._settled_until: dict[tuple[str, Timeframe], int] = {}
        self._recovered: Counter[tuple[str, int]] = Counter()
        self._whole: list[FeedGap] = []

    def __len__(self) -> int:
        return sum(map(len, self._gaps.values()))

    def note(self, windows: SeriesRange) -> None:
        """The windows of a series, to a time, have been counted and are final."""
        gaps = self._gaps.get(windows.symbol)
        if not gaps:
            return
        self._settled_until[windows.symbol, windows.timeframe] = windows.until
        if windows.timeframe != self._timeframes[0]:
            return
        for each in (late for window in windows.windows for late in window.late):
            for gap in gaps:
                if gap.from_time - 1 <= each.trade.traded_at < _end(gap):
                    self._recovered[gap.symbol, gap.from_time] += 1

    def end_part(self, symbols: Iterable[str], whole_from: Mapping[str, int], read_until: int) -> None:
        """All of a part of the source has been counted, in which these symbols are.

        `whole_from`: of each, from when on its windows were, µs. `read_until`: all that was appended before, µs.
        """
        for symbol in symbols:
            begin = whole_from.get(symbol)
            if begin is not None:
                self._whole += [
                    gap
                    for gap in self._gaps.get(symbol, ())
                    if gap.updated_at < read_until and self._has_all(gap, begin)
                ]

    def has(self, symbols: Iterable[str]) -> bool:
        """Whether there is a gap of any of them."""
        return any(symbol in self._gaps for symbol in symbols)

    def _has_all(self, gap: FeedGap, begin: int) -> bool:
        for timeframe in self._timeframes:
            first, last = timeframe.open_time(gap.from_time - 1), timeframe.open_time(_end(gap) - 1)
            settled_until = self._settled_until.get((gap.symbol, timeframe), 0)
            if first < begin or last >= self._end or last + timeframe.length_us > settled_until:
                return False
        return True

    def keys(self, gap: FeedGap) -> Iterator[Key]:
        """The candles that have a part of its time: symbol, timeframe, open time."""
        for timeframe in self._timeframes:
            first = timeframe.open_time(gap.from_time - 1)
            for open_time in range(first, _end(gap), timeframe.length_us):
                yield gap.symbol, str(timeframe), open_time

    def split(self, left: Container[Key]) -> tuple[list[FeedGap], list[FeedGap]]:
        """The messages that end those that have all trades, and the others as they are.

        `left`: candles that are left as they were published, or not all of whose trades are known.
        """
        whole = {(gap.symbol, gap.from_time) for gap in self._whole if not any(key in left for key in self.keys(gap))}
        ended, others = [], []
        for gap in (gap for gaps in self._gaps.values() for gap in gaps):
            if (gap.symbol, gap.from_time) in whole:
                ended.append(_repaired(gap, self._recovered[gap.symbol, gap.from_time]))
            else:
                others.append(gap)
        return ended, others


def _end(gap: FeedGap) -> int:
    return max(gap.to_time or 0, gap.from_time + 1)


def _repaired(gap: FeedGap, recovered: int) -> FeedGap:
    # The next message after the one that was read: a late trade that has come since is told of by a later one.
    return FeedGap(gap.symbol, gap.from_time, gap.to_time, "repaired", recovered, TAKEN_IN, gap.updated_at + 1)

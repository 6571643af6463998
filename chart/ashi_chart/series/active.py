"""A series that somebody looks at: its newest bars as pages get them, and who is to be told when they change.

Its candles are made by `rolling`; here are the bars of them, encoded once for all, with what is known of each.
"""

from __future__ import annotations

import asyncio
import time
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import msgspec

from ashi_chart.candles.bars import CLOSED, COMPLETE, INCOMPLETE, VENUE, Bar, bar_of
from ashi_chart.candles.coverage import FOR_EVER, Coverage
from ashi_chart.candles.rolling import RollingSeries, Tail

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ashi.contracts.candle import Candle
    from ashi_chart.candles.rollup import Rolled, Rollup

PARTS: Final = 1_000
"""Of so many candles the newest bars are made anew whenever one of them changes; some 1.5 MB."""
MOST_HELD: Final = 5_000
"""So many bars are held as they are sent, some 1.5 MB; whoever wants more gets the older ones from the store."""
MOST_WAITING: Final = 20_000
"""So many candles may come while a series is being loaded."""

_encode = msgspec.json.Encoder().encode


class Watcher(Protocol):
    """Who is told of a series: a page."""

    def on_bars(self, bars: Iterable[tuple[int, bytes]]) -> None:
        """These bars have changed: the open time of each, µs, and the bar as it is sent."""

    def on_loaded(self) -> None:
        """The series is another one than before, or has come to be there: a snapshot is wanted."""

    def on_trouble(self, sentence: str) -> None:
        """The series cannot be had as it should be, for now."""


class Key(NamedTuple):
    """What names a series of a chart."""

    symbol: str
    timeframe: str


class ActiveSeries:
    """The newest bars of one symbol in one timeframe, and those who watch them.

    Candles may be given to it from the moment that it is made. Until it is loaded they wait.

    Attributes:
        key: its symbol and the name of its timeframe.
        rollup: of which candles it is made, and how.
        watchers: who is told.
        trouble: what its bars lack, in words; None: nothing, as far as is known.
        left_s: since when nobody watches, by the monotonic clock.
        loads: how often it was loaded.
        old_changes: how many bars that are not held were told of: what was read of a store before may lack them.
        reading: held by who reads older bars from the store, so that others do not read them, too.

    """

    def __init__(self, key: Key, rollup: Rollup, coverage: Coverage) -> None:
        self.key = key
        self.rollup = rollup
        self.watchers: set[Watcher] = set()
        self.trouble: str | None = None
        self.left_s = time.monotonic()
        self.loads = 0
        self.old_changes = 0
        self.reading = asyncio.Lock()
        self._coverage = coverage
        self._rolling: RollingSeries | None = None
        self._waiting: dict[tuple[int, bool], Candle] = {}
        self._bars: dict[int, bytes] = {}
        self._partial: set[int] = set()
        self._begins_here = False
        self._is_in_order = True

    # What comes.

    def take(self, candle: Candle, *, is_closed: bool) -> None:
        """Take in a part, closed or as far as it has come. `flush` makes what changes by it known."""
        if self._rolling is None:
            known = self._waiting.get((candle.open_time, is_closed))
            if known is None or candle.version > known.version:
                self._waiting[candle.open_time, is_closed] = candle
                if len(self._waiting) > MOST_WAITING:
                    del self._waiting[min(self._waiting)]
        elif is_closed:
            self._rolling.apply(candle)
        else:
            self._rolling.update(candle)

    def load(self, parts: Iterable[Candle], since: int, trouble: str | None = None, *, keep: int = 0) -> None:
        """Begin anew with closed parts, in any order: all there are that open at or after `since`, µs.

        What came meanwhile counts as well. `since`: the start of a window; 0 where the series has no older parts.
        `keep`: so many of the newest parts are held at least: those that the store may lack.
        """
        rolling, before = RollingSeries(self.key.symbol, self.rollup, since, max(keep, PARTS)), self.tail
        waiting = sorted(self._waiting.items())
        self._waiting.clear()
        closed = [*parts, *before.closed, *(part for (_, is_closed), part in waiting if is_closed)]
        # As they were written, about: by that it is known what a store has not yet, though it has later ones.
        rolling.fill_all(sorted(closed, key=attrgetter("version")))
        for part in (*before.in_progress, *(part for (_, is_closed), part in waiting if not is_closed)):
            rolling.update(part)
        if self._rolling is not None:
            rolling.go_on_from(self._rolling, lacked_some=self.trouble is not None)
        rolling.changed()  # so far: all of it is told by a snapshot
        self._rolling, self.trouble = rolling, trouble
        self._bars, self._partial, self._begins_here = {}, set(), rolling.since == 0
        self._put(rolling.between(rolling.since, FOR_EVER))
        self.loads += 1
        for watcher in list(self.watchers):
            watcher.on_loaded()

    def unload(self, sentence: str) -> None:
        """What is held is not true any more: wait for `load`."""
        self._rolling, self.trouble = None, sentence
        for watcher in list(self.watchers):
            watcher.on_trouble(sentence)

    def prepend(self, rolled: Iterable[Rolled], *, more: bool) -> None:
        """Hold bars of a store, too, that are older than those held; with these at most `MOST_HELD`."""
        known, self._bars = self._in_order(), {}
        self._put(rolled)
        self._bars |= known
        self._begins_here = not more

    def cover(self, coverage: Coverage) -> None:
        """Take in what is known now of which times lack trades, and tell which bars are others by that."""
        changed: dict[int, bytes] = {}
        length = self.rollup.target.length_us
        for start, end in coverage.differs(self._coverage):
            for open_time, raw in self._bars.items():
                if open_time < end and open_time + length > start and open_time not in changed:
                    flagged = self._with_flags(open_time, raw, coverage)
                    if flagged != raw:
                        changed[open_time] = flagged
        self._coverage = coverage
        self._bars |= changed
        self._tell(sorted(changed.items()))

    def flush(self) -> None:
        """Tell what has changed since this was called last."""
        if self._rolling is not None:
            self._tell(self._put(self._rolling.changed()))

    # What is asked.

    @property
    def is_loaded(self) -> bool:
        """Whether there are bars to be shown, be it that some are lacking (`trouble`)."""
        return self._rolling is not None

    @property
    def reread(self) -> tuple[int, ...]:
        """The open times, µs, of windows whose parts have to be read from the store: see `RollingSeries.rebuild`."""
        return () if self._rolling is None else tuple(self._rolling.reread)

    @property
    def tail(self) -> Tail:
        """What is known beside what a store has."""
        return Tail() if self._rolling is None else self._rolling.tail()

    @property
    def held(self) -> tuple[int, int | None]:
        """How many bars are held, and the open time of the oldest, µs."""
        return len(self._bars), next(iter(self._in_order()), None)

    def encode(self, rolled: Iterable[Rolled]) -> list[bytes]:
        """Bars that are not held, as they are sent."""
        return encoded(rolled, self._coverage)

    def rebuild(self, window: int, parts: Iterable[Candle], *, is_whole: bool) -> None:
        """Give the closed parts of a window of `reread`. `flush` makes known what changes by it."""
        if self._rolling is not None:
            self._rolling.rebuild(window, parts, whole=is_whole)

    def newest(self, count: int) -> tuple[list[bytes], bool] | None:
        """The newest bars, oldest first, and whether there are older ones; None where more are wanted than are held."""
        bars = self._in_order()
        if len(bars) < count and not self._begins_here:
            return None
        chosen = list(bars.values())[-count:]
        return chosen, not self._begins_here or len(bars) > count

    # How it is done.

    def _put(self, rolled: Iterable[Rolled]) -> list[tuple[int, bytes]]:
        """Hold bars; those that are others than before, by open time."""
        changed = []
        for each in rolled:
            open_time, raw = each.candle.open_time, _encode(bar_of(each, self._coverage))
            (self._partial.discard if each.whole else self._partial.add)(open_time)
            known = self._bars.get(open_time)
            if known == raw:
                continue
            changed.append((open_time, raw))
            if known is None and self._bars:
                if not self._begins_here and open_time < next(iter(self._in_order())):
                    self.old_changes += 1  # older than what is held, with others in between that are not
                    continue
                self._is_in_order = self._is_in_order and open_time > next(reversed(self._bars))
            self._bars[open_time] = raw
        while len(self._bars) > MOST_HELD:
            del self._bars[next(iter(self._in_order()))]
            self._begins_here = False
        return changed

    def _in_order(self) -> dict[int, bytes]:
        if not self._is_in_order:
            self._bars = dict(sorted(self._bars.items()))
            self._is_in_order = True
        return self._bars

    def _with_flags(self, open_time: int, raw: bytes, coverage: Coverage) -> bytes:
        """A bar with what is known now of its time."""
        bar = msgspec.json.decode(raw, type=Bar)
        if bar.flags & VENUE:
            return raw
        end = open_time + self.rollup.target.length_us
        flags = bar.flags & ~(COMPLETE | INCOMPLETE)
        if flags & CLOSED and open_time not in self._partial and coverage.has_all(open_time, end):
            flags |= COMPLETE
        elif coverage.lacks(open_time, end):
            flags |= INCOMPLETE
        return _encode(msgspec.structs.replace(bar, flags=flags))

    def _tell(self, bars: list[tuple[int, bytes]]) -> None:
        if bars:
            for watcher in self.watchers:
                watcher.on_bars(bars)


def encoded(rolled: Iterable[Rolled], coverage: Coverage) -> list[bytes]:
    """Bars as they are sent."""
    return [_encode(bar_of(each, coverage)) for each in rolled]

"""The newest windows of one symbol in one timeframe of a chart, as their parts come; bounded. Pure."""

from __future__ import annotations

from collections import OrderedDict
from heapq import nsmallest
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple

from ashi_chart.candles.coverage import FOR_EVER
from ashi_chart.candles.rollup import NEVER, Rolled, same_content

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from ashi.contracts.candle import Candle
    from ashi_chart.candles.rollup import Rollup

PARTS: Final = 2_000
"""So many parts are held: some 3 MB."""
CORRECTIONS: Final = 4_000
"""So many corrections of parts that are not held any more are remembered, and of windows that were corrected. A store
lags behind the stream by less: an hour of candles of a second is 3,600."""

IN_PROGRESS: Final = 1_000
"""So many updates of open windows are held; there are two at a time as a rule."""

_open_time = attrgetter("open_time")


class Tail(NamedTuple):
    """What is known of a series beside what a store has of it; by version it is joined with that.

    Attributes:
        closed: closed parts, in any order.
        in_progress: parts whose window is open, as far as they have come.
        corrected: the open times, µs, of the windows that were corrected.
        let_go_until: up to here, µs, parts had closed that are not in `closed` any more: a store should have them now.

    """

    closed: Collection[Candle] = ()
    in_progress: Collection[Candle] = ()
    corrected: frozenset[int] = frozenset()
    let_go_until: int = NEVER


class _Window:
    """The closed parts of one window, and their sum."""

    __slots__ = ("closed", "newest", "settled", "settled_until", "total")

    def __init__(self) -> None:
        self.closed: dict[int, Candle] = {}
        self.newest = NEVER
        """The open time, µs, of the last part that `closed` has had."""
        self.settled: Candle | None = None
        """The sum of parts that are not held any more: all before what `closed` holds, up to `settled_until`, µs."""
        self.settled_until = NEVER
        self.total: Candle | None = None
        """The sum of all; None: to be made anew."""

    def parts(self, more: Iterable[Candle] = ()) -> list[Candle]:
        """What it is the sum of, in order, with more parts."""
        in_order = sorted([*self.closed.values(), *more], key=_open_time)
        return in_order if self.settled is None else [self.settled, *in_order]


class RollingSeries:
    """Makes the candles of a chart of parts as they come, in any order and however often: the greatest version counts.

    It holds the parts of the newest windows. A correction of what it does not hold is named in `reread`.
    """

    def __init__(self, symbol: str, rollup: Rollup, since: int = 0, parts: int = PARTS) -> None:
        """Begin with nothing.

        `since`: the start of a window: all parts from this time on, µs, are given to it, and the series has older ones;
        0: all parts are given to it, and the first is the first of the series. `parts`: so many are held.
        """
        self.symbol = symbol
        self.rollup = rollup
        self._limit = max(parts, 1)
        self._since = since
        self._first = FOR_EVER if since == 0 else 0
        self._windows: dict[int, _Window] = {}
        self._held = 0
        self._in_progress: dict[int, Candle] = {}
        self._closed_through = NEVER
        self._let_go_until = NEVER
        self._old: OrderedDict[int, Candle] = OrderedDict()
        self._late: set[int] = set()
        """Parts held that came behind later ones: a store that has those need not have these yet."""
        self._corrected: OrderedDict[int, None] = OrderedDict()
        self._changed: set[int] = set()
        self._rebuilt: dict[int, Rolled] = {}
        self._reread: set[int] = set()

    # What comes.

    def fill(self, candle: Candle) -> None:
        """Take in a closed part that was there before anything was shown: nothing changes or is corrected by it."""
        self._take(candle, is_news=False)
        self._make_room()

    def fill_all(self, candles: Iterable[Candle]) -> None:
        """As `fill`. In whichever order they are given: only when all are there are some let go of."""
        for candle in candles:
            self._take(candle, is_news=False)
        self._make_room()

    def apply(self, candle: Candle) -> None:
        """Take in a closed part that has come."""
        self._take(candle, is_news=True)
        self._make_room()

    def update(self, candle: Candle) -> None:
        """Take in how far a part whose window is open has come.

        It is no news where that part, or a later one, has closed, or that version or a later one is known.
        """
        known = self._in_progress.get(candle.open_time)
        if candle.close_time <= self._closed_through or (known is not None and candle.version <= known.version):
            return
        self._in_progress[candle.open_time] = candle
        if len(self._in_progress) > IN_PROGRESS:
            del self._in_progress[min(self._in_progress)]
        self._first = min(self._first, candle.open_time)
        self._changed.add(self._start_of(candle))

    def rebuild(self, window: int, parts: Iterable[Candle], *, whole: bool = True) -> None:
        """Give all closed parts that a store has of a window that `reread` has named; what is newer here counts.

        `whole`: whether the series began before the window.
        """
        self._reread.discard(window)
        end = self.rollup.window_of(window)[1]
        held = self._windows.get(window, _Window())
        joined = held.closed | {time: part for time, part in self._old.items() if window <= time < end}
        for part in parts:
            known = joined.get(part.open_time)
            if known is None or part.version > known.version:
                joined[part.open_time] = part
        if window >= self._since:
            before = self._look(window)
            self._windows[window] = held
            self._held += len(joined) - len(held.closed)
            held.closed, held.settled, held.settled_until, held.total = joined, None, NEVER, None
            held.newest = max(joined, default=NEVER)
            self._in_progress = {time: part for time, part in self._in_progress.items() if time not in joined}
            self._note_changed(window, before)
            self._make_room()
            return
        self._mark_corrected(window)
        candle = self.rollup.candle_of([joined[time] for time in sorted(joined)])
        self._rebuilt[window] = Rolled(candle, closed=True, corrected=True, whole=whole)

    def go_on_from(self, before: RollingSeries, *, lacked_some: bool = False) -> None:
        """Once filled, take the place of another: what it has shown closed, and is not so any more, was corrected.

        `lacked_some`: it was not filled with all that there was, so what is otherwise now had not been read.
        """
        self._corrected = before._corrected.copy()
        if lacked_some:
            return
        for shown in before.between(max(self._since, before._since), FOR_EVER):
            if (now := self._look(shown.candle.open_time)) is not None:
                self._note_corrected(shown, now)

    # What is asked.

    @property
    def since(self) -> int:
        """The windows from this time on, µs, are held; 0: all."""
        return self._since

    @property
    def reread(self) -> Collection[int]:
        """The open times, µs, of windows of which something not held any more was corrected: see `rebuild`."""
        return frozenset(self._reread)

    def changed(self) -> list[Rolled]:
        """What has changed since this was asked last, by open time, each window once as it is now."""
        found, self._rebuilt = self._rebuilt, {}
        for start in self._changed:
            rolled = self._look(start)
            if rolled is not None:
                found[start] = rolled
        self._changed.clear()
        return [found[start] for start in sorted(found)]

    def between(self, start: int, end: int) -> list[Rolled]:
        """The windows held that overlap a time, µs, `end` exclusive, by open time."""
        starts = (each for each in sorted(self._starts()) if each < end and self.rollup.window_of(each)[1] > start)
        return [rolled for each in starts if (rolled := self._look(each)) is not None]

    def newest(self, count: int) -> list[Rolled] | None:
        """The newest windows, by open time: `count` of them, or all of a series that has no more.

        None where more are wanted than are held, so that a store has to be asked.
        """
        starts = sorted(self._starts())
        if len(starts) < count and self._since > 0:
            return None
        return [rolled for each in starts[-count:] if (rolled := self._look(each)) is not None]

    def tail(self) -> Tail:
        """What is known here beside what a store has."""
        held = [part for window in self._windows.values() for part in window.closed.values()]
        corrected = frozenset(self._corrected)
        return Tail([*self._old.values(), *held], list(self._in_progress.values()), corrected, self._let_go_until)

    # How it is done.

    def _take(self, candle: Candle, *, is_news: bool) -> None:
        start = self._start_of(candle)
        window = self._windows.get(start)
        if start < self._since or (window is not None and candle.open_time < window.settled_until):
            self._take_old(candle, start, is_news=is_news)
            return
        known = None if window is None else window.closed.get(candle.open_time)
        if known is not None and candle.version <= known.version:
            return
        before = self._look(start) if is_news else None
        if window is None:
            window = self._windows[start] = _Window()
        if candle.close_time <= self._closed_through:
            self._late.add(candle.open_time)
        self._put(window, candle, known)
        if candle.close_time > self._closed_through:
            self._close_through(candle.close_time, is_news=is_news)
        if is_news:
            self._note_changed(start, before)

    def _put(self, window: _Window, candle: Candle, known: Candle | None) -> None:
        is_last = candle.open_time > window.newest
        window.newest = max(window.newest, candle.open_time)
        window.closed[candle.open_time] = candle
        self._in_progress.pop(candle.open_time, None)
        self._held += known is None
        self._first = min(self._first, candle.open_time)
        if is_last and window.total is not None:
            window.total = self.rollup.sum_of([window.total, candle])
        else:
            window.total = None

    def _take_old(self, candle: Candle, start: int, *, is_news: bool) -> None:
        known = self._old.get(candle.open_time)
        if known is not None and candle.version <= known.version:
            return
        self._first = min(self._first, candle.open_time)
        self._remember(candle)
        if is_news:
            self._reread.add(start)

    def _remember(self, candle: Candle) -> None:
        self._old[candle.open_time] = candle
        self._old.move_to_end(candle.open_time)
        if len(self._old) > CORRECTIONS:
            self._old.popitem(last=False)

    def _let_go_of_part(self, part: Candle) -> None:
        self._held -= 1
        self._let_go_until = max(self._let_go_until, part.close_time)
        if part.open_time in self._late:
            self._late.discard(part.open_time)
            self._remember(part)

    def _close_through(self, close_time: int, *, is_news: bool) -> None:
        """All that opens before this time has closed, or never will."""
        before, self._closed_through = self._closed_through, close_time
        if is_news and before != NEVER:
            self._changed.add(self.rollup.window_of(before - 1)[0])  # it may have waited for parts that never came

    def _make_room(self) -> None:
        while self._held > self._limit and len(self._windows) > 1:
            self._let_go_of(min(self._windows))
        if self._held > self._limit:
            [window] = self._windows.values()
            self._settle(window, self._held - self._limit)

    def _settle(self, window: _Window, count: int) -> None:
        """Let go of the oldest parts of a window, so many, but for their sum."""
        ahead = min(self._in_progress, default=FOR_EVER)
        # The sum of what is not held is of the first parts, and of nothing in progress.
        oldest = [open_time for open_time in nsmallest(count, window.closed) if open_time <= ahead]
        if not oldest:
            return
        parts = [] if window.settled is None else [window.settled]
        for open_time in oldest:
            part = window.closed.pop(open_time)
            self._let_go_of_part(part)
            window.settled_until = part.close_time
            parts.append(part)
        window.settled = self.rollup.sum_of(parts)

    def _let_go_of(self, start: int) -> None:
        since = self.rollup.window_of(start)[1]
        for changed in [each for each in self._changed if each < since]:
            rolled = self._look(changed)
            if rolled is not None:
                self._rebuilt[changed] = rolled
            self._changed.discard(changed)
        for part in self._windows.pop(start).closed.values():
            self._let_go_of_part(part)
        self._since = since
        self._in_progress = {time: part for time, part in self._in_progress.items() if time >= since}

    def _look(self, start: int) -> Rolled | None:
        """The candle of a window as it is now."""
        end = self.rollup.window_of(start)[1]
        window = self._windows.get(start)
        ahead = sorted(each for each in self._in_progress if start <= each < end)
        parts = [self._in_progress[each] for each in ahead]
        if window is not None:
            if window.total is None:
                window.total = self.rollup.sum_of(window.parts())
            if not ahead or ahead[0] > max(window.closed):
                parts.insert(0, window.total)
            else:
                parts = window.parts(parts)
        if not parts:
            return None
        is_closed = end <= self._closed_through and not ahead
        return Rolled(self.rollup.sum_of(parts), is_closed, start in self._corrected, whole=self._first <= start)

    def _starts(self) -> set[int]:
        return self._windows.keys() | {self._start_of(part) for part in self._in_progress.values()}

    def _start_of(self, part: Candle) -> int:
        return self.rollup.target.open_time(part.open_time)

    def _note_changed(self, start: int, before: Rolled | None) -> None:
        self._changed.add(start)
        now = self._look(start)
        if before is not None and now is not None:
            self._note_corrected(before, now)

    def _note_corrected(self, before: Rolled, now: Rolled) -> None:
        if before.closed and not same_content(before.candle, now.candle):
            self._mark_corrected(now.candle.open_time)

    def _mark_corrected(self, start: int) -> None:
        self._corrected[start] = None
        self._corrected.move_to_end(start)
        if len(self._corrected) > CORRECTIONS:
            self._corrected.popitem(last=False)

"""Counting the trades of a log anew, without the state machine: no windows that close, every trade of a window counts.

What `ashi verify` compares candles with, and what `ashi rebuild` makes them of. Trades that came too late for the
workers (topic `trades.late`) are told beforehand and kept apart, so a window can be looked at with them and without.
Memory is bounded: a window is given away once no trade that is still to come can belong to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from ashi.contracts.timeframe import Timeframe
from ashi.contracts.trade import Trade
from ashi_aggregate.core.fold import Fold, fold_trades
from ashi_aggregate.core.trade_ids import APART_US, TradeIds, as_numbers
from ashi_aggregate.core.window_state import WindowRules, late_reason

_END_OF_TIME: Final = 2**63


class Late(msgspec.Struct):
    """A trade of topic `trades.late`, with its offset in `trades`.

    `beyond_horizon`: it is too late by the rules of now, too. Else it was so in an earlier epoch, or its window had
    been given up for other reasons.
    """

    trade: Trade
    offset: int
    beyond_horizon: bool = True


class Counted(msgspec.Struct):
    """The trades of one window (`open_time` in µs): those that came in time, summed up, and those that did not."""

    open_time: int
    on_time: Fold | None = None
    late: list[Late] = []

    def fold(self, late: Iterable[Late]) -> Fold | None:
        """What the trades that came in time add up to together with some of the late ones; None when there is none."""
        total = None if self.on_time is None else msgspec.structs.replace(self.on_time)
        for trade, offset in ((one.trade, one.offset) for one in late):
            partial = fold_trades((trade,), self.open_time, offset)
            if total is None:
                total = partial
            else:
                total.merge(partial)
        return total

    def everything(self) -> Fold | None:
        """What all its trades add up to."""
        return self.fold(self.late)


class Stretch(NamedTuple):
    """All windows of one series that began in [begin, until), µs, as far as they have trades, oldest first.

    `settled`: no trade still to come can change them; otherwise the log ends too soon to tell.
    """

    symbol: str
    timeframe: Timeframe
    begin: int
    until: int
    windows: list[Counted]
    settled: bool


class _Series:
    """The windows of one timeframe that have not been given away."""

    def __init__(self, timeframe: Timeframe, start: int, end: int) -> None:
        self.timeframe = timeframe
        self.windows: dict[int, Counted] = {}
        self.begin: int | None = None
        self.after = _END_OF_TIME
        """The first window with trades that begins at `end` or later: nothing of it is kept but that it is there."""
        self._start = start
        self._end = end

    def wants(self, time: int) -> bool:
        """Whether the window that a trade of `time` (µs) belongs to is one to be kept."""
        return self._start <= self.timeframe.open_time(time) < self._end

    def window(self, time: int) -> Counted | None:
        """The window that a trade of `time` (µs) belongs to, if it is one to be kept."""
        open_time = self.timeframe.open_time(time)
        if open_time >= self._end:
            self.after = min(self.after, open_time)
            return None
        if open_time < self._start:
            return None
        window = self.windows.get(open_time)
        if window is None:
            window = self.windows[open_time] = Counted(open_time, late=[])
        return window

    def take(self, until: int, least: int) -> list[Counted]:
        """Give away the windows that began before `until`, if they are so many at least."""
        taken = sorted(open_time for open_time in self.windows if open_time < until)
        if len(taken) < least:
            return []
        windows = [self.windows.pop(open_time) for open_time in taken]
        return [window for window in windows if window.on_time is not None or window.late]


class Recount:
    """The trades of one symbol, given in the order of the log.

    Attributes:
        clock: the greatest `traded_at` so far, µs.
        strays: trades of windows to be counted that are beyond the horizon and were not told beforehand: they count
            nowhere.

    """

    def __init__(
        self,
        symbol: str,
        timeframes: Sequence[Timeframe],
        rules: WindowRules,
        late: Mapping[int, Trade],
        *,
        start: int = 0,
        end: int = _END_OF_TIME,
    ) -> None:
        """Count the windows that begin in [start, end), µs. `late`: the late trades of the symbol by their offset."""
        self.symbol = symbol
        self.clock = 0
        self.strays: list[Late] = []
        self._rules = rules
        self._start = start
        self._ids = TradeIds({}, rules.finest.length_us)
        self._series = [_Series(timeframe, start, end) for timeframe in timeframes]
        self._late_ids = TradeIds({}, rules.finest.length_us)
        self._late: dict[int, Late] = {}
        self._late_by_id: dict[str, list[Late]] = {}
        self.tell_late(late)

    def tell_late(self, late: Mapping[int, Trade]) -> None:
        """Tell of more late trades, by their offsets, before any window of theirs can be complete."""
        for offset, trade in sorted(late.items()):
            one = self._late[offset] = Late(trade, offset)
            if not self._late_ids.admit(trade.trade_id, trade.traded_at):
                continue
            self._late_by_id.setdefault(trade.trade_id, []).append(one)
            for series in self._series:
                if (window := series.window(trade.traded_at)) is not None:
                    window.late.append(one)

    def add(self, trades: Sequence[Trade], offsets: Sequence[int]) -> None:
        """Count trades of this symbol, in the order of the log; each id once."""
        finest, horizon_us, clock, late_ones = self._rules.finest, self._rules.horizon_us, self.clock, self._late
        # As the workers do it: where the ids of a batch ascend, a look at their order tells that none is a copy.
        numbers = as_numbers([trade.trade_id for trade in trades])
        ascending = numbers if numbers and self._ids.all_new(numbers) else None
        admitted: dict[int, list[int]] = {}
        groups: dict[int, tuple[list[Trade], list[int]]] = {}
        for place, (trade, offset) in enumerate(zip(trades, offsets, strict=True)):
            traded_at = trade.traded_at
            clock = max(clock, traded_at)
            beyond = traded_at + horizon_us < clock and late_reason(self._rules, clock, 0, traded_at) is not None
            late = late_ones.get(offset) if late_ones else None
            if late is not None:
                late.beyond_horizon = beyond
                continue
            if beyond:
                if any(series.wants(traded_at) for series in self._series):
                    self.strays.append(Late(trade, offset))
                continue
            start = finest.open_time(traded_at)
            if ascending is not None:
                admitted.setdefault(start, []).append(ascending[place])
            elif not self._ids.admit(trade.trade_id, traded_at):
                continue
            if late_ones:
                self._forget_late_copy(trade)
            if traded_at >= self._start:
                of, places = groups.setdefault(start, ([], []))
                of.append(trade)
                places.append(offset)
        self.clock = clock
        for start, some in admitted.items():
            self._ids.add_ascending(start, some)
        for start, (of, places) in groups.items():
            partial = fold_trades(of, start, max(places))
            for series in self._series:
                if (window := series.window(start)) is not None:
                    _merge(window, partial)
        self._ids.forget_before(self._settled_until())

    def _forget_late_copy(self, trade: Trade) -> None:
        """A trade that came in time, and once more too late, is not late."""
        for one in self._late_by_id.get(trade.trade_id, ()):
            if abs(one.trade.traded_at - trade.traded_at) <= APART_US:
                for series in self._series:
                    window = series.windows.get(series.timeframe.open_time(one.trade.traded_at))
                    if window is not None and one in window.late:
                        window.late.remove(one)

    def _settled_until(self) -> int:
        """Windows that ended before this time (µs) are complete; so are those next to them, where copies may be."""
        return self.clock - self._rules.horizon_us - self._rules.finest.length_us - APART_US

    def settled(self, least: int = 1) -> list[Stretch]:
        """Give away what is complete: of each timeframe, where there are so many windows at least."""
        return [stretch for series in self._series if (stretch := self._take(series, least)) is not None]

    def rest(self) -> list[Stretch]:
        """At the end of the log: give away what is left, first what is complete."""
        stretches = []
        for series in self._series:
            settled = self._take(series, 0)
            if settled is not None:
                stretches.append(settled)
            if windows := series.take(_END_OF_TIME, 0):
                begin = windows[0].open_time if series.begin is None else series.begin
                until = windows[-1].open_time + series.timeframe.length_us
                stretches.append(Stretch(self.symbol, series.timeframe, begin, until, windows, settled=False))
        return stretches

    def _take(self, series: _Series, least: int) -> Stretch | None:
        until = min(series.timeframe.open_time(self._settled_until()), series.after)
        windows = series.take(until, least)
        begin = series.begin
        if begin is None and windows:
            begin = windows[0].open_time
        if begin is None or begin >= until or (least and not windows):
            return None
        series.begin = until
        return Stretch(self.symbol, series.timeframe, begin, until, windows, settled=True)


def _merge(window: Counted, partial: Fold) -> None:
    if window.on_time is None:
        window.on_time = msgspec.structs.replace(partial, open_time=window.open_time)
    else:
        window.on_time.merge(partial)

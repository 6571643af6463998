"""Counting the trades of a log anew, as a batch: group them by window, drop repeated ids, sort, add up.

What `ashi verify` compares candles with, and what `ashi rebuild` makes them of. Nothing of the workers' code is used,
so that a mistake in their fold, their ids or their lateness shows. Trades that came too late for the workers (topic
`trades.late`) are told beforehand and kept apart, so a window can be looked at with them and without. Memory is
bounded: trades are kept until no other can come into their finest window, windows until they are given away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from ashi.contracts.timeframe import Timeframe
from ashi.contracts.trade import Trade
from ashi_audit.recomputed import Totals, add_up, join
from ashi_audit.rules import COPIES_APART_US, CandleRules

_END_OF_TIME: Final = 2**63
_PARTS_AT_ONCE: Final = 100


class LateTrade(msgspec.Struct):
    """A trade that came too late for the workers, with its offset in `trades`.

    `beyond_horizon`: it is too late by the rules of now, too. Else it was so in an earlier epoch, or its window had
    been given up for other reasons.
    """

    trade: Trade
    offset: int
    beyond_horizon: bool = True


class WindowTrades(msgspec.Struct):
    """The trades of one window (`open_time` in µs): those that came in time, added up, and those that did not.

    `in_time` lacks what is in `parts`, until `join_parts`.
    """

    open_time: int
    in_time: Totals | None = None
    late: list[LateTrade] = []
    parts: list[Totals] = []

    def add(self, totals: Totals) -> None:
        """Add trades that came in time."""
        self.parts.append(totals)
        if len(self.parts) >= _PARTS_AT_ONCE:
            self.join_parts()

    def join_parts(self) -> None:
        """Let `in_time` be all of them. To join many at once takes a fifth of one after the other."""
        if self.parts:
            self.in_time = join(self.parts if self.in_time is None else [self.in_time, *self.parts])
            self.parts = []

    def with_late(self, late: Iterable[LateTrade]) -> Totals | None:
        """What those in time add up to together with some of the late ones; None when there is none of either."""
        parts = [] if self.in_time is None else [self.in_time]
        parts += [add_up([arrival.trade], arrival.offset) for arrival in late]
        return join(parts) if parts else None

    def everything(self) -> Totals | None:
        """What all its trades add up to."""
        return self.with_late(self.late)


class SeriesRange(NamedTuple):
    """All windows of one series that began in [begin, until), µs, as far as they have trades, oldest first.

    `settled`: no trade still to come can change them; otherwise the log ends too soon to tell.
    """

    symbol: str
    timeframe: Timeframe
    begin: int
    until: int
    windows: list[WindowTrades]
    settled: bool


class _FinestWindow:
    """The trades of one finest window that came in time, by their ids: of copies the first in the log."""

    def __init__(self) -> None:
        self.trades: dict[str, Trade] = {}
        self.offset = -1


class _Series:
    """The windows of one timeframe that have not been given away."""

    def __init__(self, timeframe: Timeframe, start: int, end: int) -> None:
        self.timeframe = timeframe
        self.windows: dict[int, WindowTrades] = {}
        self.begin: int | None = None
        self.after = _END_OF_TIME
        """The first window with trades that begins at `end` or later: nothing of it is kept but that it is there."""
        self._start = start
        self._end = end

    def wants(self, time: int) -> bool:
        """Whether the window that a trade of `time` (µs) belongs to is one to be kept."""
        return self._start <= self.timeframe.open_time(time) < self._end

    def window(self, time: int) -> WindowTrades | None:
        """The window that a trade of `time` (µs) belongs to, if it is one to be kept."""
        open_time = self.timeframe.open_time(time)
        if open_time >= self._end:
            self.after = min(self.after, open_time)
            return None
        if open_time < self._start:
            return None
        window = self.windows.get(open_time)
        if window is None:
            window = self.windows[open_time] = WindowTrades(open_time, late=[])
        return window

    def take(self, until: int, least: int) -> list[WindowTrades]:
        """Give away the windows that began before `until`, if they are so many at least."""
        open_times = sorted(open_time for open_time in self.windows if open_time < until)
        if len(open_times) < least:
            return []
        windows = [self.windows.pop(open_time) for open_time in open_times]
        for window in windows:
            window.join_parts()
        return [window for window in windows if window.in_time is not None or window.late]


class BatchAggregation:
    """The trades of one symbol, given in the order of the log.

    Attributes:
        clock: the greatest `traded_at` so far, µs.
        unreported: trades of windows to be counted that are beyond the horizon and were not told beforehand: they
            count nowhere.

    """

    def __init__(
        self,
        symbol: str,
        timeframes: Sequence[Timeframe],
        rules: CandleRules,
        late: Mapping[int, Trade],
        *,
        start: int = 0,
        end: int = _END_OF_TIME,
    ) -> None:
        """Count the windows that begin in [start, end), µs. `late`: the late trades of the symbol by their offset."""
        self.symbol = symbol
        self.clock = 0
        self.unreported: list[LateTrade] = []
        self._rules = rules
        self._finest: dict[int, _FinestWindow] = {}
        self._series = [_Series(timeframe, start, end) for timeframe in timeframes]
        self._late: dict[int, LateTrade] = {}
        self._late_by_id: dict[str, list[LateTrade]] = {}
        self.report_late(late)

    def report_late(self, late: Mapping[int, Trade]) -> None:
        """Tell of more late trades, by their offsets, before any window of theirs can be complete."""
        for offset, trade in sorted(late.items()):
            arrival = self._late[offset] = LateTrade(trade, offset)
            copies = self._late_by_id.setdefault(trade.trade_id, [])
            if any(self._rules.are_copies(copy.trade.traded_at, trade.traded_at) for copy in copies):
                continue
            copies.append(arrival)
            for series in self._series:
                if (window := series.window(trade.traded_at)) is not None:
                    window.late.append(arrival)

    def add(self, trades: Sequence[Trade], offsets: Sequence[int]) -> None:
        """Count trades of this symbol, in the order of the log; each id once."""
        beyond_horizon, horizon_us, late_by_offset = self._rules.beyond_horizon, self._rules.horizon_us, self._late
        for trade, offset in zip(trades, offsets, strict=True):
            self.clock = max(self.clock, trade.traded_at)
            behind_us = self.clock - trade.traded_at
            beyond = behind_us > horizon_us and beyond_horizon(trade.traded_at, self.clock)
            late = late_by_offset.get(offset)
            # A symbol whose partition has changed has other trades at the same offsets.
            if late is not None and late.trade == trade:
                late.beyond_horizon = beyond
            elif beyond:
                if any(series.wants(trade.traded_at) for series in self._series):
                    self.unreported.append(LateTrade(trade, offset))
            elif not self._is_copy(trade):
                self._count(trade, offset)
        self._add_up_before(self._rules.settled_until(self.clock))

    def add_totals(self, totals: Iterable[Totals], late: Iterable[int], clock: int) -> None:
        """Count trades that somebody else has added up by finest window, each once and none beyond the horizon.

        `late`: the offsets of those that came too late for the workers, which `report_late` was told of. `clock`: the
        greatest `traded_at` of all of these, µs.
        """
        self.clock = max(self.clock, clock)
        for offset in late:
            self._late[offset].beyond_horizon = False
        for of_window in totals:
            for series in self._series:
                if (wanted := series.window(of_window.first.traded_at)) is not None:
                    wanted.add(of_window)
        self._add_up_before(self._rules.settled_until(self.clock))

    def _is_copy(self, trade: Trade) -> bool:
        """Whether a trade of that id has been counted about that time."""
        length_us, open_time = self._rules.finest.length_us, self._rules.finest.open_time
        first, last = open_time(trade.traded_at - COPIES_APART_US), open_time(trade.traded_at + COPIES_APART_US)
        for start in range(first, last + 1, length_us):
            window = self._finest.get(start)
            if window is not None and trade.trade_id in window.trades:
                return True
        return False

    def _count(self, trade: Trade, offset: int) -> None:
        start = self._rules.finest.open_time(trade.traded_at)
        window = self._finest.get(start)
        if window is None:
            window = self._finest[start] = _FinestWindow()
        window.trades[trade.trade_id] = trade
        window.offset = max(window.offset, offset)
        if trade.trade_id in self._late_by_id:
            self._forget_late_copies(trade)

    def _forget_late_copies(self, trade: Trade) -> None:
        """A trade that came in time, and once more too late, is not late."""
        for arrival in self._late_by_id[trade.trade_id]:
            if abs(arrival.trade.traded_at - trade.traded_at) <= COPIES_APART_US:
                for series in self._series:
                    window = series.windows.get(series.timeframe.open_time(arrival.trade.traded_at))
                    if window is not None and arrival in window.late:
                        window.late.remove(arrival)

    def _add_up_before(self, until: int) -> None:
        """Add up the finest windows that ended by `until` (µs), oldest first, and forget their trades."""
        length_us = self._rules.finest.length_us
        for start in sorted(start for start in self._finest if start + length_us <= until):
            window = self._finest.pop(start)
            totals = add_up(window.trades.values(), window.offset)
            for series in self._series:
                if (wanted := series.window(start)) is not None:
                    wanted.add(totals)

    def settled(self, least: int = 1) -> list[SeriesRange]:
        """Give away what is complete: of each timeframe, where there are so many windows at least."""
        ranges = [self._take(series, least) for series in self._series]
        return [series_range for series_range in ranges if series_range is not None]

    def rest(self) -> list[SeriesRange]:
        """At the end of the log: give away what is left, first what is complete."""
        self._add_up_before(_END_OF_TIME)
        ranges = []
        for series in self._series:
            settled = self._take(series, 0)
            if settled is not None:
                ranges.append(settled)
            if windows := series.take(_END_OF_TIME, 0):
                begin = windows[0].open_time if series.begin is None else series.begin
                until = windows[-1].open_time + series.timeframe.length_us
                ranges.append(SeriesRange(self.symbol, series.timeframe, begin, until, windows, settled=False))
        return ranges

    def _take(self, series: _Series, least: int) -> SeriesRange | None:
        until = min(series.timeframe.open_time(self._rules.settled_until(self.clock)), series.after)
        windows = series.take(until, least)
        begin = series.begin
        if begin is None and windows:
            begin = windows[0].open_time
        if begin is None or begin >= until or (least and not windows):
            return None
        series.begin = until
        return SeriesRange(self.symbol, series.timeframe, begin, until, windows, settled=True)

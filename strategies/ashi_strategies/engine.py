"""The one engine, for live and for backtests: closed candles in, in whatever order; signals out. It does no I/O.

What it ends with is a function of the candles it has had, of each the greatest version, and of nothing else: not of the
order in which they came, of corrections in between, or of how often it was started. So a backtest over the final
candles gives the signals that a live run has given and not taken back.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final

from ashi_series.events import Closed, Corrected, Gap
from ashi_series.series import Series
from ashi_strategies.given import GivenSignals
from ashi_strategies.run import Run, Step, call

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ashi.contracts.candle import Candle
    from ashi.contracts.signal import Signal
    from ashi_series.events import Event
    from ashi_strategies.handed import SeriesKey
    from ashi_strategies.plan import Plan

__all__ = ["PATIENCE_US", "REACH", "Engine"]

PATIENCE_US: Final = 5_000_000
"""So long a close time waits for the candles of the other series, counted from when the first of them came."""
REACH: Final = 1_000
"""So many candles back, of each series, a correction is followed, unless told otherwise."""
_NEVER: Final = 2**63


class _Line:
    """One series, and how far its candles have come."""

    __slots__ = ("length_us", "newest", "series")

    def __init__(self, key: SeriesKey, limit: int) -> None:
        self.series = Series(*key, limit=limit)
        self.length_us = key[1].length_us
        self.newest = 0


class _Pending:
    """The candles of one close time that has not been dealt with."""

    __slots__ = ("candles", "since")

    def __init__(self, since: int | None) -> None:
        self.since = since
        self.candles: dict[_Line, Candle] = {}


class Engine:
    """Runs one strategy.

    Close times are dealt with in order, each once all series have closed: when each has given its candle, or a later
    one, or when `tick` finds that it has waited `PATIENCE_US`. What comes for a close time that has been dealt with is
    a correction: the strategy is run again, in a new instance, from that time on for as long as that candle can matter.

    Attributes:
        plan: what it runs.
        done: the last close time that has been dealt with, µs; 0 before the first.
        counts_since: the first close time at which what the strategy said counted, µs; None before that.
        out_of_reach: how many candles came too late to follow: those that were older than what is kept, and close times
            that could not be dealt with again for want of candles before them. What was signalled there stands.

    """

    def __init__(self, plan: Plan, *, since: int = 0, known: Iterable[Signal] = (), reach: int = REACH) -> None:
        """Start with no candles: those before `since` have to come first, `Plan.history` of them.

        Args:
            plan: what to run.
            since: signals are given at candles that closed after this time, µs. After a restart: that of the first
                start, or as far back as candles are corrected.
            known: the signals that are in the topic already. What is there is not given again, and what is there and is
                not what the strategy says now is superseded.
            reach: so many candles back, of each series, a correction is followed.

        """
        self.plan = plan
        self.done = 0
        self.counts_since: int | None = None
        self.out_of_reach = 0
        lines = {key: _Line(key, 2 * count + reach + 1) for key, count in plan.history.items()}
        self._lines = {(symbol, str(timeframe)): line for (symbol, timeframe), line in lines.items()}
        self._series = {key: line.series for key, line in lines.items()}
        self._pending: dict[int, _Pending] = {}
        self._pending_times: list[int] = []
        self._given = GivenSignals(plan.identity, self._lines, since, known)
        self._run = Run(plan, self._series)

    @property
    def is_warm(self) -> bool:
        """Whether it has had so many candles that what the strategy says counts."""
        return self._run.is_warm

    @property
    def pending(self) -> int:
        """How many close times wait for the candles of other series."""
        return len(self._pending)

    def feed(self, events: Iterable[Event], now: int | None = None) -> list[Signal]:
        """Take in what came, in the order in which it came, and deal with all close times that are due.

        Candles in progress, and those of other series, are passed over.

        Args:
            events: of a store that is followed; whether one is Closed or Corrected makes no difference.
            now: when they came, µs, by the clock whose time `tick` is given; None: nobody waits, as in a backtest.

        Returns the signals to publish, in this order. Raises StrategyError for what the strategy does wrong; the engine
        cannot be used any more then.

        """
        told: list[Closed | Corrected | Gap] = []
        changed: set[int] = set()
        for event in events:
            if isinstance(event, Gap):
                told.append(event)
            elif isinstance(event, Closed | Corrected) and (line := self._line(event.candle)) is not None:
                self._given.note_completeness(event)
                if self._take(line, event.candle, now, changed):
                    told.append(event)
        signals = list(self._run_again(sorted(changed), now)) if changed else []
        signals += self._deal(now, patient=True)
        for event in told:
            self._tell(event)
        return signals

    def tick(self, now: int) -> list[Signal]:
        """Deal with what has waited for `PATIENCE_US` by a clock (µs), and with what is due after it.

        Not while what is awaited may still be on its way, as when a log is being caught up with.
        """
        return list(self._deal(now, patient=False))

    def finish(self) -> list[Signal]:
        """Deal with all that came: nothing will come any more."""
        return list(self._deal(None, patient=False))

    def shortage(self) -> dict[SeriesKey, int]:
        """How many candles of which series are lacking, at least, before what the strategy says counts."""
        lacking = {key: count - len(self._series[key]) for key, count in self.plan.history.items()}
        return {} if self.is_warm else {key: count for key, count in lacking.items() if count > 0}

    def signals(self) -> list[Signal]:
        """The last of each slot that it has given or was told, in order, of the candles that it keeps."""
        return self._given.in_order()

    def _line(self, candle: Candle) -> _Line | None:
        return self._lines.get((candle.symbol, candle.timeframe))

    def _take(self, line: _Line, candle: Candle, now: int | None, changed: set[int]) -> bool:
        """Put a candle where it belongs; whether it corrects a close time that has been dealt with."""
        time = candle.close_time
        line.newest = max(line.newest, time)
        if time > self.done:
            pending = self._pending.get(time)
            if pending is None:
                pending = self._pending[time] = _Pending(now)
                heapq.heappush(self._pending_times, time)
            known = pending.candles.get(line)
            if known is None or candle.version > known.version:
                pending.candles[line] = candle
            return False
        series = line.series
        if series.apply(candle) is None:
            self.out_of_reach += bool(series) and candle.open_time < series[0].open_time
            return False
        changed.add(time)
        return True

    def _deal(self, now: int | None, *, patient: bool) -> Iterator[Signal]:
        """Step through the close times that are due."""
        while self._pending_times:
            time = self._pending_times[0]
            pending = self._pending[time]
            if not self._is_due(time) and (patient or not _has_waited(pending, now)):
                return
            heapq.heappop(self._pending_times)
            del self._pending[time]
            for line, candle in pending.candles.items():
                line.series.apply(candle)
            self.done = time
            step = self._run.step(time)
            if step.counts and self.counts_since is None:
                self.counts_since = time
            yield from self._given.compare(step, now)
            self._given.forget(self._oldest)

    def _is_due(self, time: int) -> bool:
        """Whether every series that may close at `time` has, or has gone on."""
        return all(line.newest >= time or time % line.length_us for line in self._lines.values())

    def _run_again(self, changed: list[int], now: int | None) -> Iterator[Signal]:
        """Run the strategy again from the first of these close times on, for as long as one of them can matter.

        It cannot any more once an instance would be warm that was begun with series in which nothing is so old. Where
        that is not reached, the new instance is the one that goes on.
        """
        waiting = changed[::-1]
        while waiting:
            run, change, until_clean, until_warm = self._started_before(waiting[-1]), 0, {}, None
            for time in self._close_times(waiting[-1], self.done):
                while waiting and waiting[-1] <= time:
                    change, until_clean, until_warm = waiting.pop(), dict(self.plan.startup), None
                step = run.step(time)
                yield from self._given.compare(step, now)
                if not step.counts and any(len(series) == series.limit for series in self._series.values()):
                    self.out_of_reach += 1
                if time == change:
                    continue
                if until_warm is None and _count_down(until_clean, step):
                    until_warm = dict(self.plan.startup)
                if until_warm is not None and _count_down(until_warm, step):
                    break
            else:
                if run.is_warm or not self._run.is_warm:
                    self._run = run

    def _started_before(self, time: int) -> Run:
        """A new instance that has been handed so much before `time` that what it says counts, or all there is."""
        run = Run(self.plan, self._series)
        start = _NEVER
        for key, count in self.plan.startup.items():
            before = self._series[key].until(time - 1, count)
            if before:
                start = min(start, before[0].close_time)
        for earlier in self._close_times(start, time - 1):
            run.step(earlier)
        return run

    def _close_times(self, first: int, last: int) -> list[int]:
        """When candles closed, from `first` to `last`, both inclusive."""
        times: set[int] = set()
        for series in self._series.values():
            times.update(candle.close_time for candle in series.until(last)[len(series.until(first - 1)) :])
        return sorted(times)

    def _oldest(self) -> int:
        """The close time of the oldest candle that is kept, µs; 0 if there is none."""
        return min((line.series[0].close_time for line in self._lines.values() if line.series), default=0)

    def _tell(self, event: Closed | Corrected | Gap) -> None:
        strategy = self._run.strategy
        if isinstance(event, Gap):
            if event.gap.symbol in self.plan.symbols:
                call(self.plan, "on_gap", strategy.on_gap, event.gap)
            return
        series = self._lines[event.candle.symbol, event.candle.timeframe].series
        call(self.plan, "on_correction", strategy.on_correction, event.candle, series.until(self.done))


def _has_waited(pending: _Pending, now: int | None) -> bool:
    return now is None or pending.since is None or now - pending.since >= PATIENCE_US


def _count_down(left: dict[SeriesKey, int], step: Step) -> bool:
    """Count the candles that were handed out; whether there were enough of each series."""
    for answer in step.answers:
        left[answer.key] -= 1
    return all(count <= 0 for count in left.values())

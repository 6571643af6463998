"""Whether a strategy would have said live what it says in a backtest: it is run again, and knows what it may know only.

    startup     begun in the midst, with `startup_candles`
    lookahead   with candles that end where a signal is
    elsewhere   with the same candles years later
    repeatable  as it was

The first two are one run: a new instance, of which neither what was long before nor what comes after is to be reached.
Where anything differs, all is run again as it was, first of all: what differs then too is of no other kind. Else a run
from the beginning that ends there tells which of the two it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

import msgspec

from ashi.contracts.timeframe import DAY_US, format_time
from ashi_series.order import step_order
from ashi_strategies.backtest.in_memory import CandlesInMemory
from ashi_strategies.backtest.playing import PlanRun, series_of, startup_steps
from ashi_strategies.backtest.sources import CandleStep, read_steps
from ashi_strategies.given import content_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from ashi.contracts.candle import Candle
    from ashi.contracts.signal import Signal
    from ashi_strategies.backtest.sources import CandleSource
    from ashi_strategies.plan import Plan

CheckName: TypeAlias = Literal["startup", "lookahead", "elsewhere", "repeatable"]
CHECKS: Final[tuple[CheckName, ...]] = get_args(CheckName)

SIGNALS_CHECKED: Final = 16
"""Of so many signals, spread over the run: a new instance must give each of them and no more at that time."""
PARTS_CHECKED: Final = 4
"""So many parts of the run, spread over it, are run again: also where there is no signal, none may come."""
PART_STEPS: Final = 100
"""So many of the finest windows are in a part."""
_YEAR_US: Final = 52 * 7 * DAY_US
"""Whole weeks: the days of the week and the times of the day stay."""


class Finding(msgspec.Struct, frozen=True):
    """A signal that would have been another one live.

    Attributes:
        check: which one found it.
        text: what was found, where, and what to do.
        symbol: of the first signal that differs; `timeframe` and `open_time` (µs) are of its candle.

    """

    check: CheckName
    text: str
    symbol: str
    timeframe: str
    open_time: int


async def check_strategy(plan: Plan, candles: Iterable[Candle], *, may_know_date: bool = False) -> Finding | None:
    """Run a strategy over candles, in any order, and check it; what is wrong first, or None. For tests of a strategy.

    What is right everywhere that was tried may still be wrong elsewhere. `may_know_date`: see `Checks.run`. Raises
    StrategyError for what the strategy does wrong.
    """
    source, run = CandlesInMemory(candles), PlanRun(plan)
    async for step in read_steps(source, series_of(plan)):
        run.step(step)
    return await Checks(source, run, None).run(may_know_date=may_know_date)


class Checks:
    """The checks of one plan, after its run.

    Attributes:
        source_changed: something was found, and other candles too: the checks say nothing.

    """

    def __init__(self, source: CandleSource, run: PlanRun, after: int | None) -> None:
        """`run`: what is checked. `after`: close time (µs) after which it was given candles, those to start with aside.

        None: it began with the first candle there is.
        """
        self.source_changed = False
        self._source = source
        self._run = run
        self._plan = run.plan
        self._after = after

    async def run(self, *, may_know_date: bool = False) -> Finding | None:
        """The first thing that is wrong, or None. `may_know_date`: without the check `elsewhere`."""
        finding = await self._first_finding(may_know_date=may_know_date)
        if finding is None:
            return None
        again = await self._again()
        if again.fingerprint != self._run.fingerprint:
            self.source_changed = True
            return None
        if different := _first_difference(self._run.signals, again.signals):
            return _finding("repeatable", different, self._run.signals, again.signals, _REPEATABLE)
        return finding

    async def _first_finding(self, *, may_know_date: bool) -> Finding | None:
        shift = _YEAR_US * (2 + ((self._run.end or 0) - (self._run.begin or 0)) // _YEAR_US)
        for after, until in self._parts():
            startup = await startup_steps(self._source, self._plan, after)
            steps = [step async for step in read_steps(self._source, series_of(self._plan), after, until)]
            again = self._play(startup, steps, after)
            if different := _first_difference(self._between(after, until), again):
                return await self._explain(different, again, began_after=after)
            if may_know_date:
                continue
            later = self._play(_later(startup, shift), _later(steps, shift), after + shift)
            later = [_moved(signal, -shift) for signal in later]
            if different := _first_difference(again, later):
                return _finding("elsewhere", different, again, later, _ELSEWHERE)
        return None

    def _parts(self) -> list[tuple[int, int]]:
        """What is run again: after which close time and until which one, µs."""
        begin, end = self._run.begin, self._run.end
        if begin is None or end is None:
            return []
        finest = min(timeframe.length_us for _, timeframe in self._plan.startup)
        picked = _spread(self._run.signals, SIGNALS_CHECKED)
        parts = [(signal.close_time - 1, signal.close_time) for signal in picked]
        for time in range(begin, end, max((end - begin) // PARTS_CHECKED, finest)):
            after = time - time % finest
            parts.append((after, min(after + PART_STEPS * finest, end)))
        return sorted(parts)

    def _play(self, startup: Sequence[CandleStep], steps: Sequence[CandleStep], after: int) -> list[Signal]:
        run = PlanRun(self._plan, after)
        run.start(startup)
        for step in steps:
            run.step(step)
        return run.signals

    def _between(self, after: int, until: int) -> list[Signal]:
        return [signal for signal in self._run.signals if after < signal.close_time <= until]

    async def _explain(self, different: Signal, again: Sequence[Signal], *, began_after: int) -> Finding:
        """Why an instance that began after a time (µs) gave `again`, and the run gave something else at a candle."""
        time = different.close_time
        given = self._between(time - 1, time)
        ended = _at(time, await self._again(time))
        if _first_difference(given, ended) is None:
            declared = self._plan.startup.items()
            startup = ", ".join(f"{symbol} {timeframe}: {count}" for (symbol, timeframe), count in declared)
            reason = _STARTUP.format(began=format_time(began_after), startup=startup)
            return _finding("startup", different, given, again, reason)
        return _finding("lookahead", different, given, ended, _LOOKAHEAD)

    async def _again(self, until: int | None = None) -> PlanRun:
        """A new run, begun as the one that is checked, with candles until a close time (µs); None: with as many."""
        again = PlanRun(self._plan, self._after)
        if self._after is not None:
            again.start(await startup_steps(self._source, self._plan, self._after))
        end = self._run.end if until is None else until
        async for step in read_steps(self._source, series_of(self._plan), self._after, end):
            again.step(step)
        return again


def _at(time: int, run: PlanRun) -> list[Signal]:
    return [signal for signal in run.signals if signal.close_time == time]


_STARTUP: Final = (
    "from an instance that began right before {began}: the strategy remembers longer than it declares, so after a "
    "restart it gives other signals. Raise startup_candles ({startup}), or keep less from one candle to the next"
)
_LOOKAHEAD: Final = (
    "where the candles ended there: the strategy looks at candles that have not closed yet, by some way around what it "
    "is handed"
)
_ELSEWHERE: Final = (
    "when the same candles came years later: the strategy looks at something that is not in its candles, such as a "
    "file of prices. If that is the calendar and is meant: --allow-calendar"
)
_REPEATABLE: Final = (
    "when all was run again as it was: the strategy goes by chance, by a clock, or by what its instances share"
)


def _finding(
    check: CheckName, different: Signal, given: Collection[Signal], again: Collection[Signal], reason: str
) -> Finding:
    text = (
        f"{check}: {different.strategy} gave {_target_of(different, given)} at the {different.timeframe} candle of "
        f"{different.symbol} that closed at {format_time(different.close_time)}, and "
        f"{_target_of(different, again)} {reason}"
    )
    return Finding(check, text, different.symbol, different.timeframe, different.open_time)


def _target_of(different: Signal, signals: Collection[Signal]) -> str:
    found = next((signal for signal in signals if step_order(signal) == step_order(different)), None)
    if found is None:
        return "no signal"
    return found.target if found.reason is None else f"{found.target} ({found.reason})"


def _first_difference(expected: Sequence[Signal], found: Sequence[Signal]) -> Signal | None:
    """The first signal that only one of the two has, or has so, in the order of time."""
    of_expected, of_found = ({step_order(signal): signal for signal in signals} for signals in (expected, found))
    for slot in sorted(of_expected.keys() | of_found.keys()):
        ours, theirs = of_expected.get(slot), of_found.get(slot)
        if ours is None or theirs is None or content_of(ours) != content_of(theirs):
            return ours or theirs
    return None


def _spread(signals: Sequence[Signal], count: int) -> list[Signal]:
    """So many at most, the first and the last among them."""
    if len(signals) <= count:
        return list(signals)
    return [signals[number * (len(signals) - 1) // (count - 1)] for number in range(count)]


def _later(steps: Sequence[CandleStep], shift: int) -> list[CandleStep]:
    return [
        CandleStep(
            step.close_time + shift,
            [
                msgspec.structs.replace(
                    candle, open_time=candle.open_time + shift, close_time=candle.close_time + shift
                )
                for candle in step.candles
            ],
        )
        for step in steps
    ]


def _moved(signal: Signal, shift: int) -> Signal:
    return msgspec.structs.replace(signal, open_time=signal.open_time + shift, close_time=signal.close_time + shift)

"""Whether a strategy would have said live what it says in a backtest: it is run again, and knows what it may know only.

    startup     begun in the midst, with `startup_candles`
    lookahead   with candles that end where a signal is
    elsewhere   with the same candles years later
    repeatable  as it was

The first two are one run: a new instance, of which neither what was long before nor what comes after is to be reached.
Where it says something else, a run from the beginning that ends there tells which it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from ashi.contracts.timeframe import MICROSECONDS_PER_UNIT, format_time
from ashi_strategies.backtest.in_memory import CandlesInMemory
from ashi_strategies.backtest.playing import play_all, series_of, startup_steps
from ashi_strategies.backtest.sources import Step, read_steps
from ashi_strategies.engine import Engine, content_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from ashi.contracts.candle import Candle
    from ashi.contracts.signal import Signal
    from ashi_strategies.backtest.sources import CandleSource
    from ashi_strategies.plan import Plan

CheckName: TypeAlias = Literal["startup", "lookahead", "elsewhere", "repeatable"]

SIGNALS_CHECKED: Final = 16
"""Of so many signals, spread over the run: a new instance must give each of them and no more at that time."""
PARTS_CHECKED: Final = 4
"""So many parts of the run, spread over it, are run again: also where there is no signal, none may come."""
PART_STEPS: Final = 100
"""So many of the finest windows are in a part."""
_YEAR_US: Final = 52 * 7 * MICROSECONDS_PER_UNIT["d"]
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
    source = CandlesInMemory(candles)
    engine, signals, tested = Engine(plan, reach=0), [], []
    async for step in read_steps(source, series_of(plan)):
        tested += [step.close_time] if engine.is_warm else []
        signals += play_all(engine, [step])
    if not tested:
        return None
    checks = Checks(source, plan, signals, after=None, begin=tested[0], end=tested[-1])
    return await checks.run(may_know_date=may_know_date)


class Checks:
    """The checks of one plan, after its run."""

    def __init__(
        self, source: CandleSource, plan: Plan, signals: Sequence[Signal], *, after: int | None, begin: int, end: int
    ) -> None:
        """What was run: `signals` are those it gave.

        `after`: close time (µs) after which candles were read, those to start with aside; None: from the first one on.
        `begin`, `end`: the first and the last close time, µs, that could give a signal.
        """
        self._source = source
        self._plan = plan
        self._signals = signals
        self._after = after
        self._begin = begin
        self._end = end

    async def run(self, *, may_know_date: bool = False) -> Finding | None:
        """The first thing that is wrong, or None. `may_know_date`: without the check `elsewhere`."""
        for after, until in self._parts():
            startup = await startup_steps(self._source, self._plan, after)
            steps = [step async for step in read_steps(self._source, series_of(self._plan), after, until)]
            again = self._play(startup, steps, after)
            if different := _first_difference(self._between(after, until), again):
                return await self._explain(different, again, began_after=after)
            if may_know_date:
                continue
            shift = _YEAR_US * (2 + (self._end - self._begin) // _YEAR_US)
            later = self._play(_later(startup, shift), _later(steps, shift), after + shift)
            later = [_moved(signal, -shift) for signal in later]
            if different := _first_difference(again, later):
                return _finding("elsewhere", different, again, later, _ELSEWHERE)
        return None

    def _parts(self) -> list[tuple[int, int]]:
        """What is run again: after which close time and until which one, µs."""
        finest = min(timeframe.length_us for _, timeframe in self._plan.startup)
        picked = _spread(self._signals, SIGNALS_CHECKED)
        parts = [(signal.close_time - 1, signal.close_time) for signal in picked]
        step = (self._end - self._begin) // PARTS_CHECKED
        for begin in range(self._begin, self._end, max(step, finest)):
            after = begin - begin % finest
            parts.append((after, min(after + PART_STEPS * finest, self._end)))
        return sorted(part for part in parts if part[0] >= self._begin - 1)

    def _play(self, startup: Sequence[Step], steps: Sequence[Step], after: int) -> list[Signal]:
        engine = Engine(self._plan, since=after)
        play_all(engine, startup)
        return play_all(engine, steps)

    def _between(self, after: int, until: int) -> list[Signal]:
        return [signal for signal in self._signals if after < signal.close_time <= until]

    async def _explain(self, different: Signal, again: Sequence[Signal], *, began_after: int) -> Finding:
        """Why an instance that began after a time (µs) gave `again`, and the run gave something else at a candle."""
        time = different.close_time
        given = self._between(time - 1, time)
        ended = await self._from_the_beginning(time, time)
        if _first_difference(given, ended) is None:
            declared = self._plan.startup.items()
            startup = ", ".join(f"{symbol} {timeframe}: {count}" for (symbol, timeframe), count in declared)
            reason = _STARTUP.format(began=format_time(began_after), startup=startup)
            return _finding("startup", different, given, again, reason)
        whole = await self._from_the_beginning(time, self._end)
        if _first_difference(given, whole) is None:
            return _finding("lookahead", different, given, ended, _LOOKAHEAD)
        return _finding("repeatable", different, given, whole, _REPEATABLE)

    async def _from_the_beginning(self, at: int, until: int) -> list[Signal]:
        """What a new instance gives at a close time, begun as the run was and with candles until another one."""
        engine = Engine(self._plan, since=0 if self._after is None else self._after)
        if self._after is not None:
            play_all(engine, await startup_steps(self._source, self._plan, self._after))
        found: list[Signal] = []
        async for step in read_steps(self._source, series_of(self._plan), self._after, until):
            signals = play_all(engine, [step])
            if step.close_time == at:
                found = signals
        return found


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
    found = next((signal for signal in signals if _slot(signal) == _slot(different)), None)
    if found is None:
        return "no signal"
    return found.target if found.reason is None else f"{found.target} ({found.reason})"


def _first_difference(expected: Sequence[Signal], found: Sequence[Signal]) -> Signal | None:
    """The first signal that only one of the two has, or has so, in the order of time."""
    of_expected, of_found = ({_slot(signal): signal for signal in signals} for signals in (expected, found))
    for slot in sorted(of_expected.keys() | of_found.keys()):
        ours, theirs = of_expected.get(slot), of_found.get(slot)
        if ours is None or theirs is None or content_of(ours) != content_of(theirs):
            return ours or theirs
    return None


def _slot(signal: Signal) -> tuple[int, int, str]:
    return signal.close_time, signal.close_time - signal.open_time, signal.symbol


def _spread(signals: Sequence[Signal], count: int) -> list[Signal]:
    """So many at most, the first and the last among them."""
    if len(signals) <= count:
        return list(signals)
    return [signals[number * (len(signals) - 1) // (count - 1)] for number in range(count)]


def _later(steps: Sequence[Step], shift: int) -> list[Step]:
    return [
        Step(
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

"""Whether a strategy keeps the one rule, tried on the candles of a backtest: only then are its live signals the same.

It is run again over parts of the candles, and has to say what it said over all of them: over the first ones alone, as
if those after them were still to come; and over some in the middle, as if it had been started shortly before.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Final, Literal

from ashi.contracts.timeframe import format_time
from ashi_series.events import Closed
from ashi_strategies.engine import Engine, content_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ashi.contracts.candle import Candle
    from ashi.contracts.signal import Signal
    from ashi_strategies.plan import Plan

POINTS: Final = 8
"""In so many places of the candles a strategy is started anew."""
LENGTH: Final = 300
"""So many close times it is then followed for, or as many as it takes to get warm, if those are more."""

_close_time = attrgetter("close_time")


@dataclass(frozen=True)
class Difference:
    """What a strategy said otherwise than before.

    Attributes:
        broken: `looks ahead`: the same candles from the beginning gave something else, when those after them were not
            there. `remembers`: it gave something else when it had been started later.
        strategy: its name with its parameters.
        close_time: of the first candle at which it did, µs.
        symbol: of that candle; `timeframe` its length.
        over_all: what it said over all candles; None: nothing.
        over_part: what it said over a part of them.

    """

    broken: Literal["looks ahead", "remembers"]
    strategy: str
    close_time: int
    symbol: str
    timeframe: str
    over_all: Signal | None
    over_part: Signal | None

    def __str__(self) -> str:
        where = f"{self.symbol} {self.timeframe} candle that closed at {format_time(self.close_time)}"
        said = f"{self.strategy} said {_text(self.over_all)} at the {where}, and {_text(self.over_part)}"
        if self.broken == "looks ahead":
            return (
                f"{said} when it was run a second time, without the candles after it: it must decide by nothing but "
                "what on_candle is handed, and share nothing between its instances"
            )
        return (
            f"{said} when it had been started later: it remembers for longer than its startup_candles, so that it "
            "would say something else after a restart. Declare as many as it needs, or let it forget"
        )


def check_strategy(
    plan: Plan, candles: Sequence[Candle], signals: Iterable[Signal], *, points: int = POINTS, length: int = LENGTH
) -> Difference | None:
    """The first difference between what a strategy said over all candles and what it says over parts; None: no such.

    What differs nowhere that was tried may still differ elsewhere.

    Args:
        plan: what was run.
        candles: all that it was run over, of each the last version, in any order.
        signals: what it said: all that its engine gave, or the last of each.
        points: in how many places it is started.
        length: for how many close times, at least, it is followed then.

    Raises StrategyError for what the strategy raises.

    """
    in_order = sorted(candles, key=_close_time)
    last = {_slot(signal): signal for signal in signals}
    said = {slot: signal for slot, signal in last.items() if signal.status == "active"}
    times = sorted({candle.close_time for candle in in_order})
    if not times:
        return None
    to_follow = max(length, *plan.history.values())
    first_end = times[min(len(times), 3 * to_follow) - 1]
    found = _compare(plan, "looks ahead", [one for one in in_order if one.close_time <= first_end], said)
    step = max(1, (len(times) - to_follow) // points)
    for place in range(step, len(times), step):
        if found is not None:
            break
        found = _compare(plan, "remembers", _part(plan, in_order, times[place:][:to_follow]), said)
    return found


def _part(plan: Plan, in_order: list[Candle], times: list[int]) -> list[Candle]:
    """The candles that closed at these times, and as many before as a start takes."""
    first = bisect_left(in_order, times[0], key=_close_time)
    lacking = {(symbol, str(timeframe)): count for (symbol, timeframe), count in plan.history.items()}
    before = []
    for candle in reversed(in_order[:first]):
        key = candle.symbol, candle.timeframe
        if lacking.get(key, 0) > 0:
            lacking[key] -= 1
            before.append(candle)
        if not any(lacking.values()):
            break
    return [*reversed(before), *in_order[first : bisect_right(in_order, times[-1], key=_close_time)]]


def _compare(
    plan: Plan,
    broken: Literal["looks ahead", "remembers"],
    part: list[Candle],
    said: dict[tuple[int, str, str], Signal],
) -> Difference | None:
    engine = Engine(plan, reach=len(part))
    engine.feed(map(Closed, part))
    engine.finish()
    if engine.counts_since is None:
        return None
    again = {_slot(signal): signal for signal in engine.signals()}
    for slot in sorted(said.keys() | again.keys()):
        over_all, over_part = said.get(slot), again.get(slot)
        if engine.counts_since <= slot[0] <= engine.done and _content(over_all) != _content(over_part):
            close_time, symbol, timeframe = slot
            return Difference(broken, plan.identity, close_time, symbol, timeframe, over_all, over_part)
    return None


def _slot(signal: Signal) -> tuple[int, str, str]:
    return signal.close_time, signal.symbol, signal.timeframe


def _content(signal: Signal | None) -> tuple[object, ...] | None:
    return None if signal is None else content_of(signal)


def _text(signal: Signal | None) -> str:
    if signal is None:
        return "nothing"
    return signal.target if signal.reason is None else f"{signal.target} ({signal.reason})"

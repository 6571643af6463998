"""One instance of a strategy on its way through the steps, handed what had closed at each and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, get_args

from ashi.contracts.errors import ContractError, StrategyError
from ashi.contracts.signal import SignalTarget, check_target
from ashi.contracts.timeframe import format_time
from ashi_strategies.handed import StrategySeries
from ashi_strategies.plan import told_of
from ashi_strategies.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ashi.contracts.candle import Candle
    from ashi_series.series import Series
    from ashi_strategies.handed import SeriesKey
    from ashi_strategies.plan import Plan


class Answer(NamedTuple):
    """What a strategy said to one candle.

    Attributes:
        key: of which series the candle is.
        candle: what it was handed.
        target: what it said; None: nothing.
        all_closed: whether each of its series had a candle that closed at that time.

    """

    key: SeriesKey
    candle: Candle
    target: Target | None
    all_closed: bool


class Step(NamedTuple):
    """What was said at one close time.

    Attributes:
        answers: one for each candle that was handed out; none while a series is shorter than the strategy wants it.
        counts: whether it was said by an instance that had been handed enough before.

    """

    answers: list[Answer]
    counts: bool


class Run:
    """An instance and how much it has been handed.

    It is handed nothing before each series is as long as the strategy wants it, and what it says counts once it has
    been handed as many candles of each again: from then on it is the same as one that was started earlier.
    """

    def __init__(self, plan: Plan, series: Mapping[SeriesKey, Series]) -> None:
        """Begins with a new instance. `series`: what it is handed of. Raises StrategyError where it cannot be made."""
        self._plan = plan
        self._parts = [(key, series[key], count) for key, count in plan.startup.items()]
        self._to_hand = [count for _, _, count in self._parts]
        self.is_warm = False
        """Whether what it says next counts."""
        self.strategy = call(plan, "it was made", plan.make)

    def step(self, time: int) -> Step:
        """Hand out the candles that closed at `time` (µs), and ask of each.

        Raises StrategyError for what the strategy raises, and where it says something else than a Target or None.
        """
        views = []
        for _, series, count in self._parts:
            view = series.until(time, count)
            if len(view) < count:
                return Step([], counts=False)
            views.append(view)
        closing = [(place, candle) for place, view in enumerate(views) if (candle := view[-1]).close_time == time]
        all_closed = len(closing) == len(views) or len(closing) == sum(
            time % key[1].length_us == 0 for key, _, _ in self._parts
        )
        answers, counts = [], self.is_warm
        for place, candle in closing:
            target = self._ask(candle, StrategySeries(views[place], views))
            answers.append(Answer(self._parts[place][0], candle, target, all_closed))
        if not counts:
            for place, _ in closing:
                self._to_hand[place] -= 1
            self.is_warm = max(self._to_hand) <= 0
        return Step(answers, counts)

    def _ask(self, candle: Candle, series: StrategySeries) -> Target | None:
        try:
            target = self.strategy.on_candle(candle, series)
        except (Exception, SystemExit) as error:  # whoever calls sys.exit() must not end the worker in silence
            raise _told(self._plan, _at(candle), error) from error
        if target is None:
            return None
        if not isinstance(target, Target) or target.target not in get_args(SignalTarget):
            raise StrategyError(
                f"strategy {self._plan.identity} said {target!r} to {_at(candle)}: on_candle must return long(…), "
                "short(…), flat(…) or None"
            )
        try:
            check_target(target.strength, target.reason, target.labels)
        except ContractError as error:
            raise StrategyError(f"strategy {self._plan.identity} said {target!r} to {_at(candle)}: {error}") from error
        return target


def call(plan: Plan, when: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call what somebody else has written. Raises StrategyError that says when it raised what."""
    try:
        return function(*arguments)
    except (Exception, SystemExit) as error:
        raise _told(plan, when, error) from error


def _told(plan: Plan, when: str, error: BaseException) -> StrategyError:
    return StrategyError(f"strategy {plan.identity} raised {type(error).__name__} at {when}{told_of(error)}")


def _at(candle: Candle) -> str:
    return f"the {candle.timeframe} candle of {candle.symbol} that closed at {format_time(candle.close_time)}"

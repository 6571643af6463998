"""Past candles through the live engine, step by step: what is common to a backtest and to its checks."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ashi_series import Closed
from ashi_strategies.backtest.sources import SeriesKey, Step, read_startup
from ashi_strategies.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ashi.contracts.candle import Candle
    from ashi.contracts.signal import Signal
    from ashi_strategies.backtest.sources import CandleSource
    from ashi_strategies.plan import Plan


def series_of(plan: Plan) -> list[SeriesKey]:
    """What the plan gets candles of, in the order (timeframe, symbol)."""
    return [SeriesKey(symbol, str(timeframe)) for symbol, timeframe in plan.startup]


def traded_series(plans: Sequence[Plan]) -> dict[SeriesKey, SeriesKey]:
    """For each series that signals come of, the one at whose candles they are filled: the plan's finest of it."""
    traded: dict[SeriesKey, SeriesKey] = {}
    for plan in plans:
        finest = str(min(timeframe for _, timeframe in plan.startup))
        traded |= {key: SeriesKey(key.symbol, finest) for key in series_of(plan)}
    return traded


def play(engine: Engine, step: Step, complete: Callable[[Candle], bool | None]) -> list[Signal]:
    """All candles of one close time into the engine; the signals at that time.

    A series that has none does not come later, so nobody waits for it: live it is given up after some seconds.
    """
    signals = engine.feed([Closed(candle, complete(candle)) for candle in step.candles])
    return [*signals, *engine.finish()] if engine.pending else signals


def play_all(engine: Engine, steps: Sequence[Step]) -> list[Signal]:
    """Several steps into the engine; the signals of all."""
    return [signal for step in steps for signal in play(engine, step, _unknown)]


async def startup_steps(source: CandleSource, plan: Plan, until: int) -> list[Step]:
    """The candles that close by `until` (µs) which an engine must have had, so that signals after that count.

    Where markets pause, candles of one series are from longer ago than those of another, and more are read. All there
    are where that is not enough.
    """
    factor = 1
    while True:
        counts = {
            SeriesKey(symbol, str(timeframe)): factor * count for (symbol, timeframe), count in plan.history.items()
        }
        steps = await read_startup(source, counts, until)
        engine = Engine(plan, since=until)
        play_all(engine, steps)
        read = Counter((candle.symbol, candle.timeframe) for step in steps for candle in step.candles)
        if engine.is_warm or all(read[key] < count for key, count in counts.items()):
            return steps
        factor *= 2


def _unknown(_: Candle) -> None:
    return None

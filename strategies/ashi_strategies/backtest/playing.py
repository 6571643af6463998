"""Past candles through the live engine, step by step: what is common to a backtest and to its checks."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING
from zlib import crc32

from ashi_series import Closed
from ashi_strategies.backtest.sources import CandleStep, read_startup
from ashi_strategies.engine import Engine
from ashi_strategies.series_name import SeriesName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ashi.contracts.candle import Candle
    from ashi.contracts.signal import Signal
    from ashi_strategies.backtest.sources import CandleSource
    from ashi_strategies.plan import Plan


def series_of(plan: Plan) -> list[SeriesName]:
    """What the plan gets candles of, in the order (timeframe, symbol)."""
    return [SeriesName(symbol, str(timeframe)) for symbol, timeframe in plan.startup]


def traded_series(plans: Sequence[Plan]) -> dict[SeriesName, SeriesName]:
    """For each series that signals come of, the one at whose candles they are filled: the plan's finest of it."""
    traded: dict[SeriesName, SeriesName] = {}
    for plan in plans:
        finest = str(min(timeframe for _, timeframe in plan.startup))
        traded |= {key: SeriesName(key.symbol, finest) for key in series_of(plan)}
    return traded


class PlanRun:
    """One plan on its way through past candles, by the live engine.

    Attributes:
        plan: what is run.
        signals: what it has given so far.
        begin: the first close time that could give a signal, µs; `end` the last so far. None before there was any.
        fingerprint: of the candles that it has had, by their versions: the same for the same ones.

    """

    def __init__(self, plan: Plan, after: int | None = None) -> None:
        """Signals are given at candles that close after this time, µs; None: as soon as there were enough."""
        self.plan = plan
        self.signals: list[Signal] = []
        self.begin: int | None = None
        self.end: int | None = None
        self.fingerprint = 0
        self._engine = Engine(plan, since=0 if after is None else after, reach=0)

    @property
    def is_warm(self) -> bool:
        """Whether what the strategy says at the next step counts."""
        return self._engine.is_warm

    def shortage(self) -> list[tuple[SeriesName, int]]:
        """How many candles of which series are lacking, at least, before what the strategy says counts."""
        return [(SeriesName(key[0], str(key[1])), count) for key, count in self._engine.shortage().items()]

    def start(self, steps: Iterable[CandleStep]) -> None:
        """Take candles from before the time whose signals are wanted."""
        for step in steps:
            self._play(step, _unknown)

    def step(self, step: CandleStep, complete: Callable[[Candle], bool | None] | None = None) -> list[Signal]:
        """Take the next candles; the signals at that time. `complete`: whether a candle lacks no trade."""
        if self._engine.is_warm:
            self.begin = step.close_time if self.begin is None else self.begin
            self.end = step.close_time
        signals = self._play(step, complete or _unknown)
        self.signals += signals
        return signals

    def _play(self, step: CandleStep, complete: Callable[[Candle], bool | None]) -> list[Signal]:
        for candle in step.candles:
            self.fingerprint = crc32(b"%d %d" % (candle.open_time, candle.version), self.fingerprint)
        signals = self._engine.feed([Closed(candle, complete(candle)) for candle in step.candles])
        if self._engine.pending:  # a series that has no candle at that time gets none later, so nobody waits for it
            signals += self._engine.finish()
        return signals


async def startup_steps(source: CandleSource, plan: Plan, until: int) -> list[CandleStep]:
    """The candles that close by `until` (µs) which an engine must have had, so that signals after that count.

    Where markets pause, candles of one series are from longer ago than those of another, and more are read. All there
    are where that is not enough.
    """
    factor = 1
    while True:
        counts = {
            SeriesName(symbol, str(timeframe)): factor * count for (symbol, timeframe), count in plan.history.items()
        }
        steps = await read_startup(source, counts, until)
        run = PlanRun(plan, until)
        run.start(steps)
        read = Counter((candle.symbol, candle.timeframe) for step in steps for candle in step.candles)
        if run.is_warm or all(read[key] < count for key, count in counts.items()):
            return steps
        factor *= 2


def _unknown(_: Candle) -> None:
    return None

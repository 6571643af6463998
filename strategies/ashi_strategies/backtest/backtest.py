"""A backtest: past candles through the live engine, its signals through a simulation, and the checks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ashi.contracts.errors import UsageError
from ashi.contracts.timeframe import format_time
from ashi_strategies.backtest.checks import CHECKS, Checks
from ashi_strategies.backtest.playing import PlanRun, series_of, startup_steps, traded_series
from ashi_strategies.backtest.result import BacktestResult
from ashi_strategies.backtest.simulation import Simulation
from ashi_strategies.backtest.sources import CandleStep, completeness, read_steps
from ashi_strategies.backtest.summary import MarketReturn, summarize
from ashi_strategies.series_name import SeriesName

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from decimal import Decimal

    from ashi.contracts.candle import Candle
    from ashi.contracts.signal import Signal
    from ashi_strategies.backtest.checks import Finding
    from ashi_strategies.backtest.sources import CandleSource
    from ashi_strategies.plan import Plan


@dataclass(frozen=True, slots=True)
class BacktestRequest:
    """What is wanted.

    Attributes:
        plans: what to run, of one strategy.
        after: signals are given at candles that close after this time, µs; None: as soon as there are enough candles.
        until: the last close time, µs; None: as far as there are candles.
        capital: of each account at the start, quote currency, above 0.
        fee: a part of each fill's value, from 0 to below 1.
        check: whether the checks are made.
        may_know_date: whether the strategy may look at the date, so that one of the checks is left out.

    """

    plans: Sequence[Plan]
    after: int | None
    until: int | None
    capital: Decimal
    fee: Decimal
    check: bool = True
    may_know_date: bool = False


class CandleWatcher(Protocol):
    """Who is told of each candle of the time that is tested, in order."""

    def add(self, candle: Candle) -> None:
        """The next candle."""


async def run_backtest(
    source: CandleSource, request: BacktestRequest, notes: Sequence[str] = (), watchers: Sequence[CandleWatcher] = ()
) -> BacktestResult:
    """Run it. `notes`: what else there is to know of the source.

    Raises UsageError where there are too few candles to test anything, StrategyError for what the strategy does wrong,
    and what the source raises.
    """
    series = list(dict.fromkeys(key for plan in request.plans for key in series_of(plan)))
    complete = await completeness(source, {key.symbol for key in series}, request.after, request.until)
    run = _Run(request, complete, watchers)
    if request.after is not None:
        for plan_run in run.plan_runs:
            plan_run.start(await startup_steps(source, plan_run.plan, request.after))
    notes = [*notes, *run.shortages()]
    async for step in read_steps(source, series, request.after, request.until):
        run.step(step)
    run.finish()
    findings = await _check(source, request, run.plan_runs, notes) if request.check else None
    return BacktestResult(
        strategy=request.plans[0].identity,
        series={
            SeriesName(symbol, str(timeframe)): count
            for plan in request.plans
            for (symbol, timeframe), count in plan.startup.items()
        },
        begin=run.begin,
        end=run.end,
        candles=run.candles,
        candles_incomplete=run.candles_incomplete,
        candles_missing=run.candles_missing,
        signals=run.signals,
        trades=run.simulation.trades,
        equity=run.simulation.curve.points,
        summary=summarize(run.simulation, run.market),
        notes=notes,
        checks=[]
        if findings is None
        else [name for name in CHECKS if name != "elsewhere" or not request.may_know_date],
        findings=findings,
    )


async def _check(
    source: CandleSource, request: BacktestRequest, plan_runs: Sequence[PlanRun], notes: list[str]
) -> list[Finding] | None:
    """What the checks find; None where the source has changed under them, which is noted."""
    findings = []
    for plan_run in plan_runs:
        checks = Checks(source, plan_run, request.after)
        finding = await checks.run(may_know_date=request.may_know_date)
        if checks.source_changed:
            notes.append("candles were stored or corrected while the checks read them, so these say nothing: name --to")
            return None
        findings += [] if finding is None else [finding]
    return findings


class _Run:
    """All plans on their way through the same steps."""

    def __init__(
        self, request: BacktestRequest, complete: Callable[[Candle], bool | None], watchers: Sequence[CandleWatcher]
    ) -> None:
        self.plan_runs = [PlanRun(plan, request.after) for plan in request.plans]
        self._by_series: dict[SeriesName, list[PlanRun]] = {}
        for plan_run in self.plan_runs:
            for key in series_of(plan_run.plan):
                self._by_series.setdefault(key, []).append(plan_run)
        traded = traded_series(request.plans)
        self.simulation = Simulation(traded, capital=request.capital, fee=request.fee)
        self.market = MarketReturn()
        self.signals: list[Signal] = []
        self.candles = 0
        self.candles_incomplete = 0
        self.candles_missing = 0
        self._traded = set(traded.values())
        self._complete = complete
        self._watchers = watchers
        self._last_close: dict[SeriesName, int] = {}
        self._after = request.after

    @property
    def begin(self) -> int:
        """The first close time that could give a signal, µs."""
        return min(plan_run.begin for plan_run in self.plan_runs if plan_run.begin is not None)

    @property
    def end(self) -> int:
        """The last close time that could give a signal, µs."""
        return max(plan_run.end for plan_run in self.plan_runs if plan_run.end is not None)

    def shortages(self) -> list[str]:
        """Of each plan that has too few candles from before the time that is tested."""
        if self._after is None:
            return []
        return [
            f"{plan_run.plan.identity} has {count:,} candles of {key.symbol} {key.timeframe} too few from before "
            f"{format_time(self._after)}, so its first signals are missing"
            for plan_run in self.plan_runs
            for key, count in plan_run.shortage()
        ]

    def step(self, step: CandleStep) -> None:
        """Deal with the candles of one close time."""
        signals: list[Signal] = []
        tested: dict[SeriesName, Candle] = {}
        by_plan: dict[PlanRun, dict[SeriesName, Candle]] = {}
        for candle in step.candles:
            key = SeriesName(candle.symbol, candle.timeframe)
            for plan_run in self._by_series[key]:
                by_plan.setdefault(plan_run, {})[key] = candle
        for plan_run, candles in by_plan.items():
            if plan_run.is_warm:
                tested |= candles
            signals += plan_run.step(CandleStep(step.close_time, list(candles.values())), self._complete)
        if tested:
            self._count(tested)
            for signal in signals:
                self.simulation.on_signal(signal)
            self.simulation.end_step(step.close_time)
            self.signals += signals

    def _count(self, tested: dict[SeriesName, Candle]) -> None:
        for key, candle in tested.items():
            self.candles += 1
            self.candles_incomplete += self._complete(candle) is False
            missing = candle.open_time - self._last_close.get(key, candle.open_time)
            self.candles_missing += missing // (candle.close_time - candle.open_time)
            self._last_close[key] = candle.close_time
            if key in self._traded:
                self.simulation.on_candle(candle)
                self.market.on_candle(candle)
            for watcher in self._watchers:
                watcher.add(candle)

    def finish(self) -> None:
        """No candle follows. Raises UsageError where nothing was tested."""
        if not self.candles:
            raise UsageError(self._too_few())
        self.simulation.finish()

    def _too_few(self) -> str:
        lacking = Counter[SeriesName]()
        for plan_run in self.plan_runs:
            for key, count in plan_run.shortage():
                lacking[key] = max(lacking[key], count)
        named = ", ".join(f"{count:,} of {key.symbol} {key.timeframe}" for key, count in lacking.items())
        wanted = f"{named} more are needed before its first signal" if named else "there is none in that time"
        return f"too few candles to test {self.plan_runs[0].plan.identity}: {wanted}"

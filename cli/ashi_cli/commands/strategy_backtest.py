"""`ashi strategy backtest`: a strategy over past candles."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final

from ashi_cli import values
from ashi_cli.declaration import Command, Option
from ashi_cli.extras import require_extras
from ashi_cli.shared_options import STORAGE, settings_with
from ashi_cli.strategy_options import FAST, NAME, PARAM, SLOW, SYMBOL, TIMEFRAME, given_parameters, strategy_named


def backtest(
    *,
    name: Annotated[str, NAME],
    symbol: Annotated[Sequence[str], SYMBOL] = (),
    timeframe: Annotated[Sequence[str], TIMEFRAME] = (),
    fast: Annotated[str | None, FAST] = None,
    slow: Annotated[str | None, SLOW] = None,
    param: Annotated[Sequence[tuple[str, str]], PARAM] = (),
    storage: Annotated[str | None, STORAGE] = None,
    store: Annotated[str | None, Option("the same as --storage", metavar="URL")] = None,
    recording: Annotated[
        Sequence[tuple[str, Path]],
        Option(
            "candles of these trades instead of a store's; repeatable, in order",
            metavar="VENUE=PATH",
            parse=values.recording,
        ),
    ] = (),
    begin_at: Annotated[
        int | None,
        Option(
            "signals of candles that close after that (ISO 8601, UTC; default: as soon as there are enough candles)",
            flag="--from",
            metavar="TIME",
            parse=values.time,
        ),
    ] = None,
    end_at: Annotated[
        int | None,
        Option("and of none that close later than that", flag="--to", metavar="TIME", parse=values.time),
    ] = None,
    fee: Annotated[
        Decimal, Option("a part of each fill's value (default: 0.001, a tenth of a percent)", parse=values.part)
    ] = Decimal("0.001"),
    capital: Annotated[
        Decimal,
        Option("what each symbol's account begins with, in its quote currency (default: 10000)", parse=values.amount),
    ] = Decimal(10_000),
    plot: Annotated[Path | None, Option("draw prices, signals and equity: .svg or .png", metavar="FILE")] = None,
    output: Annotated[
        Path | None, Option("write candles, signals, trades and figures as JSON, also for the chart", metavar="FILE")
    ] = None,
    venue_candles: Annotated[
        bool, Option("of a store also the venue's own candles (`ashi history klines`), where there are none of trades")
    ] = False,
    no_checks: Annotated[bool, Option("leave out the checks that signals are those that it would give live")] = False,
    allow_calendar: Annotated[bool, Option("the strategy may look at the date: leave out the check of that")] = False,
) -> int:
    """`ashi strategy backtest`."""
    import asyncio

    from ashi.contracts.errors import UsageError

    if store and storage:
        raise UsageError("the store is given twice: leave out --storage")
    if recording and (store or storage):
        raise UsageError("--recording takes the place of a store: leave out one of them")
    if recording and venue_candles:
        raise UsageError("--venue-candles are in a store, and --recording takes its place: leave out one of them")
    if begin_at is not None and end_at is not None and begin_at >= end_at:
        raise UsageError("--from must be before --to")
    settings = settings_with(storage or store)
    command = "strategy backtest" if plot is None else "strategy backtest --plot"
    require_extras(command, store=None if recording else settings.storage)
    from ashi_cli.backtest import BacktestFiles, run_and_print
    from ashi_strategies import plans_of
    from ashi_strategies.backtest.backtest import BacktestRequest

    request = BacktestRequest(
        plans=plans_of(strategy_named(name), symbol, timeframe, given_parameters(param, fast, slow)),
        after=begin_at,
        until=end_at,
        capital=capital,
        fee=fee,
        check=not no_checks,
        may_know_date=allow_calendar,
    )
    files = BacktestFiles(plot=plot, output=output)
    return asyncio.run(run_and_print(settings, request, recording, files, venue_candles=venue_candles))


BACKTEST: Final = Command(
    name="backtest",
    text="run a strategy over past candles: its signals, and a simulation of trading them",
    run=backtest,
    epilog="""\
examples:
  ashi strategy backtest ma_cross --symbol binance:ETHUSDT --timeframe 1m --fast 9 --slow 21
  ashi strategy backtest ma_cross --symbol binance:ETHUSDT --store lake:////data/lake --from 2026-01-01 --plot 2026.svg
  ashi strategy backtest venue_spread --symbol bitflyer:BTC_JPY --symbol gmo:BTC --output spread.json
  ashi strategy backtest my_package.ideas:Breakout --recording binance=monday.txt.gz --symbol binance:ETHUSDT

Exit status: 0; 1 when a check has found that the strategy would give other signals live; 2 when there is nothing to
test. What the figures mean, and what a simulation leaves out: docs/backtest.md.""",
)

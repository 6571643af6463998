"""Runs a backtest for the command line: the source is opened, files are written, the summary is printed."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ashi_cli.printing.backtest import print_backtest
from ashi_strategies.backtest.backtest import run_backtest
from ashi_strategies.backtest.opening import open_source
from ashi_strategies.backtest.playing import series_of, traded_series
from ashi_strategies.backtest.plot import Plot
from ashi_strategies.backtest.result import ResultFile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ashi.runtime.settings import Settings
    from ashi_strategies.backtest.backtest import BacktestRequest


@dataclass(frozen=True, slots=True)
class BacktestFiles:
    """What is to be written beside the summary: a picture, a file for programs."""

    plot: Path | None = None
    output: Path | None = None


async def run_and_print(
    settings: Settings,
    request: BacktestRequest,
    recordings: Sequence[tuple[str, Path]],
    files: BacktestFiles,
    *,
    venue_candles: bool = False,
) -> int:
    """Run it over `recordings`, or over the store of the settings if there are none; gives the exit status.

    `venue_candles`: of the store also the venue's own.

    Raises what `open_source` and `run_backtest` raise, and UsageError for a file that cannot be written.
    """
    series = list(dict.fromkeys(key for plan in request.plans for key in series_of(plan)))
    notes: list[str] = []
    with ExitStack() as at_the_end:
        plot = None if files.plot is None else Plot(files.plot, traded_series(request.plans))
        file = None
        if files.output is not None:
            file = ResultFile(files.output)
            at_the_end.callback(file.abandon)
        async with open_source(
            settings, settings.storage, recordings, series, notes.append, venue_candles=venue_candles
        ) as source:
            watchers = [watcher for watcher in (plot, file) if watcher is not None]
            result = await run_backtest(source, request, notes, watchers)
        if file is not None:
            file.finish(result)
        if plot is not None:
            plot.finish(result)
    print_backtest(result)
    return 1 if result.findings else 0

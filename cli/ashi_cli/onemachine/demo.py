"""`ashi demo`: the whole flow on one machine, from recordings to stored candles, and nothing left running."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from ashi.contracts.errors import EXIT_PARTIAL, BrokerError, UsageError
from ashi_cli.extras import require_extras
from ashi_cli.onemachine.chart import Chart
from ashi_cli.onemachine.interrupts import Interrupted, Interrupts, interruptible
from ashi_cli.onemachine.machine import Machine
from ashi_cli.onemachine.plan import FILE
from ashi_cli.onemachine.reporter import Reporter
from ashi_cli.onemachine.stack import StageError, work_directory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ashi_cli.onemachine.driver import Replayed
    from ashi_cli.onemachine.options import DemoOptions
    from ashi_cli.onemachine.results import Findings
    from ashi_cli.onemachine.stack import Stack

_T = TypeVar("_T")

_POLL_S: Final = 0.5


def run_demo(options: DemoOptions) -> int:
    """Run the demo and give the exit status: 0, 3 when a recording could be read only in part, 130 or 143 for a signal.

    With `keep` a signal that comes once all is shown ends it with the status that it would have had.
    Raises AshiError; nothing is left running then.
    """
    return interruptible(lambda interrupts: _Demo(options, interrupts).run())


class _Demo:
    def __init__(self, options: DemoOptions, interrupts: Interrupts) -> None:
        from ashi_ingest.recording.bundled import BUNDLED
        from ashi_sinks.registry import store_name

        self._began = time.monotonic()
        self._options = options
        self._interrupts = interrupts
        self._recordings: Mapping[str, Sequence[Path]] = _by_venue(options.recordings) or BUNDLED
        self._markets: Mapping[str, Sequence[str]] = _by_venue(options.markets)
        self._machine = Machine(
            options.workdir, interrupts, storage=options.storage, timeframes=options.timeframes, live=options.live
        )
        require_extras("demo --keep" if options.keep else "demo", store=self._machine.settings.storage)
        self._chart = Chart.of(self._machine.settings, options.port)
        self._store = store_name(self._machine.settings.storage)

    def run(self) -> int:
        machine = self._machine
        self._check_source()
        if self._options.keep:
            self._chart.check_port()
        if (machine.workdir / FILE).exists():
            raise UsageError(
                f"{machine.workdir} is kept by `ashi up`, and a demo begins anew: choose another --workdir"
            )
        with work_directory(machine.workdir, "ashi demo"):
            machine.check_store(self._refuse_store)
            with contextlib.ExitStack() as cleaning:
                with Reporter(sys.stderr) as reporter:
                    cleaning.callback(machine.stop_broker)
                    machine.start_broker(reporter.say, fresh=True)
                    stack = machine.make_stack("demo")
                    cleaning.callback(machine.stop_stages, stack)
                    replayed, findings = self._interrupts.run(self._flow(stack, reporter))
                    if not self._options.keep:
                        reporter.update("stopping")
                        cleaning.close()
                status = self._tell(replayed, findings)
                if self._options.keep:
                    self._stay(stack)
            return status

    def _check_source(self) -> None:
        options = self._options
        if options.port is not None and not options.keep:
            raise UsageError("--port is that of the chart, for --keep")
        if not options.live:
            if options.markets or options.seconds is not None:
                raise UsageError("--market and --seconds are for --live")
            self._check_recordings()
            return
        if options.recordings:
            raise UsageError("--live reads the exchanges and --recording what they once sent: leave one out")
        from ashi_cli.onemachine.live import MARKETS, check_markets, reachable

        check_markets(self._markets)
        self._markets = self._interrupts.run(
            reachable(self._machine.settings, self._markets or MARKETS, lambda line: print(line, file=sys.stderr))
        )

    def _check_recordings(self) -> None:
        from ashi_ingest.known_venues import venue_named
        from ashi_ingest.recording.check import check_recording

        for venue, paths in self._recordings.items():
            venue_named(venue, "--recording: ")
            for path in paths:
                check_recording(venue, path)

    def _refuse_store(self, storage: str) -> None:
        if not self._machine.own_store and not self._options.overwrite:
            raise UsageError(
                f"the storage {storage} exists already and is left as it is: "
                "name a new one, or make it anew with --overwrite"
            )

    async def _flow(self, stack: Stack, reporter: Reporter) -> tuple[Replayed, Findings]:
        from ashi.contracts.topics import topic_specs
        from ashi.runtime.kafka.cluster.topics import create_topics
        from ashi_cli.onemachine.driver import Driver
        from ashi_cli.onemachine.results import gather
        from ashi_sinks.registry import remove_store
        from ashi_sinks.worker import sink_group

        settings = self._machine.settings
        group = settings.sink_group or sink_group(self._store)
        driver = Driver(stack, settings, reporter, store=self._store, sink_group=group, summaries=self._machine.logs)
        try:
            await create_topics(settings, topic_specs(settings.partitions, settings.timeframes))
            remove_store(settings.storage)  # only now: until here the demo could fail without touching it
            options = self._options
            if options.keep:
                stack.start("chart", self._chart.arguments())
            if options.live:
                answered = self._interrupts.answered
                replayed = await driver.drive_live(self._markets, options.workers, options.seconds, answered)
            else:
                replayed = await driver.drive(self._recordings, options.workers)
            reporter.update("collecting the candles")
            return replayed, await gather(settings)
        except (BrokerError, StageError) as error:
            raise self._machine.explain(error) from error

    def _tell(self, replayed: Replayed, findings: Findings) -> int:
        from rich.console import Console

        from ashi_cli.onemachine.results import Summary, show_chart, show_series, show_summary, show_where

        console = Console(stderr=self._options.json, highlight=False)
        show_series(console, findings)
        summary = Summary(
            trades_published=replayed.published,
            trades_dead=findings.dead,
            trades_late=findings.late,
            candles_stored=findings.candles_stored,
            candles_open=findings.candles_open,
            seconds=round(time.monotonic() - self._began, 1),
        )
        show_where(console, self._machine.settings.storage, findings.series)
        show_summary(console, summary, findings)
        show_chart(console, findings.series, self._chart, kept=self._options.keep)
        for partial in replayed.partial:
            print(f"read only in part: {partial}", file=sys.stderr)
        if self._options.json:
            print(msgspec.json.encode(summary).decode(), flush=True)
        return EXIT_PARTIAL if replayed.partial else 0

    def _stay(self, stack: Stack) -> None:
        """Keep the chart until a signal comes. Raises StageError when something that it needs has ended."""
        sys.stdout.flush()  # it may be a file that somebody looks into meanwhile
        try:
            while True:
                if self._machine.broker_has_ended():
                    raise self._machine.explain(BrokerError("the broker has ended"))
                stack.check()
                time.sleep(_POLL_S)
        except Interrupted:
            self._interrupts.answered()
            print("the chart has ended; nothing is left running", file=sys.stderr)


def _by_venue(pairs: Sequence[tuple[str, _T]]) -> dict[str, list[_T]]:
    grouped: dict[str, list[_T]] = {}
    for venue, item in pairs:
        grouped.setdefault(venue, []).append(item)
    return grouped

"""`ashi demo`: the whole flow on one machine, from recordings to stored candles, and nothing left running."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from ashi.contracts.errors import EXIT_PARTIAL, AshiError, BrokerError, UsageError
from ashi.runtime.settings import Settings
from ashi.runtime.settings.parsers import redact_url
from ashi_cli.extras import require_extras
from ashi_cli.onemachine.broker import Broker
from ashi_cli.onemachine.interrupts import Interrupted, Interrupts
from ashi_cli.onemachine.reporter import Reporter
from ashi_cli.onemachine.stack import Stack, StageError, disk_is_full, how_it_ended, stage_environment, work_directory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ashi_cli.onemachine.driver import Replayed
    from ashi_cli.onemachine.options import DemoOptions
    from ashi_cli.onemachine.results import Findings

_T = TypeVar("_T")

_DYING_S: Final = 5.0
_POLL_S: Final = 0.5


def run_demo(options: DemoOptions) -> int:
    """Run the demo and give the exit status: 0, 3 when a recording could be read only in part, 130 or 143 for a signal.

    Raises AshiError; nothing is left running then.
    """
    with Interrupts() as interrupts:
        try:
            return _Demo(options, interrupts).run()
        except Interrupted as interrupted:
            print(f"stopped by {interrupted.signal.name}; nothing is left running", file=sys.stderr)
            return interrupted.exit_status


class _Demo:
    def __init__(self, options: DemoOptions, interrupts: Interrupts) -> None:
        from ashi_ingest.recording.bundled import BUNDLED
        from ashi_sinks.registry import store_name

        self._began = time.monotonic()
        self._options = options
        self._interrupts = interrupts
        self._recordings: Mapping[str, Sequence[Path]] = _by_venue(options.recordings) or BUNDLED
        self._markets: Mapping[str, Sequence[str]] = _by_venue(options.markets)
        self._workdir = options.workdir.absolute()
        self._logs = self._workdir / "logs"
        self._broker = Broker(self._workdir)
        self._own_store = not (options.storage or os.environ.get("ASHI_STORAGE") or os.environ.get("ASHI_STORAGE_FILE"))
        # Checked with an address that is not known yet, so that wrong settings are told before anything starts.
        self._environment = self._environment_of_stages("127.0.0.1:9092")
        self._settings = Settings.from_environment(self._environment)
        require_extras("demo", store=self._settings.storage)
        self._store = store_name(self._settings.storage)

    def _environment_of_stages(self, bootstrap: str) -> dict[str, str]:
        storage = self._options.storage
        if self._own_store:
            storage = f"sqlite:///{self._workdir / 'candles.db'}"
        elif storage is None:
            storage = Settings.from_environment(
                {name: os.environ[name] for name in ("ASHI_STORAGE", "ASHI_STORAGE_FILE") if name in os.environ}
            ).storage
        return stage_environment(
            os.environ,
            bootstrap=bootstrap,
            storage=storage or "",
            timeframes=self._options.timeframes,
            live=self._options.live,
        )

    def run(self) -> int:
        self._check_source()
        with work_directory(self._workdir):
            self._check_store()
            with Reporter(sys.stderr) as reporter, contextlib.ExitStack() as cleaning:
                cleaning.callback(self._stop_broker)
                self._start_broker(reporter)
                stack = self._make_stack()
                cleaning.callback(self._stop_stages, stack)
                replayed, findings = self._interrupts.run(self._flow(stack, reporter))
                reporter.update("stopping")
            return self._tell(replayed, findings)

    def _check_source(self) -> None:
        options = self._options
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
            reachable(self._settings, self._markets or MARKETS, lambda line: print(line, file=sys.stderr))
        )

    def _check_recordings(self) -> None:
        from ashi_ingest.recording.check import check_recording
        from ashi_ingest.venues.registry import VENUES

        for venue, paths in self._recordings.items():
            if venue not in VENUES:
                raise UsageError(f"--recording: there is no venue {venue!r}: write one of {', '.join(VENUES)}")
            for path in paths:
                check_recording(venue, path)

    def _check_store(self) -> None:
        """Raise UsageError when candles of somebody are there already, StorageError when none could be written."""
        from ashi_sinks.registry import STORES, make_sink, migrate_store, remove_store, store_exists, store_name

        exists = store_exists(self._settings.storage)
        if exists and not self._own_store and not self._options.overwrite:
            raise UsageError(
                f"the storage {redact_url(self._settings.storage)} exists already and is left as it is: "
                "name a new one, or make it anew with --overwrite"
            )

        if STORES[store_name(self._settings.storage)].migrate is not None:
            migrate_store(self._settings.storage)

        async def try_out() -> None:
            sink = make_sink(self._settings.storage)
            try:
                await sink.open()
            finally:
                await sink.close()

        self._interrupts.run(try_out())
        if not exists:
            remove_store(self._settings.storage)

    def _start_broker(self, reporter: Reporter) -> None:
        self._broker.start(child=True, fresh=True, say=reporter.say)
        self._environment = self._environment_of_stages(self._broker.bootstrap)
        self._settings = Settings.from_environment(self._environment)

    def _stop_broker(self) -> None:
        with self._interrupts.held():
            if self._broker.process is not None:
                self._broker.stop()

    def _stop_stages(self, stack: Stack) -> None:
        with self._interrupts.held():
            stack.stop()

    def _make_stack(self) -> Stack:
        logs = self._logs
        try:
            stack = Stack(logs, self._environment)
            # The client library's warnings about a broker that has just started are of no use to anybody here.
            handler = logging.FileHandler(logs / "demo.log")
        except OSError as error:
            raise StageError(f"logs cannot be written to {logs}: {error.strerror}; make it writable") from error
        logging.getLogger().handlers = [handler]
        return stack

    async def _flow(self, stack: Stack, reporter: Reporter) -> tuple[Replayed, Findings]:
        from ashi.contracts.topics import topic_specs
        from ashi.runtime.kafka.topics import create_topics
        from ashi_cli.onemachine.driver import Driver
        from ashi_cli.onemachine.results import gather
        from ashi_sinks.registry import remove_store
        from ashi_sinks.worker import sink_group

        settings = self._settings
        group = settings.sink_group or sink_group(self._store)
        driver = Driver(stack, settings, reporter, store=self._store, sink_group=group, summaries=self._logs)
        try:
            await create_topics(settings, topic_specs(settings.partitions, settings.timeframes))
            remove_store(settings.storage)  # only now: until here the demo could fail without touching it
            options = self._options
            if options.live:
                answered = self._interrupts.answered
                replayed = await driver.drive_live(self._markets, options.workers, options.seconds, answered)
            else:
                replayed = await driver.drive(self._recordings, options.workers)
            reporter.update("collecting the candles")
            return replayed, await gather(settings)
        except (BrokerError, StageError) as error:
            raise self._explain(error) from error

    def _explain(self, error: AshiError) -> AshiError:
        """What goes wrong because our broker has died, or is about to, is told as that."""
        process = self._broker.process
        assert process is not None  # noqa: S101
        with contextlib.suppress(subprocess.TimeoutExpired):
            # Out of reach on this very machine means dying; a stage may have died of something else.
            process.wait(_DYING_S if isinstance(error, BrokerError) else _POLL_S)
        words = self._broker.last_words()
        full = disk_is_full(self._broker.directory) or "No space left on device" in words
        ended = process.poll() is not None
        if not ended and not (full and isinstance(error, BrokerError)):
            return error
        what = f"{how_it_ended(process)} before the work was done" if ended else "no longer answers"
        remedy = "; the disk is full: free space there" if full else ""
        return StageError(f"stage broker {what}{remedy}. Its log {self._broker.log} ends with:\n{words}")

    def _tell(self, replayed: Replayed, findings: Findings) -> int:
        from rich.console import Console

        from ashi_cli.onemachine.results import Summary, show_series, show_summary, show_where

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
        show_where(console, self._settings.storage, findings.series)
        show_summary(console, summary, findings)
        for partial in replayed.partial:
            print(f"read only in part: {partial}", file=sys.stderr)
        if self._options.json:
            print(msgspec.json.encode(summary).decode(), flush=True)
        return EXIT_PARTIAL if replayed.partial else 0


def _by_venue(pairs: Sequence[tuple[str, _T]]) -> dict[str, list[_T]]:
    grouped: dict[str, list[_T]] = {}
    for venue, item in pairs:
        grouped.setdefault(venue, []).append(item)
    return grouped

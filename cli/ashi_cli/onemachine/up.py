"""`ashi up`: the whole flow on one machine for as long as somebody wants it, and on from there the next time."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import BrokerError, UsageError
from ashi.contracts.timeframe import HOUR_US
from ashi.runtime.settings.parsers import redact_url
from ashi.runtime.wall_clock import now_us
from ashi_cli.extras import require_extras
from ashi_cli.onemachine.chart import LOOPBACK, Chart, free_port
from ashi_cli.onemachine.interrupts import Interrupted, Interrupts, interruptible
from ashi_cli.onemachine.live import unlisted, unreachable
from ashi_cli.onemachine.machine import Machine
from ashi_cli.onemachine.plan import Remembered, check_storage, make_plan, recall, remember
from ashi_cli.onemachine.reporter import Reporter
from ashi_cli.onemachine.stack import StageError, bound_log, how_it_ended, stands_still, work_directory
from ashi_cli.onemachine.supervisor import MOST_FAILURES, STEADY_S, Job, Supervisor
from ashi_cli.onemachine.watch import LOG_S, Watch
from ashi_cli.shared_options import WORKDIR

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ashi_cli.onemachine.options import UpOptions

POLL_S: Final = 0.3
ANSWER_S: Final = 60.0
"""In which the chart must answer; it takes three."""
LOGS_S: Final = 60.0
SIMULATED_PAST_US: Final = 2 * HOUR_US
"""How much of their past simulated markets begin with: enough to look at. Fetching it takes a request for each 1,000
trades, and at the venue's pace a request takes most of a second."""


def run_up(options: UpOptions) -> int:
    """Run until a signal comes, and give the exit status: 0, or 130 or 143 when it came before all was running.

    Raises AshiError; nothing is left running then.
    """
    return interruptible(lambda interrupts: _Up(options, interrupts).run())


class _Up:
    def __init__(self, options: UpOptions, interrupts: Interrupts) -> None:
        from ashi_sinks.registry import store_name

        self._options = options
        self._interrupts = interrupts
        workdir = (options.workdir or WORKDIR / ("simulated" if options.simulate else "up")).absolute()
        before = recall(workdir)
        self._plan = make_plan(options, workdir, before)
        self._machine = Machine(
            workdir, interrupts, storage=options.storage, timeframes=self._plan.timeframes, live=True
        )
        storage = self._machine.settings.storage
        require_extras("up", store=storage)
        check_storage(redact_url(storage), workdir, before)
        self._chart = Chart.of(self._machine.settings, options.port)
        self._store = store_name(storage)
        self._markets: Mapping[str, Sequence[str]] = self._plan.markets
        self._broker_ends: list[float] = []

    def run(self) -> int:
        machine = self._machine
        self._check_markets()
        with work_directory(machine.workdir, "ashi up"):
            self._chart.check_port()
            machine.check_store(lambda _: None)
            with Reporter(sys.stderr, LOG_S) as reporter, contextlib.ExitStack() as cleaning:
                cleaning.callback(machine.stop_broker)
                self._remember()
                machine.start_broker(reporter.say, fresh=False)
                stack = machine.make_stack("up")
                cleaning.callback(machine.stop_stages, stack)
                self._interrupts.run(self._make_topics())
                stages = Supervisor(stack, reporter.say)
                for job in self._jobs():
                    stages.start(job)
                self._until_it_answers(stages, reporter)
                try:
                    self._serve(stages, reporter)
                except Interrupted:
                    reporter.update("stopping")
            print("all of it has ended; the next `ashi up` goes on from here", file=sys.stderr)
            return 0

    def _check_markets(self) -> None:
        """Raise UsageError for markets that there are not, VenueError when no exchange answers at the first start."""
        if self._options.simulate:
            from ashi_simulator import check_venue

            for venue in self._markets:
                check_venue(venue)
            return
        if not self._plan.going_on:  # else the feeds wait for theirs
            reasons = self._interrupts.run(unreachable(self._machine.settings, self._markets))
            what = "waited for" if self._plan.named else "left out"
            for venue, reason in reasons.items():
                print(f"{venue} cannot be reached now and is {what}: {reason}", file=sys.stderr)
            if not self._plan.named:
                self._markets = {venue: names for venue, names in self._markets.items() if venue not in reasons}
        if self._options.markets:
            wrong = self._interrupts.run(unlisted(self._machine.settings, self._markets))
            if wrong:
                raise UsageError("; ".join(wrong))

    async def _make_topics(self) -> None:
        from ashi.contracts.topics import TRADES, topic_specs
        from ashi.runtime.kafka.cluster.topics import create_topics, partition_counts

        settings = self._machine.settings
        partitions = (await partition_counts(settings)).get(TRADES, settings.partitions)
        self._machine.environment["ASHI_PARTITIONS"] = str(partitions)
        await create_topics(settings, topic_specs(partitions, settings.timeframes))

    def _remember(self) -> None:
        settings = self._machine.settings
        remembered = Remembered(
            simulated=self._options.simulate,
            markets=[f"{venue}:{name}" for venue, names in self._markets.items() for name in names],
            timeframes=",".join(map(str, settings.timeframes)),
            storage=redact_url(settings.storage),
        )
        try:
            remember(self._machine.workdir, remembered)
        except OSError as error:
            raise UsageError(
                f"{self._machine.workdir} cannot be written: {error.strerror}; make it writable"
            ) from error

    def _jobs(self) -> list[Job]:
        """In the order of their start: what takes longest first."""
        jobs = [
            Job("aggregate-1", ["aggregate"]),
            Job(f"sink-{self._store}", ["sink", self._store]),
            Job("chart", self._chart.arguments()),
        ]
        since = self._options.since
        if since is None and self._options.simulate:
            since = now_us() - SIMULATED_PAST_US
        past = [] if since is None else ["--since", datetime.fromtimestamp(since / 1e6, UTC).isoformat()]
        for venue, names in self._markets.items():
            feed = Job(f"ingest-{venue}", ["ingest", venue, *past, "--", *names], is_feed=True)
            if self._options.simulate:
                port = free_port()
                venue_sim = ["venue-sim", venue, *names, "--ongoing", "--port", str(port)]
                jobs.insert(0, Job(f"venue-sim-{venue}", venue_sim))
                feed.environment = _addresses(venue, port)
            jobs.append(feed)
        return jobs

    def _until_it_answers(self, stages: Supervisor, reporter: Reporter) -> None:
        reporter.update("waiting for the chart")
        until = time.monotonic() + ANSWER_S
        while not self._chart.answers():
            if time.monotonic() > until and (chart := stages.stage("chart")) is not None:
                raise stands_still(chart, ANSWER_S)
            self._look(stages, reporter)
            time.sleep(POLL_S)
        machine = self._machine
        names = ", ".join(f"{venue}:{name}" for venue, names in self._markets.items() for name in names)
        how = "going on with" if self._plan.going_on else "reading"
        simulated = ", simulated" if self._options.simulate else ""
        reporter.say(f"{how} {names}{simulated}")
        reporter.say(f"candles are kept in {redact_url(machine.settings.storage)}, logs in {machine.logs}")
        reporter.say(f"for other terminals: export ASHI_KAFKA_BOOTSTRAP={machine.broker.bootstrap}")
        reporter.say(f"the chart: {self._chart.address()}")

    def _serve(self, stages: Supervisor, reporter: Reporter) -> None:
        """Until a signal comes. Raises Interrupted, StageError."""
        from ashi_sinks.worker import sink_group

        settings = self._machine.settings
        group = settings.sink_group or sink_group(self._store)
        while True:
            self._interrupts.run(self._watch(stages, Watch(settings, group, reporter)))
            self._look(stages, reporter)

    async def _watch(self, stages: Supervisor, watch: Watch) -> None:
        """Until the broker has ended."""
        telling = asyncio.create_task(watch.run())
        logs_at = time.monotonic()
        try:
            while not self._machine.broker_has_ended():
                stages.look()
                if telling.done():
                    telling.result()
                if time.monotonic() >= logs_at:
                    logs_at += LOGS_S
                    for log in (self._machine.broker.log, *self._machine.logs.glob("*.log")):
                        bound_log(log)
                await asyncio.sleep(POLL_S)
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    def _look(self, stages: Supervisor, reporter: Reporter) -> None:
        """Start again what has ended, the broker among it. Raises StageError when that is of no use."""
        if not self._machine.broker_has_ended():
            stages.look()
            return
        process, port = self._machine.broker.process, int(self._machine.settings.kafka_bootstrap.rpartition(":")[2])
        assert process is not None  # noqa: S101
        now = time.monotonic()
        self._broker_ends = [end for end in self._broker_ends if now - end < MOST_FAILURES * STEADY_S] + [now]
        how = how_it_ended(process)
        if len(self._broker_ends) >= MOST_FAILURES:
            raise StageError(self._machine.broker_words(f"{how}, {len(self._broker_ends)} times in a few minutes"))
        reporter.say(self._machine.broker_words(f"{how}; it is started again"))
        try:
            self._machine.start_broker(reporter.say, fresh=False, port=port)
        except BrokerError as error:
            raise StageError(f"the broker cannot be started again: {error}") from error
        stages.forgive()


def _addresses(venue: str, port: int) -> dict[str, str]:
    from ashi_simulator import websocket_path

    return {
        "ASHI_WEBSOCKET_URL": f"ws://{LOOPBACK}:{port}{websocket_path(venue)}",
        "ASHI_REST_URL": f"http://{LOOPBACK}:{port}",
    }

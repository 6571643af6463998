"""One run: a broker, stores, a load, workers, faults drawn from a seed, and the judgement at the end."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ashi.contracts.errors import StateError
from ashi.contracts.topics import AGGREGATE_APP, TRADES, topic_specs
from ashi.runtime.kafka.cluster.offsets import committed_offsets, end_offsets
from ashi.runtime.kafka.cluster.topics import create_topics
from ashi.runtime.settings import Settings
from ashi_aggregate.reconfigure import reconfigure
from ashi_cli.onemachine.broker import Broker
from chaos.compaction import LAG_MS, force_compaction, show_compaction
from chaos.market import PARTITIONS, SYMBOLS, Market, messages
from chaos.publisher import Publisher
from chaos.schedule import Fault, round_of, schedule
from chaos.truth import Era, classify_error, compare_with_topic
from rig.ending import drain, drain_sinks
from rig.fleet import SESSION_S, Fleet, PromiseError, Timeline, Worker
from rig.ports import quiet_port
from rig.stores import POSTGRES, Postgres, stores, waits

TIMEFRAMES = ["10s", "1m", "5m"]
ADDED = ["30s", "2m", "15m"]
"""What each reconfiguration adds; there are at most so many."""
HORIZON_S = 30
LONGER_S = 20
"""By how much each reconfiguration lengthens the horizon."""
WORKERS = (2, 3, 4)
"""Aggregate workers: at least, at first, at most."""

SETTLE_S = 30.0
STANDSTILL_S = 60.0
"""Some sessions, a recovery and what the machine is short of: a group that takes longer stands still."""
CALM_S = 4.0
MOST_UNEXPLAINED = 0
"""So many ends of workers may have no reason that the harness knows."""


@dataclass(frozen=True)
class Result:
    """What a run has to show."""

    seconds: float
    faults: dict[str, int]
    restarts: dict[str, int]
    """How often the store came back, by the way it went."""
    ends: dict[str, int]
    numbers: dict[str, int]


def run(
    directory: Path, seed: int, minutes: float = 0.0, say: Callable[[str], None] = print, *, symbols: int = SYMBOLS
) -> Result:
    """Run the chaos test; faults go on for so many minutes, but one round of them at least.

    Raises PromiseError with everything that is wrong. The work directory is left to the caller.
    """
    with ExitStack() as closing:
        chaos = Chaos(directory, seed, minutes, say, closing, symbols)
        try:
            return chaos.run()
        except PromiseError as error:
            chaos.timeline(f"FAILED: {error}")
            raise PromiseError(f"seed {seed}, all logs in {directory}: {error}") from error
        except BaseException as error:
            chaos.timeline(f"FAILED: {error!r}; seed {seed}, all logs in {directory}")
            raise


class Chaos:
    """The state of one run."""

    def __init__(
        self, directory: Path, seed: int, minutes: float, say: Callable[[str], None], closing: ExitStack, symbols: int
    ) -> None:
        self.timeline = Timeline(directory / "timeline.log", say)
        self._seed = seed
        self._minutes = minutes
        self._directory = directory
        self._symbols = symbols
        rng = random.Random(seed)
        # Two streams, so that the trades do not depend on when which fault is drawn.
        self._load, self._faults = random.Random(rng.random()), random.Random(rng.random())
        self._port = quiet_port(rng)
        self._checkpoint = rng.choice(["50ms", "200ms", "500ms"])
        self._broker = Broker(directory)
        closing.callback(self._broker.stop)
        self._postgres = Postgres(directory, quiet_port(rng, but=[self._port]), self.timeline)
        closing.callback(self._postgres.remove)
        self._stores = stores(directory, self._postgres)
        self._urls = {store.name: store.url for store in self._stores}
        self._has_ids = rng.random() < 1 / 2
        self._timeframes = list(TIMEFRAMES)
        self._horizon_s = HORIZON_S
        self._eras: list[Era] = []
        self._compacting = False
        self._done: dict[str, int] = {}
        self.fleet = Fleet(directory, {}, self.timeline)
        self.fleet.chores.append(self._postgres.tick)
        closing.callback(self.fleet.destroy)
        self._slots: list[Worker] = []
        self._sinks: dict[str, list[Worker]] = {}

    def run(self) -> Result:
        length = f"{self._minutes:g} minutes" if self._minutes else "one round of faults"
        symbols = f"{self._symbols} symbols, " if self._symbols != SYMBOLS else ""
        ids = ", aggregate workers with instance ids" if self._has_ids else ""
        self.timeline(f"seed {self._seed}, {symbols}{length}, a checkpoint every {self._checkpoint}{ids}")
        self._broker.start(port=self._port, child=True)
        settings = self._settings()
        asyncio.run(create_topics(settings, topic_specs(PARTITIONS, settings.timeframes)))
        self.timeline(f"the broker serves on {settings.kafka_bootstrap}")
        self._postgres.migrate()
        self.fleet.environment = self._environment()
        self._slots = [self._add_worker(number) for number in range(WORKERS[1])]
        self._sinks = {store.name: store.start_sinks(self.fleet) for store in self._stores}
        publisher = Publisher(settings, messages(self._load, Market(self._symbols)))
        publisher.start()
        self.timeline("publishing")
        self.fleet.must(
            lambda: all(worker.ready for worker in self.fleet.workers), SETTLE_S, "workers do not get ready"
        )
        self._suffer()
        self.fleet.wait(CALM_S)
        publisher.stop()
        self.timeline(f"published {len(publisher.acknowledged)} records, {publisher.sent_again} of them again")
        drain(self.fleet, settings, [store.group for store in self._stores])
        self._await_store()
        self.fleet.stop(self.fleet.workers)
        asyncio.run(show_compaction(self._settings(), self.timeline))
        self.timeline("judging")
        self._eras.append(Era(self._timeframes, self._horizon_s * 1_000_000, {}, {}))
        verdict = asyncio.run(classify_error(settings, self._urls, self._eras, publisher.acknowledged, self._directory))
        verdict.numbers["waits for a store"] = waits(self._directory)
        wrong = verdict.wrong + (self.fleet.unexplained if len(self.fleet.unexplained) > MOST_UNEXPLAINED else [])
        self.timeline(f"faults: {self._done}")
        self.timeline(f"restarts of the store: {dict(self._postgres.restarts)}")
        self.timeline(f"ends: {dict(self.fleet.ends)}")
        self.timeline(f"{verdict.numbers}")
        if wrong:
            raise PromiseError("\n".join(wrong))
        self.timeline("every candle of every store is the oracle's, every record is accounted for")
        ends, restarts = dict(self.fleet.ends), dict(self._postgres.restarts)
        return Result(self.timeline.now, self._done, restarts, ends, verdict.numbers)

    def _add_worker(self, number: int) -> Worker:
        """An aggregate worker; in every other run each is known to the group by an id of its own."""
        name = f"aggregate-{number}"
        return self.fleet.add(name, "aggregate", environment={"ASHI_INSTANCE_ID": name} if self._has_ids else None)

    def _environment(self) -> dict[str, str]:
        return {
            "ASHI_KAFKA_BOOTSTRAP": f"127.0.0.1:{self._port}",
            "ASHI_PARTITIONS": str(PARTITIONS),
            "ASHI_SESSION_TIMEOUT": f"{SESSION_S:.0f}s",
            "ASHI_QUIET_CLOSE": "off",  # else wall time decides which windows have closed in the end
            "ASHI_TIMEFRAMES": ",".join(self._timeframes),
            "ASHI_ALLOWED_LATENESS": "2s",
            "ASHI_CORRECTION_HORIZON": f"{self._horizon_s}s",
            "ASHI_CHECKPOINT_INTERVAL": self._checkpoint,
            "ASHI_METRICS_PORT": "0",
            "ASHI_LOG_FORMAT": "json",
        }

    def _settings(self) -> Settings:
        return Settings.from_environment(self._environment())

    # The schedule

    def _suffer(self) -> None:
        """Let the faults happen: one round at least, as many as there is time for."""
        faults = round_of(is_long=bool(self._minutes), has_many_symbols=self._symbols > SYMBOLS)
        at_least = len(faults) + 1
        until = self._minutes * 60 - CALM_S - 20
        for number, fault in enumerate(schedule(self._faults, faults)):
            if number >= at_least and self.timeline.now >= until:
                return
            self.fleet.wait(fault.gap_s)
            if fault.kind == "reconfigure" and len(self._eras) == len(ADDED):
                continue
            getattr(self, "_" + fault.kind.replace(" ", "_"))(fault)
            self._done[fault.kind] = self._done.get(fault.kind, 0) + 1
            if fault.settle:
                self._settle()

    def _choose(self, workers: list[Worker], fault: Fault, *, ready: bool = False) -> Worker:
        """One of the workers that run, drawn by the fault; one that is ready if it must have partitions."""

        def choices() -> list[Worker]:
            return [worker for worker in workers if (worker.ready if ready else worker.free)]

        self.fleet.must(lambda: bool(choices()), SETTLE_S, f"nothing to {fault.kind}")
        return choices()[int(fault.pick * len(choices()))]

    def _settle(self) -> None:
        """Wait until all that has been published up to now is aggregated."""
        settings = self._settings()
        goal = sum(asyncio.run(end_offsets(settings, TRADES)).values())

        def caught_up() -> bool:
            return sum(asyncio.run(committed_offsets(settings, AGGREGATE_APP, TRADES)).values()) >= goal

        began = self.timeline.now
        self.fleet.must(caught_up, STANDSTILL_S, "the aggregate workers, which were let alone, have not caught up")
        self.timeline(f"the aggregate workers have caught up after {self.timeline.now - began:.1f} s")

    # Faults

    def _kill(self, fault: Fault) -> None:
        self.fleet.kill(self._choose(self._slots, fault), 4 * fault.length)

    def _kill_all(self, fault: Fault) -> None:
        for worker in self._slots:
            if worker.free:
                self.fleet.kill(worker, 4 * fault.length)

    def _terminate(self, fault: Fault) -> None:
        self.fleet.terminate(self._choose(self._slots, fault), 4 * fault.length)

    def _rolling_restart(self, fault: Fault) -> None:
        """SIGTERM for one aggregate worker after the other, as a deployment does: the next once the last is ready."""
        for worker in [each for each in self._slots if each.wanted]:
            self._await_ready(worker)
            starts = worker.starts
            self.fleet.terminate(worker, 0.2 * fault.length)
            self._await_ready(worker, after=starts)

    def _await_ready(self, worker: Worker, after: int = 0) -> None:
        self.fleet.must(
            lambda: worker.starts > after and worker.ready, SETTLE_S, f"{worker.name}, which is let alone, is not ready"
        )

    def _zombie(self, fault: Fault) -> None:
        """Longer than the session of 6 s: Kafka gives its partitions to others, then it goes on."""
        self.fleet.freeze(self._choose(self._slots, fault, ready=True), 8 + 4 * fault.length)

    def _hiccup(self, fault: Fault) -> None:
        self.fleet.freeze(self._choose(self._slots, fault, ready=True), 0.5 + 3 * fault.length)

    def _add(self, fault: Fault) -> None:
        idle = [worker for worker in self._slots if not worker.wanted and worker.process is None]
        if idle:
            self.timeline(f"{idle[0].name} is wanted again")
            idle[0].wanted = True
        elif len(self._slots) < WORKERS[2]:
            self._slots.append(self._add_worker(len(self._slots)))

    def _remove(self, fault: Fault) -> None:
        if sum(worker.wanted for worker in self._slots) > WORKERS[0]:
            worker = self._choose(self._slots, fault)
            worker.wanted = False
            self.fleet.terminate(worker, 0)

    def _any_sink(self, fault: Fault, *, ready: bool = False) -> Worker:
        """Each store is as likely as another, however many sinks it has."""
        luck = fault.pick * len(self._sinks)
        sinks = list(self._sinks.values())[int(luck)]
        return self._choose(sinks, fault._replace(pick=luck % 1), ready=ready)

    def _kill_sink(self, fault: Fault) -> None:
        self.fleet.kill(self._any_sink(fault), 4 * fault.length)

    def _terminate_sink(self, fault: Fault) -> None:
        self.fleet.terminate(self._any_sink(fault), 4 * fault.length)

    def _freeze_sink(self, fault: Fault) -> None:
        """It goes on with what it had read: the rows of a store only yield to greater versions."""
        self.fleet.freeze(self._any_sink(fault, ready=True), 6 + 4 * fault.length)

    def _restart_store(self, fault: Fault) -> None:
        """Other faults go on while it is away; every other time one of its sinks is lost at once as well."""
        self._await_store()
        seconds = 0.5 + 3.5 * fault.length
        self._postgres.take_away(fault.pick, seconds)
        free = [worker for worker in self._sinks[POSTGRES] if worker.free]
        luck = fault.pick * 1000 % 1
        if free and luck < 1 / 2:
            worker = free[int(luck * 1000) % len(free)]
            # It may be back before the store is.
            (self.fleet.kill if luck < 1 / 4 else self.fleet.terminate)(worker, seconds / 2)

    def _await_store(self) -> None:
        self.fleet.must(lambda: not self._postgres.is_away, SETTLE_S, "the store does not come back")

    def _stop_broker(self, fault: Fault) -> None:
        self._without_broker(self._broker.stop, "stopped", fault)

    def _kill_broker(self, fault: Fault) -> None:
        def kill() -> None:
            assert self._broker.process is not None
            self._broker.process.send_signal(signal.SIGKILL)
            self._broker.process.wait(10)

        self._without_broker(kill, "killed", fault)

    def _without_broker(self, end: Callable[[], Any], how: str, fault: Fault) -> None:
        """End the broker and start it again; in two of three cases a worker is lost meanwhile as well."""
        self.fleet.broker_is_away(True)
        end()
        seconds = 0.5 + 3.5 * fault.length
        self.timeline(f"the broker was {how}; it starts again in {seconds:.1f} s")
        free = [worker for worker in self._slots if worker.free]
        if free and fault.pick < 2 / 3:
            worker = free[int(fault.pick * 1000) % len(free)]
            (self.fleet.kill if fault.pick < 1 / 3 else self.fleet.terminate)(worker, seconds)
        self.fleet.wait(seconds)
        self._broker.start(port=self._port, child=True)
        self.timeline("the broker serves again")
        self.fleet.broker_is_away(False)

    def _compact(self, fault: Fault) -> None:
        """Let Kafka compact the changelogs within seconds, from now on."""
        self._compacting = True
        asyncio.run(force_compaction(self._settings()))
        self.timeline(f"changelogs are compacted eagerly, but for the last {LAG_MS / 1000:.0f} s")

    def _reconfigure(self, fault: Fault) -> None:
        """Stop the aggregate workers, raise the epoch with a longer horizon and one more timeframe, start them."""
        wanted = [worker for worker in self._slots if worker.wanted]
        self.timeline("reconfiguring: all aggregate workers stop")
        self.fleet.stop(self._slots)
        settings = self._settings()
        durable = asyncio.run(committed_offsets(settings, AGGREGATE_APP, TRADES))
        end = asyncio.run(end_offsets(settings, TRADES))
        self._check_stores()
        self._eras.append(Era(list(self._timeframes), self._horizon_s * 1_000_000, durable, end))
        self._timeframes.append(ADDED[len(self._eras) - 1])
        self._horizon_s += LONGER_S
        refusals: list[StateError] = []

        def done() -> bool:
            try:
                _, after = asyncio.run(reconfigure(self._settings()))
            except StateError as error:  # one that was killed counts as a member until its session has expired
                refusals.append(error)
                return False
            self.timeline(f"epoch {after.epoch}: {after}")
            return True

        self.fleet.must(done, SETTLE_S, "the epoch cannot be raised")
        if self._compacting:
            asyncio.run(force_compaction(self._settings()))
        self.fleet.environment = self._environment()
        for worker in wanted:
            worker.wanted = True

    def _check_stores(self) -> None:
        """That no store lacks what was sent so far: the new epoch sends it all again, and would hide a loss."""
        settings = self._settings()
        drain_sinks(self.fleet, settings, [store.group for store in self._stores])
        self._await_store()
        if wrong := asyncio.run(compare_with_topic(settings, self._urls, self._directory)):
            raise PromiseError("\n".join(["before the new epoch:", *wrong]))
        self.timeline("every store holds what was sent in this epoch")

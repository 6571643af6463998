"""One run: a broker, a load, workers, a schedule of faults drawn from a seed, and the judgement at the end."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from chaos.fleet import SESSION_S, ChaosError, Fleet, Timeline, Worker
from chaos.market import PARTITIONS, messages
from chaos.publisher import Publisher
from chaos.truth import Era, judge

from aggregate.epoch import reconfigure
from ashi.cli.broker import Broker
from ashi.contracts.errors import StateError
from ashi.contracts.topics import AGGREGATE_APP, CANDLES, TRADES, topic_specs
from ashi.runtime.kafka import admin_client, read_topic
from ashi.runtime.offsets import committed_offsets, end_offsets
from ashi.runtime.settings import Settings
from ashi.runtime.topics import create_topics

TIMEFRAMES = ["10s", "1m", "5m"]
ADDED = ["30s", "2m", "15m"]
"""What each reconfiguration adds; there are at most so many."""
HORIZON_S = 30
LONGER_S = 20
"""By how much each reconfiguration lengthens the horizon."""
WORKERS = (2, 3, 4)
"""Aggregate workers: at least, at first, at most."""
SINKS = 2
SINK_GROUP = "ashi-sink-sqlite"

COMPACTION_LAG_MS = 30_000
"""A deployment's changelogs are compacted after five minutes: longer than a frozen worker's late write plus the two
minutes in which each row is written again. A run is too short for that, so it takes half a minute; and instead of
two minutes, it counts on no symbol being quiet for much longer than 6 s. Frozen workers come back after 12 s at most.
"""
SEGMENT_MS = 5_000

ROUND = (
    "kill",
    "kill",
    "terminate",
    "zombie",
    "hiccup",
    "add",
    "remove",
    "kill sink",
    "terminate sink",
    "freeze sink",
    "zombie",
    "kill all",
    "stop broker",
    "reconfigure",
)
"""The faults of one round, in an order that is drawn. Compaction is forced before the first."""
LONG_ROUND = (*ROUND, "kill broker", "kill", "zombie", "hiccup")

SETTLE_S = 30.0
STANDSTILL_S = 60.0
"""Some sessions, a recovery and what the machine is short of: a group that takes longer stands still."""
DRAIN_S = 120.0
CALM_S = 4.0
MOST_UNEXPLAINED = 0
"""So many ends of workers may have no reason that the harness knows."""


class Fault(NamedTuple):
    """One fault: what, how long after the one before, to whom (0 to 1 of those that can be chosen), for how long.

    `settle`: the next one only once what was published up to now is aggregated, else whatever the state of things is.
    """

    kind: str
    gap_s: float
    pick: float
    length: float
    settle: bool


def schedule(rng: random.Random, faults: tuple[str, ...]) -> Iterator[Fault]:
    """Faults without end, round after round."""
    yield Fault("compact", 1.0, 0.0, 0.0, settle=False)
    while True:
        for kind in rng.sample(faults, len(faults)):
            yield Fault(kind, rng.uniform(0.5, 4.0), rng.random(), rng.random(), rng.random() < 0.4)


@dataclass(frozen=True)
class Result:
    """What a run has to show."""

    seconds: float
    faults: dict[str, int]
    ends: dict[str, int]
    numbers: dict[str, int]


def run(directory: Path, seed: int, minutes: float = 0.0, say: Callable[[str], None] = print) -> Result:
    """Run the chaos test; faults go on for so many minutes, but one round of them at least.

    Raises ChaosError with everything that is wrong. The work directory is left to the caller.
    """
    with ExitStack() as closing:
        chaos = Chaos(directory, seed, minutes, say, closing)
        try:
            return chaos.run()
        except ChaosError as error:
            chaos.timeline(f"FAILED: {error}")
            raise ChaosError(f"seed {seed}, all logs in {directory}: {error}") from error
        except BaseException as error:
            chaos.timeline(f"FAILED: {error!r}; seed {seed}, all logs in {directory}")
            raise


class Chaos:
    """The state of one run."""

    def __init__(
        self, directory: Path, seed: int, minutes: float, say: Callable[[str], None], closing: ExitStack
    ) -> None:
        self.timeline = Timeline(directory / "timeline.log", say)
        self._seed = seed
        self._minutes = minutes
        self._storage = directory / "candles.db"
        self._evidence = directory / "differences.txt"
        rng = random.Random(seed)
        # Two streams, so that the trades do not depend on when which fault is drawn.
        self._load, self._faults = random.Random(rng.random()), random.Random(rng.random())
        self._port = _quiet_port(rng)
        self._checkpoint = rng.choice(["50ms", "200ms", "500ms"])
        self._broker = Broker(directory)
        closing.callback(self._broker.stop)
        self._timeframes = list(TIMEFRAMES)
        self._horizon_s = HORIZON_S
        self._eras: list[Era] = []
        self._compacting = False
        self._done: dict[str, int] = {}
        self.fleet = Fleet(directory, {}, self.timeline)
        closing.callback(self.fleet.destroy)
        self._slots: list[Worker] = []
        self._sinks: list[Worker] = []

    def run(self) -> Result:
        length = f"{self._minutes:g} minutes" if self._minutes else "one round of faults"
        self.timeline(f"seed {self._seed}, {length}, a checkpoint every {self._checkpoint}")
        self._broker.start(port=self._port, child=True)
        settings = self._settings()
        asyncio.run(create_topics(settings, topic_specs(PARTITIONS, settings.timeframes)))
        self.timeline(f"the broker serves on {settings.kafka_bootstrap}")
        self.fleet.environment = self._environment()
        self._slots = [self.fleet.add(f"aggregate-{number}", "aggregate") for number in range(WORKERS[1])]
        self._sinks = [self.fleet.add(f"sink-{number}", "sink", "sqlite") for number in range(SINKS)]
        publisher = Publisher(settings, messages(self._load))
        publisher.start()
        self.timeline("publishing")
        self._must(lambda: all(worker.ready for worker in self.fleet.workers), SETTLE_S, "workers do not get ready")
        self._suffer()
        self.fleet.wait(CALM_S)
        publisher.stop()
        self.timeline(f"published {len(publisher.acknowledged)} records, {publisher.sent_again} of them again")
        self._drain()
        self.fleet.stop(self.fleet.workers)
        self._show_compaction()
        self.timeline("judging")
        self._eras.append(Era(self._timeframes, self._horizon_s * 1_000_000, {}, {}))
        verdict = asyncio.run(judge(settings, self._storage, self._eras, publisher.acknowledged, self._evidence))
        wrong = verdict.wrong + (self.fleet.unexplained if len(self.fleet.unexplained) > MOST_UNEXPLAINED else [])
        self.timeline(f"faults: {self._done}")
        self.timeline(f"ends: {dict(self.fleet.ends)}")
        self.timeline(f"{verdict.numbers}")
        if wrong:
            raise ChaosError("\n".join(wrong))
        self.timeline("every candle is the oracle's, every record is accounted for")
        return Result(self.timeline.now, self._done, dict(self.fleet.ends), verdict.numbers)

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
            "ASHI_STORAGE": f"sqlite:///{self._storage}",
            "ASHI_METRICS_PORT": "0",
            "ASHI_LOG_FORMAT": "json",
        }

    def _settings(self) -> Settings:
        return Settings.from_environment(self._environment())

    # The schedule

    def _suffer(self) -> None:
        """Let the faults happen: one round at least, as many as there is time for."""
        faults = LONG_ROUND if self._minutes else ROUND
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

    def _must(self, condition: Callable[[], bool], timeout_s: float, complaint: str) -> None:
        if not self.fleet.wait_until(condition, timeout_s):
            raise ChaosError(f"{complaint} within {timeout_s:.0f} s")

    def _choose(self, workers: list[Worker], fault: Fault, *, ready: bool = False) -> Worker:
        """One of the workers that run, drawn by the fault; one that is ready if it must have partitions."""

        def choices() -> list[Worker]:
            return [worker for worker in workers if (worker.ready if ready else worker.free)]

        self._must(lambda: bool(choices()), SETTLE_S, f"nothing to {fault.kind}")
        return choices()[int(fault.pick * len(choices()))]

    def _settle(self) -> None:
        """Wait until all that has been published up to now is aggregated."""
        settings = self._settings()
        goal = sum(asyncio.run(end_offsets(settings, TRADES)).values())

        def caught_up() -> bool:
            return sum(asyncio.run(committed_offsets(settings, AGGREGATE_APP, TRADES)).values()) >= goal

        began = self.timeline.now
        self._must(caught_up, STANDSTILL_S, "the aggregate workers, which were let alone, have not caught up")
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
            self._slots.append(self.fleet.add(f"aggregate-{len(self._slots)}", "aggregate"))

    def _remove(self, fault: Fault) -> None:
        if sum(worker.wanted for worker in self._slots) > WORKERS[0]:
            worker = self._choose(self._slots, fault)
            worker.wanted = False
            self.fleet.terminate(worker, 0)

    def _kill_sink(self, fault: Fault) -> None:
        self.fleet.kill(self._choose(self._sinks, fault), 4 * fault.length)

    def _terminate_sink(self, fault: Fault) -> None:
        self.fleet.terminate(self._choose(self._sinks, fault), 4 * fault.length)

    def _freeze_sink(self, fault: Fault) -> None:
        """It goes on with what it had read: SQLite's rows only yield to greater versions."""
        self.fleet.freeze(self._choose(self._sinks, fault, ready=True), 6 + 4 * fault.length)

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
        asyncio.run(self._force_compaction())
        self.timeline(f"changelogs are compacted eagerly, but for the last {COMPACTION_LAG_MS / 1000:.0f} s")

    async def _force_compaction(self) -> None:
        settings = self._settings()
        eager = {
            "segment.ms": str(SEGMENT_MS),
            "min.cleanable.dirty.ratio": "0.01",
            "min.compaction.lag.ms": str(COMPACTION_LAG_MS),
        }
        resources = [
            ConfigResource(ConfigResourceType.TOPIC, spec.name, spec.config | eager)
            for spec in topic_specs(PARTITIONS, settings.timeframes)
            if spec.name.endswith("-changelog")
        ]
        # The cleaner looks for work every 15 s by itself.
        resources.append(ConfigResource(ConfigResourceType.BROKER, "1", {"log.cleaner.backoff.ms": "1000"}))
        async with admin_client(settings) as client:
            for response in await client.alter_configs(resources):
                for code, message, *_ in response.resources:
                    if code:
                        raise ChaosError(f"Kafka refuses to change a topic: {message}")

    def _reconfigure(self, fault: Fault) -> None:
        """Stop the aggregate workers, raise the epoch with a longer horizon and one more timeframe, start them."""
        wanted = [worker for worker in self._slots if worker.wanted]
        self.timeline("reconfiguring: all aggregate workers stop")
        self.fleet.stop(self._slots)
        settings = self._settings()
        durable = asyncio.run(committed_offsets(settings, AGGREGATE_APP, TRADES))
        end = asyncio.run(end_offsets(settings, TRADES))
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

        self._must(done, SETTLE_S, "the epoch cannot be raised")
        if self._compacting:
            asyncio.run(self._force_compaction())
        self.fleet.environment = self._environment()
        for worker in wanted:
            worker.wanted = True

    # The end

    def _drain(self) -> None:
        """Wait until nothing is left to do in any group."""
        settings = self._settings()
        self.fleet.wait_for_frozen(self.fleet.workers)
        for group, topic in ((AGGREGATE_APP, TRADES), (SINK_GROUP, CANDLES)):
            ends = {at: end for at, end in asyncio.run(end_offsets(settings, topic)).items() if end}
            seen: dict[str, Any] = {}

            def reached(group: str = group, topic: str = topic, ends: Any = ends, seen: Any = seen) -> bool:
                committed = asyncio.run(committed_offsets(settings, group, topic))
                seen["at"] = {at: offset for at, offset in committed.items() if offset}
                return bool(seen["at"] == ends)

            try:
                self._must(reached, DRAIN_S, f"{group} has not read all of {topic}")
            except ChaosError as error:
                raise ChaosError(f"{error}\nends {ends}, committed {seen}") from None
            if topic == TRADES:
                self._await_positions()
            self.timeline(f"{group} has read all of {topic}: {sum(ends.values())} records")

    def _await_positions(self) -> None:
        """Wait until the owner of each partition says that its state has come to the end.

        Committed offsets alone do not tell: after a reconfiguration they are those of the epoch before, until the new
        state has come further.
        """
        ends = {at: end - 1.0 for at, end in asyncio.run(end_offsets(self._settings(), TRADES)).items() if end}
        seen: dict[int, float] = {}

        def reached() -> bool:
            seen.clear()
            seen.update(self._positions())
            return all(seen.get(number) == end for number, end in ends.items())

        try:
            self._must(reached, DRAIN_S, "the state has not come to the end of trades")
        except ChaosError as error:
            raise ChaosError(f"{error}: ashi_position says {seen}, trades ends at {ends}") from None

    def _positions(self) -> dict[int, float]:
        """What the workers that are ready say of their partitions; each of these must say that it lives."""
        positions: dict[int, float] = {}
        for worker in self.fleet.workers:
            if not worker.ready:
                continue
            first = next(line for line in worker.log.read_bytes().splitlines() if b'"event":"started"' in line)
            address = orjson.loads(first)["metrics"].removesuffix("/metrics")
            if _get(f"{address}/live")[0] != 200:
                raise ChaosError(f"{worker.name} does not live: {_get(f'{address}/live')}")
            for line in _get(f"{address}/metrics")[1].splitlines():
                if line.startswith("ashi_position{"):
                    positions[int(line.split('"')[1])] = float(line.split()[-1])
        return positions

    def _show_compaction(self) -> None:
        """That compaction has really happened: the changelogs have fewer records than offsets."""
        settings = self._settings()

        async def count(topic: str) -> tuple[int, int]:
            left = 0
            async for _ in read_topic(settings, topic):
                left += 1
            return left, sum((await end_offsets(settings, topic)).values())

        removed = 0
        for spec in topic_specs(PARTITIONS, settings.timeframes):
            if spec.name.endswith("-changelog"):
                left, written = asyncio.run(count(spec.name))
                removed += written - left
                self.timeline(f"{spec.name}: {left} of {written} records left")
        if not removed:
            raise ChaosError("no changelog was compacted, though that was forced")


def _quiet_port(rng: random.Random) -> int:
    """A free port below those that the system gives to clients: one of these could take it while the broker is away."""
    while True:
        port = rng.randint(20_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()

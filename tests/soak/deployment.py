"""Everything that is deployed, on one machine: a venue, Kafka, two aggregate workers, three stores, the chart."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from ashi.contracts.topics import topic_specs
from ashi.runtime.kafka.cluster.topics import create_topics
from ashi.runtime.settings import Settings
from ashi_cli.onemachine.broker import Broker
from rig.fleet import Fleet, PromiseError, Timeline, Worker
from rig.ports import quiet_ports
from rig.stores import Postgres, Store, stores

VENUE = "binance"
MARKETS = 20
PARTITIONS = 8
TIMEFRAMES = ["1s", "1m", "5m"]
LATENESS_US = 2_000_000
HORIZON_US = 120_000_000
READY_S = 90.0
JOBS = ("ingest", "aggregate", "sink", "strategy", "chart")
NEVER = 1e9


class Deployment:
    """Starts it all, and knows who is who."""

    postgres_listens_at = "127.0.0.1"
    compact_every_s = 600.0
    """How often the lake's sink compacts it, as docs/lake.md tells deployments to; there once an hour is enough."""

    def __init__(self, directory: Path, seed: int, rate: int, say: Callable[[str], None], closing: ExitStack) -> None:
        """`rate`: trades a second, of all markets together, on average."""
        self.directory = directory
        self.seed = seed
        self.market_rate = max(rate // MARKETS, 1)
        self.markets = [f"M{number}USDT" for number in range(MARKETS)]
        self.symbols = [f"{VENUE}:{market}" for market in self.markets]
        self.timeline = Timeline(directory / "timeline.log", say)
        self.fleet = Fleet(directory, {}, self.timeline)
        names = ("ingest", "aggregate-0", "aggregate-1", "sqlite-0", "postgres-0", "lake-0", "strategy", "chart")
        ports = quiet_ports(random.Random(seed), len(names) + 3)
        self.kafka_port, self.venue_port, self.postgres_port, *rest = ports
        self.ports = dict(zip(names, rest, strict=True))
        self.broker = Broker(directory)
        closing.callback(self.broker.stop)
        self.postgres = Postgres(directory, self.postgres_port, self.timeline, self.postgres_listens_at)
        closing.callback(self.postgres.remove)
        self.stores = [
            Store(store.name, store.url, sinks=1) for store in stores(directory, self.postgres)
        ]  # as they are set up by default
        closing.callback(self.fleet.destroy)

    @property
    def settings(self) -> Settings:
        """Of every worker."""
        return Settings.from_environment(self.fleet.environment)

    @property
    def targets(self) -> dict[str, Sequence[str]]:
        """What Prometheus scrapes, by job."""
        return {
            f"ashi-{job}": [f"{worker.address}:{worker.port}" for worker in self.workers(job) if worker.port]
            for job in JOBS
        }

    @property
    def urls(self) -> dict[str, str]:
        """Of the stores, by name."""
        return {store.name: store.url for store in self.stores}

    @property
    def bootstrap(self) -> str:
        """Kafka's address."""
        return f"127.0.0.1:{self.kafka_port}"

    @property
    def urls_of_workers(self) -> dict[str, str]:
        """Of the stores, as the workers reach them."""
        return self.urls

    @property
    def processes(self) -> Mapping[str, int]:
        """The pid of each process that runs, by its name."""
        running = {worker.name: worker.process.pid for worker in self.fleet.workers if worker.process is not None}
        if self.broker.process is not None and self.broker.process.poll() is None:
            running["kafka"] = self.broker.process.pid
        return running

    def workers(self, job: str) -> list[Worker]:
        """Those of a stage: `sink`."""
        return [worker for worker in self.fleet.workers if worker.arguments[0] == job]

    def worker(self, name: str) -> Worker:
        """By its name."""
        return next(worker for worker in self.fleet.workers if worker.name == name)

    def start(self) -> None:
        """Start everything, and wait until it works. Raises PromiseError when it does not."""
        self.start_kafka()
        self.fleet.environment = {
            "ASHI_KAFKA_BOOTSTRAP": self.bootstrap,
            "ASHI_PARTITIONS": str(PARTITIONS),
            "ASHI_TIMEFRAMES": ",".join(TIMEFRAMES),
            "ASHI_ALLOWED_LATENESS": f"{LATENESS_US // 1_000_000}s",
            "ASHI_CORRECTION_HORIZON": f"{HORIZON_US // 1_000_000}s",
            "ASHI_LOG_FORMAT": "json",
        }
        asyncio.run(create_topics(self.settings, topic_specs(PARTITIONS, self.settings.timeframes)))
        self.postgres.migrate()
        self.fleet.chores.append(self.postgres.tick)
        self._start_venue()
        self.start_stages()
        self.await_ready()

    def start_kafka(self) -> None:
        """Start the broker, with nothing in it."""
        self.broker.start(port=self.kafka_port, child=True, fresh=True)

    def start_stages(self) -> None:
        """Start the workers."""
        for number in range(2):
            self.add(f"aggregate-{number}", "aggregate")
        self.start_readers()
        self.add("ingest", "ingest", VENUE, *self.markets, **self.venue_environment())

    def start_readers(self) -> None:
        """Start those that read candles."""
        urls = self.urls_of_workers
        upkeep = {"lake": {"ASHI_LAKE_COMPACT_INTERVAL": f"{round(self.compact_every_s)}s"}}
        for name, url in urls.items():
            # The URL goes by the environment: it may hold a password.
            self.add(f"{name}-0", "sink", name, ASHI_STORAGE=url, **upkeep.get(name, {}))
        self.add("chart", "chart", "--port", "0", ASHI_STORAGE=urls["postgres"])
        chosen = ("ma_cross", "--symbol", self.symbols[0], "--timeframe", "1s", "--fast", "2", "--slow", "3")
        self.add("strategy", "strategy", "run", *chosen)

    def add(self, name: str, *arguments: str, **environment: str) -> Worker:
        """Start a worker."""
        return self.fleet.add(name, *arguments, environment=environment, port=self.ports[name])

    def _start_venue(self) -> None:
        arguments = ("--ongoing", "--rate", str(self.market_rate), "--seed", str(self.seed))
        venue = self.fleet.add("venue", "venue-sim", VENUE, *self.markets, *arguments, "--port", str(self.venue_port))
        self.fleet.must(lambda: len(self.venue_environment()) == 2, READY_S, f"{venue.name} does not serve")

    def venue_environment(self) -> dict[str, str]:
        """What the simulator prints of itself."""
        lines = self.worker("venue").log.read_text().splitlines()
        exports = [line.removeprefix("export ") for line in lines if line.startswith("export ")]
        return dict(each.split("=", 1) for each in exports)

    def await_ready(self) -> None:
        """Wait until every worker that is wanted says that it is ready. Raises PromiseError when one does not."""
        waited_for = [worker for worker in self.fleet.workers if worker.port is not None and worker.wanted]
        try:
            self.fleet.must(lambda: all(worker.ready for worker in waited_for), READY_S, "not everybody is ready")
        except PromiseError as error:
            late = [f"{worker.name}: {worker.last_words()}" for worker in waited_for if not worker.ready]
            raise PromiseError("\n".join([str(error), *late])) from None

    def kill(self, *workers: Worker, again_in_s: float = 1.0) -> None:
        """As the failure of their machines does; they are started again after so long."""
        for worker in workers:
            self.fleet.must(lambda worker=worker: worker.free, READY_S, f"{worker.name} does not run")  # type: ignore[misc]
            self.fleet.kill(worker, again_in_s)

    def let_start(self, *workers: Worker) -> None:
        """Start again what was killed for as long as it takes."""
        for worker in workers:
            worker.start_at = 0.0

    def without_kafka(self) -> None:
        """As the failure of its machine does."""
        self.fleet.broker_is_away(True)
        assert self.broker.process is not None
        self.broker.process.kill()
        self.broker.process.wait(20)
        self.timeline("the broker was killed")

    def with_kafka(self) -> None:
        """Start it again where it was."""
        self.broker.start(port=self.kafka_port, child=True)
        self.timeline("the broker serves again")
        self.fleet.broker_is_away(False)

"""What `make soak` deploys, on hosts of their own: three brokers, and each worker beside nobody else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from ashi.runtime.kafka.connections.clients import partition_of
from ashi_ingest.shard import Shard, select
from multihost.brokers import Trio
from multihost.hosts import HERE, Host, Network
from multihost.liveness import Liveness
from rig.fleet import Worker
from servers.kafka_cluster import NODES
from soak.deployment import PARTITIONS, VENUE, Deployment

METRICS_PORT: Final = 9100
AGGREGATES: Final = 3
MOST_AGGREGATES: Final = 4
INGESTS: Final = 2
SESSION_S: Final = 10.0
"""Of workers, by default."""
LOCAL = "127.0.0.1"


class Rehearsed(Deployment):
    """Starts it all, and knows who is who, and where."""

    postgres_listens_at = "*"

    def __init__(
        self,
        directory: Path,
        seed: int,
        rate: int,
        say: Callable[[str], None],
        closing: ExitStack,
        *,
        static: bool,
        versions: Mapping[str, Mapping[str, str]],
    ) -> None:
        """`static`: aggregate workers have ids of their own. `versions`: by name, what the environment of each is."""
        super().__init__(directory, seed, rate, say, closing)
        self._static = static
        self.versions = versions
        self.network = Network()
        self.trio = Trio(directory / "kafka", {node: self.network.add(f"kafka-{node}") for node in NODES})
        closing.callback(self.trio.remove)
        for port in (self.venue_port, self.postgres_port):
            self.network.serve(port)
        self.host_of = {
            name: self.network.add(name)
            for name in (
                *(f"aggregate-{number}" for number in range(MOST_AGGREGATES)),
                *(f"ingest-{number}" for number in range(INGESTS)),
                *(f"{name}-0" for name in self.urls),
                "chart",
                "strategy",
            )
        }
        self.liveness = Liveness(self.fleet)
        closing.callback(self.liveness.stop)

    @property
    def all_hosts(self) -> list[Host]:
        return [*self.trio.hosts.values(), *self.host_of.values()]

    @property
    def bootstrap(self) -> str:
        return self.trio.bootstrap

    @property
    def urls_of_workers(self) -> dict[str, str]:
        return {name: url.replace(LOCAL, HERE) for name, url in self.urls.items()}

    def venue_environment(self) -> dict[str, str]:
        return {name: url.replace(LOCAL, HERE) for name, url in super().venue_environment().items()}

    def start_kafka(self) -> None:
        self.trio.start_all()

    def add(self, name: str, *arguments: str, **environment: str) -> Worker:
        host = self.host_of[name]
        return self.fleet.add(
            name,
            *arguments,
            environment=environment,
            port=METRICS_PORT,
            address=host.address,
            begin_with=host.begin_with,
        )

    def add_aggregate(self, number: int) -> Worker:
        name = f"aggregate-{number}"
        own: dict[str, Any] = {"ASHI_INSTANCE_ID": name, "ASHI_SESSION_TIMEOUT": "30s"} if self._static else {}
        return self.add(name, "aggregate", **own)

    def start_stages(self) -> None:
        for number in range(AGGREGATES):
            self.add_aggregate(number)
        self.start_readers()
        for number in range(INGESTS):
            shard = ("--shard", f"{number}/{INGESTS}")
            self.add(f"ingest-{number}", "ingest", VENUE, *self.markets, *shard, **self.venue_environment())

    def own_symbols(self, worker: Worker) -> set[str]:
        """Those whose candles may wait while this worker does not work: none, of one that is behind the candles."""
        if worker.aggregates:
            taken = partitions_of(worker)
            return {symbol for symbol in self.symbols if partition_of(symbol.encode(), PARTITIONS) in taken}
        if worker.arguments[0] == "ingest":
            return set(select(self.symbols, Shard(int(worker.name.rpartition("-")[2]), INGESTS)))
        return set()


def partitions_of(worker: Worker) -> set[int]:
    """Those that an aggregate worker has taken up last."""
    taken: set[int] = set()
    for entry in worker.said("taken up", "released all partitions"):
        taken = set(entry.get("partitions", ()))
    return taken

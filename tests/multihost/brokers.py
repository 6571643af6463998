"""Three brokers on hosts of their own, each also one of the three controllers, as a small cluster is deployed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from ashi_cli.onemachine.kafka_server import properties_text
from multihost.hosts import Host
from multihost.isolation import run
from servers.kafka_cluster import NODES, OF_MANY, Brokers

PORT: Final = 9092
_CONTROLLER_PORT: Final = 9093
DISK: Final = 3
"""The broker whose disk can be filled: it is one of its own, in memory."""
DISK_MB: Final = 2_000
ASK_S: Final = 5.0
SILENT: Final = {"log_level": 0}
"""A client of librdkafka says of each broker that is away that it is, many times a second."""

# Times are Kafka's own: a broker that is gone is one after nine seconds, as in a deployment. Leaders go back to where
# they belong after seconds rather than minutes, so that each fault finds the brokers as the one before did.
_PROPERTIES: Final[Mapping[str, str | None]] = MappingProxyType(
    {
        **OF_MANY,
        "controller.quorum.voters": "{voters}",
        "min.insync.replicas": "2",
        "offsets.topic.num.partitions": "6",
        "transaction.state.log.min.isr": "2",
        "transaction.state.log.num.partitions": "3",
        "share.coordinator.state.topic.replication.factor": "3",
        "share.coordinator.state.topic.min.isr": "2",
        "broker.session.timeout.ms": None,
        "broker.heartbeat.interval.ms": None,
        "group.initial.rebalance.delay.ms": None,
        "leader.imbalance.check.interval.seconds": "5",
        "leader.imbalance.per.broker.percentage": "0",
    }
)


class Trio(Brokers):
    """The three, by number."""

    def __init__(self, directory: Path, hosts: Mapping[int, Host]) -> None:
        directory.mkdir()
        super().__init__(directory, {node: host.begin_with for node, host in hosts.items()})
        self.hosts = hosts
        self.bootstrap = ",".join(f"{host.address}:{PORT}" for host in hosts.values())

    def start_all(self) -> None:
        """Format and start all three."""
        disk = self.directory / str(DISK) / "data"
        disk.mkdir(parents=True)
        run("mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(disk))
        voters = ",".join(f"{node}@{host.address}:{_CONTROLLER_PORT}" for node, host in self.hosts.items())
        self.format(
            {
                node: properties_text(
                    _PROPERTIES,
                    node=node,
                    host=host.address,
                    port=PORT,
                    controller_port=_CONTROLLER_PORT,
                    voters=voters,
                )
                for node, host in self.hosts.items()
            }
        )
        for node in NODES:
            self.start(node)
        for node in NODES:
            self.wait_until_ready(node)
        self._admin = AdminClient({"bootstrap.servers": self.bootstrap, **SILENT})

    @property
    def controller(self) -> int:
        """The node that is the controller now, as it is written down by those that voted."""
        known: list[tuple[int, int]] = []
        for node in self.processes:
            with suppress(OSError, ValueError):
                state = json.loads((self.directory / str(node) / "data/__cluster_metadata-0/quorum-state").read_text())
                known.append((state["leaderEpoch"], state["leaderId"]))
        return max(known)[1]

    def one_that_leads(self) -> int:
        """Of those that are not the controller, one that can be spared least: the leader of most partitions."""
        leads = self._leaders()
        return max((node for node in NODES if node != self.controller), key=leads.count)

    def all_in_sync(self) -> bool:
        """Whether each partition has all its copies, and is led by the broker that it is meant to be."""
        try:
            topics = self._admin.list_topics(timeout=ASK_S).topics
        except KafkaException:
            return False
        partitions = [each for topic in topics.values() for each in topic.partitions.values()]
        return all(len(each.isrs) == len(NODES) and each.leader == each.replicas[0] for each in partitions)

    def _leaders(self) -> list[int]:
        topics = self._admin.list_topics(timeout=ASK_S).topics
        return [each.leader for topic in topics.values() for each in topic.partitions.values()]

    @contextmanager
    def full_disk(self, until: Callable[[Callable[[], bool]], None]) -> Iterator[None]:
        """Somebody else has filled the disk of the broker `DISK`, which ends of it; it is started when there is room.

        `until` waits for a condition.
        """
        filler = self.directory / str(DISK) / "data/filler"
        with filler.open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12):  # how much is free cannot be asked for: the broker writes meanwhile
                with suppress(OSError):
                    while file.write(bytes(size)) == size:
                        pass
        try:
            yield
            until(lambda: self.processes[DISK].poll() is not None)
        finally:
            filler.unlink()
            self.kill(DISK)
            self.start(DISK)
            self.wait_until_ready(DISK)

    def remove(self) -> None:
        """End them, and their data: the logs stay."""
        self.stop()
        run("umount", str(self.directory / str(DISK) / "data"))
        for node in NODES:
            shutil.rmtree(self.directory / str(node) / "data", ignore_errors=True)

"""Three brokers on this machine, each in its own rack, for elections. Node 1 is also the controller: never kill it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import subprocess
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

from aiokafka.admin import NewTopic

from ashi.contracts.errors import BrokerError
from ashi.contracts.topics import topic_specs
from ashi.runtime.kafka.cluster.topics import create_topics
from ashi.runtime.kafka.connections.clients import admin_client, topics_by_broker
from ashi.runtime.settings import Settings
from ashi_cli.onemachine.children import spawn, stop_all
from ashi_cli.onemachine.jars import classpath, java_executable
from ashi_cli.onemachine.kafka_server import PROPERTIES, properties_text
from servers.free_ports import HOST, free_ports

NODES = (1, 2, 3)
READY_S = 90
WAIT_S = 60.0
OFFSETS_PARTITIONS = 2

T = TypeVar("T")

OF_MANY: Final[Mapping[str, str | None]] = MappingProxyType(
    {
        **PROPERTIES,
        "node.id": "{node}",
        "broker.rack": "rack-{node}",
        "default.replication.factor": "3",
        "offsets.topic.replication.factor": "3",
        "transaction.state.log.replication.factor": "3",
        "metadata.max.idle.interval.ms": None,
    }
)
"""Settings of a broker that is not the only one, by name: `node` is filled in, and what else stands in braces."""
_PROPERTIES: Final[Mapping[str, str | None]] = MappingProxyType(
    {
        **OF_MANY,
        "process.roles": "{roles}",
        "replica.selector.class": "org.apache.kafka.common.replica.RackAwareReplicaSelector",
        "listeners": "{listeners}",
        "advertised.listeners": "PLAINTEXT://{host}:{port},OUTSIDE://{host}:{advertised_port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,OUTSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "offsets.topic.num.partitions": str(OFFSETS_PARTITIONS),
        "transaction.state.log.num.partitions": "2",
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        "replica.lag.time.max.ms": "3000",
        "num.io.threads": "2",
    }
)


class Brokers:
    """Processes of brokers, by number, each with a directory of its own in one directory."""

    def __init__(self, directory: Path, begin_with: Mapping[int, Sequence[str]] | None = None) -> None:
        """`begin_with`: what command lines begin with, by number, as where brokers run on other hosts."""
        self.directory = directory
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self._begin_with = begin_with or {}
        self._env = {**os.environ, "CLASSPATH": os.pathsep.join(map(str, classpath())), "LC_ALL": "C.UTF-8"}

    def format(self, properties: Mapping[int, str]) -> None:
        """Give each broker its settings, and all one cluster id; directories that are missing are made."""
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        formats = []
        for node, text in properties.items():
            (self.directory / str(node)).mkdir(exist_ok=True)
            (self.directory / str(node) / "server.properties").write_text(text)
            formats.append(
                self._java(node, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", "--config")
            )
        for node, process in zip(properties, formats, strict=True):
            assert process.wait(READY_S) == 0, self.log(node)

    def start(self, node: int) -> None:
        """Start a broker with what it had when it was killed."""
        log = self.directory / str(node) / "kafka.log"
        if log.exists():
            log.replace(log.with_suffix(".log.old"))
        self.processes[node] = self._java(node, "kafka.Kafka")

    def wait_until_ready(self, node: int) -> None:
        deadline = time.monotonic() + READY_S
        while "Kafka Server started" not in self.log(node):
            assert time.monotonic() < deadline, self.log(node)[-3000:]
            assert self.processes[node].poll() is None, self.log(node)[-3000:]
            time.sleep(0.1)

    def kill(self, node: int) -> None:
        """SIGKILL, as when a machine goes."""
        process = self.processes.pop(node)
        process.kill()
        process.wait()

    def stop(self) -> None:
        stop_all(list(self.processes.values()), 0)

    def log(self, node: int) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self.directory / str(node) / "kafka.log").read_text(errors="replace")
        return ""

    @property
    def java(self) -> list[str]:
        """What a command line of a broker begins with."""
        return [str(java_executable()), "-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]

    def _java(self, node: int, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.directory / str(node) / "kafka.log").open("ab") as log:
            return spawn(
                [*self._begin_with.get(node, ()), *self.java, *arguments, "server.properties"],
                env=self._env,
                stdout=log,
                stderr=log,
                cwd=self.directory / str(node),
            )


class Cluster(Brokers):
    """Three brokers at addresses of 127.0.0.1. Everything is in one directory."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        ports = free_ports(7)
        self._controller_port, self._ports = ports[0], dict(zip(NODES, ports[1:4], strict=True))
        self._outside_ports = dict(zip(NODES, ports[4:], strict=True))
        self._nobody = socket.socket()  # nobody listens there, and nobody else can begin to
        self._nobody.bind((HOST, 0))
        self.bootstrap = ",".join(f"{HOST}:{self._ports[node]}" for node in NODES)
        self.outside = ",".join(f"{HOST}:{self._outside_ports[node]}" for node in NODES[:2])
        """A second listener, through which node 3 is said to be at `outside_of_3`, where nobody is."""
        self.outside_of_3 = f"{HOST}:{self._nobody.getsockname()[1]}"

    def start_all(self) -> None:
        """Format and start all three."""
        self.format({node: self._properties(node) for node in NODES})
        for node in NODES:
            self.start(node)
        for node in NODES:
            self.wait_until_ready(node)
        asyncio.run(self._make_offsets())

    def _properties(self, node: int) -> str:
        outside = self._outside_ports[node]
        listeners = f"PLAINTEXT://{HOST}:{self._ports[node]},OUTSIDE://{HOST}:{outside}"
        if node == 1:
            listeners += f",CONTROLLER://{HOST}:{self._controller_port}"
        return properties_text(
            _PROPERTIES,
            node=node,
            roles="broker,controller" if node == 1 else "broker",
            listeners=listeners,
            host=HOST,
            port=self._ports[node],
            advertised_port=self._nobody.getsockname()[1] if node == 3 else outside,
            controller_port=self._controller_port,
        )

    async def _make_offsets(self) -> None:
        """Let node 1, which is never killed, coordinate all groups.

        The library tells a coordinator once that it leaves, and only one that it knows: whoever ends while another is
        elected stays in the group for a session, for which the next member waits.
        """
        offsets = NewTopic(
            "__consumer_offsets",
            -1,
            -1,
            replica_assignments={number: list(NODES) for number in range(OFFSETS_PARTITIONS)},
            topic_configs={"cleanup.policy": "compact"},
        )
        async with admin_client(Settings.from_environment({"ASHI_KAFKA_BOOTSTRAP": self.bootstrap})) as client:
            await client.create_topics([offsets])

    def start_those_killed(self) -> None:
        """All three run again."""
        killed = [node for node in NODES if node not in self.processes]
        for node in killed:
            self.start(node)
        for node in killed:
            self.wait_until_ready(node)

    def stop(self) -> None:
        super().stop()
        self._nobody.close()


@contextlib.contextmanager
def cluster(directory: Path) -> Iterator[Cluster]:
    """A started cluster of three, which ends with the block."""
    started = Cluster(directory)
    try:
        started.start_all()
        yield started
    finally:
        started.stop()


async def create_deployment(settings: Settings, *unsafe: str, on: tuple[int, ...] = (2, 3)) -> None:
    """The topics of a deployment on all three nodes; `unsafe` only on some, and whichever of them runs may lead it."""
    specs = topic_specs(settings.partitions, settings.timeframes)
    await create_topics(settings, [spec for spec in specs if spec.name not in unsafe])
    replicas = {number: list(on) for number in range(settings.partitions)}
    async with admin_client(settings) as client:
        for spec in specs:
            if spec.name in unsafe:
                config = spec.config | {"unclean.leader.election.enable": "true"}
                new = NewTopic(spec.name, -1, -1, replica_assignments=replicas, topic_configs=config)
                await client.create_topics([new])
    for topic in unsafe:
        await isr_of(settings, topic, set(on))


async def create_on(settings: Settings, topic: str, node: int) -> None:
    """A topic of one partition that only one node has, so that nobody else can lead it."""
    async with admin_client(settings) as client:
        await client.create_topics([NewTopic(topic, -1, -1, replica_assignments={0: [node]})])
    await leader_of(replace(settings, partitions=1), topic, node)


async def isr_of(settings: Settings, topic: str, wanted: set[int]) -> None:
    """Wait until every broker says that these nodes and no others are in sync in every partition of a topic."""
    await _until(
        settings, topic, lambda entry: set(entry["isr"]) == wanted and entry["leader"] in wanted, f"is {wanted}"
    )


async def leader_of(settings: Settings, topic: str, node: int) -> None:
    """Wait until every broker says that a node leads every partition of a topic."""
    await _until(settings, topic, lambda entry: entry["leader"] == node, f"is led by {node}")


async def within(what: str, awaited: Awaitable[T], timeout_s: float = WAIT_S) -> T:
    """What is awaited; a test that waits in vain says for `what`."""
    try:
        async with asyncio.timeout(timeout_s):
            return await awaited
    except TimeoutError as error:
        raise AssertionError(f"{what}: not within {timeout_s:g} s") from error


async def patiently(ask: Callable[[], Awaitable[T]], what: str = "an answer of the brokers") -> T:
    """What `ask` gives; the library may ask a broker that was killed, which says nothing about the others."""
    failures: list[BrokerError] = []

    async def ask_until_told() -> T:
        while True:
            try:
                return await ask()
            except BrokerError as error:
                failures.append(error)
                await asyncio.sleep(0.2)

    try:
        return await within(what, ask_until_told(), READY_S)
    except AssertionError as error:
        raise AssertionError(f"{error}; {len(failures)} failures, the last: {failures[-1:]}") from error


async def until(what: str, condition: Callable[[], Awaitable[bool]], timeout_s: float = WAIT_S) -> None:
    """Wait until `what` is so, which `condition` finds out, patiently."""

    async def ask_until_so() -> None:
        while not await patiently(condition, what):  # noqa: ASYNC110 - Kafka gives no sign
            await asyncio.sleep(0.1)

    await within(what, ask_until_so(), timeout_s)


async def _partitions(settings: Settings, topic: str) -> list[list[dict[str, Any]]]:
    """The partitions of a topic as each broker knows them."""
    async with admin_client(settings) as client:
        return [known.get(topic, []) for known in await topics_by_broker(client)]


async def _until(settings: Settings, topic: str, holds: Callable[[dict[str, Any]], bool], what: str) -> None:
    said: list[list[dict[str, Any]]] = []

    async def all_say_so() -> bool:
        said[:] = await _partitions(settings, topic)
        return all(len(entries) == settings.partitions and all(map(holds, entries)) for entries in said)

    try:
        await until(f"{topic} {what}", all_say_so, READY_S)
    except AssertionError as error:
        raise AssertionError(f"{error}; the brokers say {said}") from error

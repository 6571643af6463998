"""One Kafka server in one directory: its settings, its JVM, and what its log says of a start that fails."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import time
import uuid
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import BrokerError
from ashi_cli.onemachine.children import spawn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

HOST = "127.0.0.1"
READY_TIMEOUT_S = 120.0  # a start takes 3 s, after a crash 9 s; checking a large log on a slow disk takes much longer
_POLL_S = 0.05

# Written by Kafka after all its sockets are bound and the broker is unfenced. The log begins empty and is written by
# our process alone, so the line proves that it is our process that holds the port.
_READY_LINE = "Kafka Server started"
_PORT_LINE = "Address already in use"

# The serial collector starts and serves as fast as G1 here and takes 50 MB less.
_JVM = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-Djava.awt.headless=true")
_JVM_LOG = ("-Dorg.slf4j.simpleLogger.showDateTime=true", "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS")

# No path in here: Java reads property files as Latin-1 and Kafka splits log.dirs at commas, so the JVM runs inside
# the broker directory. Static voters, because the address of a dynamic one is stored with the data, and the ports
# change from start to start. A start after a crash waits for the session of the crashed broker to expire, so that is
# shorter than the usual 9 s, but long enough for a slow disk. The controller writes nothing while nothing happens: by
# default it appends a record twice a second, which is two fifths of what a quiet broker computes.
PROPERTIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": "1@{host}:{controller_port}",
        "listeners": "PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}",
        "advertised.listeners": "PLAINTEXT://{host}:{port}",
        "inter.broker.listener.name": "PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": "data",
        "auto.create.topics.enable": "false",
        "default.replication.factor": "1",
        "min.insync.replicas": "1",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "5",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "5",
        "broker.session.timeout.ms": "6000",
        "broker.heartbeat.interval.ms": "1000",
        "metadata.max.idle.interval.ms": "0",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        "num.network.threads": "2",
        "num.io.threads": "4",
        "background.threads": "2",
        "log.cleaner.threads": "1",
        "log.cleaner.dedupe.buffer.size": "16777216",
    }
)
"""The server's settings by name; what stands in braces is filled in at a start: `host`, `port`, `controller_port`."""

_FULL_BYTES = 1 << 20  # with less free space than this a failed start is put down to it
FREE_SPACE = "that disk is full: free space there, then start again"
_REMEDIES = (
    ("No space left on device", FREE_SPACE),
    ("Failed to acquire lock on file", "another Kafka uses this directory: stop it, or choose another work directory"),
    ("UnsupportedClassVersionError", "that Java is too old: set ASHI_JAVA to a Java 17 or newer, or unset it"),
    ("AccessDeniedException", "make the directory and all in it writable for you"),
    ("Permission denied", "make the directory and all in it writable for you"),
)


def properties_text(properties: Mapping[str, str | None], **places: object) -> str:
    """What Kafka reads its settings from; `places`: what stands for the words in braces. None is left out."""
    return "".join(f"{name}={value.format_map(places)}\n" for name, value in properties.items() if value is not None)


class PortTakenError(Exception):
    """Somebody else took a port between our look and the server's bind."""


class KafkaServer:
    """The server of one directory, in which it runs. The callers see to it that there is one at a time."""

    def __init__(self, directory: Path, properties: Mapping[str, str | None] = MappingProxyType({})) -> None:
        """`properties`: what is other than in `PROPERTIES`; with None Kafka's own default."""
        self.directory = directory
        self._properties: Mapping[str, str | None] = {**PROPERTIES, **properties}
        self.log = directory / "kafka.log"
        self._data = directory / "data"

    def configure(self, port: int, controller_port: int) -> None:
        """Write its settings. Raises OSError."""
        text = properties_text(self._properties, host=HOST, port=port, controller_port=controller_port)
        (self.directory / "server.properties").write_text(text)

    def launch(self, java: Path, jars: Sequence[Path], mark: str, *, dies_with_us: bool) -> subprocess.Popen[bytes]:
        """Start it, as a daemon or so that it dies with this process; `mark` will be among its arguments.

        An empty directory gets what a server needs in it first. Raises BrokerError, OSError.
        """
        # CLASSPATH keeps 46 paths out of `ps`; with the C locale Java cannot open paths beyond ASCII.
        env = {**os.environ, "CLASSPATH": os.pathsep.join(map(str, jars)), "LC_ALL": "C.UTF-8"}
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.old"))
        if not (self._data / "meta.properties").exists():
            self._format(java, env)
        argv = [str(java), *_JVM, *_JVM_LOG, mark, "kafka.Kafka", "server.properties"]
        with self.log.open("ab") as log:
            if dies_with_us:
                return spawn(argv, env=env, stdout=log, stderr=log, cwd=self.directory)
            return subprocess.Popen(
                argv,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                start_new_session=True,
            )

    def _format(self, java: Path, env: Mapping[str, str]) -> None:
        """Give the data directory its cluster id; also finishes what an interrupted format began."""
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        tool = ["kafka.tools.StorageTool", "format", "--ignore-formatted", f"--cluster-id={cluster_id}"]
        argv = [str(java), "-XX:TieredStopAtLevel=1", *_JVM, *_JVM_LOG, *tool, "--config=server.properties"]
        try:
            with self.log.open("wb") as log:
                subprocess.run(
                    argv,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.directory,
                    timeout=READY_TIMEOUT_S,
                    check=True,
                )
        except subprocess.SubprocessError as error:
            raise self._failure("could not prepare its directory") from error
        self.log.unlink()

    def await_ready(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until it serves. Raises PortTakenError, or BrokerError when it ends or takes over READY_TIMEOUT_S."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            # The status comes before the log: a process that has ended writes nothing more.
            ended = process.poll() is not None
            text = self.log.read_text(errors="replace")
            if ended and _PORT_LINE in text:
                raise PortTakenError
            if ended:
                raise self._failure(f"ended with status {process.returncode} while it started")
            if _READY_LINE in text:
                return
            if time.monotonic() > deadline:
                raise self._failure(f"was not ready after {READY_TIMEOUT_S:.0f} s")
            time.sleep(_POLL_S)

    def empty(self) -> None:
        """Delete all topics and messages. Raises OSError."""
        # The rename comes first: half a data directory would start, with a log that lacks its beginning.
        waste = self.directory / "waste"
        if waste.exists():
            shutil.rmtree(waste)
        if self._data.exists():
            self._data.replace(waste)
            shutil.rmtree(waste)

    def last_words(self) -> str:
        """The last warnings and errors in its log, else its last lines, no stack frames. Raises nothing."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError as error:
            return f"(no log: {error})"
        outer = [line[:300] for line in lines if line.strip() and not line[0].isspace()]
        telling = [line for line in outer if " INFO " not in line]
        return "\n".join((telling or outer)[-8:])

    def _failure(self, what: str) -> BrokerError:
        log = self.log.read_text(errors="replace")
        if shutil.disk_usage(self.directory).free < _FULL_BYTES:  # then the log breaks off before it says so
            remedy = FREE_SPACE
        else:
            unknown = f"read {self.log}; if the data is damaged, delete {self._data} to begin with an empty log"
            remedy = next((remedy for sign, remedy in _REMEDIES if sign in log), unknown)
        return BrokerError(f"Kafka in {self.directory} {what}; {remedy}. Its last words:\n{self.last_words()}")

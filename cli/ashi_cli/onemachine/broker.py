"""The one-machine Apache Kafka broker: started as a daemon or as a child, found again, stopped."""

from __future__ import annotations

import base64
import contextlib
import errno
import os
import shutil
import subprocess
import time
import uuid
from typing import TYPE_CHECKING

import msgspec

from ashi.contracts.errors import BrokerError
from ashi_cli.onemachine.children import end, is_running, locked, pick_ports, spawn
from ashi_cli.onemachine.jars import KAFKA_VERSION, classpath, java_executable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HOST = "127.0.0.1"
READY_TIMEOUT_S = 120.0  # a start takes 3 s, after a crash 9 s; checking a large log on a slow disk takes much longer
STOP_TIMEOUT_S = 20.0  # a stop takes 0.5 s
_POLL_S = 0.05
_PORT_ATTEMPTS = 4

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
# shorter than the usual 9 s, but long enough for a slow disk.
_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=data
auto.create.topics.enable=false
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=5
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=5
broker.session.timeout.ms=6000
broker.heartbeat.interval.ms=1000
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
num.network.threads=2
num.io.threads=4
background.threads=2
log.cleaner.threads=1
log.cleaner.dedupe.buffer.size=16777216
"""

_FULL_BYTES = 1 << 20  # with less free space than this a failed start is put down to it
_FREE_SPACE = "that disk is full: free space there, then start again"
_REMEDIES = (
    ("No space left on device", _FREE_SPACE),
    ("Failed to acquire lock on file", "another Kafka uses this directory: stop it, or choose another work directory"),
    ("UnsupportedClassVersionError", "that Java is too old: set ASHI_JAVA to a Java 17 or newer, or unset it"),
    ("AccessDeniedException", "make the directory and all in it writable for you"),
    ("Permission denied", "make the directory and all in it writable for you"),
)


class _Record(msgspec.Struct, frozen=True):
    """What broker.json says of a started broker."""

    pid: int
    token: str
    bootstrap: str
    child: bool
    ready: bool


class _PortLost(Exception):  # noqa: N818 - not an error yet: another port is tried
    """Somebody else took a port between our look and the broker's bind."""


def _quiet(_text: str) -> None:
    pass


class Broker:
    """The broker of one work directory. All its files are in `<workdir>/broker/`."""

    def __init__(self, workdir: Path) -> None:
        self.directory = workdir.absolute() / "broker"
        self.log = self.directory / "kafka.log"
        self.process: subprocess.Popen[bytes] | None = None  # of the broker that this object started
        self._data = self.directory / "data"
        self._record_path = self.directory / "broker.json"

    @property
    def bootstrap(self) -> str:
        """Address of the running broker ("127.0.0.1:PORT"), whoever started it. BrokerError when none is ready."""
        record = self._running()
        if record is None or not record.ready:
            raise BrokerError(f"no broker runs in {self.directory}; start one with `ashi broker start`")
        return record.bootstrap

    def start(
        self,
        *,
        port: int | None = None,
        child: bool = False,
        fresh: bool = False,
        say: Callable[[str], None] = _quiet,
    ) -> bool:
        """Start the broker and wait until it serves; True when this call started it, False when it ran already.

        With `child` the broker dies with this process (call it from the main thread then), else it is a daemon.
        With `fresh` it begins with an empty log. `port` None means any free one. `say` gets progress as lines of text.

        Raises BrokerError when a named port is taken, files cannot be written, the jars or Java are missing, the JVM
        ends early or is not ready after READY_TIMEOUT_S, or a broker runs here but is not the one that was asked for.
        Nothing is left running then.
        """
        with self._writing():
            self.directory.mkdir(parents=True, exist_ok=True)
            with self._locked(say):
                record = self._running()
                if record is not None and record.ready:
                    self._accept(record, port=port, child=child, fresh=fresh)
                    say(f"Kafka already runs (pid {record.pid}) on {record.bootstrap}")
                    return False
                if record is not None:
                    self._end(record)  # its starter was killed while it waited for the broker
                if fresh:
                    self._wipe()
                self._start(port, child, say)
                return True

    def stop(self, *, say: Callable[[str], None] = _quiet, timeout: float = STOP_TIMEOUT_S) -> bool:
        """Stop the broker: SIGTERM, after `timeout` seconds SIGKILL. True when there was one to stop.

        Never signals a process that is not this broker. Raises BrokerError when it belongs to another user or stays.
        """
        if not self.directory.is_dir():
            say(f"no broker runs in {self.directory}")
            return False
        with self._writing(), self._locked(say):
            record = self._running()
            if record is None:
                self._record_path.unlink(missing_ok=True)
                say(f"no broker runs in {self.directory}")
                return False
            self._end(record, timeout)
            say(f"Kafka (pid {record.pid}, {record.bootstrap}) has stopped")
            return True

    def wipe(self) -> None:
        """Delete all topics and messages. Raises BrokerError when the broker runs or files cannot be deleted."""
        if not self.directory.is_dir():
            return
        with self._writing(), self._locked(_quiet):
            record = self._running()
            if record is not None:
                raise BrokerError(f"a broker (pid {record.pid}) runs in {self.directory}; stop it before its log goes")
            self._wipe()

    def last_words(self) -> str:
        """The last warnings and errors in the broker's log, else its last lines, no stack frames. Raises nothing."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError as error:
            return f"(no log: {error})"
        outer = [line[:300] for line in lines if line.strip() and not line[0].isspace()]
        telling = [line for line in outer if " INFO " not in line]
        return "\n".join((telling or outer)[-8:])

    def _accept(self, record: _Record, *, port: int | None, child: bool, fresh: bool) -> None:
        """Raise BrokerError unless the running broker serves the request as well as a new one would."""
        runs = f"a broker (pid {record.pid}, {record.bootstrap}) already runs in {self.directory}"
        remedy = "stop it with `ashi broker stop`, or choose another work directory"
        if child or fresh:
            raise BrokerError(f"{runs}, and a new one is needed here; {remedy}")
        if port is not None and record.bootstrap != f"{HOST}:{port}":
            raise BrokerError(f"{runs}, not on port {port}; {remedy}")

    def _start(self, port: int | None, child: bool, say: Callable[[str], None]) -> None:
        pick_ports(HOST, port)  # a taken port is to be told at once, not after a download
        java = java_executable()
        jars = os.pathsep.join(str(jar) for jar in classpath(say))
        # CLASSPATH keeps 46 paths out of `ps`; with the C locale Java cannot open paths beyond ASCII.
        env = {**os.environ, "CLASSPATH": jars, "LC_ALL": "C.UTF-8"}
        began = time.monotonic()
        say(f"starting Apache Kafka {KAFKA_VERSION}")
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            broker_port, controller_port = pick_ports(HOST, port)
            text = _PROPERTIES.format(host=HOST, port=broker_port, controller_port=controller_port)
            (self.directory / "server.properties").write_text(text)
            try:
                record = self._launch(java, env, f"{HOST}:{broker_port}", child)
            except _PortLost:
                say(f"a port was taken meanwhile (attempt {attempt} of {_PORT_ATTEMPTS})")
                continue
            say(f"Kafka is ready on {record.bootstrap} (pid {record.pid}, {time.monotonic() - began:.1f} s)")
            return
        raise BrokerError(
            f"no port could be had on {HOST} in {_PORT_ATTEMPTS} attempts: others took each one first; "
            "start again, or choose one below the automatic range with --port"
        )

    def _launch(self, java: Path, env: dict[str, str], bootstrap: str, child: bool) -> _Record:
        """Run the JVM until it is ready; on any exception it is gone. Raises _PortLost or BrokerError."""
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.old"))
        if not (self._data / "meta.properties").exists():
            self._format(java, env)
        token = uuid.uuid4().hex
        argv = [str(java), *_JVM, *_JVM_LOG, _mark(token), "kafka.Kafka", "server.properties"]
        with self.log.open("ab") as log:
            if child:
                process = spawn(argv, env=env, stdout=log, stderr=log, cwd=self.directory)
            else:
                process = subprocess.Popen(
                    argv,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.directory,
                    start_new_session=True,
                )
        self.process = process
        record = _Record(pid=process.pid, token=token, bootstrap=bootstrap, child=child, ready=False)
        try:
            # Before it is ready, so that it can be found and ended should this process be killed now.
            self._write(record)
            self._await_ready(process)
            record = msgspec.structs.replace(record, ready=True)
            self._write(record)
        except BaseException:
            process.kill()
            process.wait()
            self._record_path.unlink(missing_ok=True)
            raise
        return record

    def _format(self, java: Path, env: dict[str, str]) -> None:
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

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            # The status comes before the log: a process that has ended writes nothing more.
            ended = process.poll() is not None
            text = self.log.read_text(errors="replace")
            if ended and _PORT_LINE in text:
                raise _PortLost
            if ended:
                raise self._failure(f"ended with status {process.returncode} while it started")
            if _READY_LINE in text:
                return
            if time.monotonic() > deadline:
                raise self._failure(f"was not ready after {READY_TIMEOUT_S:.0f} s")
            time.sleep(_POLL_S)

    def _failure(self, what: str) -> BrokerError:
        log = self.log.read_text(errors="replace")
        if shutil.disk_usage(self.directory).free < _FULL_BYTES:  # then the log breaks off before it says so
            remedy = _FREE_SPACE
        else:
            unknown = f"read {self.log}; if the data is damaged, delete {self._data} to begin with an empty log"
            remedy = next((remedy for sign, remedy in _REMEDIES if sign in log), unknown)
        return BrokerError(f"Kafka in {self.directory} {what}; {remedy}. Its last words:\n{self.last_words()}")

    def _running(self) -> _Record | None:
        """The record of the broker if that very process is alive; a broken or outdated broker.json counts as none."""
        try:
            record = msgspec.json.decode(self._record_path.read_bytes(), type=_Record)
        except (OSError, msgspec.MsgspecError):
            return None
        return record if is_running(record.pid, _mark(record.token)) else None

    def _write(self, record: _Record) -> None:
        draft = self._record_path.with_suffix(".tmp")
        draft.write_bytes(msgspec.json.encode(record))
        draft.replace(self._record_path)

    def _end(self, record: _Record, timeout: float = STOP_TIMEOUT_S) -> None:
        if not end(record.pid, _mark(record.token), timeout):
            raise BrokerError(f"Kafka (pid {record.pid}) in {self.directory} cannot be stopped: end it as its owner")
        if self.process is not None and self.process.pid == record.pid:
            self.process.wait()
        self._record_path.unlink(missing_ok=True)

    def _wipe(self) -> None:
        # The rename comes first: half a data directory would start, with a log that lacks its beginning.
        waste = self.directory / "waste"
        if waste.exists():
            shutil.rmtree(waste)
        if self._data.exists():
            self._data.replace(waste)
            shutil.rmtree(waste)

    def _locked(self, say: Callable[[str], None]) -> contextlib.AbstractContextManager[None]:
        return locked(
            self.directory / "lock",
            lambda: say(f"another ashi starts or stops the broker in {self.directory}; waiting for it"),
        )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn an OSError into a BrokerError that says what to do."""
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                remedy = _FREE_SPACE
            elif error.errno == errno.ENOEXEC:
                remedy = "set ASHI_JAVA to the java program of a Java 17 or newer, or unset it"
            else:
                remedy = "choose a work directory that you may write to"
            raise BrokerError(f"the broker's directory {self.directory} cannot be used: {error}; {remedy}") from error


def _mark(token: str) -> str:
    """The argument that tells our JVM from a process that got its pid later, even after the clock was changed."""
    return f"-Dashi.broker={token}"

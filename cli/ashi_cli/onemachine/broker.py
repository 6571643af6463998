"""The one-machine Apache Kafka broker: started as a daemon or as a child, found again, stopped."""

from __future__ import annotations

import contextlib
import errno
import time
import uuid
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

from ashi.contracts.errors import BrokerError
from ashi_cli.onemachine.children import end, is_running, locked, pick_ports
from ashi_cli.onemachine.jars import KAFKA_VERSION, classpath, java_executable
from ashi_cli.onemachine.kafka_server import FREE_SPACE, HOST, KafkaServer, PortTakenError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

STOP_TIMEOUT_S = 20.0  # a stop takes 0.5 s
_PORT_ATTEMPTS = 4


class _Record(msgspec.Struct, frozen=True):
    """What broker.json says of a started broker."""

    pid: int
    token: str
    bootstrap: str
    child: bool
    ready: bool


def _quiet(_text: str) -> None:
    pass


class Broker:
    """The broker of one work directory. All its files are in `<workdir>/broker/`."""

    def __init__(self, workdir: Path, *, properties: Mapping[str, str | None] = MappingProxyType({})) -> None:
        """`properties`: Kafka's settings that are other than in `kafka_server.PROPERTIES`."""
        self.directory = workdir.absolute() / "broker"
        self._kafka = KafkaServer(self.directory, properties)
        self.process: subprocess.Popen[bytes] | None = None  # of the broker that this object started
        self._record_path = self.directory / "broker.json"

    @property
    def log(self) -> Path:
        """What Kafka says."""
        return self._kafka.log

    def last_words(self) -> str:
        """The last warnings and errors in that log, else its last lines. Raises nothing."""
        return self._kafka.last_words()

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
                    self._kafka.empty()
                self._start(port, child, say)
                return True

    def stop(self, *, say: Callable[[str], None] = _quiet) -> bool:
        """Stop the broker: SIGTERM, after STOP_TIMEOUT_S SIGKILL. True when there was one to stop.

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
            self._end(record)
            say(f"Kafka (pid {record.pid}, {record.bootstrap}) has stopped")
            return True

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
        jars = classpath(say)
        began = time.monotonic()
        say(f"starting Apache Kafka {KAFKA_VERSION}")
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            broker_port, controller_port = pick_ports(HOST, port)
            self._kafka.configure(broker_port, controller_port)
            try:
                record = self._launch(java, jars, f"{HOST}:{broker_port}", child)
            except PortTakenError:
                say(f"a port was taken meanwhile (attempt {attempt} of {_PORT_ATTEMPTS})")
                continue
            say(f"Kafka is ready on {record.bootstrap} (pid {record.pid}, {time.monotonic() - began:.1f} s)")
            return
        raise BrokerError(
            f"no port could be had on {HOST} in {_PORT_ATTEMPTS} attempts: others took each one first; "
            "start again, or choose one below the automatic range with --port"
        )

    def _launch(self, java: Path, jars: Sequence[Path], bootstrap: str, child: bool) -> _Record:
        """Run the JVM until it is ready; on any exception it is gone. Raises PortTakenError, BrokerError, OSError."""
        token = uuid.uuid4().hex
        process = self._kafka.launch(java, jars, _mark(token), dies_with_us=child)
        self.process = process
        record = _Record(pid=process.pid, token=token, bootstrap=bootstrap, child=child, ready=False)
        try:
            # Before it is ready, so that it can be found and ended should this process be killed now.
            self._write(record)
            self._kafka.await_ready(process)
            record = msgspec.structs.replace(record, ready=True)
            self._write(record)
        except BaseException:
            process.kill()
            process.wait()
            self._record_path.unlink(missing_ok=True)
            raise
        return record

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

    def _end(self, record: _Record) -> None:
        if not end(record.pid, _mark(record.token), STOP_TIMEOUT_S):
            raise BrokerError(f"Kafka (pid {record.pid}) in {self.directory} cannot be stopped: end it as its owner")
        if self.process is not None and self.process.pid == record.pid:
            self.process.wait()
        self._record_path.unlink(missing_ok=True)

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
                remedy = FREE_SPACE
            elif error.errno == errno.ENOEXEC:
                remedy = "set ASHI_JAVA to the java program of a Java 17 or newer, or unset it"
            else:
                remedy = "choose a work directory that you may write to"
            raise BrokerError(f"the broker's directory {self.directory} cannot be used: {error}; {remedy}") from error


def _mark(token: str) -> str:
    """The argument that tells our JVM from a process that got its pid later, even after the clock was changed."""
    return f"-Dashi.broker={token}"

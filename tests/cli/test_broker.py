"""The broker: real JVMs, started, found, stopped and killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import psutil
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from ashi.contracts.errors import BrokerError
from ashi_cli.onemachine import broker as broker_module
from ashi_cli.onemachine import kafka_server
from ashi_cli.onemachine.broker import Broker
from ashi_cli.onemachine.children import spawn, stop_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WAIT_S = 20.0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    # A name that Java's property files and Kafka's lists of directories would take apart.
    broker = Broker(tmp_path / "wörk, dir")
    yield broker
    broker.stop()
    assert jvms(broker) == []


def jvms(broker: Broker) -> list[int]:
    """The pids of all live processes whose working directory is the broker's."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(broker.directory) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def gone(pid: int) -> bool:
    """Whether `pid` ends soon; a zombie that a container's init never reaps counts as ended."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


async def topics(bootstrap: str, *, create: str | None = None) -> list[str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        if create is not None:
            await admin.create_topics([NewTopic(create, num_partitions=1, replication_factor=1)])
            async with asyncio.timeout(20):
                while create not in await admin.list_topics():  # noqa: ASYNC110 - the controller has it, the broker soon
                    await asyncio.sleep(0.02)
        return list(await admin.list_topics())
    finally:
        await admin.close()


def record(broker: Broker) -> dict[str, object]:
    return dict(json.loads((broker.directory / "broker.json").read_bytes()))


@pytest.mark.kafka
def test_a_daemon_serves_is_found_again_and_stops(broker: Broker) -> None:
    said: list[str] = []
    assert broker.start(say=said.append)
    assert "ready on 127.0.0.1:" in said[-1]
    assert asyncio.run(topics(broker.bootstrap, create="kept")) == ["kept"]

    # Another command, which knows nothing but the directory.
    other = Broker(broker.directory.parent)
    pid = record(broker)["pid"]
    assert not other.start(say=said.append)
    assert said[-1] == f"Kafka already runs (pid {pid}) on {broker.bootstrap}"
    assert other.bootstrap == broker.bootstrap
    for wish in ({"fresh": True}, {"child": True}, {"port": 9}):
        with pytest.raises(BrokerError, match=r"already runs in .*stop it"):
            other.start(**wish)  # type: ignore[arg-type]
    assert jvms(broker) == [pid]

    assert other.stop(say=said.append)
    assert "has stopped" in said[-1]
    assert jvms(broker) == []
    assert not (broker.directory / "broker.json").exists()
    assert not other.stop(say=said.append)
    assert said[-1] == f"no broker runs in {broker.directory}"
    with pytest.raises(BrokerError, match="no broker runs"):
        _ = other.bootstrap


@pytest.mark.kafka
def test_topics_outlive_a_killed_jvm_and_go_with_fresh(broker: Broker) -> None:
    broker.start(child=True)
    asyncio.run(topics(broker.bootstrap, create="kept"))
    assert broker.process is not None
    broker.process.kill()
    broker.process.wait()

    broker.start(child=True)  # broker.json of the killed one is still there
    assert asyncio.run(topics(broker.bootstrap)) == ["kept"]

    # As left by a command that was killed while it waited for its broker.
    unfinished = record(broker)
    (broker.directory / "broker.json").write_text(json.dumps(unfinished | {"ready": False}))
    assert broker.start(child=True, fresh=True)
    assert gone(int(str(unfinished["pid"])))
    assert asyncio.run(topics(broker.bootstrap)) == []


@pytest.mark.kafka
def test_a_child_on_a_named_port_dies_when_its_parent_is_killed(broker: Broker) -> None:
    port, _ = broker_module.pick_ports("127.0.0.1", None)
    script = (
        "import sys, pathlib\n"
        "from ashi_cli.onemachine.broker import Broker\n"
        "broker = Broker(pathlib.Path(sys.argv[1]))\n"
        "broker.start(child=True, port=int(sys.argv[2]))\n"
        "print(broker.process.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    argv = [sys.executable, "-c", script, str(broker.directory.parent), str(port)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert jvms(broker) == [pid]
        assert broker.bootstrap == f"127.0.0.1:{port}"
        parent.send_signal(signal.SIGKILL)
        assert gone(pid)
    assert not broker.stop()


@pytest.mark.kafka
def test_a_port_that_is_lost_to_another_is_replaced(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as thief:
        # Asked twice before the first JVM: once to look, once to use.
        answers = [thief.getsockname()[1]] * 2
        pick = broker_module.pick_ports

        def picked(host: str, port: int | None) -> tuple[int, int]:
            free = pick(host, port)
            return (answers.pop(), free[1]) if answers else free

        monkeypatch.setattr(broker_module, "pick_ports", picked)
        said: list[str] = []
        broker.start(child=True, say=said.append)
        assert "a port was taken meanwhile (attempt 1 of 4)" in said
        assert broker.bootstrap != f"127.0.0.1:{thief.getsockname()[1]}"
        assert asyncio.run(topics(broker.bootstrap)) == []
    assert broker.stop()
    assert broker.process is not None
    assert broker.process.returncode is not None  # reaped, no zombie


@pytest.mark.parametrize("port", [None, 70_000])
def test_a_named_port_that_is_taken_or_impossible(broker: Broker, port: int | None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        named = port or holder.getsockname()[1]
        with pytest.raises(BrokerError, match=rf"port {named} (is taken|cannot be used).*choose another with --port"):
            broker.start(port=named)
    assert jvms(broker) == []
    assert not (broker.directory / "broker.json").exists()


@pytest.mark.parametrize("content", ["foreign", "garbage", "empty", "wrong shape"])
@pytest.mark.processes
def test_a_wrong_broker_json_kills_nobody(broker: Broker, content: str) -> None:
    foreign = subprocess.Popen(["sleep", "60"])
    bootstrap = "127.0.0.1:9092"
    texts = {
        "foreign": json.dumps(
            {"pid": foreign.pid, "token": "0" * 32, "bootstrap": bootstrap, "child": False, "ready": True}
        ),
        "garbage": "\0not json",
        "empty": "",
        "wrong shape": json.dumps({"pid": str(foreign.pid)}),
    }
    broker.directory.mkdir(parents=True)
    (broker.directory / "broker.json").write_text(texts[content])
    try:
        assert not broker.stop()
        assert not (broker.directory / "broker.json").exists()
        assert foreign.poll() is None
    finally:
        foreign.kill()
        foreign.wait()


def test_a_work_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BrokerError, match=r"cannot be used: .*Not a directory.*choose a work directory"):
        Broker(tmp_path / "file").start()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_work_directory_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(BrokerError, match=r"cannot be used: .*Permission denied.*choose a work directory"):
        Broker(tmp_path / "below").start()


@pytest.mark.kafka
def test_damaged_data_is_told_with_kafkas_last_words(broker: Broker) -> None:
    (broker.directory / "data").mkdir(parents=True)
    (broker.directory / "data/meta.properties").write_text("broken")
    with pytest.raises(BrokerError) as caught:
        broker.start()
    message = str(caught.value)
    assert "ended with status 1 while it started" in message
    assert f"delete {broker.directory}/data to begin with an empty log" in message
    assert "node ID not found" in message
    assert "\tat " not in message  # no stack frames
    assert not (broker.directory / "broker.json").exists()
    broker.start(child=True, fresh=True)  # begins with an empty log
    assert asyncio.run(topics(broker.bootstrap)) == []


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("script", "advice"),
    [
        ("exit 3", "delete .*data to begin"),
        ("echo 'java.lang.UnsupportedClassVersionError: kafka/Kafka' >&2; exit 1", "set ASHI_JAVA to a Java 17"),
        ("echo 'java.io.IOException: No space left on device' >&2; exit 1", "free space there"),
    ],
)
def test_a_java_that_fails(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, advice: str
) -> None:
    java = tmp_path / "java"
    java.write_text(f"#!/bin/sh\n{script}\n")
    java.chmod(0o700)
    monkeypatch.setenv("ASHI_JAVA", str(java))
    with pytest.raises(BrokerError, match=f"could not prepare its directory; .*{advice}"):
        broker.start()


@pytest.mark.processes
def test_a_broker_that_is_not_ready_in_time_is_ended(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java = tmp_path / "java"
    java.write_text('#!/bin/sh\ncase "$*" in *StorageTool*) exit 0;; esac\nexec sleep 60\n')
    java.chmod(0o700)
    monkeypatch.setenv("ASHI_JAVA", str(java))
    monkeypatch.setattr(broker_module, "classpath", lambda _say: [])
    monkeypatch.setattr(kafka_server, "READY_TIMEOUT_S", 0.5)
    with pytest.raises(BrokerError, match="was not ready after"):
        broker.start()
    assert not (broker.directory / "broker.json").exists()


@pytest.mark.processes
def test_two_starts_in_one_directory_wait_for_each_other(broker: Broker) -> None:
    broker.directory.mkdir(parents=True)
    script = (
        "import fcntl, sys\nf = open(sys.argv[1], 'ab')\nfcntl.flock(f, 2)\nprint(flush=True)\nsys.stdin.readline()"
    )
    argv = [sys.executable, "-c", script, str(broker.directory / "lock")]
    said: list[str] = []
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        other.stdout.readline()

        def heard(text: str) -> None:
            said.append(text)
            if "waiting for it" in text:
                other.communicate("done\n")

        assert not broker.stop(say=heard)
    assert "waiting for it" in said[0]


@pytest.mark.processes
def test_stop_all_kills_those_that_do_not_listen(tmp_path: Path) -> None:
    obedient = spawn(["sleep", "60"])
    ended = spawn(["true"])
    with (tmp_path / "out").open("wb") as out:
        deaf = spawn(["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.1; done"], stdout=out)
    while not (tmp_path / "out").read_text():
        assert deaf.poll() is None
        time.sleep(0.01)
    assert stop_all([deaf, obedient, ended], timeout=0.3) == [deaf]
    assert obedient.returncode == -signal.SIGTERM
    assert deaf.returncode == -signal.SIGKILL
    assert ended.returncode == 0


def test_children_are_not_started_from_threads_that_may_end() -> None:
    errors: list[RuntimeError] = []

    def start() -> None:
        try:
            spawn(["true"])
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(errors[0])

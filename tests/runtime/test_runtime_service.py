from __future__ import annotations

import asyncio
import dataclasses
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiokafka.errors import KafkaConnectionError

from ashi.contracts.errors import BrokerError, StorageError, UsageError
from ashi.runtime.health import Health
from ashi.runtime.service import Service, run_service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ashi.runtime.service import Service
    from ashi.runtime.settings import Settings

CHILD = """
import asyncio, sys, time
from ashi.runtime.service import run_service
from ashi.runtime.settings import Settings

async def main(service):
    print("running", flush=True)
    {body}

sys.exit(run_service("child", Settings.from_environment({{"ASHI_LOG_FORMAT": "json"}}), main, shutdown_bound_s={bound}))
"""


class Child:
    """A worker process of its own, past the start of its main."""

    def __init__(self, body: str, bound_s: float = 20.0, *started_by: str) -> None:
        self.process = subprocess.Popen(
            [*started_by, sys.executable, "-c", CHILD.format(body=body, bound=bound_s)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "running\n"

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, list[str]]:
        _, stderr = self.process.communicate(timeout=30)
        return self.process.returncode, [json.loads(line)["event"] for line in stderr.splitlines()]


@pytest.fixture
def children() -> Iterator[list[Child]]:
    started: list[Child] = []
    yield started
    for child in started:
        child.process.kill()
        child.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.processes
def test_a_signal_stops_the_service_in_order(children: list[Child], number: signal.Signals) -> None:
    child = Child("await service.stopping.wait()")
    children.append(child)
    child.signal(number)
    assert child.end() == (0, ["started", "stopping", "stopped"])


@pytest.mark.processes
def test_a_service_that_a_script_has_started_in_the_background_stops_on_sigint_too(children: list[Child]) -> None:
    child = Child("await service.stopping.wait()", 20.0, "sh", "-c", "trap '' INT; exec \"$@\"", "sh")
    children.append(child)
    child.signal(signal.SIGINT)
    assert child.end() == (0, ["started", "stopping", "stopped"])


@pytest.mark.processes
def test_what_nohup_has_started_works_on_when_its_terminal_goes(children: list[Child]) -> None:
    body = (
        "await asyncio.sleep(0.5); print('works', service.stopping.is_set(), flush=True); await asyncio.Event().wait()"
    )
    child = Child(body, 20.0, "sh", "-c", "trap '' HUP; exec \"$@\"", "sh")
    children.append(child)
    child.signal(signal.SIGHUP)
    assert child.process.stdout is not None
    assert child.process.stdout.readline() == "works False\n"


@pytest.mark.processes
def test_a_shutdown_that_hangs_ends_with_status_70(children: list[Child]) -> None:
    child = Child("await asyncio.Event().wait()", bound_s=0.2)
    children.append(child)
    child.signal(signal.SIGTERM)
    assert child.end() == (70, ["started", "stopping", "shutdown hangs, exiting without it"])


@pytest.mark.processes
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_shutdown_that_hangs_ends_also_when_nothing_can_be_said(children: list[Child]) -> None:
    child = Child("await asyncio.Event().wait()", 0.2, "sh", "-c", 'exec "$@" 2>/dev/full', "sh")
    children.append(child)
    child.signal(signal.SIGTERM)
    assert child.end() == (70, [])


@pytest.mark.processes
def test_a_loop_that_never_yields_is_ended_too(children: list[Child]) -> None:
    child = Child("while True: time.sleep(0.01)", bound_s=0.2)
    children.append(child)
    child.signal(signal.SIGTERM)
    assert child.end() == (70, ["started", "shutdown hangs, exiting without it"])


@pytest.mark.processes
def test_what_is_left_behind_by_main_cannot_keep_the_process(children: list[Child]) -> None:
    child = Child("asyncio.get_running_loop().run_in_executor(None, time.sleep, 60)", bound_s=0.2)
    children.append(child)
    assert child.end()[0] == 70


@pytest.mark.processes
def test_a_second_interrupt_exits_at_once(children: list[Child]) -> None:
    child = Child("await service.stopping.wait(); print('asked', flush=True); await asyncio.Event().wait()")
    children.append(child)
    child.signal(signal.SIGINT)
    assert child.process.stdout is not None
    assert child.process.stdout.readline() == "asked\n"
    child.signal(signal.SIGINT)
    assert child.end()[0] == 130


def test_a_service_whose_main_returns_ends_with_status_0(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    async def main(service: Service) -> None:
        assert (service.name, service.settings) == ("sink", settings)
        assert not service.stopping.is_set()

    before = signal.getsignal(signal.SIGTERM)
    assert run_service("sink", settings, main) == 0
    assert signal.getsignal(signal.SIGTERM) is before
    started, stopped = events(capsys)
    assert started["service"] == "sink"
    assert started["metrics"].endswith("/metrics")
    assert stopped["event"] == "stopped"


def test_health_is_served_while_main_runs(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    async def main(service: Service) -> None:
        address = events(capsys)[0]["metrics"].removesuffix("metrics")
        async with aiohttp.ClientSession() as session:
            service.health.set_ready(True, "working")
            for path in ("live", "ready", "metrics"):
                async with session.get(address + path) as response:
                    assert response.status == 200

    assert run_service("sink", settings, main) == 0


@pytest.mark.parametrize(("error", "status"), [(StorageError("disk full"), 1), (UsageError("no such sink"), 2)])
def test_an_error_of_ashi_is_logged_in_one_line_and_gives_its_status(
    settings: Settings, capsys: pytest.CaptureFixture[str], error: Exception, status: int
) -> None:
    async def main(service: Service) -> None:
        raise error

    assert run_service("sink", settings, main) == status
    line = events(capsys)[-1]
    assert (line["level"], line["event"], line["error"]) == ("error", str(error), type(error).__name__)
    assert "exception" not in line


def test_errors_of_ashi_from_several_tasks_are_each_logged(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(error: Exception) -> None:
        raise error

    async def main(service: Service) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail(StorageError("one")))
            group.create_task(fail(BrokerError("two")))

    assert run_service("sink", settings, main) == 1
    assert [line["event"] for line in events(capsys)[1:]] == ["one", "two"]


def test_a_lost_kafka_is_explained(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    async def main(service: Service) -> None:
        raise KafkaConnectionError("connection lost")

    assert run_service("sink", settings, main) == 1
    line = events(capsys)[-1]
    assert "127.0.0.1:9092 (ASHI_KAFKA_BOOTSTRAP)" in line["event"]
    assert line["error"] == "BrokerError"


@pytest.mark.parametrize("error", [KeyError("x"), OSError("disk"), asyncio.CancelledError()])
def test_an_unexpected_error_is_logged_with_its_traceback(
    settings: Settings, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    async def main(service: Service) -> None:
        raise error

    assert run_service("sink", settings, main) == 1
    line = events(capsys)[-1]
    assert line["event"].startswith("failed unexpectedly")
    assert type(error).__name__ in line["exception"]
    assert "in main" in line["exception"]


def test_a_metrics_port_that_is_taken_is_wrong_usage(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    async def main(service: Service) -> None:
        pytest.fail("must not start")

    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted = dataclasses.replace(settings, metrics_port=taken.getsockname()[1])
        assert run_service("sink", wanted, main) == 2
    assert "ASHI_METRICS_PORT" in events(capsys)[-1]["event"]


def test_a_misspelt_setting_is_warned_about(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(service: Service) -> None:
        pass

    monkeypatch.setenv("ASHI_PARTITION", "3")
    assert run_service("sink", settings, main) == 0
    assert "did you mean ASHI_PARTITIONS" in events(capsys)[0]["event"]


def events(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_pause_counts_as_life_unless_progress_is_what_is_waited_for(settings: Settings) -> None:
    now_s = 0.0

    async def silent_s(*, alive: bool) -> float:
        nonlocal now_s
        now_s = 0.0
        service = Service("test", settings, Health(5.0, clock=lambda: now_s))
        now_s = 10.0
        await service.pause(0.001, alive=alive)
        service.stopping.set()
        await service.pause(60.0, alive=alive)
        return 0.0 if service.health.live()[0] else now_s

    assert asyncio.run(silent_s(alive=True)) == 0.0
    assert asyncio.run(silent_s(alive=False)) == 10.0

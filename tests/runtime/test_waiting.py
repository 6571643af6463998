"""Kafka that is away when a worker starts, and whatever else is waited for."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from ashi.contracts.access import REPLAY
from ashi.contracts.errors import BrokerError, BrokerUnreachableError
from ashi.runtime import waiting
from ashi.runtime.metrics.declare import REGISTRY
from ashi.runtime.retry import Backoff
from ashi.runtime.service import Service, StoppedError
from ashi.runtime.waiting import Absence, start_when_kafka_is_there
from ashi_cli.onemachine.children import spawn
from ashi_simulator import Simulator
from servers.stages import get, served_at
from servers.subscribing import until_subscribed

if TYPE_CHECKING:
    from pathlib import Path

    from ashi.contracts.access import Access
    from ashi.runtime.settings import Settings
    from ashi_cli.onemachine.broker import Broker
    from conftest import StartStage
    from servers.stages import Stage

MARKET = "BTCUSDT"


@pytest.fixture
def stages(tmp_path: Path) -> dict[str, list[str]]:
    """Each stage as a user starts it."""
    return {
        "aggregate": ["aggregate"],
        "sink": ["sink", "sqlite", "--storage", f"sqlite:///{tmp_path}/candles.db"],
        "ingest": ["ingest", "binance", MARKET],
    }


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[Exception | None]:
    """What comes of looking for Kafka, one after the other; the last one again and again."""
    left: list[Exception | None] = [None]

    async def require_access(_: object, access: Access) -> None:
        assert access is REPLAY
        answer = left.pop(0) if len(left) > 1 else left[0]
        if answer is not None:
            raise answer

    monkeypatch.setattr(waiting, "require_access", require_access)
    monkeypatch.setattr(waiting, "Backoff", lambda **_: Backoff(0.001, 0.002))
    return left


async def play(service: Service, work: Any) -> None:
    async with asyncio.timeout(60):
        await start_when_kafka_is_there(service, REPLAY, work)


def test_work_begins_when_kafka_is_there_and_anew_when_it_goes_away_before_it_has_begun(
    settings: Settings, answers: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def main() -> None:
        service, done = Service("test", settings), []
        answers[:] = [BrokerUnreachableError("nobody there")] * 3 + [None]

        async def work(on_begun: Any) -> None:
            done.append(service.health.ready())
            assert REGISTRY.get_sample_value("ashi_kafka_up", {"stage": "test"}) == 0
            if len(done) == 1:
                raise BrokerUnreachableError("it went away again")
            on_begun()
            assert REGISTRY.get_sample_value("ashi_kafka_up", {"stage": "test"}) == 1

        await play(service, work)
        assert done == [
            (False, "waiting for Kafka: nobody there"),
            (False, "waiting for Kafka: it went away again"),
        ]

    asyncio.run(main())
    said = [record.getMessage() for record in caplog.records]
    assert sum("Kafka is away" in line for line in said) == 1
    assert sum("Kafka is back" in line for line in said) == 1


def test_what_fails_after_the_work_has_begun_is_raised(settings: Settings, answers: list[Any]) -> None:
    for error in (BrokerUnreachableError("it is lost"), StoppedError()):

        async def work(on_begun: Any, error: Exception = error) -> None:
            on_begun()
            raise error

        with pytest.raises(type(error)):
            asyncio.run(play(Service("test", settings), work))


def test_kafka_that_is_there_and_lacks_a_topic_or_refuses_us_is_not_waited_for(
    settings: Settings, answers: list[Any]
) -> None:
    async def work(_: Any) -> None:
        raise AssertionError

    answers[:] = [BrokerUnreachableError("nobody there"), BrokerError("no topic trades")]
    with pytest.raises(BrokerError, match="no topic trades"):
        asyncio.run(play(Service("test", settings), work))


def test_a_service_that_is_told_to_stop_while_kafka_is_away_or_does_not_answer_ends(
    settings: Settings, answers: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(_: Any) -> None:
        raise AssertionError

    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        service = Service("test", settings)
        asyncio.get_running_loop().call_later(0.05, service.stopping.set)
        await play(service, work)

    answers[:] = [BrokerUnreachableError("nobody there")]
    asyncio.run(main())
    monkeypatch.setattr(waiting, "require_access", hang)
    asyncio.run(main())


def test_what_is_away_is_told_once_a_minute_and_anew_when_it_goes_away_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    now_s = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    absence = Absence(Service("test", settings), "the store")
    for _ in range(125):
        absence.note(OSError("no route"))
        now_s += 1.0
    assert absence.end()
    assert not absence.end()
    absence.note(OSError("no route"))
    said = [record.getMessage() for record in caplog.records]
    assert sum("the store is away" in line for line in said) == 3 + 1
    assert sum("the store is back" in line for line in said) == 1


@pytest.mark.processes
@pytest.mark.slow
def test_every_stage_without_kafka_waits_unready_says_so_once_and_stops_at_once(
    tmp_path: Path, stages: dict[str, list[str]]
) -> None:
    logs = {name: tmp_path / f"{name}.log" for name in stages}
    workers = {}
    for name, arguments in stages.items():
        with logs[name].open("wb") as output:
            workers[name] = spawn(
                [sys.executable, "-m", "ashi_cli.main", *arguments],
                # The discard port: nothing listens there.
                env=os.environ | {"ASHI_KAFKA_BOOTSTRAP": "127.0.0.1:9", "ASHI_METRICS_PORT": "0"},
                stdout=output,
                stderr=output,
            )
    try:
        for name, log in logs.items():
            deadline_s = time.monotonic() + 40
            while "Kafka is away" not in log.read_text():
                assert workers[name].poll() is None, log.read_text()
                assert time.monotonic() < deadline_s, log.read_text()
                time.sleep(0.05)
        time.sleep(2.0)  # several attempts
        for name, log in logs.items():
            status, text = get(f"{served_at(log.read_text())}/ready")
            assert status == 503
            assert "waiting for Kafka: cannot reach Kafka at 127.0.0.1:9" in text
            assert workers[name].poll() is None
        stopped_s = time.monotonic()
        for worker in workers.values():
            worker.send_signal(signal.SIGTERM)
        assert [worker.wait(30) for worker in workers.values()] == [0, 0, 0]
        assert time.monotonic() - stopped_s < 15.0, "a stop that hangs takes 20 s"
        for log in logs.values():
            assert log.read_text().count("Kafka is away") == 1
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait(10)


def _wait_for_kafka_up(name: str, stage: Stage, wanted: float) -> None:
    """Wait until a stage says whether Kafka answers it, seconds after it was so."""
    sample = f'ashi_kafka_up{{stage="{name}"}} {wanted}'
    deadline_s = time.monotonic() + 60
    while True:
        if sample in get(f"{stage.address}/metrics")[1]:
            return
        assert time.monotonic() < deadline_s, f"{name} does not say {sample!r} within 60 s"
        time.sleep(0.1)


@pytest.mark.slow
def test_every_stage_that_starts_before_kafka_works_when_kafka_is_there_and_says_when_it_does_not_answer(
    kafka: Broker, kafka_settings: Settings, stages: dict[str, list[str]], start_stage: StartStage
) -> None:
    port = int(kafka_settings.kafka_bootstrap.rpartition(":")[2])

    async def main() -> None:
        async with Simulator("binance", [MARKET]) as simulator:
            kafka.stop()
            try:
                started: dict[str, Stage] = {
                    name: start_stage(
                        *arguments, ASHI_WEBSOCKET_URL=simulator.websocket_url, ASHI_REST_URL=simulator.rest_url
                    )
                    for name, arguments in stages.items()
                }
                for stage in started.values():
                    await asyncio.to_thread(stage.wait_for, "Kafka is away")
            finally:
                kafka.start(port=port, child=True)
            for stage in started.values():
                await asyncio.to_thread(stage.wait_for, "Kafka is back")
            await asyncio.to_thread(started["aggregate"].wait_for, '"event":"ready"')
            await asyncio.to_thread(started["sink"].wait_for, '"event":"storing candles')
            await until_subscribed(simulator, [MARKET], started["ingest"])
            for answers, number in ((False, signal.SIGSTOP), (True, signal.SIGCONT)):
                assert kafka.process is not None
                kafka.process.send_signal(number)
                for name, stage in started.items():
                    await asyncio.to_thread(_wait_for_kafka_up, name, stage, float(answers))

    asyncio.run(main())

"""Whether Kafka answers, asked again and again, of clients that are made up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError

from ashi.contracts.errors import BrokerUnreachableError
from ashi.runtime.kafka.connections import reach
from ashi.runtime.metrics.common import kafka_up
from ashi.runtime.metrics.declare import REGISTRY
from ashi.runtime.settings import Settings


class FakeBroker:
    """Brokers by their numbers: each answers, refuses, or stands still; and clients are refused altogether or not."""

    def __init__(self) -> None:
        self.behaviour = {1: "answers", 2: "answers", 3: "answers"}
        self.is_reachable = True
        self.connected = 0
        self._client = self
        self.cluster = self

    def brokers(self) -> list[Any]:
        return [type("Broker", (), {"nodeId": node}) for node in self.behaviour]

    async def send(self, node: int, _: object) -> None:
        if self.behaviour[node] == "stands still":
            await asyncio.Event().wait()
        if self.behaviour[node] == "refuses":
            raise KafkaConnectionError

    @asynccontextmanager
    async def admin_client(self, _: Settings) -> AsyncIterator[FakeBroker]:
        if not self.is_reachable:
            raise BrokerUnreachableError("nobody there")
        self.connected += 1
        yield self


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> FakeBroker:
    made = FakeBroker()
    kafka_up.clear()
    monkeypatch.setattr(reach, "admin_client", made.admin_client)
    monkeypatch.setattr(reach, "LOOK_S", 0.002)
    monkeypatch.setattr(reach, "ANSWER_S", 0.02)
    return made


async def until_told(wanted: float) -> None:
    async with asyncio.timeout(60):
        while REGISTRY.get_sample_value("ashi_kafka_up", {"stage": "test"}) != wanted:  # noqa: ASYNC110 - a gauge
            await asyncio.sleep(0.001)


def test_what_is_told_follows_kafka_as_long_as_any_broker_answers(broker: FakeBroker) -> None:
    async def main() -> None:
        asking = asyncio.create_task(reach.tell_whether_kafka_answers(Settings.from_environment({}), "test"))
        await until_told(1)
        broker.behaviour |= {1: "stands still", 2: "refuses"}
        await asyncio.sleep(0.1)
        assert REGISTRY.get_sample_value("ashi_kafka_up", {"stage": "test"}) == 1, "the third answers"
        assert broker.connected == 1, "and by the same connections"
        for last in ("stands still", "refuses"):
            broker.behaviour[3] = last
            await until_told(0)
            broker.behaviour[3] = "answers"
            await until_told(1)
        broker.behaviour[3], broker.is_reachable = "refuses", False
        await until_told(0)
        broker.behaviour[3], broker.is_reachable = "answers", True
        await until_told(1)
        assert not asking.done()
        asking.cancel()

    asyncio.run(main())


def test_connections_are_made_anew_so_that_a_password_that_is_good_no_more_is_noticed(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        asking = asyncio.create_task(reach.tell_whether_kafka_answers(Settings.from_environment({}), "test"))
        await until_told(1)
        broker.is_reachable = False  # but for connections that stand
        await asyncio.sleep(0.1)
        assert REGISTRY.get_sample_value("ashi_kafka_up", {"stage": "test"}) == 1
        asking.cancel()
        monkeypatch.setattr(reach, "ANEW_S", 0.05)
        broker.is_reachable = True
        asking = asyncio.create_task(reach.tell_whether_kafka_answers(Settings.from_environment({}), "test"))
        await asyncio.sleep(0.01)
        broker.is_reachable = False
        await until_told(0)
        broker.is_reachable = True
        await until_told(1)
        asking.cancel()

    asyncio.run(main())


def test_a_process_that_was_busy_for_too_long_takes_the_answer_that_came_meanwhile(broker: FakeBroker) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        answered = loop.create_future()

        async def send(*_: object) -> None:
            await answered

        broker.behaviour = {1: "answers"}
        broker.send = send  # type: ignore[assignment]
        asked = asyncio.create_task(reach._any_answers(broker))  # type: ignore[arg-type]
        await asyncio.sleep(0.005)
        loop.call_soon(answered.set_result, None)

        loop.call_soon(time.sleep, 0.1)
        assert await asked

    asyncio.run(main())

"""A part of a client that has died is noticed, though the library tells nobody."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import KafkaError
from aiokafka.producer.sender import Sender

from ashi.contracts.topics import TRADES
from ashi.runtime.kafka.connections.background import raise_if_dead
from ashi.runtime.kafka.connections.clients import make_consumer, make_producer

if TYPE_CHECKING:
    from ashi.runtime.settings import Settings


async def died(client: Any) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            raise_if_dead(client)
        except KafkaError as error:
            return str(error.__cause__)
        await asyncio.sleep(0.05)
    return "it lives"


@pytest.mark.parametrize(
    ("part", "method"),
    [
        (GroupCoordinator, "ensure_active_group"),
        (Fetcher, "_get_actions_per_node"),
        (Sender, "_maybe_wait_for_pid"),
    ],
)
def test_a_task_of_a_client_that_has_died_is_noticed_with_its_reason(
    kafka_settings: Settings, part: Any, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ValueError(f"{method} is broken")

    async def scenario() -> None:
        client = (
            make_producer(kafka_settings)
            if part is Sender
            else make_consumer(kafka_settings, TRADES, group_id="background")
        )
        await client.start()
        try:
            raise_if_dead(client)
            monkeypatch.setattr(part, method, fail)
            if part is Sender:
                with suppress(KafkaError):  # it may have died before, in its first round
                    await client.send(TRADES, b"x")
            elif part is GroupCoordinator:
                client.subscribe([TRADES, "candles"])
            assert await died(client) == f"{method} is broken"
        finally:
            monkeypatch.undo()
            with suppress(KafkaError):
                await client.stop()

    asyncio.run(scenario())

"""Reading from a copy that is near: what it lacks the leader is asked for."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import NotLeaderForPartitionError, OffsetOutOfRangeError

from ashi.runtime.kafka.cluster.log_identity import LogProbe
from ashi.runtime.kafka.connections.clients import make_consumer
from ashi.runtime.kafka.connections.racks import read_near
from ashi.runtime.settings import Settings, SettingsError

LEADER, FOLLOWER = 2, 3
OUT_OF_RANGE = OffsetOutOfRangeError.errno


def told_by(node: int) -> Any:
    """What the library gets to see when a node says that an offset is out of range."""

    async def send(_node: int, _request: Any) -> Any:
        return SimpleNamespace(API_KEY=1, topics=[("trades", [(0, OUT_OF_RANGE, 7), (1, 0, 8)])])

    cluster = SimpleNamespace(leader_for_partition=lambda _: LEADER)
    consumer = SimpleNamespace(_client=SimpleNamespace(send=send, cluster=cluster), _client_rack=None)
    read_near(consumer, "eu-1a")
    assert consumer._client_rack == "eu-1a"
    return asyncio.run(consumer._client.send(node, None)).topics


def test_an_offset_that_a_copy_lacks_is_asked_of_the_leader_whose_word_counts() -> None:
    assert told_by(FOLLOWER) == [("trades", [(0, NotLeaderForPartitionError.errno, 7), (1, 0, 8)])]
    assert told_by(LEADER) == [("trades", [(0, OUT_OF_RANGE, 7), (1, 0, 8)])]


def test_every_consumer_has_the_rack_but_the_one_that_asks_which_log_it_is() -> None:
    async def scenario() -> None:
        settings = Settings.from_environment({"ASHI_KAFKA_RACK": "eu-1a"})
        consumer = make_consumer(settings, group_id=None)
        assert consumer._client_rack == "eu-1a"
        await consumer.stop()

    asyncio.run(scenario())
    asked = {}

    class Made:
        async def start(self) -> None: ...

    def make(*_: Any, **options: Any) -> Made:
        asked.update(options)
        return Made()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("ashi.runtime.kafka.cluster.log_identity.make_consumer", make)
        asyncio.run(LogProbe(Settings.from_environment({}), "trades")._connected())
    assert asked["rack"] is None


def test_a_rack_is_one_line() -> None:
    with pytest.raises(SettingsError, match=r"ASHI_KAFKA_RACK .*one line"):
        Settings.from_environment({"ASHI_KAFKA_RACK": "eu-1a\neu-1b"})

"""Brokers learn of topics one after another: what is said to be created is known to each that answers."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka.errors import KafkaConnectionError, NodeNotReadyError, TopicAlreadyExistsError

from ashi.contracts.errors import BrokerError
from ashi.contracts.topics import TopicSpec
from ashi.runtime.kafka.cluster import topics
from ashi.runtime.kafka.connections.clients import topics_by_broker
from ashi.runtime.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

SETTINGS = Settings.from_environment({"ASHI_KAFKA_BOOTSTRAP": "broker:9092"})
SPECS = [TopicSpec("trades", 2), TopicSpec("candles", 3)]


class LaggingCluster:
    """A client for administration, and the brokers behind it, each of which learns what is so after some questions."""

    def __init__(self, lags: dict[int, int], topics: dict[str, int], away: Sequence[int] = ()) -> None:
        """`lags`: by the number of a broker, how many questions it answers as if nothing had been changed."""
        self._client = SimpleNamespace(
            cluster=SimpleNamespace(brokers=lambda: [SimpleNamespace(nodeId=n) for n in lags])
        )
        self._lags = lags
        self._away = away
        self.topics = topics
        self._known = {node: dict(topics) for node in lags}
        self._asked = dict.fromkeys(lags, 0)

    def known_to(self, node: int) -> dict[str, int]:
        if self._asked[node] >= self._lags[node]:
            self._known[node] = dict(self.topics)
        return self._known[node]

    async def _send_request(self, _: Any, node: int) -> Any:
        if node in self._away:
            raise NodeNotReadyError(node)
        known = self.known_to(node)
        self._asked[node] += 1
        entries = [
            {"topic": name, "error_code": 0, "partitions": [{"partition": n, "leader": 1} for n in range(partitions)]}
            for name, partitions in known.items()
        ]
        return SimpleNamespace(to_object=lambda: {"topics": entries})

    async def create_topics(self, new: Sequence[Any]) -> Any:
        errors = [
            (topic.name, TopicAlreadyExistsError.errno if topic.name in self.topics else 0, None) for topic in new
        ]
        self.topics |= {topic.name: topic.num_partitions for topic in new if topic.name not in self.topics}
        return SimpleNamespace(topic_errors=errors)

    async def create_partitions(self, grown: dict[str, Any]) -> None:
        self.topics |= {name: new.total_count for name, new in grown.items()}


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Any:
    def use_cluster(cluster: LaggingCluster) -> LaggingCluster:
        @asynccontextmanager
        async def admin_client(_: Settings) -> AsyncIterator[LaggingCluster]:
            yield cluster

        monkeypatch.setattr(topics, "admin_client", admin_client)
        return cluster

    return use_cluster


def test_topics_are_created_once_every_broker_knows_them(use: Any) -> None:
    cluster = use(LaggingCluster({1: 0, 2: 4, 3: 2}, {}))
    assert asyncio.run(topics.create_topics(SETTINGS, SPECS)) == ["trades", "candles"]
    assert [cluster.known_to(node) for node in (1, 2, 3)] == [{"trades": 2, "candles": 3}] * 3


def test_a_topic_that_one_broker_still_knows_after_it_was_deleted_is_created(use: Any) -> None:
    cluster = use(LaggingCluster({1: 5, 2: 0}, {"trades": 2}))
    cluster.topics = {}
    assert asyncio.run(topics.create_topics(SETTINGS, SPECS)) == ["trades", "candles"]
    assert cluster.topics == {"trades": 2, "candles": 3}


def test_a_topic_that_one_broker_does_not_know_yet_is_left_as_it_is_and_waited_for(use: Any) -> None:
    cluster = use(LaggingCluster({1: 0, 2: 3}, {}))
    cluster.topics = {"trades": 1}
    assert asyncio.run(topics.create_topics(SETTINGS, SPECS)) == ["candles"]
    assert [cluster.known_to(node) for node in (1, 2)] == [{"trades": 1, "candles": 3}] * 2


def test_a_broker_that_does_not_answer_is_not_waited_for(use: Any) -> None:
    use(LaggingCluster({1: 0, 2: 0}, {}, away=[2]))
    assert asyncio.run(topics.create_topics(SETTINGS, SPECS)) == ["trades", "candles"]


def test_brokers_of_which_none_answers_are_an_error() -> None:
    with pytest.raises(KafkaConnectionError, match="none of the brokers 1, 2 answers"):
        asyncio.run(topics_by_broker(LaggingCluster({1: 0, 2: 0}, {}, away=[1, 2])))  # type: ignore[arg-type]


def test_partitions_are_added_once_every_broker_knows_them(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = use(LaggingCluster({1: 0, 2: 4}, {"trades": 1}))

    async def partitions_of_topics(_: Any) -> dict[str, list[None]]:
        return {name: [None] * partitions for name, partitions in cluster.known_to(1).items()}

    monkeypatch.setattr(topics, "partitions_of_topics", partitions_of_topics)
    assert asyncio.run(topics.grow_topics(SETTINGS, SPECS[:1])) == ["trades"]
    assert cluster.known_to(2) == {"trades": 2}


def test_a_broker_that_never_learns_of_a_topic_is_told(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "READY_TIMEOUT_S", 0.2)
    use(LaggingCluster({1: 0, 2: 1_000}, {}))
    with pytest.raises(
        BrokerError, match=r"topics trades, candles were created at broker:9092 but .* does not know of"
    ):
        asyncio.run(topics.create_topics(SETTINGS, SPECS))

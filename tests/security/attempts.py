"""What somebody who has a user's password can do to a Kafka, found out by doing it."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from ashi.runtime.kafka.connections.clients import security_options
from ashi.runtime.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

Attempt = tuple[str, str, str]
"""What is tried: an operation as Kafka names it, the kind of thing that it is done to, and which."""

BOUND_S = 30.0
_REFUSED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    # What Kafka says of a topic to whom may not describe it, and the client then.
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._NOENT,
}
_BEYOND = {KafkaError.GROUP_ID_NOT_FOUND, KafkaError.NON_EMPTY_GROUP, KafkaError.INVALID_PARTITIONS}
"""What Kafka says to whom it would let do it, were it possible."""
_MESSAGE = b'{"from":"whoever has the password"}'


@dataclass(frozen=True)
class Things:
    """What there is to do something to: all of these exist, but for `new_topic`."""

    topics: tuple[str, ...]
    groups: tuple[str, ...]
    transactional_ids: tuple[str, ...]
    new_topic: str = "somebodys.own"


def attempts(given: Mapping[str, str], things: Things, harmless: Callable[[Attempt], bool]) -> dict[Attempt, bool]:
    """What of all that is possible was let through, and what was refused.

    `given`: how to reach Kafka, by the settings of Ashi. `harmless`: whether it may be tried: what would be let through
    and destroys is not. Raises KafkaException for what is neither let through nor refused.
    """
    how: dict[str, Any] = {
        "bootstrap.servers": given["ASHI_KAFKA_BOOTSTRAP"],
        "security.protocol": given["ASHI_KAFKA_SECURITY_PROTOCOL"],
        "ssl.ca.location": given["ASHI_KAFKA_CA_FILE"],
        "sasl.mechanism": given["ASHI_KAFKA_SASL_MECHANISM"],
        "sasl.username": given["ASHI_KAFKA_USERNAME"],
        "sasl.password": given["ASHI_KAFKA_PASSWORD"],
        "log_level": 0,
    }
    found = asyncio.run(_write_and_read(given, things.topics))
    for name in things.transactional_ids:
        found["Write", "transactionalId", name] = _passes(lambda: _begin_transactions(how, name))  # noqa: B023
    admin = AdminClient(how)
    asked = {attempt: ask for attempt, ask in _asked_of(admin, things) if harmless(attempt)}
    pending = {attempt: ask() for attempt, ask in asked.items()}  # all at once
    for attempt, futures in pending.items():
        found[attempt] = _passes(lambda: _await(futures))  # noqa: B023
    return found


def _passes(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except KafkaException as error:
        if error.args[0].code() in _BEYOND:
            return True
        if error.args[0].code() not in _REFUSED:
            raise
        return False
    return True


def _await(futures: Iterable[Future[Any]]) -> None:
    for future in futures:
        done = future.result(BOUND_S)
        for place in getattr(done, "topic_partitions", None) or ():
            if place.error is not None and place.error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                raise KafkaException(place.error)


async def _write_and_read(given: Mapping[str, str], topics: Iterable[str]) -> dict[Attempt, bool]:
    """Of every topic, whether a message is taken, and whether what is in it is handed out.

    As requests by themselves: clients look first which topics they are shown, and ask nothing of the others.
    """
    settings = Settings.from_environment(given)
    client = AIOKafkaClient(bootstrap_servers=settings.kafka_bootstrap, **security_options(settings))
    await client.bootstrap()
    try:
        [broker] = client.cluster.brokers()
        wait_ms = int(BOUND_S * 1_000)
        write = ProduceRequest(None, -1, wait_ms, [(topic, [(0, _batch())]) for topic in topics])
        read = FetchRequest(0, 0, 1 << 20, 0, [(topic, [(0, 0, 1_000)]) for topic in topics])
        answers = {"Write": await client.send(broker.nodeId, write), "Read": await client.send(broker.nodeId, read)}
    finally:
        await client.close()
    codes = {
        (operation, "topic", topic): partition[1]
        for operation, answer in answers.items()
        for topic, [partition] in answer.topics
    }
    assert len(codes) == 2 * len(list(topics))
    assert set(codes.values()) <= {0, *_REFUSED}, codes
    return {attempt: code == 0 for attempt, code in codes.items()}


def _batch() -> bytes:
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1_000)
    assert builder.append(0, 0, b"a key", _MESSAGE, []) is not None
    return bytes(builder.build())


def _begin_transactions(how: dict[str, Any], transactional_id: str) -> None:
    producer = Producer({**how, "transactional.id": transactional_id})
    producer.init_transactions(BOUND_S)


def _asked_of(admin: AdminClient, things: Things) -> Iterable[tuple[Attempt, Callable[[], list[Future[Any]]]]]:
    """What an administrator does, each in a form that changes nothing where it can be had."""

    def config(kind: Any, name: str) -> ConfigResource:
        entry = ConfigEntry("retention.ms" if kind == ResourceType.TOPIC else "log.retention.ms", "1000")
        entry.incremental_operation = AlterConfigOpType.SET
        return ConfigResource(kind, name, incremental_configs=[entry])

    def listed(futures: Mapping[Any, Future[Any]] | Future[Any]) -> list[Future[Any]]:
        return [futures] if isinstance(futures, Future) else list(futures.values())

    def ask(call: Callable[..., Any], *arguments: Any, **options: Any) -> Callable[[], list[Future[Any]]]:
        return lambda: listed(call(*arguments, request_timeout=BOUND_S, **options))

    for topic in things.topics:
        first = TopicPartition(topic, 0, 0)
        yield (
            ("DescribeConfigs", "topic", topic),
            ask(admin.describe_configs, [ConfigResource(ResourceType.TOPIC, topic)]),
        )
        yield (
            ("AlterConfigs", "topic", topic),
            ask(admin.incremental_alter_configs, [config(ResourceType.TOPIC, topic)], validate_only=True),
        )
        yield ("Alter", "topic", topic), ask(admin.create_partitions, [NewPartitions(topic, 64)], validate_only=True)
        yield ("Describe", "topic", topic), ask(admin.describe_topics, TopicCollection([topic]))
        yield ("DeleteRecords", "topic", topic), ask(admin.delete_records, [first])
        yield ("Delete", "topic", topic), ask(admin.delete_topics, [topic])
    for group in things.groups:
        place = TopicPartition(things.topics[0], 0, 0)
        moved = [ConsumerGroupTopicPartitions(group, [place])]
        yield ("Describe", "group", group), ask(admin.describe_consumer_groups, [group])
        yield ("Read", "group", group), ask(admin.alter_consumer_group_offsets, moved)
        yield ("Delete", "group", group), ask(admin.delete_consumer_groups, [group])
    new = NewTopic(things.new_topic, 1, 1)
    yield ("Create", "topic", things.new_topic), ask(admin.create_topics, [new], validate_only=True)
    all_topics = AclBinding(
        ResourceType.TOPIC, "*", ResourcePatternType.LITERAL, "User:*", "*", AclOperation.ALL, AclPermissionType.ALLOW
    )
    yield ("Alter", "cluster", "kafka-cluster"), ask(admin.create_acls, [all_topics])
    yield (
        ("AlterConfigs", "cluster", "kafka-cluster"),
        ask(admin.incremental_alter_configs, [config(ResourceType.BROKER, "1")], validate_only=True),
    )
    yield (
        ("DescribeConfigs", "cluster", "kafka-cluster"),
        ask(admin.describe_configs, [ConfigResource(ResourceType.BROKER, "1")]),
    )

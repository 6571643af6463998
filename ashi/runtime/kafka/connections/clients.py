"""Kafka clients, made in one place: every producer and consumer of Ashi has the same guarantees and errors."""

from __future__ import annotations

import asyncio
import math
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError, NodeNotReadyError, RequestTimedOutError
from aiokafka.partitioner import DefaultPartitioner, murmur2
from aiokafka.protocol.metadata import MetadataRequest

from ashi.contracts.errors import BrokerError
from ashi.runtime.kafka.authentication.password import renew_login
from ashi.runtime.kafka.authentication.tls import make_context
from ashi.runtime.kafka.authentication.tokens import make_token_provider
from ashi.runtime.kafka.connections.errors import client_errors
from ashi.runtime.kafka.connections.links import watch_links
from ashi.runtime.kafka.connections.naming import kafka_name, use_prefix
from ashi.runtime.kafka.connections.racks import read_near
from ashi.runtime.settings.kafka import OAUTHBEARER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from aiokafka.client import AIOKafkaClient

    from ashi.runtime.settings import Settings

COMMITTED: Final = "read_committed"
"""The isolation level of every consumer of Ashi: what was aborted never happened."""
LINGER_MS: Final = 5
MAX_BATCH_BYTES: Final = 128 * 1024
METADATA_AGE_MS: Final = 10_000
"""How old at most is what a client knows of topics and leaders. With the default of five minutes a leader of a group
that asked too soon, or a topic that was made anew, would leave everybody without work for so long."""
START_TIMEOUT_S: Final = 30.0
"""A client that has not connected by then never will: the address answers, but it is not a Kafka broker."""

BROKER_TIMEOUT_S: Final = 10.0
"""One of several brokers that does not answer for so long is left out of what is asked of all of them."""
FAILED_PAUSE_S: Final = 0.5
"""Kafka that is away is asked again after so long."""

_partition_randomly = DefaultPartitioner()


def security_options(settings: Settings) -> dict[str, Any]:
    """What the settings say about security, as arguments of an aiokafka client. Holds the password: never log it.

    Raises UsageError when a file of certificates holds none.
    """
    options: dict[str, Any] = {"security_protocol": settings.kafka_security_protocol}
    if settings.kafka_security_protocol.endswith("SSL"):
        options["ssl_context"] = make_context(settings)
    if settings.kafka_password is not None:
        options["sasl_mechanism"] = settings.kafka_sasl_mechanism
        options["sasl_plain_username"] = settings.kafka_username
        options["sasl_plain_password"] = settings.kafka_password.reveal()
    elif settings.kafka_sasl_mechanism == OAUTHBEARER:
        options["sasl_mechanism"] = OAUTHBEARER
        options["sasl_oauth_token_provider"] = make_token_provider(settings)
    return options


def request_timeout_ms() -> int:
    """Of clients that ask something at a start, ms: the library would try a broker out of reach for 40 s."""
    return int(START_TIMEOUT_S * 1_000)


def compression_of(settings: Settings) -> str | None:
    """The codec of what is sent, as the client library's producers name it."""
    return None if settings.kafka_compression == "none" else settings.kafka_compression


@lru_cache(maxsize=65_536)  # symbols are few and hashing in Python is slow
def _hash(key: bytes) -> int:
    return int(murmur2(key)) & 0x7FFFFFFF


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key among so many, by murmur2 as the Java client does it."""
    return _hash(key) % partitions


def murmur2_partitioner(key: bytes | None, all_partitions: Sequence[int], available: Sequence[int]) -> int:
    """`partition_of` in the form that the library's producers ask for; a message without a key goes anywhere."""
    if key is None:
        return int(_partition_randomly(key, all_partitions, available))
    return all_partitions[_hash(key) % len(all_partitions)]


def pace_failures(client: AIOKafkaClient) -> None:
    """Let a client wait for a moment after it has asked in vain who leads a partition.

    A producer that has something to send asks again at once: hundreds of times a second while Kafka is away.
    """
    update = client._metadata_update

    async def update_or_wait(*arguments: Any) -> bool:
        done: bool = await update(*arguments)
        if not done:
            await asyncio.sleep(FAILED_PAUSE_S)
        return done

    client._metadata_update = update_or_wait


def adapt(client: AIOKafkaClient, settings: Settings) -> None:
    """Have a client, not yet started, do what all of Ashi's do.

    It notices links that are cut, logs in with the password of now, and calls topics and groups by their prefix.
    """
    watch_links(client)
    renew_login(client, settings)
    use_prefix(client, settings.topic_prefix)


class _Producer(AIOKafkaProducer):  # type: ignore[misc]  # the library is not typed
    """A producer whose start raises BrokerError and leaves nothing open when it fails."""

    def __init__(self, settings: Settings, patient: bool, **options: Any) -> None:
        super().__init__(**options)
        pace_failures(self.client)
        adapt(self.client, settings)
        self._settings = settings
        if patient:
            # A batch that is older than this fails when its partition has no leader, as while a broker starts.
            self._message_accumulator._batch_ttl = math.inf

    async def start(self) -> None:
        """Connect. Raises BrokerError that names the address and what to do."""
        async with client_errors(self._settings, self.client):
            try:
                async with asyncio.timeout(START_TIMEOUT_S):
                    await super().start()
            except BaseException:
                await self.stop()
                raise


class _Consumer(AIOKafkaConsumer):  # type: ignore[misc]  # the library is not typed
    """A consumer whose start raises BrokerError and leaves nothing open when it fails."""

    def __init__(self, settings: Settings, *topics: str, rack: str | None, **options: Any) -> None:
        super().__init__(*topics, **options)
        pace_failures(self._client)
        adapt(self._client, settings)
        read_near(self, rack)
        self._settings = settings

    async def stop(self) -> None:
        """Leave the group if there is one, and disconnect. May be called at any time, and again."""
        if self._fetcher is not None and not self._closed:
            await _end_fetches(self._fetcher)
        await super().stop()

    async def start(self) -> None:
        """Connect, and join the group if there is one. Raises BrokerError that names the address and what to do."""
        # Joining a group takes as long as its other members take, so only a consumer by itself has a bound.
        bound = START_TIMEOUT_S if self._group_id is None else None
        async with client_errors(self._settings, self._client):
            try:
                async with asyncio.timeout(bound):
                    await super().start()
            except BaseException:
                await self.stop()
                raise


async def _end_fetches(fetcher: Any) -> None:
    """End what a consumer fetches.

    Where a fetch has failed and waits to be tried again, as while a broker is away, the library lets its cancellation
    out to whoever stops the consumer: that task would end as cancelled, by nobody, and leave connections open.
    """
    tasks = {fetcher._fetch_task, *fetcher._pending_tasks}
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    fetcher._pending_tasks.clear()


def make_producer(settings: Settings, *, patient: bool = False, **options: Any) -> AIOKafkaProducer:
    """A producer, not yet started, within a running loop: idempotent, acknowledged by all, partitioned as in Java.

    A `patient` one never gives up what it was given, however long Kafka is away. To give it something more may fail
    for want of room: see `lacks_room`. `options` are for the client library, in place of these.
    """
    defaults = {
        "bootstrap_servers": settings.kafka_bootstrap,
        "enable_idempotence": True,
        "acks": "all",
        "partitioner": murmur2_partitioner,
        "linger_ms": LINGER_MS,
        "max_batch_size": MAX_BATCH_BYTES,
        "metadata_max_age_ms": METADATA_AGE_MS,
        "compression_type": compression_of(settings),
        **security_options(settings),
    }
    return _Producer(settings, patient, **defaults | options)


def make_consumer(settings: Settings, *topics: str, group_id: str | None, **options: Any) -> AIOKafkaConsumer:
    """A consumer, not yet started, within a running loop.

    It never commits by itself, begins at the beginning and gets no record of a transaction that was aborted or is open.
    """
    defaults = {
        "auto_offset_reset": "earliest",
        "session_timeout_ms": settings.session_timeout_us // 1_000,
        "heartbeat_interval_ms": settings.session_timeout_us // 4_000,
        "metadata_max_age_ms": METADATA_AGE_MS,
        "isolation_level": COMMITTED,
        "rack": settings.kafka_rack,
        **security_options(settings),
    }
    return _Consumer(
        settings,
        *topics,
        bootstrap_servers=settings.kafka_bootstrap,
        group_id=group_id,
        enable_auto_commit=False,
        **defaults | options,
    )


@asynccontextmanager
async def admin_client(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """A client for administration, started, closed at the end. Raises BrokerError when Kafka cannot be reached."""
    client = AIOKafkaAdminClient(
        bootstrap_servers=settings.kafka_bootstrap,
        request_timeout_ms=request_timeout_ms(),
        **security_options(settings),
    )
    adapt(client._client, settings)
    async with client_errors(settings, client._client):
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await client.start()
            yield client
        finally:
            await client.close()


async def partitions_of_topics(client: AIOKafkaAdminClient) -> dict[str, list[dict[str, Any]]]:
    """The partitions of every topic, as metadata: `partition`, `leader`, `replicas`.

    All topics are asked for: asking for one by name would create it on a broker that creates topics by itself.
    """
    topics = await client.describe_topics()
    return {topic["topic"]: topic["partitions"] for topic in topics if not topic["error_code"]}


async def topics_by_broker(client: AIOKafkaAdminClient) -> list[dict[str, list[dict[str, Any]]]]:
    """`partitions_of_topics` as each broker says it, but for those that do not answer.

    Brokers learn one after another of what was created or deleted, and whoever comes next may ask any of them. Raises a
    KafkaError of the library when none answers.
    """
    nodes = sorted(broker.nodeId for broker in client._client.cluster.brokers())
    answers = await asyncio.gather(*(_topics_at(client, node) for node in nodes))
    if not any(answer is not None for answer in answers):
        raise KafkaConnectionError(f"none of the brokers {', '.join(map(str, nodes))} answers")
    return [answer for answer in answers if answer is not None]


async def _topics_at(client: AIOKafkaAdminClient, node: int) -> dict[str, list[dict[str, Any]]] | None:
    try:
        async with asyncio.timeout(BROKER_TIMEOUT_S):
            metadata = await client._send_request(MetadataRequest(None), node)
    except (KafkaConnectionError, NodeNotReadyError, RequestTimedOutError, TimeoutError):
        return None
    return {topic["topic"]: topic["partitions"] for topic in metadata.to_object()["topics"] if not topic["error_code"]}


async def partitions_of(settings: Settings, topic: str) -> list[TopicPartition]:
    """The partitions of `topic`, by number. Raises BrokerError when it is missing."""
    async with admin_client(settings) as client:
        partitions = (await partitions_of_topics(client)).get(topic)
    if partitions is None:
        raise BrokerError(
            f"Kafka at {settings.kafka_bootstrap} has no topic {kafka_name(settings, topic)!r}: run "
            "`ashi topics create`, then start again"
        )
    return [TopicPartition(topic, number) for number in sorted(entry["partition"] for entry in partitions)]


@asynccontextmanager
async def assigned_consumer(
    settings: Settings, topic: str
) -> AsyncIterator[tuple[AIOKafkaConsumer, list[TopicPartition]]]:
    """A started consumer outside any group that has all partitions of `topic`. Raises BrokerError if it is missing."""
    assigned = await partitions_of(settings, topic)
    consumer = make_consumer(settings, group_id=None, request_timeout_ms=request_timeout_ms())
    await consumer.start()
    try:
        consumer.assign(assigned)
        async with client_errors(settings, consumer._client):
            yield consumer, assigned
    finally:
        await consumer.stop()

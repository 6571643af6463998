"""What Kafka tells whoever only looks: brokers, topics, groups, how far they have come. Nothing is changed or joined.

One client for administration and one consumer outside any group, kept for as long as somebody looks. Each question is
bounded by the clients' request timeout, and raises BrokerError; whoever asks several at once bounds them together.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, NoError, for_code

from ashi.contracts.errors import BrokerError
from ashi.runtime.kafka.cluster.ends import next_records, stable_ends
from ashi.runtime.kafka.cluster.offsets import LoadingError, ask_coordinator
from ashi.runtime.kafka.connections.clients import adapt, make_consumer, security_options
from ashi.runtime.kafka.connections.errors import broker_errors, client_errors
from ashi.runtime.kafka.connections.naming import kafka_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping

    from aiokafka import AIOKafkaConsumer

    from ashi.runtime.settings import Settings

REQUEST_TIMEOUT_MS: Final = 8_000
"""How long one broker may take to answer, also one that has much else to do."""
FETCH_BYTES: Final = 64 * 1024
"""Of a partition, at once: mostly one record is wanted."""
NO_LEADER: Final = -1
_COORDINATOR_PATIENCE_S: Final = 2.0

_T = TypeVar("_T")


class TopicView(NamedTuple):
    """A topic as the brokers know it.

    Attributes:
        partitions: as the client library's metadata has them.
        leaderless: the numbers of those that nobody leads: they can be neither read nor written.
        under_replicated: the numbers of those of which a copy is behind or away.

    """

    partitions: list[dict[str, Any]]
    leaderless: tuple[int, ...]
    under_replicated: tuple[int, ...]


class ClusterView(NamedTuple):
    """The brokers that are there, `host:port` by number, and the topics of this deployment by name."""

    brokers: dict[int, str]
    topics: dict[str, TopicView]


class MemberView(NamedTuple):
    """A member of a group: the client's own name and address, and its partitions, (topic, number)."""

    client_id: str
    host: str
    held: tuple[tuple[str, int], ...]


class GroupDescription(NamedTuple):
    """A group as its coordinator sees it; `state` in Kafka's words, such as Stable, PreparingRebalance, Empty, Dead."""

    state: str
    members: tuple[MemberView, ...]


class Range(NamedTuple):
    """A partition: the offset of the first record kept, and the end for readers."""

    begin: int
    end: int


class Survey:
    """The questions. To be opened before the first, and closed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._admin = AIOKafkaAdminClient(
            bootstrap_servers=settings.kafka_bootstrap,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            **security_options(settings),
        )
        adapt(self._admin._client, settings)
        self._consumer: AIOKafkaConsumer | None = None
        self._starting = asyncio.Lock()
        self._fetching = asyncio.Lock()

    async def open(self) -> None:
        """Connect. Raises BrokerError that says why Kafka cannot be reached or does not let us in."""
        async with client_errors(self._settings, self._admin._client):
            await self._admin.start()

    @property
    def advertised(self) -> list[str]:
        """The addresses, `host:port`, that the broker which let us in sends its clients on to; asks for nothing."""
        return sorted(f"{broker.host}:{broker.port}" for broker in self._admin._client.cluster.brokers())

    async def close(self) -> None:
        """Disconnect. May be called at any time."""
        await self._admin.close()
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()

    async def cluster(self) -> ClusterView:
        """Brokers and topics. Raises BrokerError."""
        with broker_errors(self._settings):
            metadata = await self._admin._get_cluster_metadata()
        told = metadata.to_object()
        brokers = {broker["node_id"]: f"{broker['host']}:{broker['port']}" for broker in told["brokers"]}
        return ClusterView(brokers, {each["topic"]: _topic(each) for each in told["topics"] if not each["error_code"]})

    async def groups(self) -> list[str]:
        """The names of all consumer groups that this user may describe. Raises BrokerError."""
        with broker_errors(self._settings):
            found = await self._admin.list_consumer_groups()
        return sorted(name for name, _ in found)

    async def describe(self, group: str) -> GroupDescription:
        """Who is in a group and has what. Raises BrokerError, of which NotPermittedError is one."""

        async def ask() -> GroupDescription:
            (response,) = await self._admin.describe_consumer_groups([group])
            code, _, state, _, _, members = response.groups[0][:6]
            if code:
                raise for_code(code)(group)
            return GroupDescription(state, tuple(map(_member, members)))

        return await self._of_coordinator(group, ask)

    async def committed(self, group: str, topics: Mapping[str, Collection[int]]) -> dict[str, dict[int, int]]:
        """The offset that a group goes on from in each of these partitions, by topic; those never committed left out.

        Raises BrokerError, also where this user may not describe one of the topics.
        """
        asked = [TopicPartition(topic, number) for topic, numbers in topics.items() for number in numbers]
        if not asked:
            return {}

        async def ask() -> dict[str, dict[int, int]]:
            found = await self._admin.list_consumer_group_offsets(group, partitions=asked)
            if len(found) != len(asked):  # the library drops what concerns the whole answer: it is still loading
                raise LoadingError
            places: dict[str, dict[int, int]] = {}
            for at, entry in found.items():
                if entry.offset >= 0:
                    places.setdefault(at.topic, {})[at.partition] = entry.offset
            return places

        return await self._of_coordinator(group, ask)

    async def ranges(self, topic: str, partitions: Collection[int]) -> dict[int, Range]:
        """Where these partitions, all of which must have a leader, begin and end. Raises BrokerError."""
        asked = [TopicPartition(topic, number) for number in partitions]
        if not asked:
            return {}
        with broker_errors(self._settings):
            consumer = await self._reader()
            begins = await consumer.beginning_offsets(asked)
            ends = await stable_ends(consumer, asked)
        return {at.partition: Range(begins[at], ends[at]) for at in asked}

    async def offsets_at(self, topic: str, ranges: Mapping[int, Range], time_ms: int) -> dict[int, int]:
        """The offset of the first record appended at or after a time, ms since the epoch, else the end.

        Raises BrokerError.
        """
        asked = [TopicPartition(topic, number) for number in ranges]
        if not asked:
            return {}
        with broker_errors(self._settings):
            found = await (await self._reader()).offsets_for_times(dict.fromkeys(asked, time_ms))
        return {
            at.partition: entry.offset if (entry := found.get(at)) is not None else ranges[at.partition].end
            for at in asked
        }

    async def next_records(self, topic: str, offsets: Mapping[int, int], ends: Mapping[int, int]) -> dict[int, Any]:
        """The first record at or after each of these offsets and before these ends; a partition without is left out.

        Raises BrokerError.
        """
        wanted = {TopicPartition(topic, number): offset for number, offset in offsets.items() if offset < ends[number]}
        if not wanted:
            return {}
        async with self._fetching:
            with broker_errors(self._settings):
                consumer = await self._reader()
                consumer.assign(list(wanted))
                found = await next_records(consumer, wanted, {at: ends[at.partition] for at in wanted})
        return {at.partition: record for at, record in found.items()}

    async def configs(self, topics: Collection[str]) -> dict[str, dict[str, str]]:
        """The settings of topics, of those that Kafka shows this user. Raises BrokerError."""
        if not topics:
            return {}
        with broker_errors(self._settings):
            responses = await self._admin.describe_configs(
                [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
            )
        return {
            name: {entry[0]: entry[1] for entry in entries}
            for response in responses
            for code, _, _, name, entries in response.resources
            if not code
        }

    @property
    def api_versions(self) -> dict[int, tuple[int, int]]:
        """Of each request the least and the greatest version that the broker asked first knows, by its number."""
        connections = self._admin._client._conns.values()
        return next((dict(connection._versions) for connection in connections if connection._versions), {})

    async def _reader(self) -> AIOKafkaConsumer:
        """The consumer, started when first it is needed. Raises BrokerError."""
        async with self._starting:
            if self._consumer is None:
                consumer = make_consumer(
                    self._settings,
                    group_id=None,
                    request_timeout_ms=REQUEST_TIMEOUT_MS,
                    max_partition_fetch_bytes=FETCH_BYTES,
                    rack=None,
                )
                await consumer.start()  # one whose start was broken off cannot be started again
                self._consumer = consumer
            return self._consumer

    async def _of_coordinator(self, group: str, ask: Callable[[], Awaitable[_T]]) -> _T:
        """What a group's coordinator answers, which may just be moving. Raises BrokerError."""
        try:
            return await ask_coordinator(ask, patience_s=_COORDINATOR_PATIENCE_S)
        except GroupAuthorizationFailedError as error:
            with broker_errors(self._settings):
                raise GroupAuthorizationFailedError(group) from error
        except NoError as error:  # what the library makes of a topic that this user may not describe
            raise BrokerError(
                f"Kafka does not say how far group {kafka_name(self._settings, group)!r} has come: this user may "
                "not describe all of its topics"
            ) from error
        except KafkaError as error:
            raise BrokerError(
                f"Kafka says nothing of group {kafka_name(self._settings, group)!r} ({type(error).__name__})"
            ) from error


@asynccontextmanager
async def survey(settings: Settings) -> AsyncIterator[Survey]:
    """One that is open, and closed at the end. Raises BrokerError."""
    asked = Survey(settings)
    try:
        await asked.open()
        yield asked
    finally:
        await asked.close()


def _topic(told: Mapping[str, Any]) -> TopicView:
    partitions = list(told["partitions"])
    return TopicView(
        partitions,
        tuple(sorted(each["partition"] for each in partitions if each["leader"] == NO_LEADER)),
        tuple(sorted(each["partition"] for each in partitions if len(each["isr"]) < len(each["replicas"]))),
    )


def _member(described: Any) -> MemberView:
    _, client_id, host, _, assignment = described[-5:]
    held = ConsumerProtocol.ASSIGNMENT.decode(assignment).partitions() if assignment else []
    return MemberView(client_id, host.lstrip("/"), tuple((at.topic, at.partition) for at in held))

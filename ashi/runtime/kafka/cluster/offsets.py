"""Where topics begin and end, and how far groups have come. Offsets are those of the next record, as Kafka counts.

What the end of a partition is, `ashi.runtime.kafka.cluster.ends` says.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from ashi.contracts.errors import BrokerError
from ashi.runtime.kafka.cluster.ends import next_records, stable_ends
from ashi.runtime.kafka.connections.clients import admin_client, assigned_consumer, partitions_of_topics
from ashi.runtime.kafka.connections.naming import kafka_name
from ashi.runtime.retry import Backoff, retry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from ashi.runtime.settings import Settings

COORDINATOR_TIMEOUT_S: Final = 20.0
RETRY_FIRST_S: Final = 0.2
RETRY_MOST_S: Final = 1.0
AGES_S: Final = (30 * 86_400, 7 * 86_400, 86_400, 6 * 3_600, 3_600, 600, 60)
"""How far back a topic may be read that has too much."""
FURTHER_BACK: Final = 16
"""So many times as far the last record is looked for each time."""

_T = TypeVar("_T")


async def end_offsets(settings: Settings, topic: str) -> dict[int, int]:
    """The end of each partition for readers. Raises BrokerError when the topic is missing."""
    async with assigned_consumer(settings, topic) as (consumer, assigned):
        return {at.partition: offset for at, offset in (await stable_ends(consumer, assigned)).items()}


async def left_to_read(
    settings: Settings, topic: str, offsets: Mapping[int, int], ends: Mapping[int, int]
) -> dict[int, int]:
    """How many offsets lie before `ends` of each partition for whoever goes on from `offsets`, from the next record on.

    None where only what no reader gets is left, as the markers of transactions. A partition without an offset is read
    from its beginning. Raises BrokerError when the topic is missing.
    """
    async with assigned_consumer(settings, topic) as (consumer, assigned):
        begins = await consumer.beginning_offsets(assigned)
        places = {at: max(offsets.get(at.partition, 0), begin) for at, begin in begins.items()}
        found = await next_records(consumer, places, {at: ends.get(at.partition, 0) for at in assigned})
        return {at.partition: ends[at.partition] - found[at].offset if at in found else 0 for at in assigned}


async def begin_offsets(settings: Settings, topic: str) -> dict[int, int]:
    """The offset of the first record still kept of each partition. Raises BrokerError when the topic is missing."""
    async with assigned_consumer(settings, topic) as (consumer, assigned):
        return {at.partition: offset for at, offset in (await consumer.beginning_offsets(assigned)).items()}


async def offsets_at(settings: Settings, topic: str, time_ms: int) -> dict[int, int]:
    """The offset of the first record appended at or after a time (ms since the epoch), else the end, per partition."""
    async with assigned_consumer(settings, topic) as (consumer, assigned):
        ends = await stable_ends(consumer, assigned)
        found = await consumer.offsets_for_times(dict.fromkeys(assigned, time_ms))
        return {at.partition: entry.offset if (entry := found.get(at)) else ends[at] for at in assigned}


async def time_within(settings: Settings, topic: str, most: int) -> int | None:
    """A time (µs since the epoch) since which about `most` offsets at most were appended; None: the topic has no more.

    One of `AGES_S` ago, the longest that will do, else the shortest. Raises BrokerError when the topic is missing.
    """
    async with assigned_consumer(settings, topic) as (consumer, assigned):
        ends = await stable_ends(consumer, assigned)
        begins = await consumer.beginning_offsets(assigned)
        if sum(ends[at] - begins[at] for at in assigned) <= most:
            return None
        now_ms = time.time_ns() // 1_000_000
        since_ms = now_ms
        for age_s in AGES_S:
            since_ms = now_ms - age_s * 1_000
            found = await consumer.offsets_for_times(dict.fromkeys(assigned, since_ms))
            if sum(ends[at] - entry.offset for at in assigned if (entry := found.get(at))) <= most:
                break
        return since_ms * 1_000


async def first_append_time(settings: Settings, topic: str, partitions: Iterable[int]) -> int | None:
    """When the first record that is still in any of the partitions was appended, ms; None if they have none."""
    wanted = set(partitions)
    async with assigned_consumer(settings, topic) as (consumer, assigned):
        begins = await consumer.beginning_offsets([at for at in assigned if at.partition in wanted])
        first = await next_records(consumer, begins, await stable_ends(consumer, list(begins)))
        return min((record.timestamp for record in first.values()), default=None)


async def last_append_time(settings: Settings, topic: str) -> int | None:
    """When the last record of the topic was appended, ms since the epoch, or one not far before it; None: it is empty.

    The last offsets may be those of markers and aborted records, so it is looked further and further back for one.
    """
    async with assigned_consumer(settings, topic) as (consumer, assigned):
        ends = await stable_ends(consumer, assigned)
        begins = await consumer.beginning_offsets(assigned)
        found: dict[TopicPartition, Any] = {}
        back = 1
        while left := {at for at, end in ends.items() if at not in found and begins[at] < end}:
            places = {at: max(ends[at] - back, begins[at]) for at in left}
            found |= await next_records(consumer, places, ends)
            ends |= {at: place for at, place in places.items() if at not in found}
            back *= FURTHER_BACK
        return max((record.timestamp for record in found.values()), default=None)


class Committed(NamedTuple):
    """What a group has committed of a partition.

    Attributes:
        offset: of the next record.
        note: what was written beside it, up to 4,096 bytes; "" if nothing.

    """

    offset: int
    note: str


async def committed_offsets(settings: Settings, group: str, topic: str) -> dict[int, int]:
    """The offset that `group` goes on from in each partition; a partition it never committed is left out.

    Raises BrokerError when the topic is missing or the group's coordinator does not answer.
    """
    return {number: each.offset for number, each in (await committed(settings, group, topic)).items()}


async def committed(settings: Settings, group: str, topic: str) -> dict[int, Committed]:
    """`committed_offsets`, with the notes."""
    async with admin_client(settings) as client:
        metadata = (await partitions_of_topics(client)).get(topic)
        if metadata is None:
            raise BrokerError(
                f"Kafka at {settings.kafka_bootstrap} has no topic {kafka_name(settings, topic)!r}: "
                "run `ashi topics create`"
            )
        asked = [TopicPartition(topic, entry["partition"]) for entry in metadata]

        async def ask() -> dict[int, Committed]:
            found = await client.list_consumer_group_offsets(group, partitions=asked)
            # The library drops the error that concerns the whole answer. It then holds no partition at all, while a
            # good one holds all that were asked for, with -1 where nothing was committed.
            if len(found) != len(asked):
                raise LoadingError
            return {
                at.partition: Committed(entry.offset, entry.metadata or "")
                for at, entry in found.items()
                if entry.offset >= 0
            }

        try:
            return await ask_coordinator(ask)
        except KafkaError as error:
            if not error.retriable:
                raise
            reason = "its coordinator is still loading" if isinstance(error, LoadingError) else str(error)
            raise BrokerError(
                f"Kafka at {settings.kafka_bootstrap} does not say how far group {kafka_name(settings, group)!r} "
                f"has come ({reason}): look at the broker's log, then try again"
            ) from error


async def ask_coordinator(ask: Callable[[], Awaitable[_T]], *, patience_s: float = COORDINATOR_TIMEOUT_S) -> _T:
    """The answer of a group's coordinator, which needs a moment when its broker has just started or it has moved.

    `patience_s`: for so long it is asked again. Raises the KafkaError of the last attempt when it still has none, and
    one that is not retriable at once.
    """
    return await retry(
        ask,
        least_wait_s=lambda error: 0.0 if isinstance(error, KafkaError) and error.retriable else None,
        patience_s=patience_s,
        backoff=Backoff(RETRY_FIRST_S, RETRY_MOST_S),
    )


class LoadingError(KafkaError):  # type: ignore[misc]  # the library is not typed
    """The answer about a group holds none of the partitions that were asked for."""

    retriable = True

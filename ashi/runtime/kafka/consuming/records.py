"""Reading topics: whole, from one offset to another, or only the records at some offsets.

No group, nothing is committed.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from aiokafka import TopicPartition

from ashi.runtime.kafka.cluster.ends import stable_ends
from ashi.runtime.kafka.connections.clients import assigned_consumer, make_consumer
from ashi.runtime.kafka.connections.errors import broker_errors

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, MutableMapping, Sequence

    from aiokafka import AIOKafkaConsumer

    from ashi.runtime.settings import Settings

JUMP: Final = 2_000
"""Offsets that are closer to each other than this are read through: a seek costs a fetch."""
_WAIT_MS: Final = 200


async def read_topic(settings: Settings, topic: str) -> AsyncIterator[Any]:
    """All records of `topic` up to its end as of the call, in order within each partition.

    Raises BrokerError when the topic is missing or Kafka cannot be reached.
    """
    async with assigned_consumer(settings, topic) as (consumer, assigned):
        ends = await stable_ends(consumer, assigned)
        async for _, records in _read_until(consumer, {at: end for at, end in ends.items() if end}):
            for record in records:
                yield record


async def read_between(
    settings: Settings, topic: str, begin: Mapping[int, int], end: Mapping[int, int]
) -> AsyncGenerator[tuple[int, list[Any]], None]:
    """The records of some partitions from `begin` to `end` (exclusive), as (partition, records), in order in each.

    Partitions without an end, or with nothing to read, are left out. Raises BrokerError when Kafka is out of reach.
    """
    ranges = {partition: offset for partition, offset in begin.items() if offset < end.get(partition, 0)}
    if not ranges:
        return
    async with _reader(settings, topic, ranges) as consumer:
        ends = {TopicPartition(topic, partition): end[partition] for partition in ranges}
        async for at, records in _read_until(consumer, ends):
            yield at.partition, records


async def fetch_to(consumer: AIOKafkaConsumer, at: TopicPartition, end: int) -> AsyncGenerator[Any, None]:
    """The records of a partition from where the consumer stands, until it has come to `end`.

    Or to the end of the log, if that is cut meanwhile. What is fetched from beyond comes as well: a consumer that reads
    on later stands behind it. Raises a KafkaError of the library when Kafka does not answer.
    """
    while await consumer.position(at) < end:
        records = (await consumer.getmany(at, timeout_ms=_WAIT_MS)).get(at, [])
        if not records:
            end = min(end, (await stable_ends(consumer, [at]))[at])
        for record in records:
            yield record


async def read_at(settings: Settings, topic: str, partition: int, offsets: Sequence[int]) -> dict[int, Any]:
    """The records at `offsets` of a partition; one that the log does not have is left out.

    Offsets must be within the log. Raises BrokerError when Kafka is out of reach.
    """
    found: dict[int, Any] = {}
    left = sorted(set(offsets), reverse=True)
    if not left:
        return found
    at = TopicPartition(topic, partition)
    async with _reader(settings, topic, {partition: left[-1]}) as consumer:
        position = left[-1]
        while left:
            if left[-1] > position + JUMP:
                consumer.seek(at, left[-1])
            for record in (await consumer.getmany(at, timeout_ms=_WAIT_MS)).get(at, []):
                while left and left[-1] < record.offset:
                    left.pop()
                if left and left[-1] == record.offset:
                    found[left.pop()] = record
            position = await consumer.position(at)
            while left and left[-1] < position:
                left.pop()
    return found


async def newest_records(
    settings: Settings, topic: str, rank: Callable[[bytes], Any], wanted: Callable[[Any], bool] = lambda _: True
) -> dict[bytes, bytes]:
    """What a compacted topic holds by key, of the `wanted` records: see `keep_newest`.

    Raises BrokerError when the topic is missing or Kafka cannot be reached, and what `rank` raises.
    """
    rows: dict[bytes, bytes] = {}
    async for record in read_topic(settings, topic):
        if wanted(record):
            keep_newest(rows, [(record.key, record.value)], rank)
    return rows


def keep_newest(
    rows: MutableMapping[bytes, bytes],
    records: Iterable[tuple[bytes, bytes | None]],
    rank: Callable[[bytes], Any],
) -> None:
    """Take the next records of a compacted topic, (key, value), into `rows`; of each key the greatest by `rank` counts.

    Not the last one: a worker that was declared dead may write an older one later. Of equals the later counts. A
    record without a value takes the key away.
    """
    for key, value in records:
        if value is None:
            rows.pop(key, None)
            continue
        known = rows.get(key)
        if known is None or rank(value) >= rank(known):
            rows[key] = value


@asynccontextmanager
async def _reader(settings: Settings, topic: str, begin: Mapping[int, int]) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer outside any group that has these partitions and stands at these offsets."""
    consumer = make_consumer(settings, group_id=None)
    await consumer.start()
    try:
        with broker_errors(settings):
            consumer.assign([TopicPartition(topic, partition) for partition in begin])
            for partition, offset in begin.items():
                consumer.seek(TopicPartition(topic, partition), offset)
            yield consumer
    finally:
        await consumer.stop()


async def _read_until(
    consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]
) -> AsyncIterator[tuple[TopicPartition, list[Any]]]:
    """The records from where the consumer stands to `ends` (exclusive), of these partitions."""
    unread = set(ends)
    while unread:
        # The position, not the last record, tells the end: compaction may have removed the last ones, or the last
        # offsets are those of a transaction's markers.
        for at in list(unread):
            if await consumer.position(at) >= ends[at]:
                unread.discard(at)
                consumer.pause(at)
        fetched = await consumer.getmany(*unread, timeout_ms=_WAIT_MS) if unread else {}
        for at, records in fetched.items():
            end = ends[at]
            before = records if records[-1].offset < end else [record for record in records if record.offset < end]
            if before:
                yield at, before

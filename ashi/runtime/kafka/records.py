"""Reading a topic from one offset to another, or only the records at some offsets. No group, nothing is committed."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from aiokafka import TopicPartition

from ashi.runtime.kafka.clients import broker_errors, make_consumer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence

    from aiokafka import AIOKafkaConsumer

    from ashi.runtime.settings import Settings

JUMP: Final = 2_000
"""Offsets that are closer to each other than this are read through: a seek costs a fetch."""
_WAIT_MS: Final = 200


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


async def read_between(
    settings: Settings, topic: str, begin: Mapping[int, int], end: Mapping[int, int]
) -> AsyncGenerator[tuple[int, list[Any]], None]:
    """The records of some partitions from `begin` to `end` (exclusive), as (partition, records), in order in each.

    Partitions without an end, or with nothing to read, are left out. Raises BrokerError when Kafka is out of reach.
    """
    unread = {partition for partition, offset in begin.items() if offset < end.get(partition, 0)}
    if not unread:
        return
    async with _reader(settings, topic, {partition: begin[partition] for partition in unread}) as consumer:
        while unread:
            # The position tells the end: the last offsets may be those of a transaction's markers.
            for partition in list(unread):
                if await consumer.position(TopicPartition(topic, partition)) >= end[partition]:
                    unread.discard(partition)
                    consumer.pause(TopicPartition(topic, partition))
            wanted = [TopicPartition(topic, partition) for partition in unread]
            fetched = await consumer.getmany(*wanted, timeout_ms=_WAIT_MS) if wanted else {}
            for at, records in fetched.items():
                stop = end[at.partition]
                before = records if records[-1].offset < stop else [one for one in records if one.offset < stop]
                if before:
                    yield at.partition, before


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

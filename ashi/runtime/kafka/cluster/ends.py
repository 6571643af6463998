"""What the end of a partition is, for whoever reads it.

A partition has two ends. Up to the *last stable offset* all is decided: committed, aborted, or a marker that says so.
Readers of committed records, as all of Ashi's are, get no further. Beyond it, up to the *high watermark*, lie records
since the first of a transaction that is still open, others' among them. Without transactions the two are one.

The end is the last stable offset, and every place with nothing but markers and aborted records before it is the end as
well: a reader whose last record stands before them has read everything. Nothing more is to come only where both ends
are one.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from aiokafka import TopicPartition
from aiokafka.errors import LeaderNotAvailableError, for_code
from aiokafka.protocol.offset import OffsetRequest

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from aiokafka import AIOKafkaConsumer

_READ_UNCOMMITTED: Final = 0
_LATEST: Final = -1
_WAIT_MS: Final = 200


async def stable_ends(consumer: AIOKafkaConsumer, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
    """The last stable offset of each: where readers of committed records come to an end now.

    Raises a KafkaError of the library when Kafka does not answer.
    """
    ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions) if partitions else {}
    return ends


async def written_ends(consumer: AIOKafkaConsumer, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
    """The high watermark of each: the offset after all there is, records of open transactions too.

    Raises a KafkaError of the library when Kafka does not answer, or a partition has no leader now.
    """
    by_node: defaultdict[int, defaultdict[str, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
    for at in partitions:
        node = consumer._client.cluster.leader_for_partition(at)
        if node is None or node == -1:
            raise LeaderNotAvailableError(at)
        by_node[node][at.topic].append((at.partition, _LATEST))
    ends: dict[TopicPartition, int] = {}
    for found in await asyncio.gather(*(_ask(consumer, node, topics) for node, topics in by_node.items())):
        ends |= found
    return ends


async def _ask(
    consumer: AIOKafkaConsumer, node: int, topics: Mapping[str, list[tuple[int, int]]]
) -> dict[TopicPartition, int]:
    request = OffsetRequest(-1, _READ_UNCOMMITTED, list(topics.items()))
    response: Any = await consumer._client.send(node, request)
    ends = {}
    for topic, entries in response.topics:
        for number, code, _, offset in entries:
            at = TopicPartition(topic, number)
            if code:
                raise for_code(code)(at)
            ends[at] = offset
    return ends


async def next_records(
    consumer: AIOKafkaConsumer, offsets: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> dict[TopicPartition, Any]:
    """The first record at or after each of these offsets, before these ends; a partition that has none is left out.

    The consumer must have the partitions assigned; it stands elsewhere afterwards, and is paused there. Raises a
    KafkaError of the library when Kafka does not answer or an offset is not in the log.
    """
    found: dict[TopicPartition, Any] = {}
    left = {at for at, offset in offsets.items() if offset < ends[at]}
    for at in consumer.assignment() - left:
        consumer.pause(at)
    for at in left:
        consumer.resume(at)
        consumer.seek(at, offsets[at])
    while left:
        for at, records in (await consumer.getmany(*left, timeout_ms=_WAIT_MS)).items():
            if records[0].offset < ends[at]:
                found[at] = records[0]
        for at in list(left):
            # The position goes on past what no reader gets.
            if at in found or await consumer.position(at) >= ends[at]:
                left.discard(at)
                consumer.pause(at)
    return found

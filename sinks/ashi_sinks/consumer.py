"""The worker's side of Kafka: records in, offsets and dead letters out."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from ashi.runtime.kafka.clients import make_consumer, make_producer
from ashi.runtime.kafka.errors import broker_errors
from ashi.runtime.kafka.groups import NEVER_LEAVE_MS, commit, places, rewind, subscribe
from ashi.runtime.kafka.topics import require_topics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ashi.runtime.kafka.dead_letters import DeadLetter
    from ashi.runtime.settings import Settings

DEAD_LETTERS_TIMEOUT_S: Final = 30.0


class Record(Protocol):
    """A record of a topic, as the client library gives it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


class SinkConsumer(Protocol):
    """What the worker needs of Kafka; a partition is an opaque key."""

    async def poll(self, most: int, wait_s: float) -> Mapping[Any, Sequence[Record]]:
        """The next records by partition, at most so many; waits for the first of them at most `wait_s` seconds."""

    async def send_dead_letters(self, dead_letters: Sequence[DeadLetter]) -> None:
        """Send them and wait until Kafka has them. Raises BrokerError."""

    async def commit(self, offsets: Mapping[Any, int]) -> bool:
        """Commit the offset of the next record of each partition. False: not done, to be tried again later."""


class AssignedPartition(NamedTuple):
    """A partition, and after how many rebalances of the group it was read: what is read after the next is another."""

    partition: Any
    rebalances: int


class KafkaSinkConsumer:
    """The real one: a consumer in the sink's group and a producer for what cannot be stored."""

    def __init__(self, settings: Settings, group: str, topics: Sequence[str], dead_topic: str) -> None:
        """`dead_topic`: where dead letters go."""
        self._settings = settings
        self._topics = (*topics, dead_topic)
        # While the store is away nothing is polled, for hours if need be, and the worker stays in its group.
        self._consumer = make_consumer(settings, group_id=group, max_poll_interval_ms=NEVER_LEAVE_MS)
        self._rebalances = subscribe(self._consumer, topics)
        self._producer = make_producer(settings)
        self._polled_s = time.monotonic()

    async def start(self) -> None:
        """Connect and join the group. Raises BrokerError when Kafka cannot be reached or lacks a topic."""
        await require_topics(self._settings, self._topics)
        await self._producer.start()
        await self._consumer.start()

    @property
    def polled_s(self) -> float:
        """See `HeldPartitions.polled_s`."""
        return self._polled_s

    async def places(self) -> Mapping[Any, tuple[int, int]]:
        """See `HeldPartitions.places`."""
        return await places(self._settings, self._consumer)

    async def rewind(self) -> None:
        """Read the partitions held from their beginning, and let the group do so if this process ends meanwhile."""
        await rewind(self._consumer)

    async def poll(self, most: int, wait_s: float) -> Mapping[Any, Sequence[Record]]:
        """See `SinkConsumer.poll`."""
        fetched: Mapping[Any, Sequence[Record]] = await self._consumer.getmany(
            timeout_ms=int(wait_s * 1_000), max_records=most
        )
        self._polled_s = time.monotonic()
        return {AssignedPartition(partition, self._rebalances.count): records for partition, records in fetched.items()}

    async def send_dead_letters(self, dead_letters: Sequence[DeadLetter]) -> None:
        """See `SinkConsumer.send_dead_letters`."""
        with broker_errors(self._settings):
            async with asyncio.timeout(DEAD_LETTERS_TIMEOUT_S):
                sent = [
                    await self._producer.send(letter.topic, letter.value, letter.key, headers=letter.headers)
                    for letter in dead_letters
                ]
                await asyncio.gather(*sent)

    async def commit(self, offsets: Mapping[Any, int]) -> bool:
        """See `SinkConsumer.commit`."""
        # What was read before a rebalance is not committed after it: another may have come further meanwhile, and the
        # group would go back, with a lag that stays until the next message.
        now = self._rebalances.count
        fresh = {read.partition: offset for read, offset in offsets.items() if read.rebalances == now}
        return await commit(self._consumer, fresh)

    async def close(self) -> None:
        """Leave the group and disconnect."""
        await self._consumer.stop()
        await self._producer.stop()

"""The worker's side of Kafka: records in, offsets and dead letters out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from ashi.runtime.kafka.clients import broker_errors, make_consumer, make_producer
from ashi.runtime.kafka.groups import NEVER_LEAVE_MS, commit, rewind, subscribe
from ashi.runtime.kafka.topics import require_topics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ashi.runtime.kafka.dead_letters import DeadLetter
    from ashi.runtime.settings import Settings

BURY_TIMEOUT_S: Final = 30.0


class Record(Protocol):
    """A record of a topic, as the client library gives it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


class SinkLog(Protocol):
    """What the worker needs of Kafka; a partition is an opaque key."""

    async def poll(self, most: int, wait_s: float) -> Mapping[Any, Sequence[Record]]:
        """The next records by partition, at most so many; waits for the first of them at most `wait_s` seconds."""

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Send dead letters and wait until Kafka has them. Raises BrokerError."""

    async def commit(self, offsets: Mapping[Any, int]) -> bool:
        """Commit the offset of the next record of each partition. False: not done, to be tried again later."""


class Held(NamedTuple):
    """A partition, and after how many rebalances of the group it was read: what is read after the next is another."""

    at: Any
    handover: int


class KafkaLog:
    """The real one: a consumer in the sink's group and a producer for what cannot be stored."""

    def __init__(self, settings: Settings, group: str, topics: Sequence[str], dead: str) -> None:
        """`dead`: the topic that `bury` sends to."""
        self._settings = settings
        self._topics = (*topics, dead)
        # While the store is away nothing is polled, for hours if need be, and the worker stays in its group.
        self._consumer = make_consumer(settings, group_id=group, max_poll_interval_ms=NEVER_LEAVE_MS)
        self._handovers = subscribe(self._consumer, topics)
        self._producer = make_producer(settings)

    async def start(self) -> None:
        """Connect and join the group. Raises BrokerError when Kafka cannot be reached or lacks a topic."""
        await require_topics(self._settings, self._topics)
        await self._producer.start()
        await self._consumer.start()

    async def rewind(self) -> None:
        """Read the partitions held from their beginning, and let the group do so if this process ends meanwhile."""
        await rewind(self._consumer)

    async def poll(self, most: int, wait_s: float) -> Mapping[Any, Sequence[Record]]:
        """See `SinkLog.poll`."""
        fetched: Mapping[Any, Sequence[Record]] = await self._consumer.getmany(
            timeout_ms=int(wait_s * 1_000), max_records=most
        )
        return {Held(partition, self._handovers.count): records for partition, records in fetched.items()}

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """See `SinkLog.bury`."""
        with broker_errors(self._settings):
            async with asyncio.timeout(BURY_TIMEOUT_S):
                sent = [
                    await self._producer.send(letter.topic, letter.value, letter.key, headers=letter.headers)
                    for letter in letters
                ]
                await asyncio.gather(*sent)

    async def commit(self, offsets: Mapping[Any, int]) -> bool:
        """See `SinkLog.commit`."""
        # What was read before a rebalance is not committed after it: another may have come further meanwhile, and the
        # group would go back, with a lag that stays until the next message.
        fresh = {held.at: offset for held, offset in offsets.items() if held.handover == self._handovers.count}
        return await commit(self._consumer, fresh)

    async def close(self) -> None:
        """Leave the group and disconnect."""
        await self._consumer.stop()
        await self._producer.stop()

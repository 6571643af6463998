"""The newest records of a topic, handed over as they come, for whoever looks on and decides nothing by them.

Unlike `ashi.runtime.kafka.consuming.follow` it bears everything: a topic that is made anew, a broker that is away,
records that expired. What it could not read it says, and goes on.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from aiokafka import TopicPartition

from ashi.contracts.errors import BrokerError
from ashi.runtime.kafka.cluster.ends import stable_ends
from ashi.runtime.kafka.connections.clients import make_consumer
from ashi.runtime.kafka.connections.errors import broker_errors
from ashi.runtime.kafka.connections.naming import kafka_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiokafka import AIOKafkaConsumer

    from ashi.runtime.settings import Settings

WAIT_MS: Final = 500
MOST_RECORDS: Final = 2_000
"""In one poll: after it others get their turn."""
CLOCK_AGE_S: Final = 60.0
"""For so long the least difference of the clocks counts that was seen."""
AGAIN_S: Final = 2.0
"""After so long it is tried again."""
REQUEST_TIMEOUT_MS: Final = 5_000


class TopicTail:
    """Reads a topic from `since_ms` on, or from the last few records, if there are none since then.

    Attributes:
        begins: the offset of each partition that it began to read at, once it has begun.
        caught_up: set when everything has been handed over that stood there when it began.
        settled: set when it has caught up, or met trouble: whoever waits for it has waited long enough.
        trouble: why it does not read now; None while it does.
        clock_ahead_s: how far this machine's clock is ahead of the brokers', at most: the least difference between the
            arrival of a record and its append time, of those that came while it waited for them. None: none came.
        heard: set when there is such a record.

    """

    def __init__(
        self, settings: Settings, topic: str, take: Callable[[Any], None], *, since_ms: int, last: int = 0
    ) -> None:
        """`take` gets each record, in order within a partition. `last`: so many of each partition at least."""
        self._settings = settings
        self._topic = topic
        self._take = take
        self._since_ms = since_ms
        self._last = last
        self._positions: dict[int, int] = {}
        self._goals: dict[int, int] = {}
        self.begins: dict[int, int] = {}
        self.caught_up = asyncio.Event()
        self.settled = asyncio.Event()
        self.trouble: str | None = "not asked yet"
        self.clock_ahead_s: float | None = None
        self.heard = asyncio.Event()
        self._clock_s = 0.0

    async def run(self) -> None:
        """Read on and on, until cancelled."""
        while True:
            try:
                await self._read()
            except BrokerError as error:
                self.trouble = str(error)
                self.settled.set()
            await asyncio.sleep(AGAIN_S)

    async def _read(self) -> None:
        consumer = make_consumer(
            self._settings,
            group_id=None,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            auto_offset_reset="earliest",
        )
        await consumer.start()
        try:
            with broker_errors(self._settings):
                await self._begin(consumer)
                self.trouble = None
                while self._numbers(consumer) == self._positions.keys():
                    await self._poll(consumer)
        finally:
            with suppress(BrokerError):
                await consumer.stop()

    def _numbers(self, consumer: AIOKafkaConsumer) -> set[int]:
        return set(consumer.partitions_for_topic(self._topic) or self._positions)

    async def _begin(self, consumer: AIOKafkaConsumer) -> None:
        numbers = (await consumer._client.fetch_all_metadata()).partitions_for_topic(self._topic)
        if not numbers:
            raise BrokerError(f"there is no topic {kafka_name(self._settings, self._topic)}: run `ashi topics create`")
        assigned = [TopicPartition(self._topic, number) for number in sorted(numbers)]
        consumer.assign(assigned)
        ends = {at.partition: end for at, end in (await stable_ends(consumer, assigned)).items()}
        if new := [at for at in assigned if at.partition not in self._positions]:
            self._positions |= await self._starts(consumer, new, ends)
            self.begins = dict(self._positions) | self.begins
            self._goals |= {at.partition: ends[at.partition] for at in new}
        for at in assigned:
            consumer.seek(at, self._positions[at.partition])
        self._look_whether_caught_up()

    async def _starts(
        self, consumer: AIOKafkaConsumer, partitions: list[TopicPartition], ends: Mapping[int, int]
    ) -> dict[int, int]:
        found = await consumer.offsets_for_times(dict.fromkeys(partitions, self._since_ms))
        begins = await consumer.beginning_offsets(partitions)
        starts = {}
        for at in partitions:
            entry, end = found.get(at), ends[at.partition]
            since = end if entry is None else entry.offset
            starts[at.partition] = max(min(since, end - self._last), begins[at])
        return starts

    async def _poll(self, consumer: AIOKafkaConsumer) -> None:
        waits = self.caught_up.is_set()
        fetched = await consumer.getmany(timeout_ms=WAIT_MS, max_records=MOST_RECORDS)
        now_s = time.time()
        for records in fetched.values():
            for record in records:
                self._take(record)
            if waits:  # what was there before we waited for it says nothing: it lay there
                ahead_s = now_s - records[-1].timestamp / 1_000
                if self.clock_ahead_s is None or ahead_s < self.clock_ahead_s or now_s - self._clock_s > CLOCK_AGE_S:
                    self.clock_ahead_s, self._clock_s = ahead_s, now_s
                    self.heard.set()
        for at in consumer.assignment():
            self._positions[at.partition] = await consumer.position(at)
        self._look_whether_caught_up()

    def _look_whether_caught_up(self) -> None:
        if all(self._positions[number] >= goal for number, goal in self._goals.items()):
            self.caught_up.set()
            self.settled.set()

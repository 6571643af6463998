"""A reader of the three topics on a real Kafka, looking again and again while workers write."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from feed_reader import FeedReader

from ashi.contracts.topics import FEED_GAPS, FEED_STATUS, TRADES, TRADES_DEAD
from ashi.runtime.kafka.connections.clients import assigned_consumer
from ashi.runtime.settings import Settings

ORDER = (FEED_STATUS, FEED_GAPS, TRADES, TRADES_DEAD)
"""In this order a reader is never told too much: what a status promises was in the other topics before it."""
POLL_MS = 50


class TopicsFollower:
    """Reads each topic to its end, in the order a reader must, and then looks whether it was told the truth.

    Attributes:
        looks: how often it has looked.

    """

    def __init__(self, reader: FeedReader, consumers: dict[str, tuple[Any, list[Any]]]) -> None:
        self.reader = reader
        self.looks = 0
        self._consumers = consumers

    async def catch_up(self) -> None:
        """Read what there is, and look."""
        for topic in ORDER:
            consumer, places = self._consumers[topic]
            ends = await consumer.end_offsets(places)
            while any([await consumer.position(place) < end for place, end in ends.items()]):
                for records in (await consumer.getmany(timeout_ms=POLL_MS)).values():
                    for record in records:
                        self.reader.on_record(topic, record.value, time.time_ns() // 1000)
        self.looks += 1
        self.reader.look_at_all(time.time_ns() // 1000)

    async def follow(self) -> None:
        """Look for ever."""
        while True:
            await self.catch_up()
            await asyncio.sleep(POLL_MS / 1000)


@asynccontextmanager
async def following(settings: Settings, reader: FeedReader) -> AsyncIterator[TopicsFollower]:
    """A follower whose consumers are closed in the end."""
    async with AsyncExitStack() as stack:
        consumers = {topic: await stack.enter_async_context(assigned_consumer(settings, topic)) for topic in ORDER}
        yield TopicsFollower(reader, consumers)

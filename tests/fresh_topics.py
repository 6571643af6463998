"""The topics of the tests' Kafka: deleted, and made anew as those of a deployment."""

from __future__ import annotations

import asyncio
import time

from ashi.contracts.topics import topic_specs
from ashi.runtime.kafka.clients import admin_client, topics_by_broker
from ashi.runtime.kafka.topics import create_topics
from ashi.runtime.settings import Settings

PARTITIONS = 4
"""Of the topics that are joined by key: enough for workers to share. Kafka makes twice as many in twice the time."""


async def renew_topics(chosen: Settings) -> None:
    """Delete every topic there is, with the groups' offsets in them, and create those of a deployment."""
    await delete_topics(chosen)
    await create_topics(chosen, topic_specs(chosen.partitions, chosen.timeframes))


async def delete_topics(chosen: Settings) -> None:
    """Delete every topic there is, with the groups' offsets in them, and wait until no broker knows them."""
    async with admin_client(chosen) as client:
        names = [name for name in set().union(*await topics_by_broker(client)) if not name.startswith("__")]
        if names:
            await client.delete_topics(names)
            deadline = time.monotonic() + 60
            while any(set(names) & set(known) for known in await topics_by_broker(client)):
                assert time.monotonic() < deadline, "topics do not go away"
                await asyncio.sleep(0.05)

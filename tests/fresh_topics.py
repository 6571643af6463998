"""The topics of the tests' Kafka: deleted, and made anew as those of a deployment."""

from __future__ import annotations

import asyncio
import time

from ashi.contracts.topics import topic_specs
from ashi.runtime.kafka.clients import admin_client, partitions_of_topics
from ashi.runtime.kafka.topics import create_topics
from ashi.runtime.settings import Settings

PARTITIONS = 4
"""Of the topics that are joined by key: enough for workers to share. Kafka makes twice as many in twice the time."""


async def renew_topics(chosen: Settings) -> None:
    """Delete every topic there is, with the groups' offsets in them, and create those of a deployment."""
    await delete_topics(chosen)
    await create_topics(chosen, topic_specs(chosen.partitions, chosen.timeframes))


async def delete_topics(chosen: Settings) -> None:
    """Delete every topic there is, with the groups' offsets in them, and wait until they are gone."""
    async with admin_client(chosen) as client:
        names = [name for name in await partitions_of_topics(client) if not name.startswith("__")]
        if names:
            await client.delete_topics(names)
            deadline = time.monotonic() + 20
            while set(names) & set(await partitions_of_topics(client)):
                assert time.monotonic() < deadline, "topics do not go away"
                await asyncio.sleep(0.05)

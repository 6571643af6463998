"""A topic that is deleted and made anew, as an operator does it."""

from __future__ import annotations

import asyncio
import time

from ashi.contracts.topics import topic_specs
from ashi.runtime.kafka.cluster.topics import create_topics
from ashi.runtime.kafka.connections.clients import admin_client, topics_by_broker
from ashi.runtime.settings import Settings


async def make_anew(settings: Settings, *topics: str) -> None:
    """Delete topics of a deployment with all they hold and create them again, empty."""
    await delete(settings, *topics)
    specs = [spec for spec in topic_specs(settings.partitions, settings.timeframes) if spec.name in topics]
    await create_topics(settings, specs)


async def delete(settings: Settings, *topics: str) -> None:
    """Delete topics with all they hold, and wait until no broker knows them."""
    async with admin_client(settings) as client:
        await client.delete_topics(list(topics))
        deadline = time.monotonic() + 60
        while any(set(topics) & set(known) for known in await topics_by_broker(client)):
            assert time.monotonic() < deadline, "topics do not go away"
            await asyncio.sleep(0.05)

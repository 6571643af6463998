"""Waiting for groups."""

from __future__ import annotations

import asyncio
import time

from ashi.runtime.kafka.cluster.offsets import committed_offsets, end_offsets
from ashi.runtime.settings import Settings


async def all_committed(settings: Settings, group: str, *topics: str) -> None:
    """Wait until a group has committed the end of these topics."""
    deadline = time.monotonic() + 60
    for topic in topics:
        while True:
            ends, done = await end_offsets(settings, topic), await committed_offsets(settings, group, topic)
            if all(done.get(partition, 0) == end for partition, end in ends.items()):
                break
            assert time.monotonic() < deadline, f"{group} has committed {done} of {topic}, which ends at {ends}"
            await asyncio.sleep(0.1)


async def end_of(settings: Settings, topic: str, partition: int, expected: int) -> int:
    """The end of a partition, when it is the expected one: Kafka answers before the markers of a transaction stand."""
    deadline = time.monotonic() + 20
    while True:
        end = (await end_offsets(settings, topic))[partition]
        if end >= expected or time.monotonic() > deadline:
            return end
        await asyncio.sleep(0.05)

"""Waiting for something, with a bound and a name for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from ashi.runtime.kafka.cluster.offsets import committed_offsets, end_offsets
from ashi.runtime.settings import Settings


def until(what: str, condition: Callable[[], object], timeout_s: float = 90.0, every_s: float = 0.1) -> None:
    """Wait until it holds; what it did not come to is said by the error."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"{what}: not within {timeout_s:g} s"
        time.sleep(every_s)


def until_read(settings: Settings, group: str, topic: str) -> None:
    """Wait until a group has committed all that a topic has now."""
    ends = asyncio.run(end_offsets(settings, topic))

    def is_there() -> bool:
        done = asyncio.run(committed_offsets(settings, group, topic))
        return all(done.get(partition, 0) >= end for partition, end in ends.items())

    until(f"{group} has read all of {topic}", is_there)

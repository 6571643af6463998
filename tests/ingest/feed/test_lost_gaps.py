"""The queue of what was given up: asked for at growing distances, one at a time, until it is over."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from ashi_ingest.feed.repair.lost_gaps import LostGaps


@dataclass
class Clock:
    """Time that only sleeping moves."""

    now_s: float = 0.0
    asked: list[tuple[str, float]] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.now_s += seconds


@dataclass(frozen=True)
class Lost:
    name: str


def lost(name: str) -> Any:
    return Lost(name)


def test_each_is_asked_for_at_growing_distances_until_it_is_over():
    async def run() -> None:
        clock = Clock()

        async def ask(repair: Any) -> bool:
            clock.asked.append((repair.name, clock.now_s))
            return sum(name == repair.name for name, _ in clock.asked) == {"A1": 8, "B1": 2}[repair.name]

        queue: LostGaps[Any] = LostGaps(ask, now_s=lambda: clock.now_s, sleep=clock.sleep, uniform=lambda _, most: most)
        queue.add(lost("A1"))
        queue.add(lost("B1"))
        while len(queue):  # noqa: ASYNC110
            await asyncio.sleep(0)
        await queue.stop()
        times = [at_s for name, at_s in clock.asked if name == "A1"]
        assert [later - earlier for earlier, later in pairwise(times)] == [
            120, 240, 480, 960, 1920, 3600, 3600,
        ]  # fmt: skip
        assert times[0] == 60
        assert sum(name == "B1" for name, _ in clock.asked) == 2

    asyncio.run(run())


def test_what_the_next_repair_of_its_feed_takes_over_is_not_asked_for_any_more():
    async def run() -> None:
        clock = Clock()
        asking, gone_on = asyncio.Event(), []

        async def ask(repair: Any) -> bool:
            asking.set()
            await asyncio.sleep(3600)
            gone_on.append(repair)
            return True

        queue: LostGaps[Any] = LostGaps(ask, now_s=lambda: clock.now_s, sleep=clock.sleep)
        queue.add(lost("A1"))
        await asking.wait()
        queue.add(lost("A2"))
        queue.drop(lambda lost: lost.name == "A1")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(queue) == 1
        await queue.stop()
        assert gone_on == []
        assert queue.failure() is None

    asyncio.run(run())


def test_what_asking_fails_of_by_a_mistake_of_ours_is_told():
    async def run() -> None:
        clock = Clock()

        async def ask(repair: Any) -> bool:
            raise ZeroDivisionError

        queue: LostGaps[Any] = LostGaps(ask, now_s=lambda: clock.now_s, sleep=clock.sleep)
        queue.add(lost("A1"))
        while queue.failure() is None:  # noqa: ASYNC110
            await asyncio.sleep(0)
        with pytest.raises(ZeroDivisionError):
            raise queue.failure() or RuntimeError

    asyncio.run(run())

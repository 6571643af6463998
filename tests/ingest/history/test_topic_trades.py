"""Reading on in topic `trades` while its log is cut."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from ashi_ingest.history.topic_trades import TopicStretch


class Cut:
    """A log that ends at 10, and after the first look at 5."""

    def __init__(self) -> None:
        self.ends = [10, 5]

    async def end_offsets(self, partitions: list[str]) -> dict[str, int]:
        return dict.fromkeys(partitions, self.ends.pop(0) if len(self.ends) > 1 else self.ends[0])

    async def position(self, _partition: str) -> int:
        return 5

    async def getmany(self, *_partitions: str, timeout_ms: int) -> dict[str, list[Any]]:
        await asyncio.sleep(timeout_ms / 100_000)
        return {}


def test_a_log_that_is_cut_while_it_is_read_ends_where_it_ends_then() -> None:
    venue: Any = SimpleNamespace(contiguous=lambda _market: True, ordered_ids=True)
    topic = TopicStretch(Cut(), "p", "s:M", venue=venue, market="M", stretch=(0, 10))
    asyncio.run(asyncio.wait_for(topic.read_on(), 60))
    assert topic.newest is None

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from ashi_aggregate.faust.transport import TP, TRADES, Consumer

PARTITION = TP(TRADES, 2)


class Fetching:
    """The consumer's own `getmany` and `rewind` on a log in memory. A fetch may be served while a seek is answered."""

    getmany: Any = Consumer.getmany
    rewind: Any = Consumer.rewind
    _may_deliver = Consumer._may_deliver
    _continue = Consumer._continue
    _is_gap = Consumer._is_gap
    _message = Consumer._message

    def __init__(self, position, end):
        self.app = SimpleNamespace(consumer_generation_id=1)
        self.scheduler = SimpleNamespace(iterate=lambda _: iter(()))
        self.should_stop, self.flow_active = False, True
        self.position, self.end = position, end
        self.delivered = []
        self.before_seek, self.after_seek = False, False
        self._next, self._gaps, self._read_offset, self._buffered_partitions = {}, {}, {}, set()
        self._thread = self

    async def seek_wait(self, offsets):
        if self.before_seek:
            await self.fetch()
        self.position = offsets[PARTITION]
        if self.after_seek:
            await self.fetch()

    async def earliest_offsets(self, *partitions):
        return dict.fromkeys(partitions, 0)

    async def _wait_next_records(self, _):
        offsets = range(self.position, self.end)
        self.position = self.end
        records = [SimpleNamespace(offset=offset, timestamp=0, timestamp_type=0) for offset in offsets]
        return {PARTITION: records} if records else {}, None

    async def fetch(self):
        async for _, message in self.getmany(1):
            self.delivered += range(message.value.begin, message.value.end)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_the_last_records_are_delivered_once_whenever_they_are_fetched_during_a_seek(before, after):
    async def scenario():
        consumer = Fetching(position=24, end=28)
        consumer.before_seek, consumer.after_seek = before, after
        await consumer.rewind(PARTITION.partition, 26)
        consumer.before_seek = consumer.after_seek = False
        for _ in range(3):
            await consumer.fetch()  # no further record comes
        assert consumer.delivered == [26, 27]

    asyncio.run(scenario())

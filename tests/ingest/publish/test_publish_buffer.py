"""The queue between feeds, which never wait, and Kafka, which may be slow or away."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest

from ashi.contracts import Trade
from ashi_ingest.publish.buffer import LETTER_BYTES, PublishBuffer
from ashi_ingest.venues.parsing import Rejected

T = 1_700_000_000_000_000


def trades(*numbers: int) -> list[Trade]:
    return [Trade("toy:SPOT", str(n), Decimal(1), Decimal(1), "buy", T + n, T + n, n) for n in numbers]


class Publisher:
    """Notes what it is given, in order; waits while `gate` is closed."""

    def __init__(self):
        self.got = []
        self.held = self.expected = self.calls = 0
        self.settled = asyncio.Event()
        self.asked, self.gate = asyncio.Event(), asyncio.Event()
        self.gate.set()
        self.failure = None

    def expect(self, count):
        self.expected += count

    async def publish(self, trades, *, streamed, late):
        self.calls += 1
        self.held += len(trades)
        self.asked.set()
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        self.held -= len(trades)
        self.settled.set()
        self.got += [(trade.sequence, *["late"] * late, streamed) for trade in trades]

    async def reject(self, rejected, source):
        await self.gate.wait()
        self.got += [letter.value for letter in rejected]

    async def send_batches(self):
        self.got.append("sent")


@asynccontextmanager
async def running(publish_buffer):
    task = asyncio.create_task(publish_buffer.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def test_the_buffer_keeps_the_order_of_trades_and_dead_letters():
    async def main():
        publisher: Any = Publisher()
        publish_buffer = PublishBuffer(publisher)
        async with running(publish_buffer):
            publish_buffer.put(trades(1, 2), streamed=True)
            publish_buffer.reject([Rejected(b"bad", "no")], "feed:toy/1/2")
            publish_buffer.put(trades(3), streamed=False, late=True)
            assert publish_buffer.held == 4
            await until(lambda: "sent" in publisher.got)
        assert publisher.got == [(1, True), (2, True), b"bad", (3, "late", False), "sent"]
        assert publish_buffer.held == 0

    asyncio.run(main())


def test_what_follows_each_other_alike_is_handed_over_at_once_and_counted_once():
    async def main():
        publisher: Any = Publisher()
        publisher.gate.clear()
        publish_buffer = PublishBuffer(publisher)
        ours = trades(1, 2)
        async with running(publish_buffer):
            publish_buffer.put(ours, streamed=True)
            publish_buffer.put(trades(3), streamed=True)
            publish_buffer.put(trades(4), streamed=False)
            publish_buffer.put(trades(5), streamed=False, late=True)
            await publisher.asked.wait()
            assert publish_buffer.held == 5, "while the publisher has them"
            publish_buffer.put(trades(6), streamed=True)
            assert publish_buffer.held == 6
            publisher.gate.set()
            await until(lambda: publisher.got.count("sent") == 2)
        assert [number for number, *_ in publisher.got if isinstance(number, int)] == [1, 2, 3, 4, 5, 6]
        assert publisher.calls == 4
        assert ours == trades(1, 2), "what was put is left as it was"

    asyncio.run(main())


def test_a_dead_letter_counts_by_its_size():
    async def main():
        publisher: Any = Publisher()
        publisher.gate.clear()
        publish_buffer = PublishBuffer(publisher)
        async with running(publish_buffer):
            for _ in range(10):
                publish_buffer.reject([Rejected(b"x" * 4 * LETTER_BYTES, "no")], "feed:toy/1/2")
            await asyncio.sleep(0.02)
            assert publish_buffer.held == 50
            publisher.gate.set()
            await until(lambda: publish_buffer.held == 0)

    asyncio.run(main())


def test_a_buffer_that_is_stopped_while_kafka_is_away_hands_over_the_rest_in_order():
    async def main():
        publisher: Any = Publisher()
        publisher.gate.clear()
        publish_buffer = PublishBuffer(publisher)
        async with running(publish_buffer):
            publish_buffer.put(trades(1), streamed=True)
            await publisher.asked.wait()
            publish_buffer.put(trades(2), streamed=True)
        publisher.gate.set()
        await publish_buffer.empty()
        assert publisher.got == [(1, True), "sent", (2, True), "sent"]

    asyncio.run(main())


def test_what_the_publisher_fails_of_ends_the_buffer():
    async def main():
        publisher: Any = Publisher()
        publisher.failure = ZeroDivisionError()
        publish_buffer = PublishBuffer(publisher)
        async with running(publish_buffer) as task:
            publish_buffer.put(trades(1), streamed=True)
            with pytest.raises(ZeroDivisionError):
                await task

    asyncio.run(main())


def test_room_is_waited_for():
    async def main():
        publisher: Any = Publisher()
        publisher.gate.clear()
        publish_buffer = PublishBuffer(publisher)
        async with running(publish_buffer):
            publish_buffer.put(trades(1, 2, 3), streamed=True)
            waiting = asyncio.create_task(publish_buffer.room(2))
            await asyncio.sleep(0.02)
            assert not waiting.done()
            publisher.gate.set()
            await asyncio.wait_for(waiting, 60)

    asyncio.run(main())

from __future__ import annotations

import asyncio
from struct import pack
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError

from ashi.runtime.kafka.cluster.log_identity import fingerprint_of
from ashi.runtime.kafka.consuming.spans import Span
from ashi_aggregate.faust import transport
from ashi_aggregate.faust.elections import ElectionWatch
from ashi_aggregate.faust.transport import TP, TRADES, Consumer

PARTITION = TP(TRADES, 2)


def record_at(offset):
    return SimpleNamespace(offset=offset, timestamp=0, timestamp_type=0, key=None, value=None)


class Fetching:
    """The consumer's own `getmany` and `rewind` on a log in memory. A fetch may be served while a seek is answered."""

    getmany: Any = Consumer.getmany
    rewind: Any = Consumer.rewind
    _may_deliver = Consumer._may_deliver
    _continue = Consumer._continue
    _read_again = Consumer._read_again
    _known_records = Consumer._known_records
    _message = Consumer._message

    def __init__(self, position, end):
        self.app = SimpleNamespace(consumer_generation_id=1, is_continued=self.is_continued)
        self.elections = ElectionWatch(TRADES)
        self._known, self._last = {}, {}
        self.scheduler = SimpleNamespace(iterate=lambda _: iter(()))
        self.should_stop, self.flow_active = False, True
        self.position, self.end = position, end
        self.delivered = []
        self.before_seek, self.after_seek = False, False
        self._next, self._read_offset, self._buffered_partitions = {}, {}, set()
        self._thread = self

    async def seek_wait(self, offsets):
        if self.before_seek:
            await self.fetch()
        self.position = offsets[PARTITION]
        if self.after_seek:
            await self.fetch()

    async def is_continued(self, partition, begin, known):
        assert all(each.offset == begin - 1 for each in known)
        return True

    async def earliest_offsets(self, *partitions):
        return dict.fromkeys(partitions, 0)

    async def _wait_next_records(self, _):
        begin, self.position = self.position, self.end
        span = Span(begin, self.end, [record_at(offset) for offset in range(begin, self.end)])
        return {PARTITION: span} if span.records else {}, None

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


def response_of(epoch):
    """An answer to a fetch of partition 2 whose first batch was appended in that epoch, as the client has it."""
    batches = pack(">qiib", 20, 100, epoch, 2) + bytes(100)
    return SimpleNamespace(API_KEY=1, topics=[(TRADES, [(2, 0, 999, 999, [], batches)]), ("other", [(2, 0, 9, b"")])])


def test_a_fetch_that_another_leader_appended_is_suspected_from_where_it_was_asked_for():
    async def scenario():
        answers: list[Any] = []

        async def send(node, request, **options):
            return answers.pop(0)

        client = SimpleNamespace(send=send)
        elections = ElectionWatch(TRADES)
        elections.watch(SimpleNamespace(_client=client))

        async def fetch(offset, epoch):
            answers.append(response_of(epoch))
            return await client.send(1, SimpleNamespace(topics=[(TRADES, [(2, offset, 0)]), ("other", [(2, 0, 0)])]))

        await fetch(20, 4)
        assert elections.suspects(2, 20), "nothing is known of what came before the first fetch"
        elections.cleared(2, 20)
        await fetch(30, 4)
        assert not elections.suspects(2, 30)
        await fetch(40, 5)
        await fetch(50, 6)
        assert not elections.suspects(2, 39), "what was fetched before is not suspected"
        assert elections.suspects(2, 40)
        elections.cleared(2, 40)
        assert elections.suspects(2, 50)
        elections.cleared(2, 50)
        await fetch(60, 6)
        assert not elections.suspects(2, 60)
        elections.forget(2)
        await fetch(60, 6)
        assert elections.suspects(2, 60)
        assert not elections.suspects(3, 60)

    asyncio.run(scenario())


class Cut(Fetching):
    """The client was at 26, and 25 was handed over; then the log ends before that, and the client goes to its head."""

    def __init__(self, position, end):
        super().__init__(position, end)
        self.asked: list[Any] = []
        self._last = {PARTITION: record_at(25)}
        self._next = {PARTITION: 26}
        self._known = {PARTITION: [fingerprint_of(record_at(offset)) for offset in (20, 40)]}

    async def is_continued(self, partition, begin, known):
        self.asked.append((partition, begin, [each.offset for each in known]))
        return False


def test_a_fetch_from_before_the_position_is_not_handed_over_until_what_was_read_is_seen_to_stand():
    """What is known of beyond the position is asked for too: a part of the log is being read again."""

    async def scenario():
        consumer = Cut(position=0, end=28)
        await consumer.fetch()
        assert consumer.asked == [(2, 26, [25, 40])]
        assert consumer.delivered == []

    asyncio.run(scenario())


class Asking:
    """The consumer's own `ask_ends` of a Kafka that tells, fails or says nothing."""

    ask_ends: Any = Consumer.ask_ends
    _ask_ends = Consumer._ask_ends

    def __init__(self, failure=None, wait_s=0):
        self.failure, self.wait_s = failure, wait_s
        self._thread = self._client = self.cluster = self
        self.asked: list[Any] = []

    def _ensure_consumer(self):
        return self

    async def call_thread(self, method, *arguments):
        return await method(*arguments)

    def leader_for_partition(self, at):
        return at.partition % 2

    async def send(self, node, request):
        await asyncio.sleep(self.wait_s)
        if self.failure is not None:
            raise self.failure
        self.asked.append((node, request._isolation_level))
        return SimpleNamespace(
            topics=[(topic, [(number, 0, -1, 7 + number) for number, _ in of]) for topic, of in request._topics]
        )


def test_the_end_of_the_log_is_what_kafka_tells_now_and_not_known_when_it_does_not_tell_soon(monkeypatch):
    monkeypatch.setattr(transport, "ASK_END_TIMEOUT_S", 0.05)
    asking = Asking()
    assert asyncio.run(asking.ask_ends([0, 2, 3])) == {0: 7, 2: 9, 3: 10}
    assert sorted(asking.asked) == [(0, 0), (1, 0)], "what is still open in a transaction is yet to come"
    assert asyncio.run(Asking(wait_s=60).ask_ends([0])) == {}
    assert asyncio.run(Asking(failure=KafkaTimeoutError()).ask_ends([0])) == {}

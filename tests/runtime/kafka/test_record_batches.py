"""Batches to Kafka: in order, together, bounded, and after a failure nothing more."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from contextlib import suppress
from typing import Any

import pytest
from aiokafka.errors import MessageSizeTooLargeError, OutOfOrderSequenceNumber
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatch

from ashi.contracts import BrokerError
from ashi.contracts.topics import TopicSpec
from ashi.runtime.kafka.cluster.topics import create_topics
from ashi.runtime.kafka.connections.clients import MAX_BATCH_BYTES, make_producer
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.kafka.producing.record_batches import OutgoingRecord, RecordBatches
from ashi.runtime.settings import Settings

BATCH_BYTES = 1_000
SETTINGS = Settings.from_environment({"ASHI_KAFKA_BOOTSTRAP": "kafka.example:9092"})


class Producer:
    """As the library's: it takes a batch of a partition when the one before has been sent, which the test says."""

    def __init__(self) -> None:
        self.waiting: dict[tuple[str, int], list[tuple[BatchBuilder, asyncio.Future[Any]]]] = {}
        self.given: list[tuple[str, int]] = []
        self._left = asyncio.Event()

    async def partitions_for(self, topic: str) -> set[int]:
        return {0, 1, 2} if topic == "candles" else {0}

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder(BATCH_BYTES, 0)

    async def send_batch(self, batch: BatchBuilder, topic: str, *, partition: int) -> asyncio.Future[Any]:
        while self.waiting.get((topic, partition)):
            self._left.clear()
            await self._left.wait()
        future = asyncio.get_running_loop().create_future()
        self.waiting.setdefault((topic, partition), []).append((batch, future))
        self.given.append((topic, partition))
        return future

    async def leaves(self, topic: str, partition: int) -> tuple[list[bytes], asyncio.Future[Any]]:
        """The next batch of a partition is sent: the values in it, and the future of its acknowledgment."""
        await ticks()
        batch, future = self.waiting[topic, partition].pop()
        self._left.set()
        await ticks()
        return [record.value for record in DefaultRecordBatch(batch._build())], future


async def ticks() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def numbered(begin: int, end: int, size: int = 100) -> list[OutgoingRecord]:
    return [(b"key", b"%0*d" % (size, number), []) for number in range(begin, end)]


def numbers(values: list[bytes]) -> list[int]:
    return [int(value[-10:]) for value in values]


def run(scenario: Any) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_records_leave_in_full_batches_in_order_and_are_acknowledged_together():
    async def scenario() -> None:
        producer = Producer()
        batches = RecordBatches(producer, SETTINGS)
        pending = await batches.send("candles", 1, numbered(0, 20))
        left, acknowledged = [], []
        for offset in range(3):
            assert not pending.done()
            values, future = await producer.leaves("candles", 1)
            left.append(numbers(values))
            future.set_result(offset)
            await ticks()
        assert [number for batch in left for number in batch] == list(range(20))
        assert len(left[0]) == len(left[1]) > len(left[2]) > 0
        acknowledged.append(await pending)
        assert acknowledged == [2], "what the last batch was told is what is told"

    run(scenario)


def test_what_is_sent_while_a_batch_waits_goes_with_it_and_nothing_lingers():
    async def scenario() -> None:
        producer = Producer()
        batches = RecordBatches(producer, SETTINGS)
        first = await batches.send("candles", 0, numbered(0, 1))
        await ticks()
        assert producer.given == [("candles", 0)], "it goes out at once"
        second = await batches.send("candles", 0, numbered(1, 2))
        await ticks()  # is closed, and waits in the producer's `send_batch`
        third = await batches.send("candles", 0, numbered(2, 3))
        fourth = await batches.send("candles", 0, numbered(3, 5))
        assert third is fourth
        for pending, expected in ((first, [0]), (second, [1]), (third, [2, 3, 4])):
            values, future = await producer.leaves("candles", 0)
            assert numbers(values) == expected
            future.set_result(None)
            await pending

    run(scenario)


def test_partitions_and_topics_do_not_wait_for_each_other():
    async def scenario() -> None:
        producer = Producer()
        batches = RecordBatches(producer, SETTINGS)
        for place in [("candles", 0), ("candles", 1), ("rows", 0), ("candles", 0)]:
            await batches.send(*place, numbered(0, 9))
        await ticks()
        assert sorted(producer.given) == [("candles", 0), ("candles", 1), ("rows", 0)]

    run(scenario)


def test_a_record_that_is_larger_than_a_batch_goes_alone():
    async def scenario() -> None:
        producer = Producer()
        batches = RecordBatches(producer, SETTINGS)
        pending = await batches.send("rows", 0, [*numbered(0, 2), *numbered(2, 3, 5 * BATCH_BYTES), *numbered(3, 5)])
        for expected in ([0, 1], [2], [3, 4]):
            values, future = await producer.leaves("rows", 0)
            assert numbers(values) == expected
            future.set_result(None)
        await pending

    run(scenario)


def test_whoever_sends_more_than_may_be_on_its_way_waits():
    async def scenario() -> None:
        producer = Producer()
        batches = RecordBatches(producer, SETTINGS, max_bytes=2_500)
        await batches.send("candles", 0, numbered(0, 30))
        more = asyncio.create_task(batches.send("candles", 1, numbered(0, 1)))
        await ticks()
        for _ in range(2):
            assert not more.done()
            _, future = await producer.leaves("candles", 0)
            future.set_result(None)
            await ticks()
        assert more.done()

    run(scenario)


def test_after_a_failure_nothing_more_is_handed_over_and_everything_that_waits_fails():
    async def scenario() -> None:
        producer = Producer()
        batches = RecordBatches(producer, SETTINGS)
        failing = await batches.send("candles", 0, numbered(0, 30))
        other = await batches.send("candles", 1, numbered(0, 30))
        _, first = await producer.leaves("candles", 0)  # the second is handed over meanwhile
        _, others_first = await producer.leaves("candles", 1)
        given = len(producer.given)
        first.set_exception(MessageSizeTooLargeError("1 > 0"))
        await ticks()
        others_first.set_result(None)
        for place in (("candles", 0), ("candles", 1)):
            values, future = await producer.leaves(*place)
            assert values
            future.set_result(None)  # Kafka may have taken it; what came before it is missing all the same
        await ticks()
        assert len(producer.given) == given
        for pending in (failing, other):
            with pytest.raises(
                BrokerError, match=r"kafka.example:9092 .*did not take messages for topic candles \(.*1"
            ):
                await pending
        with pytest.raises(BrokerError, match="topic candles"):
            await batches.send("rows", 0, numbered(0, 1))

    run(scenario)


def test_whoever_waits_for_room_is_told_of_a_failure():
    async def scenario() -> None:
        producer = Producer()
        batches = RecordBatches(producer, SETTINGS, max_bytes=100)
        await batches.send("candles", 0, numbered(0, 3))
        more = asyncio.create_task(batches.send("candles", 1, numbered(0, 1)))
        _, future = await producer.leaves("candles", 0)
        future.set_exception(RuntimeError("the sender died"))
        with pytest.raises(BrokerError, match=r"topic candles \(the sender died\)"):
            await more

    run(scenario)


def test_a_batch_that_the_producer_does_not_take_fails_what_comes_after_it():
    async def scenario() -> None:
        producer = Producer()

        async def refuse(*_: Any, **__: Any) -> None:
            raise RuntimeError("closed")

        producer.send_batch = refuse  # type: ignore[method-assign, assignment]
        batches = RecordBatches(producer, SETTINGS)
        pending = await batches.send("candles", 0, numbered(0, 30))
        with pytest.raises(BrokerError, match=r"topic candles \(closed\)"):
            await pending

    run(scenario)


def test_an_acknowledgment_that_nobody_waits_for_any_more_does_no_harm():
    async def scenario() -> None:
        producer = Producer()
        batches = RecordBatches(producer, SETTINGS)
        (await batches.send("candles", 0, numbered(0, 1))).cancel()
        _, future = await producer.leaves("candles", 0)
        future.set_result(None)
        await ticks()
        pending = await batches.send("candles", 0, numbered(1, 2))
        _, future = await producer.leaves("candles", 0)
        future.set_result(None)
        await pending

    run(scenario)


def test_at_the_end_what_the_producer_has_not_been_given_is_given_up_and_said_so():
    async def scenario() -> None:
        producer = Producer()
        batches = RecordBatches(producer, SETTINGS)
        pending = await batches.send("candles", 0, numbered(0, 30))
        await ticks()
        batches.close()
        await ticks()
        with pytest.raises(BrokerError, match=r"topic candles \(it was cancelled\)"):
            await pending
        assert producer.given == [("candles", 0)]

    run(scenario)


def test_at_the_end_whoever_waits_for_room_does_so_no_longer_also_if_all_is_on_its_way():
    async def scenario() -> None:
        producer = Producer()
        batches = RecordBatches(producer, SETTINGS, max_bytes=10)
        await batches.send("candles", 0, numbered(0, 1))
        await producer.leaves("candles", 0)
        await ticks()
        waiting = asyncio.create_task(batches.send("candles", 0, numbered(1, 2)))
        await ticks()
        assert not waiting.done()
        batches.close()
        with pytest.raises(BrokerError, match=r"topic candles \(it was cancelled\)"):
            await waiting

    run(scenario)


def test_partitions_of_a_topic_are_counted_by_the_producer():
    async def scenario() -> None:
        batches = RecordBatches(Producer(), SETTINGS)
        assert (await batches.partitions_of("candles"), await batches.partitions_of("rows")) == (3, 1)

    run(scenario)


def test_of_a_real_kafka_each_partition_has_its_records_in_order_and_none_after_one_that_was_refused(
    kafka_settings: Settings,
) -> None:
    topic = f"batches-{uuid.uuid4().hex}"

    async def scenario() -> list[Any]:
        await create_topics(kafka_settings, [TopicSpec(topic, 2, {"max.message.bytes": str(2 * MAX_BATCH_BYTES)})])
        producer = make_producer(dataclasses.replace(kafka_settings, kafka_compression="none"))
        await producer.start()
        try:
            batches = RecordBatches(producer, kafka_settings)
            sent = [
                await batches.send(topic, partition, numbered(begin, begin + 500, 1_000))
                for begin in range(0, 2_000, 500)
                for partition in (0, 1)
            ]
            await asyncio.gather(*sent)
            refused = [
                await batches.send(topic, 1, numbered(2_000, 2_001, 3 * MAX_BATCH_BYTES)),
                await batches.send(topic, 1, numbered(2_001, 5_001, 1_000)),  # in more than twenty batches
            ]
            for pending in refused:
                with pytest.raises(BrokerError, match=f"did not take messages for topic {topic} "):
                    await pending
        finally:
            with suppress(OutOfOrderSequenceNumber):
                await producer.stop()
        return [record async for record in read_topic(kafka_settings, topic)]

    stands = asyncio.run(asyncio.wait_for(scenario(), 60))
    for partition in (0, 1):
        values = [record.value for record in stands if record.partition == partition]
        assert numbers(values) == list(range(2_000))

"""Records of which the latest is as good as all, on a real Kafka."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ashi.contracts.errors import BrokerError
from ashi.contracts.topics import CANDLES_LIVE
from ashi.runtime.kafka.connections.clients import admin_client
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.kafka.producing import latest_batches
from ashi.runtime.kafka.producing.latest_batches import LatestBatches
from ashi.runtime.kafka.producing.record_batches import OutgoingRecord
from ashi.runtime.settings import Settings

HEADERS: list[tuple[str, bytes]] = [("schema", b"a")]


def records(first: int, count: int, size: int = 1) -> list[OutgoingRecord]:
    return [(b"%d" % number, b"x" * size, HEADERS) for number in range(first, first + count)]


async def found_in(settings: Settings) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    async for record in read_topic(settings, CANDLES_LIVE):
        assert (record.headers, record.timestamp_type) == (tuple(HEADERS), 1)
        found.setdefault(record.partition, []).append(int(record.key))
    return found


async def connected(settings: Settings) -> LatestBatches:
    batches = LatestBatches(settings, CANDLES_LIVE)
    assert not batches.is_connected
    await batches.connect()
    assert batches.is_connected
    assert batches.partitions() == settings.partitions
    return batches


def test_what_is_posted_stands_in_its_partition_in_order_however_much_it_is(kafka_settings: Settings) -> None:
    async def scenario() -> None:
        batches = await connected(kafka_settings)
        try:
            await batches.post({0: records(0, 5), 1: records(5, 40, 100_000)})
            await batches.post({0: records(45, 1)})
            assert await found_in(kafka_settings) == {0: [*range(5), 45], 1: [*range(5, 45)]}
        finally:
            await batches.close()
        await batches.close()
        assert not batches.is_connected

    asyncio.run(scenario())


def test_what_kafka_does_not_take_raises_soon_and_what_comes_after_it_is_taken(kafka_settings: Settings) -> None:
    """A producer that counts its batches would be refused from then on: one of them is missing."""

    async def scenario() -> None:
        batches = await connected(kafka_settings)
        client = batches._producer.client
        leader = client.cluster.leader_for_partition
        try:
            await batches.post({0: records(0, 1)})
            accumulator = batches._producer._message_accumulator
            assert accumulator._batch_ttl == latest_batches.REQUEST_TIMEOUT_MS / 1000
            accumulator._batch_ttl = 0.5
            client.cluster.leader_for_partition = lambda _: -1
            async with asyncio.timeout(20):
                with pytest.raises(BrokerError):
                    await batches.post({0: records(1, 1)})
            client.cluster.leader_for_partition, accumulator._batch_ttl = leader, 5.0
            await batches.post({0: records(2, 1)})
            assert await found_in(kafka_settings) == {0: [0, 2]}
            client.cluster.leader_for_partition = lambda _: -1
            cut_off = batches.post({0: records(3, 1)})
            await asyncio.sleep(0)
        finally:
            async with asyncio.timeout(latest_batches.CLOSE_BOUND_S + 5):
                await batches.close()
        with pytest.raises(asyncio.CancelledError):
            await cut_off

    asyncio.run(scenario())


def test_once_the_task_that_sends_has_ended_it_connects_anew(kafka_settings: Settings) -> None:
    async def fail(*_: object) -> None:
        raise ValueError("the library has an error")

    async def scenario() -> None:
        batches = await connected(kafka_settings)
        try:
            for ends_with_error in (True, False):
                sender, accumulator = batches._producer._sender, batches._producer._message_accumulator
                if ends_with_error:
                    sender._send_produce_req = fail
                else:
                    sender.sender_task.cancel()
                lost = batches.post({0: records(0, 1)})
                async with asyncio.timeout(60):
                    await asyncio.wait([sender.sender_task])
                    if ends_with_error:
                        with pytest.raises(BrokerError):
                            await lost
                    assert not batches.is_connected
                    await batches.connect()
                assert batches.is_connected
                assert lost.done()
                assert accumulator is not batches._producer._message_accumulator
                await batches.post({0: records(1, 1)})
            assert await found_in(kafka_settings) == {0: [1, 1]}
        finally:
            await batches.close()

    asyncio.run(scenario())


def test_a_topic_that_is_missing_is_told(kafka_settings: Settings) -> None:
    async def scenario() -> None:
        batches = await connected(kafka_settings)
        async with admin_client(kafka_settings) as client:
            await client.delete_topics([CANDLES_LIVE])
        try:
            known: Any = batches._producer.client.cluster
            known._partitions.pop(CANDLES_LIVE, None)
            with pytest.raises(BrokerError, match=r"topic candles\.live is not known to Kafka at .* any more"):
                batches.partitions()
        finally:
            await batches.close()

    asyncio.run(scenario())

"""Whoever asks a store calls no candle complete of which a gap is still to be read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from aiokafka import TopicPartition
from sink_samples import a_gap, a_status

from ashi.contracts.feed import FEED_GAP_SCHEMA, FEED_STATUS_SCHEMA, FeedGap, FeedStatus, encode_feed
from ashi.contracts.topics import CANDLES, CANDLES_DEAD, FEED_GAPS, FEED_STATUS
from ashi.runtime.kafka.connections.clients import make_producer, partition_of
from ashi.runtime.kafka.producing.dead_letters import message_headers
from ashi.runtime.settings import Settings
from ashi_sinks.consumer import KafkaSinkConsumer

POLLS = 12
"""So many, each with answers to several fetches: enough for a status that waits for nothing."""


async def publish(settings: Settings, at: int, messages: Iterable[FeedGap | FeedStatus]) -> None:
    producer = make_producer(settings)
    await producer.start()
    try:
        for message in messages:
            is_gap = isinstance(message, FeedGap)
            await producer.send_and_wait(
                FEED_GAPS if is_gap else FEED_STATUS,
                encode_feed(message),
                message.symbol.encode(),
                partition=at,
                headers=message_headers(FEED_GAP_SCHEMA if is_gap else FEED_STATUS_SCHEMA),
            )
    finally:
        await producer.stop()


@pytest.mark.kafka
def test_statuses_are_not_handed_out_while_the_gaps_cannot_be_read(kafka_settings: Settings) -> None:
    first, second = a_gap(0, state="lost"), a_gap(1, state="lost")
    status = a_status(complete_until=second.to_time)
    at = partition_of(status.symbol.encode(), kafka_settings.partitions)
    of_gaps = TopicPartition(FEED_GAPS, at)

    async def scenario() -> None:
        consumer = KafkaSinkConsumer(kafka_settings, "a-group", [CANDLES, FEED_GAPS, FEED_STATUS], CANDLES_DEAD)
        client = consumer._consumer

        async def read(polls: int = POLLS) -> list[Any]:
            found = []
            for _ in range(polls):
                spans = await consumer.poll(1, 0.3)
                found += [record.value for span in spans.values() for record in span.records]
            return found

        await publish(kafka_settings, at, [first])
        await consumer.start()
        try:
            while encode_feed(first) not in await read(1):
                pass
            client.pause(of_gaps)
            await publish(kafka_settings, at, [second, status])
            assert await read() == []
            assert TopicPartition(FEED_STATUS, at) in client.paused(), "no more is read of what cannot be handed out"
            client.resume(of_gaps)
            found: list[Any] = []
            while len(found) < 2:
                found += await read(1)
            assert found == [encode_feed(second), encode_feed(status)]
            assert client.paused() == set()
        finally:
            await consumer.close()

    asyncio.run(asyncio.wait_for(scenario(), 60))

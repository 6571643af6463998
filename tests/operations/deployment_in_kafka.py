"""What a deployment leaves in Kafka, written by hand: records of its topics, groups with members and offsets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiokafka import TopicPartition

from ashi.contracts.candle import CANDLE_SCHEMA, encode_candle
from ashi.contracts.feed import (
    FEED_GAP_SCHEMA,
    FEED_STATUS_SCHEMA,
    FeedGap,
    FeedState,
    FeedStatus,
    FeedWorker,
    encode_feed,
)
from ashi.contracts.topics import CANDLES, FEED_GAPS, FEED_STATUS
from ashi.runtime.kafka.connections.clients import make_consumer, make_producer
from ashi.runtime.kafka.connections.naming import kafka_name
from ashi.runtime.kafka.producing.transactions import TransactionalWriter
from ashi.runtime.settings import Settings
from samples.candles import a_candle

S = 1_000_000
MINUTE = 60 * S

Record = tuple[str, str, bytes, str]
"""Topic, key, value, schema."""


def now_us() -> int:
    return time.time_ns() // 1_000


def status(symbol: str, state: FeedState = "connected", *, age_us: int = 0, reason: str | None = None) -> Record:
    at = now_us() - age_us
    worker = FeedWorker("worker-1", state, at)
    message = FeedStatus(symbol, state, at - MINUTE, reason, "7", at - S, at, at - 2 * S, (worker,))
    return FEED_STATUS, symbol, encode_feed(message), FEED_STATUS_SCHEMA


def gap(symbol: str, state: Any, from_time: int, to_time: int, reason: str) -> Record:
    message = FeedGap(symbol, from_time, to_time, state, 0, reason, now_us())
    return FEED_GAPS, symbol, encode_feed(message), FEED_GAP_SCHEMA


def candle(symbol: str, close_time: int, *, version: int = 1) -> Record:
    """One of a minute."""
    message = a_candle(0, version, symbol, price="61837.63", open_time=close_time - MINUTE, close_time=close_time)
    return CANDLES, symbol, encode_candle(message), CANDLE_SCHEMA


async def write(settings: Settings, records: Sequence[Record]) -> None:
    producer = make_producer(settings)
    await producer.start()
    try:
        sent = [
            await producer.send(topic, key=key.encode(), value=value, headers=[("schema", schema.encode())])
            for topic, key, value, schema in records
        ]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


@asynccontextmanager
async def at_work(settings: Settings, group: str, *topics: str, left: int = 0) -> AsyncIterator[None]:
    """A member of a group that has all partitions, and has committed all but the last `left` records of each."""
    consumer = make_consumer(settings, *topics, group_id=group)
    await consumer.start()
    try:
        async with asyncio.timeout(30):
            while not consumer.assignment():
                await consumer.getmany(timeout_ms=100)
        ends = await consumer.end_offsets(consumer.assignment())
        await consumer.commit({at: max(end - left, 0) for at, end in ends.items()})
        polling = asyncio.create_task(_poll(consumer))
        yield
        polling.cancel()
        with suppress(asyncio.CancelledError):
            await polling
    finally:
        await consumer.stop()


async def commit_as_a_strategy(settings: Settings, group: str) -> None:
    """All candles that there are were read and their signals written, by a process that runs: it is in no group."""
    consumer = make_consumer(settings, group_id=None)
    await consumer.start()
    writer = TransactionalWriter(settings, group, whose="strategy")
    try:
        parts = [TopicPartition(kafka_name(settings, CANDLES), number) for number in range(settings.partitions)]
        ends = await consumer.end_offsets(parts)
        await writer.start()
        await writer.write([], {(CANDLES, at.partition): (end, "{}") for at, end in ends.items()})
    finally:
        await writer.close()
        await consumer.stop()


async def _poll(consumer: Any) -> None:
    while True:
        await consumer.getmany(timeout_ms=200)


@asynccontextmanager
async def heartbeats(settings: Settings, make: Callable[[], Sequence[Record]]) -> AsyncIterator[None]:
    """A feed that goes on saying how it is."""

    async def say() -> None:
        while True:
            await write(settings, make())
            await asyncio.sleep(0.3)

    saying = asyncio.create_task(say())
    try:
        yield
    finally:
        saying.cancel()
        with suppress(asyncio.CancelledError):
            await saying

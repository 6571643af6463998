"""Sink workers as processes on a real Kafka: what is published to them, and when they have stored it."""

from __future__ import annotations

import asyncio
import random

from sink_certification import a_candle

from ashi.contracts.candle import CANDLE_SCHEMA, encode_candle
from ashi.contracts.feed import FEED_GAP_SCHEMA, FeedGap, encode_feed
from ashi.contracts.topics import CANDLES, FEED_GAPS
from ashi.runtime.kafka.connections.clients import make_producer, partition_of
from ashi.runtime.kafka.producing.dead_letters import message_headers


async def publish(settings, messages):
    """Send candles, gaps, or (topic, key, bytes) as they are, in order."""
    producer = make_producer(settings)
    await producer.start()
    try:
        sent = []
        for message in messages:
            topic, key, value, schema = as_record(message)
            partition = partition_of(key, settings.partitions)
            sent.append(await producer.send(topic, value, key, partition=partition, headers=message_headers(schema)))
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


def as_record(message):
    if isinstance(message, tuple):
        return *message, FEED_GAP_SCHEMA if message[0] == FEED_GAPS else CANDLE_SCHEMA
    if isinstance(message, FeedGap):
        return FEED_GAPS, message.symbol.encode(), encode_feed(message), FEED_GAP_SCHEMA
    return CANDLES, message.symbol.encode(), encode_candle(message), CANDLE_SCHEMA


def many_candles(windows, seed=1):
    """Candles of 12 symbols; a third of the windows come again, corrected, repeated or outdated."""
    dice = random.Random(seed)
    candles = []
    for minute in range(windows):
        for symbol in range(12):
            candle = a_candle(minute, version=1_000 + minute, symbol=f"binance:S{symbol}", price=str(minute + 1))
            candles.append(candle)
            if minute > 5 and dice.random() < 0.33:
                step = dice.choice([-1, 0, 1])
                back = minute - dice.randrange(5)
                candles.append(a_candle(back, 1_000 + back + step, candle.symbol, price=str(9_000_000 + minute)))
    return candles

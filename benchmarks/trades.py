"""Synthetic trades for the benchmarks: many symbols, light disorder, the same for the same seed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Iterable
from decimal import Decimal
from typing import Any

from ashi.contracts import Trade, encode_trade
from ashi.contracts.topics import TRADES
from ashi.contracts.trade import TRADE_SCHEMA
from ashi.runtime.kafka.connections.clients import make_producer, partition_of
from ashi.runtime.kafka.producing.dead_letters import message_headers
from ashi.runtime.settings import Settings

START_US = 1_700_000_040_000_000
BETWEEN_US = 500
"""2,000 trades a second of data time."""
DISORDER_US = 500_000
START_ID = 3_000_000_000
HEADERS = message_headers(TRADE_SCHEMA)
"""As `ashi ingest` writes them."""


def names_of(symbols: int) -> list[str]:
    """The symbols' names."""
    return [f"binance:S{number}USDT" for number in range(symbols)]


def make_messages(
    count: int,
    symbols: int,
    seed: int = 1,
    *,
    scattered: bool = False,
    start_us: int = START_US,
    between_us: float = BETWEEN_US,
    start_id: int = START_ID,
) -> list[tuple[bytes, bytes]]:
    """Encoded trades with their keys, in publishing order, `between_us` (µs) of data time apart.

    Ids count up by symbol, as Binance's do, or by venue if `scattered`, as those of bitFlyer's spot markets do.
    """
    rng = random.Random(seed)
    names = names_of(symbols)
    ids = dict.fromkeys(names, start_id)
    messages = []
    for number in range(count):
        traded_at = start_us + int(number * between_us) - rng.randint(0, DISORDER_US)
        symbol = rng.choice(names)
        ids[symbol] = start_id + number if scattered else ids[symbol] + 1
        trade = Trade(
            symbol=symbol,
            trade_id=str(ids[symbol]),
            price=Decimal(rng.randint(2_600_000, 2_700_000)) / 1000,
            size=Decimal(rng.randint(1, 10**9)) / 10**8,
            side=rng.choice(("buy", "sell")),
            traded_at=traded_at,
            received_at=traded_at + 50_000,
            sequence=ids[symbol],
        )
        messages.append((trade.symbol.encode(), encode_trade(trade)))
    return messages


async def send_in_batches(
    producer: Any, topic: str, messages: Iterable[tuple[int, bytes, bytes]]
) -> list[Awaitable[object]]:
    """Hand (partition, key, value) to a producer, in order, by whole batches; what comes back ends with Kafka's word.

    A message at a time takes four times as long.
    """
    batches: dict[int, Any] = {}
    sent = []
    for partition, key, value in messages:
        batch = batches.get(partition)
        if batch is None:
            batch = batches[partition] = producer.create_batch()
        if batch.append(key=key, value=value, timestamp=None, headers=HEADERS) is None:
            sent.append(await producer.send_batch(batch, topic, partition=partition))
            batch = batches[partition] = producer.create_batch()
            if batch.append(key=key, value=value, timestamp=None, headers=HEADERS) is None:
                raise ValueError(f"a message of {len(value)} bytes is too large for a batch of this producer")
    sent += [await producer.send_batch(batch, topic, partition=partition) for partition, batch in batches.items()]
    return sent


async def publish(settings: Settings, messages: list[tuple[bytes, bytes]], topic: str = TRADES) -> None:
    """Publish (key, value) and wait until Kafka has them."""
    producer = make_producer(settings)
    await producer.start()
    try:
        placed = ((partition_of(key, settings.partitions), key, value) for key, value in messages)
        await asyncio.gather(*await send_in_batches(producer, topic, placed))
    finally:
        await producer.stop()

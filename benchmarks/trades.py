"""Synthetic trades for the benchmarks: many symbols, light disorder, the same for the same seed."""

from __future__ import annotations

import asyncio
import random
from decimal import Decimal

from ashi.contracts import Trade, encode_trade
from ashi.contracts.topics import TRADES
from ashi.runtime.kafka.clients import make_producer, partition_of
from ashi.runtime.settings import Settings

START_US = 1_700_000_040_000_000
BETWEEN_US = 500
"""2,000 trades a second of data time."""
DISORDER_US = 500_000
START_ID = 3_000_000_000


def make_messages(count: int, symbols: int, seed: int = 1, *, scattered: bool = False) -> list[tuple[bytes, bytes]]:
    """Encoded trades with their keys, in publishing order.

    Ids count up by symbol, as Binance's do, or by venue if `scattered`, as those of bitFlyer's spot markets do.
    """
    rng = random.Random(seed)
    names = [f"binance:S{number}USDT" for number in range(symbols)]
    ids = dict.fromkeys(names, START_ID)
    messages = []
    for number in range(count):
        traded_at = START_US + number * BETWEEN_US - rng.randint(0, DISORDER_US)
        symbol = rng.choice(names)
        ids[symbol] = START_ID + number if scattered else ids[symbol] + 1
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


async def publish(settings: Settings, messages: list[tuple[bytes, bytes]]) -> None:
    """Publish to topic `trades` by whole batches; a message at a time takes four times as long."""
    producer = make_producer(settings)
    await producer.start()
    try:
        queues: dict[int, list[tuple[bytes, bytes]]] = {}
        for key, value in messages:
            queues.setdefault(partition_of(key, settings.partitions), []).append((key, value))
        sent = []
        for partition, queue in queues.items():
            batch = producer.create_batch()
            for key, value in queue:
                if batch.append(key=key, value=value, timestamp=None) is None:
                    sent.append(await producer.send_batch(batch, TRADES, partition=partition))
                    batch = producer.create_batch()
                    batch.append(key=key, value=value, timestamp=None)
            sent.append(await producer.send_batch(batch, TRADES, partition=partition))
        await asyncio.gather(*sent)
    finally:
        await producer.stop()

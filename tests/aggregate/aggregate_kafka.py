"""What tests of the aggregate worker on a real Kafka publish, wait for and compare."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import msgspec

from ashi.contracts import Trade, decode_candle, encode_trade
from ashi.contracts.topics import (
    AGGREGATE_APP,
    CANDLES,
    TRADES,
    TRADES_LATE,
)
from ashi.runtime.kafka.cluster.offsets import committed_offsets, end_offsets
from ashi.runtime.kafka.connections.clients import make_producer
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.kafka.producing.dead_letters import trade_place
from ashi.runtime.settings import Settings
from oracle import candles_of, closed, stored, timely
from samples.hypothesis_strategies import START, drawn_trade

NAMES = ["1m", "5m", "1h"]
SYMBOLS = ["binance:币安人生USDT", *(f"binance:S{number}USDT" for number in range(23))]


def steady_trades(count: int, seed: int = 1) -> list[Trade]:
    """Many symbols, disorder within the lateness, and some trades late within and beyond the horizon."""
    rng = random.Random(seed)
    log = []
    for sequence in range(count):
        behind = rng.choice([0] * 95 + [rng.randint(0, 100_000_000)] * 4 + [rng.randint(200_000_000, 300_000_000)])
        traded_at = START + sequence * 60_000 + rng.randint(0, 1_900_000) - behind
        log.append(drawn_trade(rng, SYMBOLS, str(sequence), traded_at, sequence))
    return log


def at(trade: Trade, traded_at: int) -> Trade:
    """The trade at another time, and so another trade."""
    return msgspec.structs.replace(
        trade, traded_at=traded_at, received_at=traded_at, trade_id=f"{trade.trade_id}-{traded_at}"
    )


async def publish(settings: Settings, trades: list[Trade], **options: Any) -> None:
    producer = make_producer(settings, **options)
    await producer.start()
    sent = [await producer.send(TRADES, key=t.symbol.encode(), value=encode_trade(t)) for t in trades]
    await asyncio.gather(*sent)
    await producer.stop()


async def aggregated(settings: Settings, timeout_s: float = 60) -> None:
    """Wait until every trade has been aggregated and committed."""
    ends = {partition: end for partition, end in (await end_offsets(settings, TRADES)).items() if end}
    deadline = time.monotonic() + timeout_s
    while (done := await committed_offsets(settings, AGGREGATE_APP, TRADES)) != ends:
        assert time.monotonic() < deadline, f"aggregated only up to {done} of {ends}"
        await asyncio.sleep(0.1)


async def messages(settings: Settings, topic: str) -> list[Any]:
    return [record async for record in read_topic(settings, topic)]


async def check(settings: Settings, log: list[Trade]) -> None:
    candles = [decode_candle(record.value) for record in await messages(settings, CANDLES)]
    counted = timely(log, "1m", 120_000_000)
    assert stored(candles) == closed(candles_of(counted, NAMES), log, 2_000_000)
    late = {trade_place(record.headers) for record in await messages(settings, TRADES_LATE)}
    assert len(late) == len(log) - len(counted)


async def ended(stage: Any, timeout_s: float = 60) -> str:
    """The log of a stage that has ended by itself with an error."""
    status = await asyncio.to_thread(stage.process.wait, timeout_s)
    text: str = stage.log.read_text()
    assert status == 1, text[-3000:]
    return text


async def candles(settings: Settings) -> dict[Any, Any]:
    return stored([decode_candle(record.value) for record in await messages(settings, CANDLES)])

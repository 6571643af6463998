"""What the tests of `ashi verify` and `ashi rebuild` share: logs with late trades, stores of candles, waiting."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from ashi.contracts import Candle, Timeframe, Trade, decode_candle, encode_trade
from ashi.contracts.feed import FeedGap
from ashi.contracts.topics import CANDLES, TRADES
from ashi.runtime.kafka.cluster.offsets import committed_offsets, end_offsets
from ashi.runtime.kafka.connections.clients import admin_client, make_producer
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.settings import Settings
from ashi_aggregate.core.symbol import SymbolAggregator
from ashi_aggregate.core.window_state import WindowRules
from ashi_ingest.recording.format import Line, read_recording
from ashi_ingest.venues.registry import VENUES
from ashi_sinks.registry import make_sink
from samples.hypothesis_strategies import START, drawn_lateness_us, drawn_trade

ETH = "binance:ETHUSDT"
MINUTE = 60_000_000
NAMES = ["1m", "5m", "1h"]
SYMBOLS = [f"binance:S{number}USDT" for number in range(12)]
HORIZON = 120_000_000
SETTLED = HORIZON + MINUTE + 1_000_000
"""So long after its end, by the newest trade, a window is final and its neighbour too."""


def some_trades(count: int, seed: int, begin: int = START, step_us: int = 300_000) -> list[Trade]:
    """Disorder, copies, and trades that are late within the horizon and beyond it; two symbols are often quiet."""
    rng = random.Random(seed)
    log: list[Trade] = []
    for number in range(count):
        behind = drawn_lateness_us(rng)
        traded_at = max(begin + number * step_us + rng.randint(0, 1_900_000) - behind, begin)
        busy = number % 2_000 < 400
        log.append(drawn_trade(rng, SYMBOLS if busy else SYMBOLS[2:], f"{seed}{number:06}", traded_at, number))
        if rng.random() < 0.02:
            log.append(rng.choice(log[-500:]))
    return log


async def publish(settings: Settings, trades: list[Trade]) -> None:
    producer = make_producer(settings)
    await producer.start()
    sent = [await producer.send(TRADES, key=t.symbol.encode(), value=encode_trade(t)) for t in trades]
    await asyncio.gather(*sent)
    await producer.stop()


async def reached(settings: Settings, group: str, topic: str, timeout_s: float = 60) -> None:
    """Wait until a group has committed all of a topic."""
    ends = await end_offsets(settings, topic)
    deadline = time.monotonic() + timeout_s
    while True:
        done = await committed_offsets(settings, group, topic)
        if all(done.get(partition, 0) >= end for partition, end in ends.items()):
            return
        assert time.monotonic() < deadline, f"only up to {done} of {ends}"
        await asyncio.sleep(0.1)


async def published(settings: Settings) -> list[Any]:
    return [decode_candle(record.value) async for record in read_topic(settings, CANDLES)]


def iso(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1e6, UTC).isoformat()


def span(begin: int = START - 3_600_000_000, end: int = START + 10 * 3_600_000_000) -> list[str]:
    return ["--from", iso(begin), "--to", iso(end)]


async def expire(settings: Settings, topic: str, part: float) -> None:
    """Let the beginning of each partition of a topic expire."""
    ends = await end_offsets(settings, topic)
    async with admin_client(settings) as client:
        await client.delete_records(
            {TopicPartition(topic, number): RecordsToDelete(int(end * part)) for number, end in ends.items() if end}
        )


def recorded(venue: str, paths: list[Path]) -> list[Any]:
    parser = VENUES[venue].parser()
    lines = [line for path in paths for line in read_recording(path) if isinstance(line, Line)]
    return [trade for line in lines for trade in parser.parse(line.frame, line.received_at).trades]


def live(trades: list[Any]) -> list[Candle]:
    """What workers make of trades, with all corrections."""
    candles: dict[Any, Candle] = {}
    timeframes = [Timeframe.parse(name) for name in NAMES]
    for symbol in {trade.symbol for trade in trades}:
        aggregator = SymbolAggregator(timeframes, WindowRules(finest=timeframes[0]))
        of = [trade for trade in trades if trade.symbol == symbol]
        found = [*aggregator.on_trades(of, list(range(len(of)))).candles, *aggregator.corrections()]
        candles |= {(c.symbol, c.timeframe, c.open_time): c for c in found}
    return list(candles.values())


def store(tmp_path: Path, candles: list[Candle], gaps: list[FeedGap] = []) -> str:  # noqa: B006
    url = f"sqlite:///{tmp_path}/candles.db"

    async def fill() -> None:
        sink = make_sink(url)
        await sink.open()
        await sink.write(candles)
        await sink.write_gaps(gaps)
        await sink.close()

    asyncio.run(fill())
    return url


def change(url: str, statement: str) -> None:
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        assert connection.execute(statement).rowcount > 0
    connection.close()


def as_json(out: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    *rows, last = map(json.loads, out.splitlines())
    return rows, last["summary"]

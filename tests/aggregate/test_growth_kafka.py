"""`ashi topics grow` on a real Kafka: broken off at every step, with somebody who publishes, under a sink that runs."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aggregate_kafka import aggregated

from ashi.contracts import Candle, Trade, encode_trade
from ashi.contracts.candle import DECIMAL_FIELDS
from ashi.contracts.errors import StateError, UsageError
from ashi.contracts.feed import FEED_STATUS_SCHEMA, FeedStatus, encode_feed
from ashi.contracts.topics import FEED_STATUS, META, TRADES, TRADES_DEAD, topic_specs
from ashi.runtime.kafka.cluster.topics import partition_counts
from ashi.runtime.kafka.connections.clients import make_producer, partition_of
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.kafka.producing.dead_letters import message_headers
from ashi.runtime.settings import Settings
from ashi_aggregate import growth
from ashi_aggregate.growth import grow
from oracle import candles_of, closed, stored, timely
from samples.hypothesis_strategies import START, drawn_trade

pytestmark = pytest.mark.kafka

NAMES = ["1m", "5m", "1h"]
SYMBOLS = [f"binance:S{number}USDT" for number in range(24)]
MORE = 10
"""Not a multiple of what there were: symbols move between the old ones too."""
MINUTE = 60_000_000


def trades_of(begin: int, end: int, seed: int) -> list[Trade]:
    """Trades from one minute to another, each symbol's first ones in order, later ones late within and beyond it."""
    rng = random.Random(seed)
    log = []
    for number in range(begin * 40, end * 40):
        is_first = number - begin * 40 < 200
        behind = 0 if is_first else rng.choice([0] * 95 + [rng.randint(0, 100_000_000)] * 4 + [250_000_000])
        traded_at = START + number * 1_500_000 + rng.randint(0, 1_400_000) - behind
        log.append(drawn_trade(rng, SYMBOLS, f"{seed}-{number}", traded_at, number))
    return log


async def publish(settings: Settings, trades: list[Trade], partitions: int) -> None:
    """As an ingest worker does that has known so many partitions since its start."""
    producer = make_producer(settings)
    await producer.start()
    for trade in trades:
        key = trade.symbol.encode()
        await producer.send(TRADES, encode_trade(trade), key, partition=partition_of(key, partitions))
    await producer.stop()


class BrokenOffError(Exception):
    pass


def broken_off(*_: Any, **__: Any) -> Any:
    raise BrokenOffError


async def broken_off_later(*_: Any, **__: Any) -> Any:
    raise BrokenOffError


def broken_after(calls: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that fails from one call on."""
    left = iter(range(calls))

    async def call(*arguments: Any, **options: Any) -> Any:
        if next(left, None) is None:
            raise BrokenOffError
        return await function(*arguments, **options)

    return call


def rows_in(path: Path) -> dict[Any, dict[str, Any]]:
    """What a store holds, as the oracle says it."""
    with sqlite3.connect(path) as db:
        db.row_factory = sqlite3.Row
        rows = [dict(row) for row in db.execute("SELECT * FROM candles")]
    exact = [{name: Decimal(value) if name in DECIMAL_FIELDS else value for name, value in row.items()} for row in rows]
    return stored([msgspec.convert(row, Candle) for row in exact])


async def until_stored(path: Path, expected: dict[Any, Any]) -> None:
    deadline = time.monotonic() + 60
    while (found := rows_in(path)) != expected:
        assert time.monotonic() < deadline, f"{len(found)} of {len(expected)} candles stored, or others"
        await asyncio.sleep(0.2)


@pytest.mark.slow
def test_topics_that_grow_leave_the_oracles_candles_wherever_it_is_broken_off(
    kafka_settings, start_stage, monkeypatch, tmp_path
):
    """Four partitions become ten; what was open goes on, what an ingest worker publishes that nobody stopped counts."""
    before = kafka_settings.partitions
    old, recent, stray, late_stray, after = (
        trades_of(begin, end, seed)
        for seed, (begin, end) in enumerate([(0, 100), (100, 150), (150, 155), (155, 160), (160, 200)])
    )
    store = tmp_path / "candles.db"
    said: list[str] = []

    async def attempt(since: int, **replaced: Any) -> None:
        with monkeypatch.context() as patch:
            for name, value in replaced.items():
                patch.setattr(growth, name, value)
            with pytest.raises((BrokenOffError, StateError)) as caught:
                await grow(kafka_settings, MORE, since, tell=said.append)
        said.append(f"{type(caught.value).__name__}: {caught.value}")

    async def scenario() -> None:
        sink = start_stage("sink", "sqlite", "--storage", f"sqlite:///{store}")
        await asyncio.to_thread(sink.wait_for, "storing candles")
        worker = start_stage("aggregate")
        await publish(kafka_settings, old, before)
        await aggregated(kafka_settings)
        await asyncio.sleep(0.01)
        since = time.time_ns() // 1_000
        await publish(kafka_settings, recent, before)
        await aggregated(kafka_settings)
        await attempt(since)
        assert "aggregate workers run" in said[-1]
        worker.signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.process.wait, 25) == 0
        await until_stored(
            store, closed(candles_of(timely(old + recent, "1m", 120_000_000), NAMES), old + recent, 2_000_000)
        )

        await attempt(since, _grow_some=broken_off_later)  # nothing has changed
        await attempt(since, _grow_some=broken_after(0, growth._grow_some))
        await attempt(since, make_producer=broken_off)  # all but the state have their partitions
        assert (await partition_counts(kafka_settings))[TRADES] == MORE
        refused = start_stage("aggregate")
        assert await asyncio.to_thread(refused.process.wait, 40) == 1
        assert "they must be the same" in refused.log.read_text()
        anew = start_stage("aggregate", "reconfigure")
        assert await asyncio.to_thread(anew.process.wait, 40) == 1
        assert "ashi topics grow --partitions 10" in anew.log.read_text()
        with pytest.raises(UsageError, match="--partitions 10"):
            await grow(kafka_settings, 12, since, tell=said.append)

        real = growth.RecordBatches.send
        monkeypatch.setattr(growth.RecordBatches, "send", broken_after(10, real))
        await attempt(since)  # in the middle of the copies
        monkeypatch.setattr(growth.RecordBatches, "send", real)

        await publish(kafka_settings, stray, before)  # who knows four partitions, and one that was started since

        async def and_somebody_publishes(settings: Settings) -> Any:
            ends = await growth_ends(settings)
            await publish(settings, late_stray, MORE)
            return ends

        growth_ends = growth._settled_ends
        await attempt(since, _settled_ends=and_somebody_publishes)
        assert "somebody has published to topic trades" in said[-1]
        await attempt(since, begin_epoch=broken_off_later)
        await attempt(
            since, _grow_some=broken_after(1, growth._grow_some)
        )  # the state is begun, and has no partitions yet
        refused = start_stage("aggregate")
        assert await asyncio.to_thread(refused.process.wait, 40) == 1
        await grow(kafka_settings, MORE, tell=said.append)
        await grow(kafka_settings, MORE, tell=said.append)  # there is nothing left to do

        counts = await partition_counts(kafka_settings)
        assert {counts[spec.name] for spec in topic_specs(MORE, kafka_settings.timeframes) if spec.name != META} == {
            MORE
        }
        start_stage("aggregate")
        await publish(kafka_settings, after, MORE)
        everything = old + recent + stray + late_stray + after
        counted = timely(everything, "1m", 120_000_000)
        await until_stored(store, closed(candles_of(counted, NAMES), everything, 2_000_000))
        assert not [record async for record in read_topic(kafka_settings, TRADES_DEAD)]

    asyncio.run(scenario())


def test_topics_do_not_grow_beside_a_feed_that_lives(kafka_settings):
    async def scenario() -> None:
        now = time.time_ns() // 1_000
        status = FeedStatus("binance:BTCUSDT", "connected", now, None, None, None, now)
        producer = make_producer(kafka_settings)
        await producer.start()
        await producer.send_and_wait(
            FEED_STATUS, encode_feed(status), status.symbol.encode(), headers=message_headers(FEED_STATUS_SCHEMA)
        )
        await producer.stop()
        with pytest.raises(StateError, match=r"1 feeds have said something, one of them binance:BTCUSDT"):
            await grow(kafka_settings, MORE, tell=print)
        assert (await partition_counts(kafka_settings))[TRADES] == kafka_settings.partitions
        with pytest.raises(UsageError, match="Kafka takes none away"):
            await grow(kafka_settings, kafka_settings.partitions - 1, tell=print)

    asyncio.run(scenario())

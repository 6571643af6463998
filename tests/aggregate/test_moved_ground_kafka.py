"""The ground moves under workers of a real Kafka: a topic made anew, changelogs lost."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from typing import Any

import pytest
from aggregate_kafka import NAMES, SYMBOLS, aggregated, at, candles, ended, messages, publish, steady_trades

from ashi.contracts import Trade
from ashi.contracts.timeframe import parse_timeframes
from ashi.contracts.topics import MARKERS_TABLE, TRADES, changelog_topic, table_name
from ashi.runtime.kafka.connections.clients import make_producer, partition_of
from ashi.runtime.settings import Settings
from kafka_topics.fresh_topics import renew_topics
from kafka_topics.made_anew import make_anew
from oracle import candles_of, closed, timely

pytestmark = pytest.mark.kafka

HORIZON_US, LATENESS_US = 120_000_000, 2_000_000
TABLES = [changelog_topic(table_name(timeframe)) for timeframe in parse_timeframes(",".join(NAMES))]


async def stop(stage: Any) -> None:
    stage.process.terminate()
    assert await asyncio.to_thread(stage.process.wait, 30) == 0, stage.log.read_text()[-3000:]


def test_a_topic_made_anew_is_noticed_by_the_worker_that_runs_and_at_every_start_however_long_it_is(
    kafka_settings, start_stage
):
    log = steady_trades(3_000, seed=8)

    async def scenario() -> None:
        await publish(kafka_settings, log)
        worker = start_stage("aggregate")
        await aggregated(kafka_settings)
        await make_anew(kafka_settings, TRADES)
        later = [at(trade, trade.traded_at + 900_000_000) for trade in log]
        await publish(kafka_settings, later[:1000])
        texts = [await ended(worker), await ended(start_stage("aggregate"))]
        await publish(kafka_settings, [at(trade, trade.traded_at + 1_000_000_000) for trade in later])
        before = await candles(kafka_settings)
        texts.append(await ended(start_stage("aggregate")))
        for text in texts:
            assert "is not the log that its state has read: offset" in text
            assert "ashi aggregate reconfigure" in text
            assert "ashi verify" in text
            assert "bug" not in text
        assert await candles(kafka_settings) == before

    asyncio.run(scenario())


async def lose_partition(settings: Settings, topic: str, partition: int) -> None:
    """What one partition of a topic held is gone; all others have what they had."""
    kept = [record for record in await messages(settings, topic) if record.partition != partition]
    await make_anew(settings, topic)
    producer = make_producer(settings)
    await producer.start()
    for record in kept:
        await producer.send(topic, key=record.key, value=record.value, partition=record.partition)
    await producer.stop()


@pytest.mark.slow
def test_changelogs_are_lost_and_the_log_makes_them_again(kafka_settings, start_stage):
    """A table, the markers, all of it, one partition of a table; any rows of any: `test_moved_ground.py`, on a log in
    memory. It is said where the marker is left, which tells what was there."""
    names = NAMES[:2]
    settings = dataclasses.replace(kafka_settings, timeframes=parse_timeframes(",".join(names)))
    tables, markers = TABLES[:2], changelog_topic(MARKERS_TABLE)
    combinations = [(tables[0],), (markers,), (*tables, markers)]
    trades = iter(steady_trades(600 * (len(combinations) + 3), seed=9))
    log: list[Trade] = []

    async def work() -> str:
        """More trades, and a worker that aggregates them; what it has logged."""
        more = list(itertools.islice(trades, 600))
        log.extend(more)
        await publish(settings, more)
        worker = start_stage("aggregate", ASHI_TIMEFRAMES=",".join(names))
        await aggregated(settings)
        await stop(worker)
        return str(worker.log.read_text())

    async def scenario() -> None:
        await renew_topics(settings)
        await work()
        for lost in combinations:
            await make_anew(settings, *lost)
            said = await work()
            is_told = markers not in lost
            assert ("state lacks rows, rebuilding it from the log" in said) == is_told, (lost, said[-3000:])
            assert not is_told or any(f"(topic {topic})" in said for topic in lost)
        number = partition_of(SYMBOLS[0].encode(), settings.partitions)
        await lose_partition(settings, tables[1], number)
        lines = [line for line in (await work()).splitlines() if "state lacks rows" in line]
        assert len(lines) == 1, lines
        assert f"in partition {number} " in lines[0]
        assert "state lacks rows" not in await work()
        wanted = closed(candles_of(timely(log, names[0], HORIZON_US), names), log, LATENESS_US)
        assert await candles(settings) == wanted

    asyncio.run(scenario())

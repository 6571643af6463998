"""The ground moves under workers of a real Kafka: a topic made anew, changelogs lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from test_aggregate_kafka import NAMES, aggregated, at, messages, publish, steady_trades

from ashi.contracts import decode_candle
from ashi.contracts.timeframe import parse_timeframes
from ashi.contracts.topics import CANDLES, MARKERS_TABLE, TRADES, changelog_topic, table_name
from ashi.runtime.settings import Settings
from made_anew import make_anew
from oracle import candles_of, closed, stored, timely

pytestmark = pytest.mark.kafka

HORIZON_US, LATENESS_US = 120_000_000, 2_000_000
TABLES = [changelog_topic(table_name(timeframe)) for timeframe in parse_timeframes(",".join(NAMES))]


async def ended(stage: Any, timeout_s: float = 60) -> str:
    """The log of a stage that has ended by itself with an error."""
    status = await asyncio.to_thread(stage.process.wait, timeout_s)
    text: str = stage.log.read_text()
    assert status == 1, text[-3000:]
    return text


async def stop(stage: Any) -> None:
    stage.process.terminate()
    assert await asyncio.to_thread(stage.process.wait, 30) == 0, stage.log.read_text()[-3000:]


async def candles(settings: Settings) -> dict[Any, Any]:
    return stored([decode_candle(record.value) for record in await messages(settings, CANDLES)])


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


def test_rows_whose_changelog_was_lost_are_made_again_from_the_log_and_the_worker_says_so(kafka_settings, start_stage):
    log = steady_trades(6_000, seed=9)

    async def scenario() -> None:
        await publish(kafka_settings, log[:3_000])
        worker = start_stage("aggregate")
        await aggregated(kafka_settings)
        await stop(worker)
        await make_anew(kafka_settings, TABLES[0])  # one table of several
        await publish(kafka_settings, log[3_000:4_000])
        worker = start_stage("aggregate")
        await aggregated(kafka_settings)
        await stop(worker)
        assert "state lacks rows, rebuilding it from the log" in worker.log.read_text()
        assert TABLES[0] in worker.log.read_text()
        await make_anew(kafka_settings, *TABLES)
        await publish(kafka_settings, log[4_000:5_000])
        worker = start_stage("aggregate")
        await aggregated(kafka_settings)
        await stop(worker)
        assert "state lacks rows, rebuilding it from the log" in worker.log.read_text()
        await make_anew(kafka_settings, changelog_topic(MARKERS_TABLE))  # rows without a marker read the log again
        await publish(kafka_settings, log[5_000:])
        worker = start_stage("aggregate")
        await aggregated(kafka_settings)
        await stop(worker)
        wanted = closed(candles_of(timely(log, NAMES[0], HORIZON_US), NAMES), log, LATENESS_US)
        assert await candles(kafka_settings) == wanted
        worker = start_stage("aggregate")
        await asyncio.to_thread(worker.wait_for, "ready")
        assert "state lacks rows" not in worker.log.read_text()

    asyncio.run(scenario())

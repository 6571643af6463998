"""A worker on a machine whose clock is wrong, or that stood still, with a real Kafka whose clock is right."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
import platform
import signal
import time
from decimal import Decimal
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from ashi.contracts import Candle, Trade, decode_candle, encode_trade, parse_timeframes
from ashi.contracts.topics import CANDLES, TRADES, topic_specs
from ashi.runtime.kafka.cluster.topics import create_topics
from ashi.runtime.kafka.connections.clients import admin_client, make_producer, partition_of
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.settings import Settings
from kafka_topics.fresh_topics import delete_topics, renew_topics
from oracle import candles_of, stored

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif((platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="libfaketime's library"),
]

FOUND = importlib.util.find_spec("libfaketime")
assert FOUND is not None
LIBRARY = Path(str(FOUND.origin)).parent / "vendor/libfaketime/src/libfaketime.so.1"
SYMBOLS = [f"binance:S{number}USDT" for number in range(4)]
NAMES = ["1s", "1m"]


@pytest.fixture
def by_the_second(kafka_settings: Settings) -> Settings:
    """Settings with the timeframes 1s and 1m, and their topics."""
    settings = dataclasses.replace(kafka_settings, timeframes=parse_timeframes(",".join(NAMES)))
    asyncio.run(renew_topics(settings))
    return settings


class Market:
    """Publishes trades of this moment."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.log: list[Trade] = []

    async def trade(self, symbols: list[str] = SYMBOLS) -> None:
        producer = make_producer(self.settings)
        await producer.start()
        for symbol in symbols:
            now, number = time.time_ns() // 1000, len(self.log)
            trade = Trade(symbol, str(number), Decimal(number % 9 + 1), Decimal(1), "buy", now, now, number)
            self.log.append(trade)
            await producer.send_and_wait(TRADES, key=symbol.encode(), value=encode_trade(trade))
        await producer.stop()

    async def trade_for(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await self.trade()
            await asyncio.sleep(0.4)


async def candles(settings: Settings) -> list[Candle]:
    return [decode_candle(record.value) async for record in read_topic(settings, CANDLES)]


def wrong_clock(file: Path) -> dict[str, str]:
    """The environment of a process whose wall clock is as far ahead as the file says; its other clocks are right."""
    return {
        "LD_PRELOAD": str(LIBRARY),
        "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": "1",
    }


def test_a_clock_an_hour_ahead_that_is_set_right_sends_no_candle_of_the_future_and_none_again_and_again(
    by_the_second, start_stage, tmp_path
):
    async def scenario() -> None:
        clock = tmp_path / "clock"
        clock.write_text("+3600s")
        market = Market(by_the_second)
        worker = start_stage("aggregate", ASHI_TIMEFRAMES=",".join(NAMES), ASHI_QUIET_CLOSE="on", **wrong_clock(clock))
        await asyncio.to_thread(worker.wait_for, "ready")
        await market.trade_for(6)
        await asyncio.to_thread(worker.wait_for, "clock is not Kafka's")
        clock.write_text("+0s")
        await asyncio.to_thread(worker.wait_for, "clock has been set while the worker runs")
        await market.trade_for(4)
        until = time.time_ns() // 1000
        deadline = time.monotonic() + 30
        sent: list[Candle] = []
        while not any(candle.open_time > until for candle in sent):
            assert time.monotonic() < deadline, "quiet windows do not close"
            await asyncio.sleep(0.2)
            sent = await candles(by_the_second)
        assert max(candle.open_time for candle in sent) < time.time_ns() // 1000
        kept = stored(sent)
        assert len(sent) <= 5 * len(kept)
        of_trades = candles_of(market.log, ["1s"])
        assert len(of_trades) > 20
        assert {key: kept[key] for key in of_trades} == of_trades

    asyncio.run(scenario())


def test_a_clock_two_hours_ahead_whose_records_kafka_refuses_is_named_with_how_far_it_is(
    by_the_second, start_stage, tmp_path
):
    async def scenario() -> None:
        specs = topic_specs(by_the_second.partitions, by_the_second.timeframes)
        as_before = [
            spec if spec.name == TRADES else dataclasses.replace(spec, config={"cleanup.policy": "delete"})
            for spec in specs
        ]
        await delete_topics(by_the_second)
        await create_topics(by_the_second, as_before)
        await Market(by_the_second).trade()
        clock = tmp_path / "clock"
        clock.write_text("+7200s")
        worker = start_stage("aggregate", ASHI_TIMEFRAMES=",".join(NAMES), **wrong_clock(clock))
        assert await asyncio.to_thread(worker.process.wait, 60) == 1
        text = worker.log.read_text()
        assert "refuses records from this machine, whose clock says" in text
        assert "at most 2:00:" in text
        assert "please report" not in text

    asyncio.run(scenario())


def test_a_worker_that_stood_still_while_what_it_had_not_read_expired_ends_without_a_candle_of_it(
    by_the_second, start_stage
):
    async def scenario() -> None:
        market = Market(by_the_second)
        worker = start_stage(
            "aggregate",
            ASHI_TIMEFRAMES=",".join(NAMES),
            ASHI_QUIET_CLOSE="on",
            ASHI_ALLOWED_LATENESS="6s",
            ASHI_CHECKPOINT_INTERVAL="50ms",
            ASHI_SESSION_TIMEOUT="20s",
        )
        await asyncio.to_thread(worker.wait_for, "ready")
        await market.trade(SYMBOLS[:1])
        await asyncio.sleep(2)  # it is read by then, and its window is open for five seconds more
        worker.signal(signal.SIGSTOP)
        assert not await candles(by_the_second)
        for _ in range(4):
            await market.trade(SYMBOLS[:1])
        place = TopicPartition(TRADES, partition_of(SYMBOLS[0].encode(), by_the_second.partitions))
        async with admin_client(by_the_second) as client:
            await client.delete_records({place: RecordsToDelete(before_offset=5)})
        await market.trade(SYMBOLS[:1])
        await asyncio.sleep(8)
        worker.signal(signal.SIGCONT)
        assert await asyncio.to_thread(worker.process.wait, 90) == 1
        log = worker.log.read_text()
        assert "expired before they were aggregated" in log
        assert "please report this" not in log, "what it raises while it stops is not what it failed of"
        assert not await candles(by_the_second)

    asyncio.run(scenario())

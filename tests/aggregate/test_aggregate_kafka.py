"""The aggregate worker on a real Kafka: killed, frozen, rebalanced, fed with garbage."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from decimal import Decimal

import pytest
from aggregate_kafka import NAMES, aggregated, at, check, messages, publish, steady_trades
from aiokafka.admin import NewPartitions

from ashi.contracts import Trade, decode_candle, encode_trade
from ashi.contracts.topics import CANDLES, TRADES, TRADES_DEAD
from ashi.contracts.trade import TRADE_SCHEMA
from ashi.runtime.kafka.connections.clients import admin_client, make_producer, partition_of
from ashi.runtime.kafka.producing.dead_letters import message_headers
from ashi.runtime.settings import Settings
from oracle import candles_of, closed, stored, timely
from samples.hypothesis_strategies import START

pytestmark = pytest.mark.kafka


async def some_candles(settings: Settings) -> None:
    deadline = time.monotonic() + 60
    while not await messages(settings, CANDLES):
        assert time.monotonic() < deadline, "no candle comes"
        await asyncio.sleep(0.05)


def test_a_worker_killed_in_mid_replay_and_started_again_leaves_the_oracles_candles(kafka_settings, start_stage):
    log = steady_trades(40_000)

    async def scenario() -> None:
        worker = start_stage("aggregate", ASHI_CHECKPOINT_INTERVAL="50ms")
        await asyncio.to_thread(worker.wait_for, "ready")
        third = len(log) // 3
        for part in range(3):
            publishing = asyncio.create_task(publish(kafka_settings, log[part * third : (part + 1) * third]))
            await some_candles(kafka_settings)
            if part < 2:
                worker.kill()
                await publishing
                worker = start_stage("aggregate", ASHI_CHECKPOINT_INTERVAL="50ms")
                await asyncio.to_thread(worker.wait_for, "ready")
            await publishing
        await publish(kafka_settings, log[3 * third :])
        await aggregated(kafka_settings)
        await check(kafka_settings, log)

    asyncio.run(scenario())


def test_workers_that_come_go_and_freeze_leave_the_oracles_candles(kafka_settings, start_stage):
    log = steady_trades(30_000, seed=2)

    async def scenario() -> None:
        first = start_stage("aggregate")
        await asyncio.to_thread(first.wait_for, "ready")
        publishing = asyncio.create_task(slowly(kafka_settings, log, seconds=20))
        second = start_stage("aggregate")
        await asyncio.to_thread(second.wait_for, "ready")
        second.signal(signal.SIGSTOP)
        await asyncio.sleep(8)  # longer than the session timeout: Kafka declares it dead
        second.signal(signal.SIGCONT)
        assert await asyncio.to_thread(second.process.wait, 20) == 75
        third = start_stage("aggregate")
        await asyncio.to_thread(third.wait_for, "ready")
        first.signal(signal.SIGTERM)
        assert await asyncio.to_thread(first.process.wait, 25) == 0
        await publishing
        await aggregated(kafka_settings)
        await check(kafka_settings, log)

    asyncio.run(scenario())


async def slowly(settings: Settings, log: list[Trade], seconds: float) -> None:
    steps = 50
    size = -(-len(log) // steps)
    for step in range(steps):
        await publish(settings, log[step * size : (step + 1) * size])
        await asyncio.sleep(seconds / steps)


def test_what_is_no_trade_ends_in_trades_dead_with_the_reason_and_the_rest_goes_through(kafka_settings, start_stage):
    log = [
        Trade("binance:A", str(n), Decimal(5), Decimal(1), "buy", START + n * 10**6, START + n * 10**6, n)
        for n in range(100)
    ]
    sound = json.loads(encode_trade(log[0]))
    key = b"binance:A"
    partitions = kafka_settings.partitions
    home = partition_of(key, partitions)
    garbage = [
        (key, home, b"garbage", "JSON"),
        (key, home, b"", "not a trade"),
        (key, home, None, "not a trade"),
        (key, home, b"\xff\xfe", "not a trade"),
        (key, home, json.dumps(sound | {"price": "NaN"}).encode(), "price NaN is not a finite number"),
        (key, home, json.dumps(sound | {"size": "-1"}).encode(), "size -1 is negative"),
        (key, home, json.dumps(sound | {"traded_at": START // 1000}).encode(), "looks like milliseconds"),
        (key, home, json.dumps(sound | {"received_at": START // 10**6}).encode(), "looks like seconds"),
        (key, home, json.dumps(sound | {"price": "1" * 39}).encode(), "39 digits"),
        (key, home, encode_trade(log[0]) + b"," + encode_trade(log[1]), "JSON"),
        (key, home, json.dumps(sound | {"symbol": "A"}).encode(), "no venue"),
        (b"binance:B", home, encode_trade(log[0]), "is not its trade's symbol"),
        (None, home, encode_trade(log[0]), "is not its trade's symbol"),
        (key, (home + 1) % partitions, encode_trade(log[0]), f"belongs on partition {home}"),
        (key, home, encode_trade(log[0]), "the schema 'ashi.trade.v2' is not known here"),
    ]

    async def scenario() -> None:
        producer = make_producer(kafka_settings)
        await producer.start()
        for trade, (bad_key, partition, value, reason) in zip(log, garbage * 8, strict=False):
            headers = [("schema", b"ashi.trade.v2")] if "schema" in reason else []
            await producer.send(TRADES, key=bad_key, partition=partition, value=value, headers=headers)
            await producer.send(TRADES, key=key, value=encode_trade(trade), headers=message_headers(TRADE_SCHEMA))
        await producer.stop()
        start_stage("aggregate")
        await aggregated(kafka_settings)
        dead = await messages(kafka_settings, TRADES_DEAD)
        assert len(dead) == len(log)
        assert {record.value for record in dead} == {value for _, _, value, _ in garbage}, "null is another than empty"
        assert {dict(record.headers)["ashi.consumer"] for record in dead} == {b"ashi-aggregate"}
        for _, _, value, reason in garbage:
            reasons = [dict(r.headers)["ashi.reason"].decode() for r in dead if r.value == value]
            assert any(reason in text for text in reasons), (reason, reasons)
        candles = [decode_candle(record.value) for record in await messages(kafka_settings, CANDLES)]
        assert stored(candles) == closed(candles_of(log, NAMES), log, 2_000_000)

    asyncio.run(scenario())


def test_a_worker_without_its_topics_says_what_to_do(kafka_settings, start_stage):
    worker = start_stage("aggregate", ASHI_TIMEFRAMES="1m,7m,1h")
    assert worker.process.wait(30) == 2 or "does not divide" in worker.log.read_text()
    worker = start_stage("aggregate", ASHI_TIMEFRAMES="1m,2m")
    assert worker.process.wait(30) == 1
    assert "ashi-aggregate-ohlcv-2m-changelog" in worker.log.read_text()
    assert "ashi topics create" in worker.log.read_text()


def test_a_worker_with_other_settings_than_the_state_was_built_with_refuses_to_start(kafka_settings, start_stage):
    first = start_stage("aggregate")
    first.wait_for("ready")
    other = start_stage("aggregate", ASHI_ALLOWED_LATENESS="5s")
    assert other.process.wait(30) == 1
    assert "ASHI_ALLOWED_LATENESS=2s" in other.log.read_text()
    assert first.process.poll() is None


def test_reconfigure_waits_for_no_worker_and_then_builds_the_state_anew(kafka_settings, start_stage):
    log = steady_trades(5_000, seed=5)
    later = {"ASHI_TIMEFRAMES": "1m,3m,1h", "ASHI_CORRECTION_HORIZON": "10m"}

    async def scenario() -> None:
        await publish(kafka_settings, log)
        worker = start_stage("aggregate")
        await aggregated(kafka_settings)
        refused = start_stage("aggregate", "reconfigure", **later)
        assert await asyncio.to_thread(refused.process.wait, 40) == 1
        assert "1 aggregate workers run" in refused.log.read_text()
        worker.signal(signal.SIGHUP)
        assert await asyncio.to_thread(worker.process.wait, 25) == 0
        done = start_stage("aggregate", "reconfigure", **later)
        assert await asyncio.to_thread(done.process.wait, 40) == 0, done.log.read_text()
        assert "epoch 1: ASHI_TIMEFRAMES=1m,3m,1h" in done.log.read_text()

        old = start_stage("aggregate")
        assert await asyncio.to_thread(old.process.wait, 40) == 1
        start_stage("aggregate", **later)
        expected = closed(candles_of(timely(log, "1m", 600_000_000), ["1m", "3m", "1h"]), log, 2_000_000)
        deadline = time.monotonic() + 60
        while True:
            candles = [decode_candle(record.value) for record in await messages(kafka_settings, CANDLES)]
            anew = stored([candle for candle in candles if candle.version >= 2**40])
            if anew == expected:
                break
            assert time.monotonic() < deadline, f"{len(anew)} of {len(expected)}"
            await asyncio.sleep(0.3)
        kept = stored(candles)
        assert all(kept[key] == value for key, value in expected.items())

    asyncio.run(scenario())


def test_what_a_new_state_never_reads_is_no_lag(kafka_settings, start_stage):
    async def scenario() -> None:
        await publish(kafka_settings, steady_trades(500))
        done = start_stage("aggregate", "reconfigure", "--from", "2100-01-01")
        assert await asyncio.to_thread(done.process.wait, 60) == 0, done.log.read_text()
        start_stage("aggregate")
        await aggregated(kafka_settings)
        assert not await messages(kafka_settings, CANDLES)

    asyncio.run(scenario())


def test_a_topic_that_has_grown_or_was_made_anew_stops_the_worker_until_it_is_reconfigured(kafka_settings, start_stage):
    async def scenario() -> None:
        log = steady_trades(2_000, seed=6)
        await publish(kafka_settings, log)
        worker = start_stage("aggregate")
        await aggregated(kafka_settings)
        worker.signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.process.wait, 25) == 0
        async with admin_client(kafka_settings) as client:
            await client.create_partitions({TRADES: NewPartitions(12)})
        refused = start_stage("aggregate")
        assert await asyncio.to_thread(refused.process.wait, 40) == 1
        assert f"has {kafka_settings.partitions} partitions and trades has 12" in refused.log.read_text()
        # What came before symbols moved is not read again, and what was open then may be incomplete: never sent.
        moved = [at(trade, trade.traded_at + 600_000_000) for trade in log]
        await publish(kafka_settings, moved)
        done = start_stage("aggregate", "reconfigure")
        assert await asyncio.to_thread(done.process.wait, 60) == 0, done.log.read_text()
        start_stage("aggregate")
        await aggregated(kafka_settings)
        begin = max(trade.traded_at for trade in moved) + 600_000_000
        after = [at(trade, begin + number * 300_000) for number, trade in enumerate(log)]
        await publish(kafka_settings, after)
        await aggregated(kafka_settings)
        assert not await messages(kafka_settings, TRADES_DEAD)
        candles = [decode_candle(record.value) for record in await messages(kafka_settings, CANDLES)]
        trades = log + moved + after
        right = closed(candles_of(timely(trades, "1m", 120_000_000), NAMES), trades, 2_000_000)
        anew = stored([candle for candle in candles if candle.version >= 2**40])
        assert {key: right[key] for key in anew} == anew
        complete = {key for key in right if key[2] >= begin + 240_000_000 and right[key]["trade_count"]}
        assert complete
        assert complete <= set(anew)

    asyncio.run(scenario())

"""A symbol that begins days ago, with a real worker, a real Kafka and a real aggregate stage: its candles are whole."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from ashi.contracts import decode_candle, decode_trade
from ashi.contracts.topics import CANDLES, TRADES, TRADES_LATE
from ashi.runtime.kafka.consuming.records import read_topic
from ashi_ingest.feed.symbol.resume import is_late
from ashi_simulator import Simulator
from ashi_simulator.executions import PER_S
from oracle import candles_of, closed, stored
from servers.subscribing import until_subscribed

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

DAYS = 3
MARKET = "BTCUSDT"
NAMES = ["1m", "1h"]


def trade_in_the_past(simulator: Simulator, seconds: int, step_s: int = 60) -> None:
    """Let the market trade as if it had for so long, up to now."""
    exchange: Any = simulator._exchange
    now = exchange.now()
    exchange._source.start(now - seconds * PER_S)
    for at in range(now - seconds * PER_S, now, step_s * PER_S):
        for batch in exchange._source.due(at):
            exchange.histories[batch.market].add(batch.executions, at)


def test_the_candles_of_a_symbol_that_begins_days_ago_are_whole_from_then_on_and_a_backfill_fetches_what_was_before(
    kafka_settings, start_stage
):
    """Its trades are days old when they are published, and wall time closes quiet windows of a symbol meanwhile."""

    async def messages(topic: str) -> list[Any]:
        return [record.value async for record in read_topic(kafka_settings, topic)]

    async def scenario() -> None:
        async with Simulator("binance", [MARKET], rate=0.02) as simulator:
            trade_in_the_past(simulator, DAYS * 86_400)
            truth = simulator.truth()
            since_us = truth[len(truth) // 6].traded_at // 3_600_000_000 * 3_600_000_000
            since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since_us // 1_000_000))
            addresses = {"ASHI_WEBSOCKET_URL": simulator.websocket_url, "ASHI_REST_URL": simulator.rest_url}
            timeframes = {"ASHI_TIMEFRAMES": ",".join(NAMES), "ASHI_QUIET_CLOSE": "on", "ASHI_FLAT_CANDLES": "0"}
            aggregate = start_stage("aggregate", **timeframes)
            await asyncio.to_thread(aggregate.wait_for, "ready")
            worker = start_stage("ingest", "binance", MARKET, "--since", since, **addresses)
            await until_subscribed(simulator, [MARKET], worker)
            simulator.start_market()
            wanted = len([each for each in simulator.truth() if each.traded_at >= since_us])
            deadline = time.monotonic() + 60
            while len(await messages(TRADES)) < wanted:
                assert time.monotonic() < deadline, worker.log.read_text()[-3000:]
                await asyncio.sleep(0.3)
            assert "begins in the past" in worker.log.read_text()
            log = [decode_trade(value) for value in await messages(TRADES)]
            assert [each.trade_id for each in log] == [
                each.trade_id for each in simulator.truth() if each.traded_at >= since_us
            ][: len(log)]
            oracles = closed(candles_of(log, NAMES), log, 2_000_000, max_flat=0)

            async def candles() -> dict[Any, Any]:
                found = stored(list(map(decode_candle, await messages(CANDLES))))
                return {key: found.get(key) for key in oracles}

            while await candles() != oracles and time.monotonic() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.3)
            assert await candles() == oracles, aggregate.log.read_text()[-3000:]
            assert len(oracles) > 1000
            assert await messages(TRADES_LATE) == []

            begin = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(truth[0].traded_at // 1_000_000))
            backfill = start_stage("ingest", "backfill", "binance", MARKET, "--from", begin, "--to", since, **addresses)
            assert await asyncio.to_thread(backfill.process.wait, 30) == 0, backfill.log.read_text()[-3000:]
            assert "all of it is there" in backfill.log.read_text()
            before = [each.trade_id for each in truth if each.traded_at < since_us]
            records = [record async for record in read_topic(kafka_settings, TRADES)]
            assert [decode_trade(record.value).trade_id for record in records if is_late(record)] == before

    asyncio.run(scenario())

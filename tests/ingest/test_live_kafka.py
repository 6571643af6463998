"""Live workers against simulated venues on a real Kafka: faults, crashes, backpressure, pacing.

What the simulator says was traded is the truth; what stands in topic `trades` is compared with it as a multiset.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from typing import Any

import pytest
from aiohttp import ClientSession

from ashi.contracts import decode_trade
from ashi.contracts.feed import decode_feed_gap, decode_feed_status
from ashi.contracts.topics import FEED_GAPS, FEED_STATUS, TRADES, TRADES_DEAD
from ashi.runtime.kafka import read_topic
from ashi.runtime.settings import Settings
from ingest.simulator import Simulator, TrueTrade, random_script

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

MARKETS = {
    "bitflyer": ("BTC_JPY", "FX_BTC_JPY", "ETH_JPY"),
    "gmo": ("BTC", "BTC_JPY"),
    "binance": ("BTCUSDT", "ETHUSDT"),
    "binance-usdm": ("BTCUSDT", "ETHUSDT"),
}
RATE = {"bitflyer": 60, "gmo": 15, "binance": 60, "binance-usdm": 60}
KEY = {"ASHI_BINANCE_API_KEY": "a-key-the-simulator-takes"}


async def published(settings: Settings) -> Counter[TrueTrade]:
    found: Counter[TrueTrade] = Counter()
    async for record in read_topic(settings, TRADES):
        trade = decode_trade(record.value)
        found[
            TrueTrade(
                trade.symbol, trade.trade_id, trade.price, trade.size, trade.side, trade.traded_at, trade.sequence
            )
        ] += 1
    return found


async def until_published(settings: Settings, truth: list[TrueTrade], timeout_s: float) -> None:
    """Wait until as many trades are in the topic as happened; then they must be the same, each once."""
    wanted = Counter(truth)
    deadline = time.monotonic() + timeout_s
    while (found := await published(settings)).total() < wanted.total() and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.3)
    missing, extra = wanted - found, found - wanted
    differences = Counter(trade.symbol for trade in missing), Counter(trade.symbol for trade in extra)
    assert not missing, f"missing, too many: {differences} of {wanted.total()}; {list(missing)[:3]} {list(extra)[:3]}"
    assert not extra, f"too many or published twice: {differences[1]}; {list(extra.items())[:3]}"


async def messages(settings: Settings, topic: str) -> list[Any]:
    return [record async for record in read_topic(settings, topic)]


def addresses(simulator: Simulator) -> dict[str, str]:
    return {"ASHI_WEBSOCKET_URL": simulator.websocket_url, "ASHI_REST_URL": simulator.rest_url}


@pytest.mark.parametrize("seed", [1])
def test_under_fifty_faults_every_trade_of_every_venue_is_published_once(kafka_settings, start_stage, seed):
    """All four at once, each with its own script of fifty faults, one a second."""

    async def run(venue: str) -> list[TrueTrade]:
        markets = MARKETS[venue]
        script = random_script(seed, 50, venue, markets)
        async with Simulator(venue, markets, seed=seed, rate=RATE[venue], bursts=True, script=script) as simulator:
            worker = start_stage("ingest", venue, *markets, **addresses(simulator), **KEY)
            await simulator.wait_subscribed(markets)
            simulator.start_market()
            while not simulator.script_done:
                assert worker.process.poll() is None, worker.log.read_text()[-3000:]
                await asyncio.sleep(0.2)
            await asyncio.sleep(2)
            await simulator.stop_market()
            truth = simulator.truth()
            deadline = time.monotonic() + 60
            while not await connected(kafka_settings, venue, markets):
                assert time.monotonic() < deadline, worker.log.read_text()[-3000:]
                await asyncio.sleep(0.3)
            worker.signal(signal.SIGTERM)
            assert await asyncio.to_thread(worker.process.wait, 25) == 0, worker.log.read_text()[-3000:]
            return truth

    async def scenario() -> None:
        truths = await asyncio.gather(*map(run, MARKETS))
        await until_published(kafka_settings, [trade for truth in truths for trade in truth], 30)
        gaps = {
            (gap.symbol, gap.from_time): gap
            for record in await messages(kafka_settings, FEED_GAPS)
            for gap in [decode_feed_gap(record.value)]
        }
        assert not [gap for gap in gaps.values() if gap.state == "lost"]
        repaired = [gap for gap in gaps.values() if gap.state == "repaired"]
        assert {gap.symbol.partition(":")[0] for gap in repaired} == set(MARKETS)
        assert any(gap.trades_recovered for gap in repaired)
        assert await messages(kafka_settings, TRADES_DEAD)  # of the garbage

    asyncio.run(scenario())


async def connected(settings: Settings, venue: str, markets: tuple[str, ...]) -> bool:
    states = {}
    for record in await messages(settings, FEED_STATUS):
        status = decode_feed_status(record.value)
        states[status.symbol] = status.state
    return all(states.get(f"{venue}:{market}") == "connected" for market in markets)


@pytest.mark.parametrize("venue", list(MARKETS))
def test_a_worker_that_is_killed_goes_on_where_it_was(kafka_settings, start_stage, venue):
    async def scenario() -> None:
        markets = MARKETS[venue]
        async with Simulator(venue, markets, seed=3, rate=2 * RATE[venue], bursts=True) as simulator:
            worker = start_stage("ingest", venue, *markets, **addresses(simulator), **KEY)
            await simulator.wait_subscribed(markets)
            simulator.start_market()
            for _ in range(3):
                await asyncio.sleep(1.5)
                await asyncio.to_thread(worker.kill)
                await asyncio.sleep(0.5)
                worker = start_stage("ingest", venue, *markets, **addresses(simulator), **KEY)
                await simulator.wait_subscribed(markets)
                await asyncio.to_thread(worker.wait_for, '"event":"repaired"')
            await asyncio.sleep(1)
            await simulator.stop_market()
            await until_published(kafka_settings, simulator.truth(), 20)

    asyncio.run(scenario())


async def metric(url: str, name: str) -> float:
    async with ClientSession() as session, session.get(url) as response:
        text = await response.text()
    values = [float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name)]
    return sum(values)

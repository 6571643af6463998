"""Live workers against simulated venues on a real Kafka: faults, crashes, backpressure.

What the simulator says was traded is the truth; what stands in topic `trades` is compared with it as a multiset.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import ClientSession

from ashi.contracts import decode_trade
from ashi.contracts.feed import decode_feed_gap, decode_feed_status
from ashi.contracts.instrument import decode_instrument
from ashi.contracts.topics import FEED_GAPS, FEED_STATUS, INSTRUMENTS, TRADES, TRADES_DEAD
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.settings import Settings
from ashi_ingest.recording.format import BadLine, Line, read_recording
from ashi_ingest.recording.reader import RecordingReader
from ashi_simulator import Simulator, TrueTrade, possible_faults, random_script
from servers.subscribing import until_subscribed

if TYPE_CHECKING:
    from servers.stages import Stage

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

MARKETS = {
    "bitflyer": ("BTC_JPY", "FX_BTC_JPY", "ETH_JPY"),
    "gmo": ("BTC", "BTC_JPY"),
    "binance": ("BTCUSDT", "ETHUSDT"),
    "binance-usdm": ("BTCUSDT", "ETHUSDT"),
}
RATE = {"bitflyer": 60, "gmo": 15, "binance": 60, "binance-usdm": 60}
KEY = {"ASHI_BINANCE_API_KEY": "a-key-the-simulator-takes"}


async def published(settings: Settings, venue: str = "") -> Counter[TrueTrade]:
    found: Counter[TrueTrade] = Counter()
    async for record in read_topic(settings, TRADES):
        if not record.key.startswith(f"{venue}:".encode() if venue else b""):
            continue
        trade = decode_trade(record.value)
        found[
            TrueTrade(
                trade.symbol, trade.trade_id, trade.price, trade.size, trade.side, trade.traded_at, trade.sequence
            )
        ] += 1
    return found


async def until_published(
    settings: Settings, truth: list[TrueTrade], timeout_s: float, venue: str = "", worker: Stage | None = None
) -> None:
    """Wait until as many trades (of a venue) are in the topic as happened; then they must be the same, each once.

    `worker`: whose log is told where they are not.
    """
    wanted = Counter(truth)
    deadline = time.monotonic() + timeout_s
    while (found := await published(settings, venue)).total() < wanted.total() and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.3)
    missing, extra = wanted - found, found - wanted
    differences = Counter(trade.symbol for trade in missing), Counter(trade.symbol for trade in extra)
    said = "" if worker is None else worker.log.read_text()[-5000:]
    assert not missing, (
        f"missing, too many: {differences} of {wanted.total()}; {list(missing)[:3]} {list(extra)[:3]}\n{said}"
    )
    assert not extra, f"too many or published twice: {differences[1]}; {list(extra.items())[:3]}"


async def messages(settings: Settings, topic: str) -> list[Any]:
    return [record async for record in read_topic(settings, topic)]


def addresses(simulator: Simulator) -> dict[str, str]:
    return {"ASHI_WEBSOCKET_URL": simulator.websocket_url, "ASHI_REST_URL": simulator.rest_url}


def test_under_every_fault_every_trade_of_every_venue_is_published_once(kafka_settings, start_stage):
    """All four at once, each with every fault of connections and REST, one a second; rehearsals do fifty in a row."""

    async def run(venue: str) -> list[TrueTrade]:
        markets = MARKETS[venue]
        faults = possible_faults(venue, markets, partial=False)
        # A market that nothing was published of yet has nothing to go on from; so faults begin a little later.
        drawn = random_script(1, len(faults), venue, markets, faults=faults)
        script = [replace(step, at_s=(step.at_s or 0) + 4) for step in drawn]
        async with Simulator(venue, markets, seed=1, rate=RATE[venue], bursts=True, script=script) as simulator:
            worker = start_stage("ingest", venue, *markets, **addresses(simulator), **KEY)
            await until_subscribed(simulator, markets, worker)
            simulator.start_market()
            while not simulator.script_done:
                assert worker.process.poll() is None, worker.log.read_text()[-3000:]
                await asyncio.sleep(0.2)
            await until_repaired(
                kafka_settings, venue
            )  # while it trades: what comes after a gap shows that it is whole
            await simulator.stop_market()
            truth = simulator.truth()
            await until_published(kafka_settings, truth, 120, venue)
            await until_connected(kafka_settings, venue, markets)
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
        # Of garbage that names a market whose ids do not show what is missing, nobody knows that it was no trade.
        lost = [gap for gap in gaps.values() if gap.state == "lost" and "could not be published" not in gap.reason]
        assert Counter(gap.symbol for gap in lost) == Counter(
            f"{venue}:{market}" for venue, markets in MARKETS.items() for market in markets
        )
        assert {gap.reason.partition(",")[0] for gap in lost} == {"nothing had been published before"}
        repaired = [gap for gap in gaps.values() if gap.state == "repaired"]
        assert {gap.symbol.partition(":")[0] for gap in repaired} == set(MARKETS)
        assert any(gap.trades_recovered for gap in repaired)
        assert await messages(kafka_settings, TRADES_DEAD)  # of the garbage

    asyncio.run(scenario())


async def until_repaired(settings: Settings, venue: str) -> None:
    """Wait until no gap of a venue is open, for as long as the waits between the attempts have grown at most."""
    deadline = time.monotonic() + 150
    while True:
        await asyncio.sleep(0.5)
        gaps = {}
        for record in await messages(settings, FEED_GAPS):
            gap = decode_feed_gap(record.value)
            gaps[gap.symbol, gap.from_time] = gap
        left = [gap for gap in gaps.values() if gap.state == "open" and gap.symbol.startswith(f"{venue}:")]
        if not left:
            return
        assert time.monotonic() < deadline, left


async def until_connected(settings: Settings, venue: str, markets: tuple[str, ...]) -> None:
    """Wait until `feed.status` says of all markets that they are connected."""
    wanted = {f"{venue}:{market}" for market in markets}
    deadline = time.monotonic() + 120
    states: dict[str, str] = {}
    while {symbol for symbol in wanted if states.get(symbol) == "connected"} != wanted:
        assert time.monotonic() < deadline, states
        for record in await messages(settings, FEED_STATUS):
            status = decode_feed_status(record.value)
            states[status.symbol] = status.state
        await asyncio.sleep(0.2)


@pytest.mark.parametrize("venue", list(MARKETS))
def test_a_worker_that_is_killed_goes_on_where_it_was(kafka_settings, start_stage, venue):
    async def scenario() -> None:
        markets = MARKETS[venue]
        async with Simulator(venue, markets, seed=3, rate=2 * RATE[venue], bursts=True) as simulator:
            worker = start_stage("ingest", venue, *markets, **addresses(simulator), **KEY)
            await until_subscribed(simulator, markets, worker)
            simulator.start_market()
            for _ in range(2):
                await asyncio.sleep(1.5)
                await asyncio.to_thread(worker.kill)
                await asyncio.sleep(0.5)
                worker = start_stage("ingest", venue, *markets, **addresses(simulator), **KEY)
                await until_subscribed(simulator, markets, worker)
                await asyncio.to_thread(worker.wait_for, '"event":"repaired"')
            await asyncio.sleep(1)
            await simulator.stop_market()
            # What a worker was killed over is lost to the next one, which asks for it again when REST has time for it.
            await until_published(kafka_settings, simulator.truth(), 120, worker=worker)

    asyncio.run(scenario())


async def metric(url: str, name: str) -> float:
    async with ClientSession() as session, session.get(url) as response:
        text = await response.text()
    values = [float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name)]
    return sum(values)


def address_of_metrics(log: str) -> str:
    return next(line for line in log.splitlines() if '"event":"started"' in line).partition('"metrics":"')[2][:-2]


def test_while_kafka_is_away_memory_is_bounded_and_what_was_left_out_is_fetched_later(
    kafka, kafka_settings, start_stage
):
    async def scenario() -> None:
        markets = MARKETS["binance"]
        async with Simulator("binance", markets, seed=5, rate=500) as simulator:
            worker = start_stage("ingest", "binance", *markets, ASHI_FEED_BUFFER="1000", **addresses(simulator))
            await until_subscribed(simulator, markets, worker)
            simulator.start_market()
            await asyncio.sleep(1)
            kafka.process.send_signal(signal.SIGSTOP)
            try:
                deadline = time.monotonic() + 30
                while simulator.subscribed:
                    assert time.monotonic() < deadline, worker.log.read_text()[-3000:]
                    await asyncio.sleep(0.05)
                # Whatever goes on being traded now is not held by anybody: the worker stays away.
                held = []
                for _ in range(20):
                    held.append(await metric(address_of_metrics(worker.log.read_text()), "ashi_trades_held{"))
                    await asyncio.sleep(0.1)
                assert max(held) < 2_000
                assert not simulator.subscribed
            finally:
                kafka.process.send_signal(signal.SIGCONT)
            await until_subscribed(simulator, markets, worker)
            await asyncio.to_thread(worker.wait_for, '"event":"repaired"')
            await simulator.stop_market()
            await until_published(kafka_settings, simulator.truth(), 20)

    asyncio.run(scenario())


def test_a_market_that_the_venue_has_not_is_left_out_and_the_others_go_on(kafka_settings, start_stage):
    async def run(venue: str) -> None:
        markets = MARKETS[venue]
        async with Simulator(venue, markets, seed=5, rate=20) as simulator:
            worker = start_stage("ingest", venue, "NO_SUCH", *markets, **addresses(simulator))
            await until_subscribed(simulator, markets, worker)
            simulator.start_market()
            await until_connected(kafka_settings, venue, markets)
            assert "the venue has no such market, it is left out" in worker.log.read_text()
            none = start_stage("ingest", venue, "NO_SUCH", **addresses(simulator))
            assert await asyncio.to_thread(none.process.wait, 20) == 1
            assert f"{venue} has none of the markets NO_SUCH: correct their names" in none.log.read_text()
            await simulator.stop_market()

    async def scenario() -> None:
        await asyncio.gather(*map(run, MARKETS))

    asyncio.run(scenario())


def sound(line: Line | BadLine) -> Line:
    assert isinstance(line, Line), line
    return line


def test_markets_come_and_go_while_two_shards_run_and_one_of_them_has_no_latin_name(kafka_settings, start_stage):
    new = "币安人生USDT"
    old = ("BTCUSDT", "ETHUSDT", "BNBUSDT")

    async def latest(topic: str, decode: Any) -> dict[str, Any]:
        return {message.symbol: message for message in map(decode, values(await messages(kafka_settings, topic)))}

    async def until_said(symbol: str, state: str, reason: str | None) -> None:
        deadline = time.monotonic() + 60
        while True:
            said = (await latest(FEED_STATUS, decode_feed_status)).get(symbol)
            if said is not None and said.state == state and (said.reason or "").startswith(reason or ""):
                return
            assert time.monotonic() < deadline, said
            await asyncio.sleep(0.2)

    async def scenario() -> None:
        async with Simulator("binance", old, seed=3, rate=60) as simulator:
            often = {"ASHI_MARKET_LIST_INTERVAL": "1s"}
            workers = [
                start_stage("ingest", "binance", "--all", "--shard", f"{number}/2", **addresses(simulator), **often)
                for number in range(2)
            ]
            await until_subscribed(simulator, old, *workers)
            simulator.start_market()
            simulator.fault("list_market", market=new)
            await until_subscribed(simulator, [new], *workers, timeout_s=30)
            await until_connected(kafka_settings, "binance", (*old, new))
            since_us = time.time_ns() // 1000
            simulator.fault("halt", market="BTCUSDT", seconds=4.0)
            await until_said("binance:BTCUSDT", "silent", "halted")
            await until_said("binance:BTCUSDT", "connected", None)
            await asyncio.sleep(2)
            simulator.fault("delist_market", market=new)
            await until_said(f"binance:{new}", "down", "delisted")
            await simulator.stop_market()
            truth = Counter(simulator.truth(since_us))
            assert {trade.symbol for trade in truth} == {f"binance:{market}" for market in (*old, new)}
            deadline = time.monotonic() + 60
            while truth - (found := await published(kafka_settings)) and time.monotonic() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.3)
            assert not truth - found
            assert max(found.values()) == 1, "each by one worker"
            assert await messages(kafka_settings, TRADES_DEAD) == []
            instruments = await latest(INSTRUMENTS, decode_instrument)
            states = {symbol: instrument.state for symbol, instrument in instruments.items()}
            assert states == {f"binance:{market}": "trading" for market in old} | {
                f"binance:{new}": "delisted",
                "binance:HALTEDUSDT": "halted",
            }
            assert (instruments[f"binance:{new}"].base, instruments[f"binance:{new}"].quote) == ("币安人生", "USDT")
            assert simulator.limits()["connections"] == 2, "nothing was torn down"

    asyncio.run(scenario())


def values(records: list[Any]) -> list[bytes]:
    return [record.value for record in records if record.value is not None]


def test_two_shards_read_all_markets_of_a_venue_between_them_and_record_all_they_publish(
    kafka_settings, start_stage, tmp_path
):
    async def scenario() -> None:
        markets = tuple(f"M{number}USDT" for number in range(12))
        async with Simulator("binance", markets, seed=5, rate=300) as simulator:
            workers = [
                start_stage(
                    "ingest", "binance", "--all", "--shard", f"{number}/2", "--record", str(tmp_path / "frames"),
                    **addresses(simulator),
                )
                for number in range(2)
            ]  # fmt: skip
            await until_subscribed(simulator, markets, *workers)
            simulator.start_market()
            await asyncio.sleep(2)
            simulator.fault("refuse", seconds=0.5, drop=True)
            await asyncio.sleep(1)
            await simulator.stop_market()
            await until_published(kafka_settings, simulator.truth(), 40)
            for worker in workers:
                worker.signal(signal.SIGTERM)
                assert await asyncio.to_thread(worker.process.wait, 25) == 0
            lines = [
                sound(line)
                for path in sorted((tmp_path / "frames").glob("binance-*.txt.gz"))
                for line in read_recording(path)
            ]
            reader = RecordingReader("binance")
            recorded = Counter(trade.trade_id + trade.symbol for line in lines for trade in reader.read(line).trades)
            for key in ("repaired", "waits", "passes"):
                assert any(line.frame.startswith(b'{"ashi.%b"' % key.encode()) for line in lines), key
            assert reader.finish() == []
            assert recorded == Counter(trade.trade_id + trade.symbol for trade in simulator.truth())

    asyncio.run(scenario())

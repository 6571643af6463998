"""A month before the live candles: files as published and what REST lists, loaded in one command, killed thrice."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ashi.contracts import Trade, decode_candle, encode_trade
from ashi.contracts.topics import AGGREGATE_APP, CANDLES, TRADES
from ashi.runtime.kafka.cluster.offsets import end_offsets
from ashi.runtime.kafka.connections.clients import make_producer
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.settings import Settings
from ashi_simulator import RULES, Simulator
from ashi_simulator.executions import Execution
from ashi_sinks.worker import sink_group
from oracle import candles_of, closed, stored
from samples.published_files import spot
from servers.kline_server import rows_of
from waits import until, until_read

pytestmark = [pytest.mark.kafka, pytest.mark.processes, pytest.mark.outside]

VENUE, MARKET = "binance", "ETHUSDT"
SYMBOL = f"{VENUE}:{MARKET}"
NAMES = ["5m", "1h"]
DAY_US = 86_400_000_000
BEGIN = 1_700_000_000_000_000 // DAY_US * DAY_US
DAYS = 30
STEP_US = 150_000_000
LIVE_US = BEGIN + DAYS * DAY_US + 7 * 3_600_000_000 + 130_000_000
END_US = LIVE_US + 4 * 3_600_000_000
PUBLISHED_DAYS = 28
"""Of so many there are files; the days after them are fetched."""

# At no pace, and with no heed to what the venue may not list yet.
FETCH = """
import sys
from ashi_cli.main import main
from ashi_ingest.history import fetch as plans
from ashi_ingest.rest import client
turns, client.RequestTurns = client.RequestTurns, lambda *_, **__: turns(0.0, 0.0)
sys.exit(main())
"""


def a_log() -> list[Trade]:
    rng = random.Random(30)
    log: list[Trade] = []
    for number, start in enumerate(range(BEGIN, END_US, STEP_US), 5_000):
        at = start + 1_000 * rng.randint(0, 149_999)
        price, size = Decimal(rng.randint(100_000, 200_000)) / 100, Decimal(rng.randint(1, 10**6)) / 10**5
        log.append(Trade(SYMBOL, str(number), price, size, rng.choice(["buy", "sell"]), at, at, number))
    return log


def executions(trades: list[Trade]) -> list[Execution]:
    return [
        Execution(int(each.trade_id), str(each.price), str(each.size), str(each.side).upper(), each.traded_at * 10)
        for each in trades
    ]


async def fetch(log: list[Trade], directory: Path) -> None:
    """The days of which there are no files, by `ashi history fetch` of a simulated venue."""
    rules = replace(RULES[VENUE], rest_weight=None)
    times = [datetime.fromtimestamp(at / 1e6, UTC).isoformat() for at in (BEGIN + PUBLISHED_DAYS * DAY_US, END_US)]
    async with asyncio.timeout(120), Simulator(VENUE, [MARKET], rules=rules) as sim:
        history: Any = sim._exchange.histories[MARKET]
        for each in executions(log):
            history.add([each], each.at)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-c", FETCH, "history", "fetch", VENUE, MARKET),
            *("--from", times[0], "--to", times[1], "--into", str(directory)),
            env={**os.environ, "ASHI_REST_URL": sim.rest_url},
        )
        assert await process.wait() == 0


async def publish(settings: Settings, trades: list[Trade]) -> None:
    producer = make_producer(settings)
    await producer.start()
    sent = [await producer.send(TRADES, key=SYMBOL.encode(), value=encode_trade(trade)) for trade in trades]
    await asyncio.gather(*sent)
    await producer.stop()


def count_published(settings: Settings) -> int:
    """How many candles there are by their offsets: to read them so often would take longer than all else."""
    return sum(asyncio.run(end_offsets(settings, CANDLES)).values())


async def published(settings: Settings) -> list[Any]:
    return [decode_candle(message.value) async for message in read_topic(settings, CANDLES)]


def test_a_month_is_loaded_in_one_command_killed_thrice_and_is_the_exchanges_own(
    kafka_settings, start_stage, ashi, tmp_path
):
    settings, log = kafka_settings, a_log()
    url = f"sqlite:///{tmp_path}/candles.db"
    timeframes = ",".join(NAMES)
    start_stage("aggregate", ASHI_TIMEFRAMES=timeframes)
    start_stage("sink", "sqlite", ASHI_STORAGE=url)
    asyncio.run(publish(settings, [trade for trade in log if trade.traded_at >= LIVE_US]))

    asyncio.run(fetch(log, tmp_path / "fetched"))
    files = sorted((tmp_path / "fetched").glob("*.txt.gz"))
    assert len(files) == DAYS - PUBLISHED_DAYS + 1
    for day in range(PUBLISHED_DAYS):
        start = BEGIN + day * DAY_US
        path = tmp_path / f"ETHUSDT-trades-{datetime.fromtimestamp(start / 1e6, UTC):%Y-%m-%d}.csv"
        path.write_bytes(spot([trade for trade in log if start <= trade.traded_at < start + DAY_US]))
        files.append(path)
    until_read(settings, AGGREGATE_APP, TRADES)

    command = ("history", "load", "--symbol", SYMBOL, "--jobs", "1", *map(str, files))
    before = count_published(settings)
    for _ in range(3):
        stage = start_stage(*command)

        def is_at_work(known: int = before) -> bool:
            return count_published(settings) > known or stage.process.poll() is not None  # noqa: B023

        until("more candles are loaded", is_at_work, every_s=0.01)
        stage.kill()
        now = count_published(settings)
        assert now > before, stage.log.read_text()
        before = now
    status, out, err = ashi(*command)
    assert status == 0, out + err
    assert "they go up to the first live one" in out
    assert "trades may be missing" not in out
    assert stored(asyncio.run(published(settings))) == closed(candles_of(log, NAMES), log, 2_000_000)

    until_read(settings, sink_group("sqlite"), CANDLES)
    for name in NAMES:
        klines = tmp_path / f"ETHUSDT-{name}.csv"
        klines.write_text("".join(",".join(map(str, row)) + "\n" for row in rows_of(log, name)))
        status, out, err = ashi("verify", url, "--klines", str(klines), "--timeframe", name)
        assert status == 0, out + err
        assert " candles compared: 0 differ, 0 differ as explained" in out

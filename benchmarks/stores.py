"""Candles per second into each store by one worker, and how soon after its close a candle can be read in PostgreSQL.

    .venv/bin/python benchmarks/stores.py [--stores sqlite,postgres,lake] [--candles N] [--seconds S] [--json]

`write` is the sink alone, with batches of 1,000 to 20,000 candles that are new to the store; `end to end` is the
whole worker with default settings, from the topic to committed offsets, with the CPU that it takes for a message. The
last rows are PostgreSQL without its second index, and topic `trades` in a lake. The delay is that of the candles of
one-second windows at 2,000 trades a second of 50 symbols, from the end of the window by the clock to the first time
that another connection to PostgreSQL sees the row: the allowed lateness (2 s), aggregate, Kafka, sink and store
together. A real broker and a real PostgreSQL are started; all numbers are those of this machine now.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from decimal import Decimal
from pathlib import Path

import asyncpg
from throughput import measure
from trades import make_messages, publish

from ashi.contracts import Candle, Trade, encode_trade
from ashi.contracts.candle import encode_candle
from ashi.contracts.topics import CANDLES, TRADES, topic_specs
from ashi.runtime.kafka.cluster.topics import create_topics
from ashi.runtime.kafka.connections.clients import make_producer, partition_of
from ashi.runtime.settings import Settings
from ashi_cli.onemachine.broker import Broker
from ashi_cli.onemachine.children import spawn, stop_all
from ashi_sinks.registry import STORES, make_sink, migrate_store
from ashi_sinks.worker import sink_group

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from servers.postgres import PostgresServer

SYMBOLS = 50
RATE = 2_000
BATCH_SIZES = (1_000, 5_000, 20_000)
START_US = 1_700_000_040_000_000
MINUTE_US = 60_000_000
POLL_S = 0.01
BOUND_S = 120
PUBLISH_S = 0.02
WARM_UP_S = 8
ASHI = [sys.executable, "-m", "ashi_cli.main"]


@contextmanager
def sqlite_url() -> Iterator[str]:
    """A new file."""
    with tempfile.TemporaryDirectory(prefix="ashi-bench-") as folder:
        yield f"sqlite:///{folder}/candles.db"


@contextmanager
def postgres_url() -> Iterator[str]:
    """A new server."""
    server = PostgresServer()
    try:
        yield server.url()
    finally:
        server.remove()


@contextmanager
def lake_url() -> Iterator[str]:
    """A new folder."""
    with tempfile.TemporaryDirectory(prefix="ashi-bench-") as folder:
        yield f"lake:///{folder}/lake"


NEW_STORES: dict[str, Callable[[], AbstractContextManager[str]]] = {
    "sqlite": sqlite_url,
    "postgres": postgres_url,
    "lake": lake_url,
}
"""For each store what makes an empty one and gives its URL."""


@contextmanager
def new_store(name: str) -> Iterator[str]:
    """The URL of a new store that a worker can use."""
    with NEW_STORES[name]() as url:
        if STORES[name].migrate is not None:
            migrate_store(url)
        yield url


def make_candles(count: int, seed: int = 1) -> list[Candle]:
    """Candles of all symbols, minute by minute, with numbers as long as real ones."""
    rng = random.Random(seed)
    candles = []
    for number in range(count):
        minute, symbol = divmod(number, SYMBOLS)
        open_time = START_US + minute * MINUTE_US
        low, open_, close, high = sorted(Decimal(rng.randint(2_600_000, 2_700_000)) / 1000 for _ in range(4))
        volume = Decimal(rng.randint(1, 10**11)) / 10**8
        taker = volume / 2
        trade_id = 3_000_000_000 + 100 * minute
        candles.append(
            Candle(
                symbol=f"binance:S{symbol}USDT",
                timeframe="1m",
                open_time=open_time,
                close_time=open_time + MINUTE_US,
                open=open_,
                high=high,
                low=low,
                close=close,
                volume=volume,
                quote_volume=volume * close,
                trade_count=100,
                taker_buy_volume=taker,
                taker_buy_quote_volume=taker * close,
                first_trade_id=str(trade_id),
                last_trade_id=str(trade_id + 99),
                version=number + 1,
            )
        )
    return candles


async def write_rate(url: str, candles: list[Candle], size: int) -> float:
    """Candles per second through `Sink.write`."""
    sink = make_sink(url)
    await sink.open()
    try:
        began = time.perf_counter()
        for start in range(0, len(candles), size):
            await sink.write(candles[start : start + size])
        return len(candles) / (time.perf_counter() - began)
    finally:
        await sink.close()


async def end_to_end(
    settings: Settings, env: dict[str, str], contents: str, command: list[str], topic: str
) -> dict[str, float]:
    """Messages per second from the topic to committed offsets, start-up left out; CPU µs of the worker for each."""
    result = await measure(settings, sink_group(contents), [*ASHI, *command], env, BOUND_S, topic=topic)
    return {"end_to_end": result["trades_per_second"], "cpu_us": result["cpu_us_per_trade"]}


async def trade_for(settings: Settings, seconds: float) -> None:
    """Publish `RATE` trades a second, each as it happens."""
    rng = random.Random(1)
    producer = make_producer(settings)
    await producer.start()
    try:
        began, number = time.time(), 0
        while (elapsed := time.time() - began) < seconds:
            while number < elapsed * RATE:
                traded_at = int((began + number / RATE) * 1e6)
                symbol = f"binance:S{rng.randrange(SYMBOLS)}USDT"
                trade = Trade(
                    symbol=symbol,
                    trade_id=str(number),
                    price=Decimal(rng.randint(2_600_000, 2_700_000)) / 1000,
                    size=Decimal(rng.randint(1, 10**9)) / 10**8,
                    side="buy",
                    traded_at=traded_at,
                    received_at=traded_at + 1_000,
                    sequence=number,
                )
                key = symbol.encode()
                await producer.send(TRADES, encode_trade(trade), key, partition=partition_of(key, settings.partitions))
                number += 1
            await asyncio.sleep(PUBLISH_S)
    finally:
        await producer.stop()


async def watch(url: str, until: asyncio.Event) -> list[float]:
    """Seconds from the end of each window to the first sight of its row; the first windows are left out."""
    connection = await asyncpg.connect(url)
    seen: set[tuple[str, object]] = set()
    delays = []
    began = time.time()
    try:
        while not until.is_set():
            rows = await connection.fetch(
                "SELECT symbol, open_time, extract(epoch FROM close_time)::float8 AS closed FROM candles "
                "WHERE timeframe = '1s' AND open_time > now() - interval '20 s'"
            )
            now = time.time()
            for row in rows:
                key = row["symbol"], row["open_time"]
                if key not in seen:
                    seen.add(key)
                    if row["closed"] > began + WARM_UP_S:
                        delays.append(now - row["closed"])
            await asyncio.sleep(POLL_S)
    finally:
        await connection.close()
    return delays


async def delay(settings: Settings, env: dict[str, str], url: str, seconds: int) -> dict[str, float]:
    """Median and 99th percentile of the delay, s."""
    await create_topics(settings, topic_specs(settings.partitions, settings.timeframes))
    stages = [
        spawn([*ASHI, *stage], env=env, stdout=subprocess.DEVNULL, stderr=None)
        for stage in (["aggregate"], ["sink", "postgres"])
    ]
    try:
        ended = asyncio.Event()
        watching = asyncio.create_task(watch(url, ended))
        await trade_for(settings, WARM_UP_S + seconds)
        await asyncio.sleep(1 + settings.allowed_lateness_us / 1e6)
        ended.set()
        delays = sorted(await watching)
    finally:
        stop_all(stages, 20)
    if len(delays) < 100:
        raise SystemExit(f"only {len(delays)} candles were seen: look at the workers' output")
    cuts = statistics.quantiles(delays, n=100)
    lateness_s = settings.allowed_lateness_us / 1e6
    return {"candles": len(delays), "lateness_s": lateness_s, "p50_s": cuts[49], "p99_s": cuts[98]}


@contextmanager
def kafka(url: str, timeframes: str) -> Iterator[tuple[Settings, dict[str, str]]]:
    """Settings and environment of stages with a new, empty broker and this store."""
    with tempfile.TemporaryDirectory(prefix="ashi-bench-") as directory:
        broker = Broker(Path(directory))
        broker.start(child=True, fresh=True)
        try:
            env = os.environ | {
                "ASHI_KAFKA_BOOTSTRAP": broker.bootstrap,
                "ASHI_TIMEFRAMES": timeframes,
                "ASHI_STORAGE": url,
                "ASHI_LOG_LEVEL": "warning",
                "ASHI_METRICS_PORT": "0",
            }
            yield Settings.from_environment(env), env
        finally:
            broker.stop()


def measure_store(name: str, count: int) -> dict[str, float]:
    """All rates of one store."""
    candles = make_candles(count)
    rates = {}
    for size in BATCH_SIZES:
        with new_store(name) as url:
            rates[f"write_{size}"] = asyncio.run(write_rate(url, candles, size))

    async def whole(settings: Settings, env: dict[str, str]) -> dict[str, float]:
        await create_topics(settings, topic_specs(settings.partitions, settings.timeframes))
        await publish(settings, [(candle.symbol.encode(), encode_candle(candle)) for candle in candles], CANDLES)
        return await end_to_end(settings, env, name, ["sink", name], CANDLES)

    with new_store(name) as url, kafka(url, "1m") as (settings, env):
        return rates | asyncio.run(whole(settings, env))


def measure_without_index(count: int) -> dict[str, float]:
    """The writing rates of PostgreSQL with the primary key alone: what the index on (timeframe, open_time) costs."""
    candles = make_candles(count)
    rates = {}
    for size in BATCH_SIZES:
        server = PostgresServer()
        try:
            migrate_store(server.url())
            server.execute("DROP INDEX candles_timeframe_open_time_idx")
            rates[f"write_{size}"] = asyncio.run(write_rate(server.url(), candles, size))
        finally:
            server.remove()
    return rates


def measure_trades(count: int) -> dict[str, float]:
    """The rate of topic `trades` into a lake."""

    async def whole(settings: Settings, env: dict[str, str]) -> dict[str, float]:
        await create_topics(settings, topic_specs(settings.partitions, settings.timeframes))
        await publish(settings, make_messages(count, SYMBOLS))
        return await end_to_end(settings, env, "lake-trades", ["sink", "lake", "--topic", "trades"], TRADES)

    with new_store("lake") as url, kafka(url, "1m") as (settings, env):
        return asyncio.run(whole(settings, env))


def main() -> int:
    """Run it and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", default=",".join(NEW_STORES))
    parser.add_argument("--candles", type=int, default=300_000)
    parser.add_argument("--seconds", type=int, default=30, help="how long the delay is measured; 0: not at all")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a broker that has just started makes it complain
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    names = arguments.stores.split(",")
    rates = {name: measure_store(name, arguments.candles) for name in names}
    if "postgres" in names:
        rates["no index"] = measure_without_index(arguments.candles)
    if "lake" in names:
        rates["lake trades"] = measure_trades(arguments.candles)
    delays = None
    if arguments.seconds:
        with new_store("postgres") as url, kafka(url, "1s,1m") as (settings, env):
            delays = asyncio.run(delay(settings, env, url, arguments.seconds))
    if arguments.json:
        print(json.dumps({"rates": rates, "delay": delays}))
        return 0
    columns = [*(f"write_{size}" for size in BATCH_SIZES), "end_to_end"]
    print(f"{'per second':<12}" + "".join(f"{name.replace('_', ' '):>14}" for name in columns) + f"{'CPU µs':>10}")
    for name, row in rates.items():
        shown = "".join(f"{row[column]:>14,.0f}" if column in row else f"{'':>14}" for column in columns)
        print(f"{name:<12}{shown}" + (f"{row['cpu_us']:>10.1f}" if "cpu_us" in row else ""))
    if delays:
        print(
            f"close of a window to row in PostgreSQL at {RATE:,} trades/s: p50 {delays['p50_s']:.2f} s, "
            f"p99 {delays['p99_s']:.2f} s, of which {delays['lateness_s']:g} s are the allowed lateness"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Trades per second of `ashi rebuild` from a lake, with the native fold and with Python's, checked against an oracle.

    .venv/bin/python benchmarks/rebuild.py [--trades N] [--symbols N] [--between US] [--timeframes 1m,5m,1h] [--json]

The lake is written by the lake's own sink, by batches of 20,000 as `ashi sink lake` does, and compacted as its upkeep
does; `--between` is the time between two trades of it, µs. What is measured is the whole command as a process: it reads
the trades, adds them up, compares the candles with topic `candles`, which has none, and publishes them all. Its start,
which is the same command for a minute, is left out of the rate and printed. Python's rate is that of an eighth of the
time. Of the first trades the candles published are held against the oracle of the tests. A real broker is started; all
numbers are those of this machine now.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from decimal import Decimal
from itertools import islice
from pathlib import Path

from trades import START_ID, START_US, names_of

from ashi.contracts import Trade
from ashi.contracts.candle import Candle
from ashi.contracts.records import candle_in
from ashi.contracts.timeframe import DAY_US, format_time, parse_timeframes
from ashi.contracts.topics import CANDLES, topic_specs
from ashi.runtime.kafka.cluster.topics import create_topics
from ashi.runtime.kafka.connections.clients import partition_of
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.settings import Settings
from ashi_aggregate.reconfigure import reconfigure
from ashi_cli.onemachine.broker import Broker
from ashi_sinks.lake.location import lake_of
from ashi_sinks.lake.tables import StoredTrade
from ashi_sinks.lake.trades import LakeTrades

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from oracle import candles_of, stored

ASHI = [sys.executable, "-m", "ashi_cli.main"]
MINUTE_US = 60_000_000
DISORDER_US = 100_000
BATCH = 20_000
POLL_S = 0.02
CHECKED = 200_000
"""So many trades, the first of them, are given to the oracle."""


@dataclass
class Result:
    """What one run of the command took."""

    fold: str
    trades: int
    trades_per_second: float
    cpu_us_per_trade: float
    start_s: float
    memory_mb: float


def make_trades(count: int, symbols: int, between_us: int) -> Iterator[Trade]:
    """Trades of symbols in turn at random, with numbers as long as Binance's, in the order of the log."""
    rng = random.Random(1)
    names = names_of(symbols)
    ids = dict.fromkeys(names, START_ID)
    for number in range(count):
        symbol = rng.choice(names)
        ids[symbol] += 1
        at = START_US + number * between_us - rng.randint(0, DISORDER_US)
        price, size = Decimal(rng.randint(2_600_000, 2_700_000)) / 1000, Decimal(rng.randint(1, 10**9)) / 10**8
        side = "buy" if rng.random() < 0.5 else "sell"
        yield Trade(symbol, str(ids[symbol]), price, size, side, at, at + 50_000, ids[symbol])  # type: ignore[arg-type]


async def fill(url: str, partitions: int, count: int, symbols: int, between_us: int) -> list[Trade]:
    """Keep trades in a lake, as of a topic with so many partitions; the first of them."""
    trades = make_trades(count, symbols, between_us)
    homes = {symbol: partition_of(symbol.encode(), partitions) for symbol in names_of(symbols)}
    offsets = dict.fromkeys(range(partitions), -1)

    def place(trade: Trade) -> StoredTrade:
        home = homes[trade.symbol]
        offsets[home] += 1
        return StoredTrade(home, offsets[home], trade)

    table = LakeTrades(lake_of(url))
    await table.open_or_make()
    first: list[Trade] = []
    while batch := [place(trade) for trade in islice(trades, BATCH)]:
        await table.write(batch)
        first += [row.trade for row in batch[: CHECKED - len(first)]]
    await table.close()
    return first


def timed(env: dict[str, str], url: str, start: int, end: int, *more: str) -> tuple[float, float, float]:
    """Seconds, seconds of CPU, and MB of memory at most, of one rebuild."""
    command = [*ASHI, "rebuild", "--from", format_time(start), "--to", format_time(end), "--trades", url, *more]
    began = time.perf_counter()
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    memory_mb = 0.0
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        memory_mb = peak_mb(process.pid) or memory_mb
        time.sleep(POLL_S)
    _, status, usage = os.wait4(process.pid, 0)
    took_s = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return took_s, usage.ru_utime + usage.ru_stime, memory_mb


def peak_mb(pid: int) -> float:
    """The most memory that a process has had, MB; not by `wait4`, which counts what this one had when it began it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def measure(env: dict[str, str], fold: str, url: str, trades: int, between_us: int) -> Result:
    """One rebuild of so many trades."""
    env = env | {"ASHI_NATIVE_FOLD": "on" if fold == "native" else "off"}
    more = () if fold == "native" else ("--dry-run",)  # what is published it would leave
    start_s, start_cpu_s, _ = timed(env, url, START_US, START_US + MINUTE_US, "--dry-run")
    took_s, cpu_s, memory_mb = timed(env, url, START_US - DAY_US, START_US + trades * between_us, *more)
    taken_s = took_s - start_s
    return Result(fold, trades, trades / taken_s, (cpu_s - start_cpu_s) / trades * 1e6, start_s, memory_mb)


async def check(settings: Settings, first: list[Trade], timeframes: list[str]) -> int:
    """How many candles of the first trades were compared. Raises SystemExit when one is wrong or missing."""
    published: dict[tuple[str, str, int], Candle] = {}
    async for record in read_topic(settings, CANDLES):
        candle = candle_in(record)
        published[candle.symbol, candle.timeframe, candle.open_time] = candle
    until = first[-1].traded_at - 2 * DISORDER_US
    every = candles_of(first, timeframes)
    must = {key: value for key, value in every.items() if value["close_time"] <= until}
    kept = stored([published[key] for key in must if key in published])
    wrong = [key for key, value in must.items() if kept.get(key) != value]
    if wrong or not must:
        raise SystemExit(f"{len(wrong)} of {len(must)} candles are wrong or missing, such as {wrong[:1]}")
    return len(must)


def main() -> int:
    """Run it and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trades", type=int, default=6_000_000)
    parser.add_argument("--symbols", type=int, default=1)
    parser.add_argument("--between", type=int, default=60_000)
    parser.add_argument("--timeframes", default="1m,5m,1h")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    timeframes = [str(each) for each in parse_timeframes(arguments.timeframes)]
    with tempfile.TemporaryDirectory(prefix="ashi-bench-") as directory:
        broker = Broker(Path(directory))
        broker.start(child=True, fresh=True)
        try:
            env = os.environ | {
                "ASHI_KAFKA_BOOTSTRAP": broker.bootstrap,
                "ASHI_TIMEFRAMES": ",".join(timeframes),
                "ASHI_LOG_LEVEL": "warning",
            }
            settings = Settings.from_environment(env)
            asyncio.run(create_topics(settings, topic_specs(settings.partitions, settings.timeframes)))
            asyncio.run(reconfigure(settings))
            url = f"lake:///{directory}/lake"
            first = asyncio.run(fill(url, settings.partitions, arguments.trades, arguments.symbols, arguments.between))
            subprocess.run([*ASHI, "lake", "compact", "--storage", url], env=env, check=True, stdout=subprocess.DEVNULL)
            native = measure(env, "native", url, arguments.trades, arguments.between)
            compared = asyncio.run(check(settings, first, timeframes))
            python = measure(env, "python", url, arguments.trades // 8, arguments.between)
        finally:
            broker.stop()
    if arguments.json:
        print(json.dumps({"native": asdict(native), "python": asdict(python), "candles_compared": compared}))
        return 0
    print(f"{compared:,} candles published are those of the oracle")
    print("fold        trades    trades/s  CPU, µs/trade  start, s  memory, MB")
    for row in (native, python):
        print(
            f"{row.fold:<8} {row.trades:>9,} {row.trades_per_second:>11,.0f} {row.cpu_us_per_trade:>14.2f} "
            f"{row.start_s:>9.1f} {row.memory_mb:>11.0f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Candles in progress: how soon after a trade its update is with a reader, and what that takes of an aggregate worker.

    .venv/bin/python benchmarks/live.py [--runs 100:20000,10000:5000] [--seconds 20] [--json]

For each number of symbols and trades a second, on a real broker and with three timeframes (1m, 5m, 1h): trades as they
happen, first into a worker that sends no candles in progress (`ASHI_LIVE_INTERVAL=off`), then into one that does.

- *delay*: from the append of a trade to the moment when a reader in another process has the first update that it is in,
  one of its own window (1m). *untold*: the share of trades that no update tells of, and so in no delay, as those
  whose window closed before they had their turn.
- *interval*: between two updates of one symbol and timeframe, as they stand in the topic: what was reached.
- *core*: what the worker took of a core, without and with. *share*: the difference, of what it took with. *told*: what
  the worker itself says that it took (`ashi_live_seconds_total`), likewise.

A tenth of the symbols are quiet. The numbers are those of this machine now; what else it does meets both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import re
import signal
import socket
import statistics
import sys
import time
import urllib.request
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from arguments import seconds, several
from scale import HERE, broker, environment_of
from scale_live import Market
from scale_replay import Worker

from ashi.contracts import decode_candle, decode_trade
from ashi.contracts.candle import EPOCH_BITS
from ashi.contracts.topics import CANDLES_LIVE, TRADES
from ashi.runtime.kafka.connections.clients import assigned_consumer
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.settings import Settings

RUNS = "100:20000,10000:5000"
SETTLE_S = 6.0
"""After the trades have begun, before anything is measured."""
READY_S = 60.0
LAST_S = 12.0
"""So long before the end trades are left out: their updates may not have come."""

MINUTE_US = 60_000_000

_Arrival = tuple[int, str, str, int, int]
"""When (µs) which update came: symbol, timeframe, open time (µs), version."""

_Windows = dict[tuple[str, int], list[tuple[int, int]]]
"""The trades of each minute, by symbol and open time (µs): offset and append time (µs) of each, in order."""


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured, as the text above has it; delays and intervals in ms."""

    symbols: int
    rate: int
    delay_p50_ms: float
    delay_p99_ms: float
    delay_most_ms: float
    untold: float
    interval_p50_ms: float
    interval_p99_ms: float
    updates_per_second: float
    core_without: float
    core_with: float
    share: float
    told: float


def read_updates(env: Mapping[str, str], arrivals: Any, stop: Any) -> None:
    """In a process of its own: note when each update has come, until told to stop."""

    async def read() -> list[_Arrival]:
        found = []
        settings = Settings.from_environment(env)
        async with assigned_consumer(settings, CANDLES_LIVE) as (consumer, partitions):
            await consumer.seek_to_end(*partitions)
            while not stop.is_set():
                fetched = await consumer.getmany(timeout_ms=100)
                now_us = time.time_ns() // 1000
                found += [(now_us, record) for records in fetched.values() for record in records]
        candles = [(at, decode_candle(record.value)) for at, record in found]
        return [(at, each.symbol, each.timeframe, each.open_time, each.version) for at, each in candles]

    arrivals.put(asyncio.run(read()))


async def appends(settings: Settings, run: Run) -> _Windows:
    """The trades that were appended in what was measured of a run."""
    found: _Windows = defaultdict(list)
    async for record in read_topic(settings, TRADES):
        at = record.timestamp * 1000
        if run.begin_us <= at < run.end_us:
            trade = decode_trade(record.value)
            found[trade.symbol, trade.traded_at - trade.traded_at % MINUTE_US].append((record.offset, at))
    return found


def delays_of(arrivals: Sequence[_Arrival], windows: _Windows) -> list[float]:
    """Ms from the append of each trade to the first update of its window that it is in; of some there may be none."""
    delays = []
    untold = {window: deque(trades) for window, trades in windows.items()}
    for at, symbol, timeframe, open_time, version in arrivals:
        trades = untold.get((symbol, open_time)) if timeframe == "1m" else None
        offset = version % (1 << EPOCH_BITS)
        while trades and trades[0][0] <= offset:
            delays.append((at - trades.popleft()[1]) / 1000)
    return delays


def intervals_of(arrivals: Sequence[_Arrival], begin_us: int, end_us: int) -> list[float]:
    """Ms between two updates of one symbol and timeframe."""
    times: dict[tuple[str, str], list[int]] = defaultdict(list)
    for at, symbol, timeframe, *_ in arrivals:
        of_series = times[symbol, timeframe]
        if begin_us <= at < end_us and (not of_series or of_series[-1] != at):
            of_series.append(at)
    return [(after - before) / 1000 for those in times.values() for before, after in pairwise(those)]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def live_seconds(port: int) -> float:
    """What the worker says that candles in progress have taken."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        found = re.search(rb"^ashi_live_seconds_total (\S+)$", answer.read(), re.MULTILINE)
    return float(found[1]) if found else 0.0


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a worker: when it was measured (µs), what it took of a core, and of that for candles in progress."""

    begin_us: int
    end_us: int
    core: float
    told_core: float
    arrivals: list[_Arrival]


async def run_worker(
    settings: Settings, env: Mapping[str, str], folder: Path, load: tuple[int, int, float], interval: str
) -> Run:
    """Let trades happen to a worker and measure; `load`: so many symbols, at such a rate, so many seconds."""
    port = free_port()
    env = {**env, "ASHI_METRICS_PORT": str(port), "ASHI_LIVE_INTERVAL": interval}
    worker = Worker(env, HERE, folder / f"live-{interval}.log")
    market = Market(settings, load[0])
    market.rate = load[1]
    context = multiprocessing.get_context("spawn")
    arrivals, stop = context.SimpleQueue(), context.Event()
    reader = context.Process(target=read_updates, args=(dict(env), arrivals, stop), daemon=True)
    reader.start()
    trading = None
    try:
        deadline = time.monotonic() + READY_S
        while not worker.is_ready:
            worker.check()
            if time.monotonic() > deadline:
                raise SystemExit("the worker does not get ready")
            await asyncio.sleep(0.1)
        await market.begin()
        trading = asyncio.create_task(market.run())
        await asyncio.sleep(SETTLE_S)
        begin_us, cpu_s, told_s = time.time_ns() // 1000, worker.cpu_s, live_seconds(port)
        await asyncio.sleep(load[2])
        worker.check()
        end_us, cpu_s, told_s = time.time_ns() // 1000, worker.cpu_s - cpu_s, live_seconds(port) - told_s
        await asyncio.sleep(LAST_S)
        stop.set()
        found = await asyncio.to_thread(arrivals.get)
    finally:
        if trading is not None:
            trading.cancel()
            await asyncio.gather(trading, return_exceptions=True)
        worker.stop()
        reader.kill()
    passed_s = (end_us - begin_us) / 1e6
    return Run(begin_us, end_us, cpu_s / passed_s, told_s / passed_s, found)


def quantile(values: Sequence[float], percent: int) -> float:
    """A percentile; NaN of too few."""
    return statistics.quantiles(values, n=100)[percent - 1] if len(values) > 1 else float("nan")


def measure(symbols: int, rate: int, measured_s: float) -> Result:
    """Without and with, each on an empty broker."""
    env = environment_of(HERE)
    runs: list[Run] = []
    for interval in ("off", "250ms"):
        with broker(env) as (settings, worker_env, folder):
            runs.append(asyncio.run(run_worker(settings, worker_env, folder, (symbols, rate, measured_s), interval)))
            windows = asyncio.run(appends(settings, runs[-1])) if interval != "off" else {}
    without, told = runs
    trades = sum(map(len, windows.values()))
    delays = delays_of(told.arrivals, windows)
    intervals = intervals_of(told.arrivals, told.begin_us, told.end_us)
    within = sum(told.begin_us <= at < told.end_us for at, *_ in told.arrivals)
    return Result(
        symbols=symbols,
        rate=rate,
        delay_p50_ms=quantile(delays, 50),
        delay_p99_ms=quantile(delays, 99),
        delay_most_ms=max(delays, default=float("nan")),
        untold=1 - len(delays) / trades if trades else float("nan"),
        interval_p50_ms=quantile(intervals, 50),
        interval_p99_ms=quantile(intervals, 99),
        updates_per_second=within / (told.end_us - told.begin_us) * 1e6,
        core_without=without.core,
        core_with=told.core,
        share=(told.core - without.core) / told.core,
        told=told.told_core / told.core,
    )


COLUMNS = (
    f"{'symbols':>7} {'trades/s':>9}   {'delay p50':>9} {'p99':>7} {'most ms':>8} {'untold':>7}   "
    f"{'interval p50':>12} {'p99 ms':>7}   {'updates/s':>9}   {'core':>5} {'with':>5} {'share':>6} {'told':>6}"
)


def line(each: Result) -> str:
    """One line of the table."""
    return (
        f"{each.symbols:>7,} {each.rate:>9,}   {each.delay_p50_ms:>9,.0f} {each.delay_p99_ms:>7,.0f} "
        f"{each.delay_most_ms:>8,.0f} {each.untold:>7.2%}   "
        f"{each.interval_p50_ms:>12,.0f} {each.interval_p99_ms:>7,.0f}   {each.updates_per_second:>9,.0f}   "
        f"{each.core_without:>5.0%} {each.core_with:>5.0%} {each.share:>6.1%} {each.told:>6.1%}"
    )


def _run(text: str) -> tuple[int, int]:
    symbols, _, rate = text.partition(":")
    return int(symbols), int(rate)


def main() -> int:
    """Run it and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=several(_run), default=several(_run)(RUNS), help="symbols:trades a second, …")
    parser.add_argument("--seconds", type=seconds, default=20.0, help="measured of each run")
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results = []
    if not options.json:
        print(COLUMNS)
    for symbols, rate in options.runs:
        results.append(measure(symbols, rate, options.seconds))
        if not options.json:
            print(line(results[-1]), flush=True)
    if options.json:
        print(json.dumps([asdict(each) for each in results]))
    return 0


if __name__ == "__main__":
    sys.exit(main())

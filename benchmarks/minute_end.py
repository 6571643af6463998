"""The end of a minute of 10,000 symbols: 30,000 candles at once, and when the last of them can be read in each store.

    .venv/bin/python benchmarks/minute_end.py [--stores sqlite,postgres,lake] [--candles N] [--ends N] [--json]

A worker with default settings that has nothing else to do gets all candles of an end as batches of Kafka, as an
aggregate worker sends them: those of three timeframes of each symbol. Time counts from just before the first is sent
until another connection to the store counts them all; so it holds the sending, the wait of a sink for larger batches
and the writing. The first end is left out: the store is empty then, and nothing is warm. Beside it the CPU of the
worker for a candle, which tells also where others take most of the machine. A real broker and a real PostgreSQL are
started.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping

import msgspec
from stores import ASHI, NEW_STORES, START_US, kafka, make_candles, new_store
from throughput import cpu_seconds
from trades import publish

from ashi.contracts.candle import encode_candle
from ashi.contracts.timeframe import parse_timeframes
from ashi.contracts.topics import CANDLES, topic_specs
from ashi.runtime.kafka.cluster.topics import create_topics
from ashi.runtime.settings import Settings
from ashi_cli.onemachine.children import spawn, stop_all
from ashi_sinks.registry import open_reader

TIMEFRAMES = "1m,5m,1h"
POLL_S = {"lake": 0.25}
"""How often it is looked; elsewhere more often. A look at a lake reads its log."""
BOUND_S = 120.0


def make_end(count: int, number: int) -> list[tuple[bytes, bytes]]:
    """The messages of the `number`th end: `count` candles, a third of them in each timeframe."""
    timeframes = parse_timeframes(TIMEFRAMES)
    candles = make_candles(count // len(timeframes), seed=number)
    messages = []
    for place, candle in enumerate(candles):
        symbol = f"binance:S{place}USDT"
        for timeframe in timeframes:
            # Ends of hours, so that windows of each length end there.
            close_time = (START_US // 3_600_000_000 + 2 + number) * 3_600_000_000
            same = msgspec.structs.replace(
                candle,
                symbol=symbol,
                timeframe=str(timeframe),
                open_time=close_time - timeframe.length_us,
                close_time=close_time,
                version=number * count + place + 1,
            )
            messages.append((symbol.encode(), encode_candle(same)))
    return messages


async def ends(settings: Settings, env: Mapping[str, str], name: str, url: str, *, count: int, many: int) -> dict:
    """Seconds from the first candle sent to the last one seen, for each end; CPU µs of the worker for a candle."""
    await create_topics(settings, topic_specs(settings.partitions, settings.timeframes))
    worker = spawn([*ASHI, "sink", name], env=env, stdout=subprocess.DEVNULL, stderr=None)
    took, cpu = [], []
    try:
        for number in range(many + 1):
            messages = make_end(count, number)
            before = cpu_seconds(worker.pid)
            began = time.monotonic()
            await publish(settings, messages, CANDLES)
            sent_s = time.monotonic() - began
            await _until_there(worker, url, len(messages) * (number + 1), POLL_S.get(name, 0.02))
            took.append((time.monotonic() - began, sent_s))
            await asyncio.sleep(1.0)  # what is done behind the commit belongs to it too
            cpu.append((cpu_seconds(worker.pid) - before) / len(messages) * 1e6)
    finally:
        stop_all([worker], 30)
    seconds = sorted(each for each, _ in took[1:])
    return {
        "candles": count,
        "median_s": statistics.median(seconds),
        "most_s": seconds[-1],
        "sending_s": statistics.median(sent for _, sent in took[1:]),
        "cpu_us": statistics.median(cpu[1:]),
    }


async def _until_there(worker: subprocess.Popen[bytes], url: str, wanted: int, poll_s: float) -> None:
    deadline = time.monotonic() + BOUND_S
    async with open_reader(url) as reader:
        while (found := await reader.count()) < wanted:
            if worker.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{found} of {wanted} candles are stored (exit status {worker.poll()})")
            await asyncio.sleep(poll_s)


def main() -> int:
    """Run it and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", default=",".join(NEW_STORES))
    parser.add_argument("--candles", type=int, default=30_000)
    parser.add_argument("--ends", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a broker that has just started makes it complain
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results = {}
    for name in arguments.stores.split(","):
        with new_store(name) as url, kafka(url, TIMEFRAMES) as (settings, env):
            results[name] = asyncio.run(ends(settings, env, name, url, count=arguments.candles, many=arguments.ends))
    if arguments.json:
        print(json.dumps(results))
        return 0
    print(f"{'store':<10} {'candles':>8} {'median s':>9} {'most s':>7} {'of it sending':>14} {'CPU µs':>7}")
    for name, row in results.items():
        print(
            f"{name:<10} {row['candles']:>8,} {row['median_s']:>9.2f} {row['most_s']:>7.2f} "
            f"{row['sending_s']:>14.2f} {row['cpu_us']:>7.1f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

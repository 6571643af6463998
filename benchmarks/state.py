"""What the state costs: CPU per trade with six timeframes against one, and changelog bytes per trade.

    .venv/bin/python benchmarks/state.py [--trades N] [--seconds S] [--json]

The CPU is that of one aggregate worker, all threads, at full speed over the same trades in one run. The bytes are keys
and values in the changelogs after `--seconds` at 2,000 trades a second of 50 symbols, as they come in a live market:
once with ids that count up by symbol, as Binance's do, and once with ids scattered among all symbols of the venue, as
those of bitFlyer's spot markets are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from throughput import measure
from trades import make_messages, publish

from ashi.contracts.topics import AGGREGATE_APP, state_topics, topic_specs
from ashi.runtime.kafka.cluster.topics import create_topics
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.settings import Settings
from ashi_cli.onemachine.broker import Broker
from ashi_cli.onemachine.children import spawn, stop_all

SYMBOLS = 50
RATE = 2_000
ONE, SIX = "1m", "1m,3m,5m,15m,1h,1d"
WORKER = [sys.executable, "-m", "ashi_cli.main", "aggregate"]


async def cpu_per_trade(settings: Settings, env: dict[str, str], trades: int) -> float:
    """CPU µs per trade of one worker with these settings."""
    await create_topics(settings, topic_specs(settings.partitions, settings.timeframes))
    await publish(settings, make_messages(trades, SYMBOLS))
    result = await measure(settings, AGGREGATE_APP, WORKER, env, 60)
    return result["cpu_us_per_trade"]


async def changelog_bytes(settings: Settings, env: dict[str, str], seconds: int, scattered: bool) -> float:
    """Bytes per trade in all changelogs while trades come at a steady rate."""
    await create_topics(settings, topic_specs(settings.partitions, settings.timeframes))
    messages = make_messages(RATE * seconds, SYMBOLS, scattered=scattered)
    worker = spawn(WORKER, env=env, stdout=subprocess.DEVNULL, stderr=None)
    try:
        began = time.monotonic()
        step = RATE // 10
        for number in range(0, len(messages), step):
            await publish(settings, messages[number : number + step])
            await asyncio.sleep(max(0.0, began + (number + step) / RATE - time.monotonic()))
        await asyncio.sleep(2 * settings.checkpoint_interval_us / 1e6)
    finally:
        stop_all([worker], 20)
    size = 0
    for topic in state_topics(settings.timeframes):
        async for record in read_topic(settings, topic):
            size += len(record.key or b"") + len(record.value or b"")
    return size / len(messages)


def with_broker(timeframes: str, run: object) -> float:
    """Give `run(settings, env)` a new, empty broker."""
    with tempfile.TemporaryDirectory(prefix="ashi-bench-") as directory:
        broker = Broker(Path(directory))
        broker.start(child=True, fresh=True)
        try:
            env = os.environ | {
                "ASHI_KAFKA_BOOTSTRAP": broker.bootstrap,
                "ASHI_TIMEFRAMES": timeframes,
                "ASHI_QUIET_CLOSE": "off",
                "ASHI_LOG_LEVEL": "warning",
                "ASHI_METRICS_PORT": "0",
            }
            return asyncio.run(run(Settings.from_environment(env), env))  # type: ignore[operator]
        finally:
            broker.stop()


def main() -> int:
    """Run it and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trades", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    one = with_broker(ONE, lambda settings, env: cpu_per_trade(settings, env, arguments.trades))
    six = with_broker(SIX, lambda settings, env: cpu_per_trade(settings, env, arguments.trades))
    dense, scattered = (
        with_broker("1m,5m,1h", lambda settings, env, s=s: changelog_bytes(settings, env, arguments.seconds, s))
        for s in (False, True)
    )
    if arguments.json:
        print(json.dumps({"cpu_us_one": one, "cpu_us_six": six, "bytes_dense": dense, "bytes_scattered": scattered}))
        return 0
    print(f"CPU µs/trade: one timeframe {one:.2f}, six {six:.2f}, ratio {six / one:.2f}")
    print(f"changelog bytes/trade at {RATE:,} trades/s, three timeframes: {dense:.0f}, ids scattered {scattered:.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

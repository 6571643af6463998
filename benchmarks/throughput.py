"""Trades per second from topic `trades` to topic `candles`, one aggregate worker: the native fold, Python's, per event.

    .venv/bin/python benchmarks/throughput.py [--trades N] [--symbols N] [--timeframes 1m,5m,1h] [--json]

Per event is how Faust's documentation does it. All read the same trades, records as `ashi ingest` writes them, in one
run, so the ratios hold on a machine that is shared and noisy; the absolute numbers are those of this machine now. The
rate is that of committed offsets: the candles and the state of those trades are acknowledged. Start-up is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from trades import make_messages, publish

from ashi.contracts.timeframe import parse_timeframes
from ashi.contracts.topics import AGGREGATE_APP, TRADES, TopicSpec, topic_specs
from ashi.runtime.kafka.cluster.topics import create_topics
from ashi.runtime.kafka.connections.clients import assigned_consumer, make_consumer
from ashi.runtime.settings import Settings
from ashi_cli.onemachine.broker import Broker
from ashi_cli.onemachine.children import spawn, stop_all

PER_EVENT_APP = "per-event"
POLL_S = 0.1


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used, all threads, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(
    settings: Settings, group: str, argv: list[str], env: dict[str, str], bound_s: float, *, topic: str = TRADES
) -> dict[str, float]:
    """Run a worker over the whole topic, or for `bound_s` seconds; rate and CPU between two committed offsets."""
    async with assigned_consumer(settings, topic) as (consumer, partitions):
        total = sum((await consumer.end_offsets(partitions)).values())
    watcher = make_consumer(settings, group_id=group)
    await watcher.start()
    worker = spawn(argv, env=env, stdout=subprocess.DEVNULL, stderr=None)
    first: tuple[float, int, float] | None = None
    last = (0.0, 0, 0.0)
    try:
        began = time.monotonic()
        while last[1] < total and (first is None or time.monotonic() < first[0] + bound_s):
            if worker.poll() is not None:
                raise SystemExit(f"the worker of {group} ended with {worker.returncode}")
            if time.monotonic() > began + 60 + bound_s:
                raise SystemExit(f"the worker of {group} does not get on")
            await asyncio.sleep(POLL_S)
            offsets = [await watcher.committed(partition) or 0 for partition in partitions]
            done = sum(offsets)
            if done and first is None:
                first = last = (time.monotonic(), done, cpu_seconds(worker.pid))
            elif done > last[1]:
                last = (time.monotonic(), done, cpu_seconds(worker.pid))
    finally:
        stop_all([worker], 20)
        await watcher.stop()
    assert first is not None
    trades = last[1] - first[1]
    return {
        "trades": trades,
        "seconds": last[0] - first[0],
        "trades_per_second": trades / (last[0] - first[0]),
        "cpu_us_per_trade": (last[2] - first[2]) / trades * 1e6,
    }


async def run(settings: Settings, env: dict[str, str], trades: int, symbols: int) -> dict[str, float]:
    """Publish, then measure one worker of Ashi."""
    await create_topics(settings, topic_specs(settings.partitions, settings.timeframes))
    await publish(settings, make_messages(trades, symbols))
    return await measure(settings, AGGREGATE_APP, [sys.executable, "-m", "ashi_cli.main", "aggregate"], env, 60)


async def run_per_event(settings: Settings, env: dict[str, str]) -> dict[str, float]:
    """Measure the per-event way on what `run` has published."""
    tables = [
        TopicSpec(
            f"{PER_EVENT_APP}-{PER_EVENT_APP}-{timeframe}-changelog", settings.partitions, {"cleanup.policy": "compact"}
        )
        for timeframe in settings.timeframes
    ]
    await create_topics(settings, tables)
    script = str(Path(__file__).with_name("per_event.py"))
    return await measure(settings, PER_EVENT_APP, [sys.executable, script, "worker", "--without-web"], env, 12)


def main() -> int:
    """Run it and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trades", type=int, default=2_000_000)
    parser.add_argument("--symbols", type=int, default=50)
    parser.add_argument("--timeframes", default="1m,5m,1h")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    result: dict[str, dict[str, float]] = {}
    for fold, native in (("native", "on"), ("python", "off")):
        with tempfile.TemporaryDirectory(prefix="ashi-bench-") as directory:
            broker = Broker(Path(directory))
            broker.start(child=True, fresh=True)
            try:
                env = os.environ | {
                    "ASHI_KAFKA_BOOTSTRAP": broker.bootstrap,
                    "ASHI_TIMEFRAMES": ",".join(str(each) for each in parse_timeframes(arguments.timeframes)),
                    "ASHI_NATIVE_FOLD": native,
                    "ASHI_QUIET_CLOSE": "off",
                    "ASHI_LOG_LEVEL": "warning",
                    "ASHI_METRICS_PORT": "0",
                }
                settings = Settings.from_environment(env)
                result[fold] = asyncio.run(run(settings, env, arguments.trades, arguments.symbols))
                if fold == "python":
                    result["per event"] = asyncio.run(run_per_event(settings, env))
            finally:
                broker.stop()
    slowest = result["per event"]["trades_per_second"]
    if arguments.json:
        print(json.dumps(result))
        return 0
    print(f"{'one worker':<12} {'trades/s':>12} {'CPU µs/trade':>14} {'trades':>12} {'to per event':>13}")
    for name, row in result.items():
        print(
            f"{name:<12} {row['trades_per_second']:>12,.0f} {row['cpu_us_per_trade']:>14.2f} {row['trades']:>12,.0f} "
            f"{row['trades_per_second'] / slowest:>13.1f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What each stage of a deployment takes while trades come at a rate: memory, CPU, connections; and what Kafka keeps.

    .venv/bin/python benchmarks/footprint.py [--runs 50:2000,1500:2000] [--seconds 60] [--json]

For each number of symbols and trades a second an empty broker, an aggregate worker (1m, 5m, 1h), sinks of SQLite, of
candles and of trades in a lake, and a chart; a tenth of the symbols is quiet. CPU is that of the process, as a share
of a core; memory is what it has at the end; connections are those to the broker. Of the topics it counts the bytes of
their logs, by trade, row of state and candle, before anything is compacted. All processes share this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from arguments import seconds, several
from scale_live import Market

from ashi.contracts.topics import CANDLES, CANDLES_LIVE, TRADES, state_topics, topic_specs
from ashi.runtime.kafka.cluster.offsets import end_offsets
from ashi.runtime.kafka.cluster.topics import create_topics
from ashi.runtime.settings import Settings
from ashi_cli.onemachine.broker import Broker
from ashi_cli.onemachine.children import spawn, stop_all

STAGES = {
    "aggregate": ("aggregate",),
    "sink sqlite": ("sink", "sqlite", "--storage", "sqlite:///candles.db"),
    "sink lake": ("sink", "lake", "--storage", "lake:///lake"),
    "sink lake, trades": ("sink", "lake", "--storage", "lake:///lake", "--topic", "trades"),
    "chart": ("chart", "--storage", "sqlite:///candles.db"),
}
RUNS = [(50, 2_000), (1_500, 2_000)]
READY = (b'"event":"ready"', b'"event":"storing ', b'"event":"reading candles')
READY_S = 90.0
WARM_UP_S = 10.0


def _free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def _start(env: Mapping[str, str], folder: Path) -> dict[str, subprocess.Popen[bytes]]:
    processes = {}
    for name, arguments in STAGES.items():
        with (folder / f"{name}.log").open("wb") as output:
            command = [sys.executable, "-m", "ashi_cli.main", *arguments]
            processes[name] = spawn(command, env=env, stdout=output, stderr=output, cwd=folder)
    return processes


async def _until_ready(folder: Path, processes: Mapping[str, subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + READY_S
    for name, process in processes.items():
        log = folder / f"{name}.log"
        while not any(word in log.read_bytes() for word in READY):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{name} does not get ready:\n{log.read_text()[-2000:]}")
            await asyncio.sleep(0.2)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _kept(broker: Path, topics: list[str]) -> int:
    return sum(log.stat().st_size for topic in topics for log in broker.rglob(f"{topic}-[0-9]*/*.log"))


async def _records(settings: Settings, topics: list[str]) -> int:
    return sum([sum((await end_offsets(settings, topic)).values()) for topic in topics])


async def _run(symbols: int, rate: int, measured_s: float, folder: Path) -> dict[str, Any]:
    broker = Broker(folder / "kafka")
    broker.start(child=True, fresh=True)
    processes: dict[str, subprocess.Popen[bytes]] = {}
    trading: asyncio.Task[None] | None = None
    try:
        settings = Settings.from_environment({"ASHI_KAFKA_BOOTSTRAP": broker.bootstrap})
        await create_topics(settings, topic_specs(settings.partitions, settings.timeframes))
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ASHI_")}
        processes = _start(
            kept
            | {
                "ASHI_KAFKA_BOOTSTRAP": broker.bootstrap,
                "ASHI_LOG_FORMAT": "json",
                "ASHI_METRICS_PORT": "0",
                "ASHI_CHART_PORT": _free_port(),
            },
            folder,
        )
        await _until_ready(folder, processes)
        market = Market(settings, symbols)
        market.rate = rate
        await market.begin()
        trading = asyncio.create_task(market.run())
        await asyncio.sleep(WARM_UP_S)
        seen = {name: psutil.Process(process.pid) for name, process in processes.items()}
        before, at = {name: _cpu_s(each) for name, each in seen.items()}, time.monotonic()
        await asyncio.sleep(measured_s)
        took_s = time.monotonic() - at
        port = int(broker.bootstrap.rpartition(":")[2])
        stages = {
            name: {
                "core": (_cpu_s(each) - before[name]) / took_s,
                "memory_mb": each.memory_info().rss / 1e6,
                "connections": sum(
                    link.status == "ESTABLISHED" and bool(link.raddr) and link.raddr.port == port
                    for link in each.net_connections("tcp")
                ),
            }
            for name, each in seen.items()
        }
    finally:
        if trading is not None:
            trading.cancel()
            await asyncio.gather(trading, return_exceptions=True)
        stop_all(list(processes.values()), 30)
    state = state_topics(settings.timeframes)
    counts = {name: await _records(settings, topics) for name, topics in _groups(state).items()}
    sizes = {name: _kept(folder, topics) for name, topics in _groups(state).items()}
    broker.stop()
    return {
        "symbols": symbols,
        "rate": rate,
        "stages": stages,
        "records": counts,
        "bytes": sizes,
        "lake_trades_bytes": sum(file.stat().st_size for file in (folder / "lake" / "trades").rglob("*.parquet")),
        "sqlite_bytes": (folder / "candles.db").stat().st_size,
    }


def _groups(state: list[str]) -> dict[str, list[str]]:
    return {TRADES: [TRADES], CANDLES: [CANDLES], CANDLES_LIVE: [CANDLES_LIVE], "state": state}


def _parse(text: str) -> tuple[int, int]:
    symbols, _, rate = text.partition(":")
    if not (symbols.isdigit() and rate.isdigit() and int(symbols) and int(rate)):
        raise argparse.ArgumentTypeError(f"{text!r} is not symbols:trades, such as 50:2000")
    return int(symbols), int(rate)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=several(_parse), default=RUNS, help="symbols:trades a second, …")
    parser.add_argument("--seconds", type=seconds, default=60.0, help="measured of each run")
    parser.add_argument("--json", action="store_true", help="print one line of JSON for each run")
    options = parser.parse_args()
    for symbols, rate in options.runs:
        with tempfile.TemporaryDirectory(prefix="ashi-bench-") as folder:
            found = asyncio.run(_run(symbols, rate, options.seconds, Path(folder)))
        if options.json:
            print(json.dumps(found))
            continue
        print(f"{symbols:,} symbols, {rate:,} trades a second")
        for name, stage in found["stages"].items():
            took = f"{stage['core']:6.2f} core {stage['memory_mb']:6.0f} MB {stage['connections']:3} connections"
            print(f"  {name:20} {took}")
        trades = found["records"][TRADES]
        for name, size in found["bytes"].items():
            count = found["records"][name]
            print(
                f"  {name:20} {count:10,} records {size / max(count, 1):8.1f} bytes each {size / trades:8.1f} a trade"
            )
        print(f"  lake, trades         {found['lake_trades_bytes'] / trades:8.1f} bytes a trade")
        print(f"  SQLite               {found['sqlite_bytes'] / max(found['records'][CANDLES], 1):8.1f} bytes a candle")


if __name__ == "__main__":
    main()

"""One run of an engine for `side_by_side.py`: started on a copy of a broker's folder, its candles watched."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from engines import Engine, Launch
from market import Expected, Key, Market

from ashi.contracts.topics import CANDLES, TRADES, TopicSpec
from ashi.runtime.kafka.cluster.topics import create_topics
from ashi.runtime.kafka.connections.clients import assigned_consumer
from ashi.runtime.settings import Settings
from ashi_cli.onemachine.broker import Broker
from ashi_cli.onemachine.children import spawn, stop_all

PARTITIONS = 8
TIMEFRAMES = "1m,5m,1h"
PEER_CANDLES = "candles.peer"
FIRST_S = 180.0
"""So long an engine may take until its first candle."""
LEAST_S = 0.2
"""What comes in less time says nothing of a rate."""
QUIET_S = 40.0
"""One that has told of nothing new for so long tells of nothing more."""


@dataclass
class Run:
    """What one engine did in one round."""

    engine: str
    round: int
    reason: str = ""
    """Why there is nothing more, if there is not."""
    trades: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    memory_mb: float = 0.0
    first_candle_s: float = 0.0
    other_cores: float = 0.0
    """What else the machine computed meanwhile; neither the broker nor this program is in it."""
    candles: int = 0
    inexact: int = 0
    """Right to nine digits, as floats are."""
    wrong: int = 0
    missing: int = 0
    """Windows before the last that was told of, of the same symbol and timeframe."""
    is_whole: bool = False

    @property
    def rate(self) -> float:
        """Trades a second."""
        return self.trades / self.seconds if self.seconds else 0.0

    @property
    def cpu_us(self) -> float:
        """CPU for a trade, µs."""
        return self.cpu_s / self.trades * 1e6 if self.trades else 0.0


class Tree:
    """Processes and all that they started."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._roots = [psutil.Process(pid) for pid in pids]

    def _all(self) -> Iterator[psutil.Process]:
        for root in self._roots:
            yield root
            yield from root.children(recursive=True)

    def cpu_s(self) -> float:
        """CPU that those which live have used."""
        total = 0.0
        for process in self._all():
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            total += times.user + times.system
        return total

    def memory_mb(self) -> float:
        """What they have in memory."""
        total = 0
        for process in self._all():
            try:
                total += process.memory_info().rss
            except psutil.Error:
                continue
        return total / 1e6


def compare(told: Mapping[Key, dict[str, Any]], expected: Mapping[Key, Expected], run: Run) -> None:
    """Count what is right, nearly right, wrong and missing."""
    newest: dict[tuple[str, str], int] = {}
    for key, candle in told.items():
        if key not in expected:  # of the last trades, or of none
            run.wrong += 1
            continue
        newest[key[:2]] = max(newest.get(key[:2], 0), key[2])
        found = [Decimal(str(candle[name])) for name in Expected._fields]
        wanted = [Decimal(each) for each in expected[key]]
        if found != wanted:
            near = all(abs(one - other) <= abs(other) / 10**9 for one, other in zip(found, wanted, strict=True))
            run.inexact += near
            run.wrong += not near
    run.candles = len(told)
    run.missing = sum(key not in told and key[2] < newest.get(key[:2], 0) for key in expected)


class Watch:
    """What is told in a topic of candles, and how far that is."""

    def __init__(self, expected: Mapping[Key, Expected], last_us: int) -> None:
        """`last_us`: what begins then or later is of the trades that close the others."""
        self._expected = expected
        self._last_us = last_us
        self.told: dict[Key, dict[str, Any]] = {}
        self.trades = 0
        self._left = len(expected)

    def take(self, value: bytes) -> None:
        """Take a message."""
        candle = json.loads(value, parse_float=Decimal)
        key = (candle["symbol"], candle["timeframe"], int(candle["open_time"]))
        if not int(candle["trade_count"]) or key[2] >= self._last_us:
            return
        if key not in self.told and key in self._expected:
            self._left -= 1
            if key[1] == "1m":
                self.trades += self._expected[key].trade_count
        self.told[key] = candle

    @property
    def is_whole(self) -> bool:
        """Whether every candle has been told."""
        return not self._left


def busy_s() -> float:
    """CPU that the machine has used."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


class _Sample(NamedTuple):
    """How far an engine is, and the CPU that it has used, this program with its broker and engine, and the machine."""

    at: float
    trades: int
    cpu_s: float
    here_s: float
    machine_s: float


async def follow(
    settings: Settings,
    topic: str,
    processes: Sequence[subprocess.Popen[bytes]],
    watch: Watch,
    *,
    run: Run,
    bound_s: float,
) -> None:
    """Watch an engine from its first candle to its last, or for `bound_s` seconds. Fills `run`."""
    tree, here = Tree([process.pid for process in processes]), Tree([os.getpid()])
    began = time.monotonic()
    samples: list[_Sample] = []
    async with assigned_consumer(settings, topic) as (consumer, partitions):
        await consumer.seek_to_beginning(*partitions)
        while not watch.is_whole:
            for records in (await consumer.getmany(timeout_ms=50)).values():
                for record in records:
                    watch.take(record.value)
            now = time.monotonic()
            if watch.trades > (samples[-1].trades if samples else 0):
                # The first and the last count.
                samples[1:] = [_Sample(now, watch.trades, tree.cpu_s(), here.cpu_s(), busy_s())]
                run.memory_mb = max(run.memory_mb, tree.memory_mb())
            ended = [process.returncode for process in processes if process.poll() is not None]
            if ended:
                run.reason = f"ended with {ended[0]}"
                return
            if not samples and now > began + FIRST_S:
                run.reason = f"told of no candle in {FIRST_S:g} s"
                return
            if samples and now > min(samples[0].at + bound_s, samples[-1].at + QUIET_S):
                break
    if len(samples) < 2 or samples[1].at - samples[0].at < LEAST_S:
        run.reason = f"told of {len(watch.told)} candles at once, so that there is no rate"
        return
    first, last = samples
    run.first_candle_s = first.at - began
    run.seconds, run.trades, run.cpu_s = last.at - first.at, last.trades - first.trades, last.cpu_s - first.cpu_s
    others_s = last.machine_s - first.machine_s - (last.here_s - first.here_s)
    run.other_cores = max(0.0, others_s / run.seconds)
    run.is_whole = watch.is_whole


def measure(
    engine: Engine,
    launch: Launch,
    seed: Path,
    market: Market,
    *,
    expected: Mapping[Key, Expected],
    number: int,
    bound_s: float,
) -> Run:
    """Run an engine once on a copy of the broker's folder."""
    run = Run(engine.name, number)
    with tempfile.TemporaryDirectory(prefix="ashi-bench-", ignore_cleanup_errors=True) as name:
        folder, state = Path(name), Path(name) / "state"
        state.mkdir()
        shutil.copytree(seed, folder / "kafka")
        broker = Broker(folder / "kafka")
        broker.start(child=True)
        processes: list[subprocess.Popen[bytes]] = []
        log = folder / "log"
        try:
            topic = CANDLES if engine.is_ashi else PEER_CANDLES
            env = environment(broker.bootstrap, topic, state, engine) | launch.environment
            settings = Settings.from_environment(env)
            compacted = [TopicSpec(each, PARTITIONS, {"cleanup.policy": "compact"}) for each in engine.changelogs]
            asyncio.run(create_topics(settings, [TopicSpec(PEER_CANDLES, PARTITIONS), *compacted]))
            *before, argv = [
                [part.replace("{state}", str(state)) for part in command] for command in (*launch.before, launch.argv)
            ]
            for command in before:
                subprocess.run(command, env=env, cwd=launch.cwd, check=True, stdout=subprocess.DEVNULL)
            with log.open("wb") as output:
                processes += [
                    spawn(argv, env=env, stdout=output, stderr=output, cwd=launch.cwd or folder)
                    for _ in range(engine.workers)
                ]
            watch = Watch(expected, market.last_us)
            asyncio.run(follow(settings, topic, processes, watch, run=run, bound_s=bound_s))
            compare(watch.told, expected, run)
        finally:
            stop_all(processes, 20)
            broker.stop()
        if run.reason:
            said = log.read_text(errors="replace").strip().splitlines()[-3:]
            run.reason += ": " + " | ".join(said)[-500:] if said else ""
    return run


def environment(bootstrap: str, candles: str, state: Path, engine: Engine) -> dict[str, str]:
    """What an engine is told."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ASHI_")}
    return kept | {
        "BENCH_KAFKA": bootstrap,
        "BENCH_TRADES": TRADES,
        "BENCH_CANDLES": candles,
        "BENCH_STATE": str(state),
        "BENCH_PARALLELISM": str(engine.parallelism),
        "ASHI_KAFKA_BOOTSTRAP": bootstrap,
        "ASHI_PARTITIONS": str(PARTITIONS),
        "ASHI_TIMEFRAMES": TIMEFRAMES,
        "ASHI_QUIET_CLOSE": "off",
        "ASHI_LOG_LEVEL": "warning",
        "ASHI_METRICS_PORT": "0",
    }

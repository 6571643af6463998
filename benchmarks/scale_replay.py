"""The first half of `scale.py`: trades that are there already, read as fast as possible, and recovery from SIGKILL."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import psutil
from throughput import cpu_seconds
from trades import BETWEEN_US, START_ID, START_US, make_messages, publish, send_in_batches

from ashi.contracts.topics import AGGREGATE_APP, CANDLES, TRADES, state_topics
from ashi.runtime.kafka.connections.clients import admin_client, assigned_consumer, make_consumer, make_producer
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.settings import Settings
from ashi_cli.onemachine.children import spawn, stop_all

WORKER = [sys.executable, "-m", "ashi_cli.main", "aggregate"]
POLL_S = 0.05
LOOK_S = 0.25
"""Between two looks at a worker's metrics, which cost it a millisecond."""
_METRICS = re.compile(rb'"metrics":"([^"]+)"')
_AGGREGATED = re.compile(r"^ashi_trades_aggregated_total\S* (\S+)$", re.MULTILINE)
BOUND_S = 90.0
"""A part is measured no longer than this; what it has come to by then is the result."""
MINUTE_US = 60_000_000


@dataclass(frozen=True, slots=True)
class Replay:
    """What was measured. `ready_s` is the whole from SIGKILL on, and the four others add up to it.

    `recovery_cpu_s` is what the new worker takes of a core until then: that tells also where others take most of it.
    """

    trades_per_second: float
    cpu_us_per_trade: float
    candles_per_second: float
    cpu_us_per_candle: float
    memory_mb: float
    changelog_records: int
    session_s: float
    start_s: float
    join_s: float
    restore_s: float
    ready_s: float
    recovery_cpu_s: float


class Worker:
    """An aggregate worker of the version in the folder `tree`, with its log in a file."""

    def __init__(self, env: Mapping[str, str], tree: Path, log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self.process: subprocess.Popen[bytes] = spawn(WORKER, env=env, stdout=output, stderr=output, cwd=tree)

    def check(self) -> None:
        """Raise SystemExit when it has ended."""
        if self.process.poll() is not None:
            raise SystemExit(f"the worker ended with {self.process.returncode}:\n{self._log.read_text()[-2000:]}")

    @property
    def is_ready(self) -> bool:
        """Whether it has said so."""
        return b'"event":"ready"' in self._log.read_bytes()

    def aggregated(self) -> int:
        """Trades that it has folded so far. What is committed lags behind: rows wait to be written."""
        started = _METRICS.search(self._log.read_bytes())
        if started is None:
            return 0
        with urlopen(started[1].decode(), timeout=30) as answer:
            return sum(int(float(count)) for count in _AGGREGATED.findall(answer.read().decode()))

    @property
    def memory_mb(self) -> float:
        """Its resident set."""
        return psutil.Process(self.process.pid).memory_info().rss / 1e6

    @property
    def cpu_s(self) -> float:
        """The CPU time that it has used."""
        return cpu_seconds(self.process.pid)

    def stop(self) -> None:
        """Let it end."""
        stop_all([self.process], 30)


async def ends_of(consumer, partitions) -> int:
    """The ends of all partitions together."""
    return sum((await consumer.end_offsets(partitions)).values())


async def state_records(settings: Settings) -> int:
    """Records that have been written to the changelogs, those that compaction has removed counted too."""
    total = 0
    for topic in state_topics(settings.timeframes):
        async with assigned_consumer(settings, topic) as (consumer, partitions):
            total += await ends_of(consumer, partitions)
    return total


@dataclass(frozen=True, slots=True)
class Pace:
    """A worker between two looks at it: seconds, trades, candles, CPU; and the greatest resident set until then."""

    seconds: float
    trades: int
    candles: int
    cpu_s: float
    memory_mb: float


async def read_all(settings: Settings, worker: Worker, copies: int = 1) -> Pace:
    """Let a worker that has been started read topic `trades` to its end, or for `BOUND_S`.

    Each trade stands there so many times; those counted are without the others.
    """
    async with AsyncExitStack() as stack:
        trades, at = await stack.enter_async_context(assigned_consumer(settings, TRADES))
        candles, candles_at = await stack.enter_async_context(assigned_consumer(settings, CANDLES))
        watcher = make_consumer(settings, group_id=AGGREGATE_APP)
        await watcher.start()
        stack.push_async_callback(watcher.stop)
        total = await ends_of(trades, at) // copies
        before = sum([await watcher.committed(each) or 0 for each in at])
        seen: list[tuple[float, int, int, float]] = []
        memory, began = 0.0, time.monotonic()
        while not seen or (seen[-1][1] < total and time.monotonic() < seen[0][0] + BOUND_S):
            worker.check()
            if not seen and time.monotonic() > began + 2 * BOUND_S:
                raise SystemExit("the worker does not get on")
            await asyncio.sleep(LOOK_S)
            done = before + await asyncio.to_thread(worker.aggregated)
            memory = max(memory, worker.memory_mb)
            if done > (seen[-1][1] if seen else before):
                seen.append((time.monotonic(), done, await ends_of(candles, candles_at), worker.cpu_s))
    first, last = seen[0], seen[-1]
    if last[1] == first[1]:
        raise SystemExit("the worker read all in one go, so nothing can be measured: let there be more --trades")
    return Pace(last[0] - first[0], last[1] - first[1], last[2] - first[2], last[3] - first[3], memory)


async def fill_changelogs(settings: Settings, wanted: int) -> None:
    """Repeat the rows of the changelogs, as they stand there, until these have so many records."""
    rows: dict[str, dict[tuple[int, bytes], bytes]] = {}
    for topic in state_topics(settings.timeframes):
        rows[topic] = {
            (each.partition, each.key): each.value async for each in read_topic(settings, topic) if each.value
        }
    producer = make_producer(settings, max_batch_size=2**20)
    await producer.start()
    try:
        missing = wanted - await state_records(settings)
        while missing > 0:
            for topic, found in rows.items():
                placed = ((partition, key, value) for (partition, key), value in found.items())
                await asyncio.gather(*await send_in_batches(producer, topic, placed))
                missing -= len(found)
    finally:
        await producer.stop()


async def _look(client) -> tuple[str, set[str]]:
    """The state of the group and the ids of its members."""
    (response,) = await client.describe_consumer_groups([AGGREGATE_APP])
    group = response.groups[0]
    return group[2], {member[0] for member in group[5]}


async def recover(settings: Settings, env: Mapping[str, str], tree: Path, folder: Path, dead: Worker) -> dict:
    """Kill a worker, start another and follow it until it is ready: seconds of each step."""
    async with admin_client(settings) as client:
        _, before = await _look(client)
        began = time.monotonic()
        dead.process.kill()
        dead.process.wait()
        worker = Worker(env, tree, folder / "recovered.log")
        known = gone = stable = None
        try:
            while True:
                worker.check()
                state, members = await _look(client)
                now = time.monotonic()
                known = known or (now if members - before else None)
                gone = gone or (now if not members & before else None)
                stable = stable or (now if known and gone and state == "Stable" else None)
                if worker.is_ready:
                    cpu_s = worker.cpu_s
                    break
                await asyncio.sleep(POLL_S)
        finally:
            worker.stop()
    # What was too short to be seen took no time.
    known, gone = known or now, gone or now
    stable = stable or max(known, gone)
    return {
        "start_s": known - began,
        "session_s": max(gone - known, 0.0),
        "join_s": max(stable - max(known, gone), 0.0),
        "restore_s": now - stable,
        "ready_s": now - began,
        "recovery_cpu_s": cpu_s,
    }


async def replay(
    settings: Settings,
    env: Mapping[str, str],
    tree: Path,
    folder: Path,
    *,
    symbols: int,
    dense: int,
    sparse: int,
    changelog: int,
) -> Replay:
    """Measure a worker of the version in `tree` on an empty broker; `folder` is for logs."""
    await publish(settings, make_messages(dense, symbols))
    trades = await _run(settings, env, tree, folder / "dense.log")
    start_us = START_US + dense * BETWEEN_US
    between_us = MINUTE_US / symbols
    await publish(
        settings,
        make_messages(sparse, symbols, start_us=start_us, between_us=between_us, start_id=START_ID + dense),
    )
    worker = Worker(env, tree, folder / "sparse.log")
    try:
        candles = await read_all(settings, worker)
        if changelog:
            await fill_changelogs(settings, changelog)
        records = await state_records(settings)
        recovery = await recover(settings, env, tree, folder, worker)
    finally:
        worker.stop()
    return Replay(
        trades_per_second=trades.trades / trades.seconds,
        cpu_us_per_trade=trades.cpu_s / trades.trades * 1e6,
        candles_per_second=candles.candles / candles.seconds,
        cpu_us_per_candle=candles.cpu_s / candles.candles * 1e6,
        memory_mb=max(trades.memory_mb, candles.memory_mb),
        changelog_records=records,
        **recovery,
    )


async def _run(settings: Settings, env: Mapping[str, str], tree: Path, log: Path) -> Pace:
    worker = Worker(env, tree, log)
    try:
        return await read_all(settings, worker)
    finally:
        worker.stop()

"""How long candles wait while aggregate workers are restarted one by one: the partitions of the others, and its own.

    .venv/bin/python benchmarks/handover.py [--members static,dynamic] [--symbols N] [--tick S] [--keep] [--json]

Three workers (`ashi aggregate`) share nine partitions whose symbols all trade steadily; candles are of one second. Each
worker is told to stop (SIGTERM), and started again as soon as it has ended; then one is killed (SIGKILL) and started
again. The stall of a partition is the greatest delay of a candle: from the end of its window and the lateness to when
Kafka appended it. Without a restart it is that of the next trade, a checkpoint at most. Where the restarted worker's
time went is told by its own log. All in one run, so the members' kinds can be compared on a machine that is shared and
noisy; the seconds are those of this machine now. The workers' logs are kept when something fails, or with `--keep`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from arguments import one_of, seconds, several
from trades import names_of, send_in_batches

from ashi.contracts import Trade, decode_candle, encode_trade
from ashi.contracts.topics import CANDLES, TRADES, topic_specs
from ashi.runtime.kafka.cluster.topics import create_topics
from ashi.runtime.kafka.connections.clients import assigned_consumer, make_producer, partition_of
from ashi.runtime.settings import Settings
from ashi_cli.onemachine.broker import Broker
from ashi_cli.onemachine.children import spawn, stop_all
from ashi_cli.values import positive

ASHI = (sys.executable, "-m", "ashi_cli.main")
WORKERS, PARTITIONS = 3, 9
TIMEFRAME_US, LATENESS_US = 1_000_000, 200_000
CALM_S = 0.6
"""Nothing stalls when no partition's last candle is later than this and a tick."""
STEADY_S = 3.0
"""Between two restarts everything has been calm for so long."""
BOUND_S = 90.0
STOPPED = 143
"""The exit status after SIGTERM."""


@dataclass
class Worker:
    """A place in the fleet: one process at a time, one log."""

    name: str
    log: Path
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    began_at: float = 0.0

    def start(self) -> None:
        """Start a process; its log is its own, so that what it says is of this start."""
        self.log.unlink(missing_ok=True)
        self.began_at = time.time()
        with self.log.open("ab") as output:
            self.process = spawn([*ASHI, "aggregate"], env=self.environment, stdout=output, stderr=output)

    def events(self, *names: str) -> Iterator[dict]:
        """What it has logged of these."""
        wanted = [f'"event":"{name}"' for name in names]
        for line in self.log.read_text(errors="replace").splitlines():
            if any(text in line for text in wanted):
                yield json.loads(line)

    def said_at(self, event: str) -> float | None:
        """When (seconds since the epoch) it first said so."""
        for entry in self.events(event):
            return datetime.fromisoformat(entry["time"]).timestamp()
        return None

    def partitions(self) -> set[int]:
        """Those that it took up last."""
        taken: set[int] = set()
        for entry in self.events("resumed", "released all partitions"):
            taken = {int(number) for number in entry.get("partitions", ())}
        return taken


@dataclass
class Fleet:
    """The workers, and what goes on beside them: the trading, and the watch over their candles."""

    workers: list[Worker]
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def check(self) -> None:
        """Raise SystemExit if a worker has ended by itself; what a task has died of is raised."""
        for worker in self.workers:
            if worker.process is not None and worker.process.poll() is not None:
                raise SystemExit(
                    f"{worker.name} ended with {worker.process.returncode}: {worker.log.read_text()[-2000:]}"
                )
        for task in self.tasks:
            if task.done():
                task.result()
                raise SystemExit(f"{task.get_name()} came to an end")


@dataclass
class Restart:
    """One restart. Seconds; `stalls` by partition, of its own and of the others'."""

    members: str
    what: str
    own: dict[int, float]
    others: dict[int, float]
    ended_s: float
    phases: dict[str, float]


@dataclass
class Watch:
    """The delays of candles, as they come, of symbols that trade once a tick."""

    tick_s: float
    delays: list[tuple[float, int, float]] = field(default_factory=list)
    """When the window was due (seconds since the epoch), the partition, and how late its candle came (seconds)."""
    newest: dict[int, float] = field(default_factory=dict)
    """When the newest window of a partition that has come was due."""
    seen: set[tuple[str, int]] = field(default_factory=set)

    def take(self, value: bytes, appended_ms: int) -> None:
        """Count a candle when it comes for the first time."""
        candle = decode_candle(value)
        if (candle.symbol, candle.open_time) in self.seen:
            return
        self.seen.add((candle.symbol, candle.open_time))
        partition = partition_of(candle.symbol.encode(), PARTITIONS)
        due_s = (candle.open_time + TIMEFRAME_US + LATENESS_US) / 1e6
        self.delays.append((due_s, partition, appended_ms / 1e3 - due_s))
        self.newest[partition] = max(due_s, self.newest.get(partition, 0.0))

    def late_now(self) -> float:
        """How late the partition is, that is the furthest behind."""
        if len(self.newest) < PARTITIONS:
            return float("inf")
        return time.time() - min(self.newest.values()) - TIMEFRAME_US / 1e6

    def stalls(self, since_s: float, partitions: Collection[int]) -> dict[int, float]:
        """The greatest delay of each of these partitions among the windows that were due since then."""
        longest = dict.fromkeys(sorted(partitions), 0.0)
        for due_s, partition, delay_s in self.delays:
            if due_s >= since_s and partition in longest:
                longest[partition] = max(longest[partition], delay_s)
        return longest


async def trade(settings: Settings, symbols: list[str], tick_s: float) -> None:
    """Let every symbol trade once a tick, by whole batches, until cancelled."""
    homes = {symbol: partition_of(symbol.encode(), PARTITIONS) for symbol in symbols}
    producer = make_producer(settings)
    await producer.start()
    try:
        number, next_at = 0, time.monotonic()
        while True:
            number, next_at = number + 1, next_at + tick_s
            now_us = time.time_ns() // 1000
            trades = (
                Trade(name, str(number), Decimal(number % 1000), Decimal(1), "buy", now_us, now_us, number)
                for name in symbols
            )
            await send_in_batches(
                producer, TRADES, ((homes[each.symbol], each.symbol.encode(), encode_trade(each)) for each in trades)
            )
            await asyncio.sleep(max(0.0, next_at - time.monotonic()))
    finally:
        await producer.stop()


async def follow(settings: Settings, watch: Watch) -> None:
    """Read topic candles until cancelled."""
    async with assigned_consumer(settings, CANDLES) as (consumer, partitions):
        await consumer.seek_to_beginning(*partitions)
        while True:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    watch.take(record.value, record.timestamp)


async def until(condition: Callable[[], bool], fleet: Fleet, what: str) -> None:
    """Wait until it holds. Raises SystemExit when it does not in time, and what `Fleet.check` does."""
    deadline = time.monotonic() + BOUND_S
    while not condition():
        fleet.check()
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} did not come within {BOUND_S:g} s")
        await asyncio.sleep(0.02)


async def calm(watch: Watch, fleet: Fleet) -> None:
    """Wait until no partition has been behind for a while."""
    since = time.monotonic()

    def is_calm() -> bool:
        nonlocal since
        if watch.late_now() > CALM_S + watch.tick_s:
            since = time.monotonic()
        return time.monotonic() - since > STEADY_S

    await until(is_calm, fleet, "calm")


async def restart(worker: Worker, fleet: Fleet, watch: Watch, number: signal.Signals, members: str) -> Restart:
    """End a worker, start it again at once, and tell what that cost."""
    own = worker.partitions()
    assert worker.process is not None
    began_s = time.time()
    worker.process.send_signal(number)
    while worker.process.poll() is None:
        await asyncio.sleep(0.005)
        if time.time() > began_s + BOUND_S:
            raise SystemExit(f"{worker.name} does not end")
    ended_s = time.time() - began_s
    worker.start()
    await until(lambda: worker.said_at("ready") is not None, fleet, f"{worker.name}'s readiness")
    await calm(watch, fleet)
    said = {event: worker.said_at(event) for event in ("started", "joining the group", "taken up", "ready")}
    phases = {event: at - worker.began_at for event, at in said.items() if at is not None}
    for entry in worker.events("taken up"):
        phases |= {"join": entry["join_s"], "state": entry["state_s"]}
        break
    stalls = watch.stalls(began_s - 0.5, range(PARTITIONS))
    return Restart(
        members,
        number.name,
        {partition: stall for partition, stall in stalls.items() if partition in own},
        {partition: stall for partition, stall in stalls.items() if partition not in own},
        ended_s,
        phases,
    )


@asynccontextmanager
async def deployment(
    directory: Path, bootstrap: str, members: str, options: argparse.Namespace
) -> AsyncIterator[tuple[Fleet, Watch]]:
    """Three workers that aggregate what is traded, and the watch over their candles."""
    chosen = {
        "ASHI_KAFKA_BOOTSTRAP": bootstrap,
        "ASHI_PARTITIONS": str(PARTITIONS),
        "ASHI_TIMEFRAMES": "1s",
        "ASHI_ALLOWED_LATENESS": f"{LATENESS_US // 1000}ms",
        "ASHI_LOG_FORMAT": "json",
        "ASHI_LOG_LEVEL": options.log_level,
    }
    settings = Settings.from_environment(chosen)
    await create_topics(settings, topic_specs(PARTITIONS, settings.timeframes))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ASHI_")} | chosen
    fleet = Fleet(
        [
            Worker(
                name := f"worker-{number}",
                directory / f"{members}-{name}.log",
                environment | ({"ASHI_INSTANCE_ID": name} if members == "static" else {}),
            )
            for number in range(WORKERS)
        ]
    )
    watch = Watch(options.tick)
    fleet.tasks = [
        asyncio.create_task(trade(settings, names_of(options.symbols), options.tick), name="the trading"),
        asyncio.create_task(follow(settings, watch), name="the watch"),
    ]
    try:
        for worker in fleet.workers:
            worker.start()
        await until(lambda: all(worker.said_at("ready") for worker in fleet.workers), fleet, "readiness")
        await calm(watch, fleet)
        yield fleet, watch
    finally:
        for task in fleet.tasks:
            task.cancel()
        await asyncio.gather(*fleet.tasks, return_exceptions=True)
        stop_all([worker.process for worker in fleet.workers if worker.process is not None], 20)


async def run(directory: Path, bootstrap: str, members: str, options: argparse.Namespace) -> list[Restart]:
    """Restart each worker with SIGTERM, then one with SIGKILL."""
    async with deployment(directory, bootstrap, members, options) as (fleet, watch):
        done = []
        told = [(worker, signal.SIGTERM) for worker in fleet.workers]
        for worker, number in [*told, (fleet.workers[0], signal.SIGKILL)]:
            if len(worker.partitions()) == 0:
                raise SystemExit(f"{worker.name} has no partitions")
            done.append(await restart(worker, fleet, watch, number, members))
            print(_row(done[-1]), file=sys.stderr)
        return done


def _row(one: Restart) -> str:
    phases = ", ".join(f"{name} {seconds:.2f}" for name, seconds in one.phases.items())
    return (
        f"| {one.members} | {one.what} | {len(one.own)} + {len(one.others)} | {max(one.others.values()):.2f} "
        f"| {max(one.own.values(), default=0.0):.2f} | {one.ended_s:.2f} | {phases} |"
    )


@contextmanager
def folder(*, keep: bool) -> Iterator[Path]:
    """A folder for logs and brokers, removed at the end; not when something fails, or with `keep`."""
    directory = Path(tempfile.mkdtemp(prefix="ashi-handover-"))
    try:
        yield directory
    except BaseException as error:
        told_to_stop = isinstance(error, KeyboardInterrupt) or getattr(error, "code", None) == STOPPED
        keep = keep or not told_to_stop
        raise
    finally:
        if keep:
            print(f"logs in {directory}", file=sys.stderr)
        else:
            shutil.rmtree(directory, ignore_errors=True)


def measure(kinds: list[str], options: argparse.Namespace) -> list[Restart]:
    """Everything, with a new broker for each kind of membership."""
    results: list[Restart] = []
    with folder(keep=options.keep) as directory:
        for members in kinds:
            broker = Broker(directory / f"{members}-kafka")
            broker.start(child=True)
            try:
                results += asyncio.run(run(directory, broker.bootstrap, members, options))
            finally:
                broker.stop()
    return results


def parse_arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--members",
        type=several(one_of("static", "dynamic")),
        default="static,dynamic",
        help="kinds of membership, in this order",
    )
    parser.add_argument("--symbols", type=positive, default=90)
    parser.add_argument("--tick", type=seconds, default=0.05, help="seconds after which each symbol trades again")
    parser.add_argument("--log-level", choices=("info", "debug"), default="info", help="of the workers")
    parser.add_argument("--keep", action="store_true", help="keep the folder of the workers' logs and the brokers")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if len({partition_of(name.encode(), PARTITIONS) for name in names_of(options.symbols)}) < PARTITIONS:
        parser.error(f"--symbols {options.symbols} are too few for each of {PARTITIONS} partitions to have one")
    return options


def main() -> None:
    """Run and print."""
    options = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED))
    results = measure(options.members, options)
    if options.json:
        print(json.dumps([asdict(result) for result in results]))
        return
    print(
        "| members | restart | partitions, own + others | others' longest stall, s | own, s | end, s | since start, s |"
    )
    print("|---|---|---|---|---|---|---|")
    for result in results:
        print(_row(result))


if __name__ == "__main__":
    main()

"""What one live ingest worker takes: from a websocket to Kafka's acknowledgment, against a simulated venue.

    .venv/bin/python benchmarks/ingest.py [--rate N] [--seconds S] [--markets N] [--json]

Broker, venue (`ashi venue-sim binance`, which sends a frame for each trade) and worker (`ashi ingest binance`) are
processes of their own, new for each run, on this machine. Three questions, less than two minutes:

- At 2,000 trades/s, how long from the receipt of a frame to the acknowledgment of Kafka? Read off the worker's
  `ashi_frame_to_ack_seconds`, which counts the oldest trade of each batch. A quantile is interpolated in its bucket.
- At `--rate`, does the worker keep up, and does its memory grow? The backlog is what the venue has traded less what
  stands in topic `trades`, so it counts what waits in sockets and in memory as well.
- What is the most? The rate is raised by a quarter, three times at most, until the worker falls behind.

After each run every trade must be in the topic, each once and in the order of its market. Rates, CPU and latency are
those after a warm-up, because a broker that has just started is slow. What else runs on the machine counts: latency
above all is that of a machine with a core to spare.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import msgspec
import psutil
from aiohttp import ClientSession
from prometheus_client.parser import text_string_to_metric_families
from throughput import cpu_seconds

from ashi.contracts.topics import TRADES, topic_specs
from ashi.runtime.kafka.cluster.topics import create_topics
from ashi.runtime.kafka.connections.clients import assigned_consumer
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.settings import Settings
from ashi_cli.onemachine.broker import Broker
from ashi_cli.onemachine.children import pick_ports, spawn, stop_all
from ashi_cli.onemachine.kafka_server import HOST

ASHI = (sys.executable, "-m", "ashi_cli.main")
LATENCY_RATE, LATENCY_SECONDS = 2_000, 15
MOST_STEP, MOST_STEPS, MOST_SECONDS = 1.25, 3, 6
WARM_UP_S = 5.0
POLL_S = 0.5
START_S = 30.0
DRAIN_S = 30.0
BEHIND_S = 1.0
"""A worker has fallen behind that still publishes so long after the market has stopped."""
AIM_MS = 50.0


@dataclass(frozen=True, slots=True)
class Result:
    """One run.

    `backlog_end` is that when the market stops, `drained_s` how long until the last trade is published. `cpu_share` is
    how much of a core the worker had, `starved_share` how much more it could have used had the machine had it.
    """

    rate: int
    seconds: float
    published_per_second: float
    trades: int
    backlog_typical: int
    backlog_most: int
    backlog_end: int
    drained_s: float
    cpu_us_per_trade: float
    cpu_share: float
    starved_share: float
    ack_p50_ms: float
    ack_p99_ms: float
    ack_p99_bucket_ms: float
    memory_first_mb: float
    memory_most_mb: float
    memory_last_mb: float

    @property
    def kept_up(self) -> bool:
        """Whether the worker published as fast as the venue traded."""
        return self.drained_s <= BEHIND_S


@dataclass(frozen=True, slots=True)
class Sample:
    """What could be seen at one moment; `acks` are the histogram's counts by the upper bound of the bucket."""

    at_s: float
    published: int
    traded: int
    cpu_s: float
    starved_s: float
    memory: int
    acks: Mapping[float, float]

    @property
    def backlog(self) -> int:
        """Trades that are not in the topic yet."""
        return self.traded - self.published


class Watch:
    """Looks at a run from outside: the topic's end, the simulator's count, the worker's metrics and process."""

    def __init__(self, session: ClientSession, consumer, partitions, *, worker, rest: str, metrics: str) -> None:
        self._session, self._consumer, self._partitions = session, consumer, partitions
        self._worker, self._rest, self._metrics = worker, rest, metrics

    async def published(self) -> int:
        """Trades in the topic."""
        return sum((await self._consumer.end_offsets(self._partitions)).values())

    async def state(self) -> dict:
        """What the simulator says of itself."""
        async with self._session.get(f"{self._rest}/sim/state") as answer:
            return await answer.json()

    async def stop_market(self) -> None:
        """Let nothing be traded any more."""
        async with self._session.post(f"{self._rest}/sim/market", json={"trading": False}) as answer:
            answer.raise_for_status()

    async def metric(self, name: str, label: str) -> dict[str, float]:
        """A metric of the worker, by one of its labels."""
        async with self._session.get(self._metrics) as answer:
            families = text_string_to_metric_families(await answer.text())
            found = [sample for family in families for sample in family.samples if sample.name == name]
        return {sample.labels[label]: sample.value for sample in found}

    async def sample(self) -> Sample:
        """Look now. The topic first, so that the backlog is rather too great than too small."""
        if self._worker.poll() is not None:
            raise SystemExit(f"the worker ended with {self._worker.returncode}")
        published, state = await self.published(), await self.state()
        acks = await self.metric("ashi_frame_to_ack_seconds_bucket", "le")
        return Sample(
            time.monotonic(),
            published,
            state["trades"],
            cpu_seconds(self._worker.pid),
            starved_seconds(self._worker.pid),
            psutil.Process(self._worker.pid).memory_info().rss,
            {float(bound): count for bound, count in acks.items()},
        )


def starved_seconds(pid: int) -> float:
    """How long the threads of a process were ready to run while all cores were taken."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[1]) for thread in threads) / 1e9


def quantile(first: Mapping[float, float], last: Mapping[float, float], share: float) -> tuple[float, float]:
    """A quantile of what a histogram counted between two looks: interpolated in its bucket, and the bucket's bound."""
    counts = sorted((bound, count - first.get(bound, 0)) for bound, count in last.items())
    if not counts:
        return math.nan, math.nan
    wanted = share * counts[-1][1]
    below_bound, below = 0.0, 0.0
    for bound, count in counts:
        if count >= wanted and count > below:
            inside = (wanted - below) / (count - below)
            value = bound if math.isinf(bound) else below_bound + inside * (bound - below_bound)
            return value, bound
        below_bound, below = bound, count
    return math.nan, math.nan


async def until_trading(session: ClientSession, rest: str, worker: subprocess.Popen[bytes]) -> None:
    """Wait until the worker has subscribed to all markets, at which the simulator begins to trade."""
    deadline = time.monotonic() + START_S
    while True:
        async with session.get(f"{rest}/sim/state") as answer:
            if (await answer.json())["trading"]:
                return
        if worker.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the worker does not subscribe (exit status {worker.poll()})")
        await asyncio.sleep(0.1)


@asynccontextmanager
async def running(settings: Settings, env: dict[str, str], rate: int, markets: Sequence[str]) -> AsyncIterator[Watch]:
    """A simulated venue that trades, and a worker that reads it."""
    venue = spawn(
        [*ASHI, "venue-sim", "binance", *markets, "--rate", str(rate), "--start", "when-subscribed"],
        env=env,
        stdout=subprocess.PIPE,
    )
    children = [venue]
    try:
        assert venue.stdout is not None
        said = dict[str, str]()
        while "ASHI_REST_URL" not in said:
            line = await asyncio.to_thread(venue.stdout.readline)
            if not line:
                raise SystemExit(f"the simulator ended with {venue.wait()}")
            variable, equals, value = line.decode().strip().removeprefix("export ").partition("=")
            if equals:
                said[variable] = value
        port = pick_ports(HOST, None)[0]
        worker = spawn(
            [*ASHI, "ingest", "binance", *markets],
            env=env | said | {"ASHI_METRICS_PORT": str(port)},
            stdout=subprocess.DEVNULL,
        )
        children.append(worker)
        rest = said["ASHI_REST_URL"]
        async with ClientSession() as session:
            await until_trading(session, rest, worker)
            async with assigned_consumer(settings, TRADES) as (consumer, partitions):
                metrics = f"http://{HOST}:{port}/metrics"
                yield Watch(session, consumer, partitions, worker=worker, rest=rest, metrics=metrics)
    finally:
        left = stop_all(children[::-1], 25)
        if left:
            print(f"{len(left)} processes had to be killed", file=sys.stderr)


async def watched(watch: Watch, rate: int, seconds: float) -> Result:
    """Let the market trade for so long after the warm-up, then stop it and wait for what is on its way."""
    await asyncio.sleep(WARM_UP_S)
    samples = [first := await watch.sample()]
    while (left_s := first.at_s + seconds - time.monotonic()) > 0:
        await asyncio.sleep(min(POLL_S, left_s))
        samples.append(await watch.sample())
    last = samples[-1]
    await watch.stop_market()
    stopped_s = time.monotonic()
    traded = (await watch.state())["trades"]
    while (published := await watch.published()) < traded:
        if time.monotonic() > stopped_s + DRAIN_S:
            ended = await watch.metric("ashi_reconnects_total", "reason")
            raise SystemExit(
                f"at {rate:,} trades/s {traded - published} of {traded} trades are missing {DRAIN_S:g} s after the "
                f"end; connections that ended: {ended or 'none'}. Is the machine too busy?"
            )
        await asyncio.sleep(0.02)
    span_s, trades = last.at_s - first.at_s, last.published - first.published
    p99, bucket = quantile(first.acks, last.acks, 0.99)
    return Result(
        rate=rate,
        seconds=span_s,
        published_per_second=trades / span_s,
        trades=traded,
        backlog_typical=sorted(sample.backlog for sample in samples)[len(samples) // 2],
        backlog_most=max(sample.backlog for sample in samples),
        backlog_end=last.backlog,
        drained_s=time.monotonic() - stopped_s,
        cpu_us_per_trade=(last.cpu_s - first.cpu_s) / trades * 1e6,
        cpu_share=(last.cpu_s - first.cpu_s) / span_s,
        starved_share=(last.starved_s - first.starved_s) / span_s,
        ack_p50_ms=quantile(first.acks, last.acks, 0.5)[0] * 1e3,
        ack_p99_ms=p99 * 1e3,
        ack_p99_bucket_ms=bucket * 1e3,
        memory_first_mb=first.memory / 1e6,
        memory_most_mb=max(sample.memory for sample in samples) / 1e6,
        memory_last_mb=last.memory / 1e6,
    )


class _Id(msgspec.Struct):
    sequence: int


async def check_topic(settings: Settings, trades: int) -> None:
    """Fail unless so many trades are in the topic, and the ids of each market count up by one: all, each once."""
    decode = msgspec.json.Decoder(_Id).decode
    ids: dict[bytes, list[int]] = defaultdict(list)
    async for record in read_topic(settings, TRADES):
        ids[record.key].append(decode(record.value).sequence)
    found = sum(map(len, ids.values()))
    if found != trades:
        raise SystemExit(f"{found} trades are in the topic, {trades} happened")
    for key, sequences in ids.items():
        if any(after != before + 1 for before, after in pairwise(sequences)):
            raise SystemExit(f"the trades of {key.decode()} are not in order, or not all there")


async def run(settings: Settings, env: dict[str, str], rate: int, seconds: float, markets: int) -> Result:
    """One run at one rate."""
    await create_topics(settings, topic_specs(settings.partitions, settings.timeframes))
    names = [f"M{number}USDT" for number in range(markets)]
    async with running(settings, env, rate, names) as watch:
        result = await watched(watch, rate, seconds)
    await check_topic(settings, result.trades)
    return result


def measure(rate: int, seconds: float, markets: int) -> Result:
    """One run with a new, empty broker."""
    with tempfile.TemporaryDirectory(prefix="ashi-bench-") as directory:
        broker = Broker(Path(directory))
        broker.start(child=True, fresh=True)
        try:
            env = os.environ | {"ASHI_KAFKA_BOOTSTRAP": broker.bootstrap, "ASHI_LOG_LEVEL": "warning"}
            return asyncio.run(run(Settings.from_environment(env), env, rate, seconds, markets))
        finally:
            broker.stop()


def most(results: list[Result], markets: int) -> None:
    """Add runs at higher and higher rates, until the worker falls behind."""
    for _ in range(MOST_STEPS):
        if not results[-1].kept_up:
            return
        results.append(measure(int(results[-1].rate * MOST_STEP), MOST_SECONDS, markets))


def print_table(results: Sequence[Result]) -> None:
    """A line for each run, and what follows."""
    print("               ------- backlog -------  until  ------ CPU -------  frame to ack, ms  -- memory, MB --")
    print(
        "offered/s published/s  typical    most at end  empty s µs/trade  core starved    p50    p99 first  most  last"
    )
    for each in results:
        print(
            f"{each.rate:>9,} {each.published_per_second:>11,.0f} {each.backlog_typical:>8,} {each.backlog_most:>7,} "
            f"{each.backlog_end:>6,} {each.drained_s:>8.2f} {each.cpu_us_per_trade:>8.1f} {each.cpu_share:>5.0%} "
            f"{each.starved_share:>7.0%} {each.ack_p50_ms:>6.1f} {each.ack_p99_ms:>6.1f} "
            f"{each.memory_first_mb:>5.0f} {each.memory_most_mb:>5.0f} {each.memory_last_mb:>5.0f}"
        )
    calm, fastest = results[0], max(results, key=lambda each: each.published_per_second)
    behind = [each.rate for each in results if not each.kept_up]
    print(
        f"p99 from frame to acknowledgment at {calm.rate:,} trades/s: {calm.ack_p99_ms:.0f} ms, by its bucket at most "
        f"{calm.ack_p99_bucket_ms:g} ms; that is {calm.ack_p99_ms / AIM_MS:.2f} of the aim of {AIM_MS:g} ms"
    )
    print(
        f"most published: {fastest.published_per_second:,.0f} trades/s with {fastest.cpu_share:.0%} of a core, "
        + (f"behind at {behind[0]:,} trades/s" if behind else "never behind")
        + f"; a whole core is enough for {1e6 / fastest.cpu_us_per_trade:,.0f} trades/s"
    )


def main() -> int:
    """Run it and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=20_000, help="trades per second of the second run")
    parser.add_argument("--seconds", type=float, default=20, help="how long the second run is measured")
    parser.add_argument("--markets", type=int, default=24)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results = [
        measure(LATENCY_RATE, LATENCY_SECONDS, arguments.markets),
        measure(arguments.rate, arguments.seconds, arguments.markets),
    ]
    most(results, arguments.markets)
    if arguments.json:
        print(json.dumps({"runs": [asdict(each) | {"kept_up": each.kept_up} for each in results]}))
        return 0
    print_table(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())

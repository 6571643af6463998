"""One aggregate worker on logs of different shapes: what many symbols, disorder, copies and odd ids cost.

    .venv/bin/python benchmarks/shapes.py [--trades N] [--shapes symbols-500,texts] [--json]

Each shape is a topic of its own on a broker of its own, 8 partitions, records as `ashi ingest` writes them, read as
fast as possible by a worker that has just started. The rate is that of records that are folded, from the first look at
the worker's metrics to the last, so that start-up is left out; CPU is the worker's, all threads, and tells also where
others take most of the machine. *aim* is what the project wants of two cores with the broker beside. Some five minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice

from arguments import one_of, several
from scale import HERE, broker, environment_of
from scale_replay import Worker, read_all
from trades import BETWEEN_US, START_ID, START_US, names_of, send_in_batches

from ashi.contracts import decode_trade, encode_trade
from ashi.contracts.topics import TRADES
from ashi.runtime.kafka.connections.clients import make_producer, partition_of
from ashi.runtime.settings import Settings
from ashi_cli.values import positive

AT_ONCE = 200_000
DISORDER = 3_800
"""So many trades stand in no order: 1.9 s of them, and the lateness is 2 s."""
COPY_AFTER = 100
"""A copy comes so many trades after the first: of another ingester, some 50 ms behind."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What is particular about a log, or about who reads it. `aim`: trades/s."""

    aim: int
    symbols: int = 50
    disorder: bool = False
    twice: bool = False
    texts: bool = False
    timeframes: str = "1m,5m,1h"
    native: bool = True


SHAPES = {
    "plain": Shape(1_200_000, symbols=8),
    "symbols-500": Shape(1_000_000, symbols=500),
    "symbols-1500": Shape(800_000, symbols=1_500),
    "symbols-10000": Shape(300_000, symbols=10_000),
    "disorder": Shape(1_000_000, disorder=True),
    "twice": Shape(800_000, twice=True),
    "texts": Shape(500_000, texts=True),
    "seconds": Shape(800_000, timeframes="1s,1m,1h"),
    "python": Shape(300_000, native=False),
}


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured; the rate is that of records, copies too."""

    shape: str
    aim: int
    trades_per_second: float
    cpu_us: float
    candles: int
    memory_mb: float


def _decimal(number: int, places: int) -> str:
    whole, fraction = divmod(number, 10**places)
    return f"{whole}.{fraction:0{places}d}".rstrip("0").rstrip(".")


def make_trades(count: int, shape: Shape) -> Iterator[tuple[str, bytes]]:
    """Symbol and message of each trade, by time; written here, as the encoder takes as long again."""
    rng = random.Random(1)
    names = names_of(shape.symbols)
    ids = dict.fromkeys(names, START_ID)
    for number in range(count):
        symbol = names[int(rng.random() * len(names))]
        ids[symbol] += 1
        traded_at = START_US + number * BETWEEN_US
        trade_id = f"{ids[symbol]:x}-z" if shape.texts else str(ids[symbol])
        price = _decimal(2_600_000 + int(rng.random() * 100_000), 3)
        size = _decimal(1 + int(rng.random() * 10**9), 8)
        side = "buy" if number % 2 else "sell"
        value = (
            f'{{"symbol":"{symbol}","trade_id":"{trade_id}","price":"{price}","size":"{size}","side":"{side}",'
            f'"traded_at":{traded_at},"received_at":{traded_at + 50_000},"sequence":{ids[symbol]}}}'
        ).encode()
        if number < 100 and encode_trade(decode_trade(value)) != value:
            raise SystemExit(f"{value!r} is not what Ashi's ingest writes")
        yield symbol, value


def make_log(count: int, shape: Shape) -> Iterator[tuple[str, bytes]]:
    """The records in the order in which they stand in the log."""
    trades = make_trades(count // 2 if shape.twice else count, shape)
    if shape.disorder:
        rng = random.Random(2)
        while block := list(islice(trades, DISORDER)):
            rng.shuffle(block)
            yield from block
    elif shape.twice:
        while block := list(islice(trades, COPY_AFTER)):
            yield from block
            yield from block
    else:
        yield from trades


async def publish(settings: Settings, log: Iterator[tuple[str, bytes]]) -> None:
    """Publish all of it and wait until Kafka has it."""
    producer = make_producer(settings)
    await producer.start()
    homes: dict[str, tuple[int, bytes]] = {}
    try:
        while records := list(islice(log, AT_ONCE)):
            for symbol, _ in records:
                if symbol not in homes:
                    homes[symbol] = partition_of(symbol.encode(), settings.partitions), symbol.encode()
            placed = ((*homes[symbol], value) for symbol, value in records)
            await asyncio.gather(*await send_in_batches(producer, TRADES, placed))
    finally:
        await producer.stop()


def measure(name: str, count: int) -> Result:
    """Let a worker read a log of that shape."""
    shape = SHAPES[name]
    env = environment_of(HERE) | {"ASHI_NATIVE_FOLD": "on" if shape.native else "off"}
    with broker(env, ASHI_QUIET_CLOSE="off", ASHI_TIMEFRAMES=shape.timeframes) as (settings, worker_env, folder):
        asyncio.run(publish(settings, make_log(count, shape)))
        worker = Worker(worker_env, HERE, folder / "worker.log")
        try:
            pace = asyncio.run(read_all(settings, worker, copies=2 if shape.twice else 1))
        finally:
            worker.stop()
    records = pace.trades * (2 if shape.twice else 1)
    return Result(name, shape.aim, records / pace.seconds, pace.cpu_s / records * 1e6, pace.candles, pace.memory_mb)


def main() -> int:
    """Run it and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trades", type=positive, default=3_000_000, help="records of each log")
    parser.add_argument("--shapes", type=several(one_of(*SHAPES)), default=list(SHAPES), help=", ".join(SHAPES))
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    options = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a broker that has just started makes it complain
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results = []
    if not options.json:
        print(f"{'shape':<14} {'trades/s':>10} {'aim':>10} {'CPU µs':>7} {'candles':>9} {'MB':>5}")
    for name in options.shapes:
        results.append(measure(name, options.trades))
        each = results[-1]
        if not options.json:
            print(
                f"{name:<14} {each.trades_per_second:>10,.0f} {each.aim:>10,} {each.cpu_us:>7.2f} "
                f"{each.candles:>9,} {each.memory_mb:>5.0f}",
                flush=True,
            )
    if options.json:
        print(json.dumps([asdict(each) for each in results]))
    return 0


if __name__ == "__main__":
    sys.exit(main())

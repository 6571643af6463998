"""What the state of many symbols costs to write: rows and bytes a trade, and how far the marker stays behind.

    .venv/bin/python benchmarks/rows.py [--symbols N] [--seconds S] [--rates 2000,20000] [--rows all,1000] [--waits 20]
                                     [--skew 0,1]

The pipeline of one worker, without Kafka and at the pace of a clock of its own: what it writes does not depend on the
machine. Trades come at each rate for so many seconds of that clock, after as many as a row waits at most. `all` writes
every row that has changed at each checkpoint, as if there were no bound. "behind" is how much is read again after a
crash, in seconds of trades; "zstd" the bytes a trade when packed as they are sent; "ms" the CPU of a checkpoint.

A skew of 0 draws all symbols alike, one of 1 by Zipf's law: the second trades half as often as the first.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import accumulate, product
from typing import Any

import cramjam
from arguments import exponent, seconds, several

from ashi.contracts import Trade, encode_trade, parse_timeframes
from ashi.contracts.topics import MARKERS_TABLE, changelog_topic, table_name
from ashi.runtime.kafka.cluster.topic_ids import TopicIdentity
from ashi.runtime.kafka.connections.clients import partition_of
from ashi_aggregate.chunk import Chunk
from ashi_aggregate.core.window_state import WindowRules
from ashi_aggregate.fencing import SessionGuard
from ashi_aggregate.partition import PartitionOffsets
from ashi_aggregate.pipeline import Pipeline
from ashi_aggregate.write_queue import LONGEST_WAIT_S, ROWS_PER_CHECKPOINT, WriteBudget
from ashi_cli.values import positive

PARTITIONS = 8
TIMEFRAMES = parse_timeframes("1m,5m,1h")
INTERVAL_US = 500_000
CHUNKS_PER_CHECKPOINT = 5
START_US = 1_700_000_040_000_000
ALL = 10**9


@dataclass(slots=True)
class Record:
    """A record of `trades`."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    timestamp_type: int | None = 1
    headers: Sequence[tuple[str, bytes | None]] = ()


class Table:
    """Rows in memory."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._rows: dict[int, dict[bytes, bytes]] = {}

    def rows(self, partition: int) -> dict[bytes, bytes]:
        """Of a partition, by key."""
        return self._rows.setdefault(partition, {})

    def put(self, partition: int, key: bytes, value: bytes | None) -> None:
        """Keep one."""
        self.rows(partition)[key] = value or b""


class Acknowledged:
    """At once."""

    def __init__(self, timestamp: int) -> None:
        self.timestamp = timestamp
        self.timestamp_type = 1

    def __await__(self) -> Any:
        return self
        yield


class CountingKafka:
    """Takes everything and counts what goes into the changelogs."""

    def __init__(self) -> None:
        self.now_us = START_US
        self.rows = self.bytes = self.packed = self.markers = self.marker_bytes = 0
        self.ends: dict[int, int] = {}
        self.durable: dict[int, int] = {}
        self._changelogs = {changelog_topic(table_name(timeframe)) for timeframe in TIMEFRAMES}

    async def partitions_of(self, _: str) -> int:
        """The same of all."""
        return PARTITIONS

    async def send(self, topic: str, _: int, records: Sequence[Any]) -> Awaitable[Any]:
        """Count them."""
        size = sum(len(key or b"") + len(value or b"") for key, value, _ in records)
        if topic in self._changelogs:
            self.rows += len(records)
            self.bytes += size
            self.packed += len(cramjam.zstd.compress(b"".join(key + value for key, value, _ in records)))
        elif topic == changelog_topic(MARKERS_TABLE):
            self.markers += len(records)
            self.marker_bytes += size
        return Acknowledged(self.now_us // 1000)

    def mark_durable(self, partition: int, end: int) -> None:
        """Remember it."""
        self.durable[partition] = end

    async def rewind(self, partition: int, offset: int) -> None:
        """Not needed."""
        raise NotImplementedError

    def end_of(self, partition: int) -> int | None:
        """Of what was read."""
        return self.ends.get(partition, 0)

    async def ask_ends(self, partitions: Iterable[int]) -> Mapping[int, int]:
        """The same."""
        return {partition: self.ends.get(partition, 0) for partition in partitions}

    async def identity(self) -> TopicIdentity:
        """Nothing to tell."""
        return TopicIdentity(None, {})

    async def standing(self, offsets: Mapping[int, Sequence[int]]) -> Any:
        """Not asked for."""
        raise NotImplementedError


class Market:
    """Trades of many symbols at a steady rate."""

    def __init__(self, symbols: int, skew: float, rate: int) -> None:
        self._random = random.Random(1)
        self._names = [f"binance:S{number}USDT" for number in range(symbols)]
        self._homes = {name: partition_of(name.encode(), PARTITIONS) for name in self._names}
        self._weights = list(accumulate((number + 1) ** -skew for number in range(symbols)))
        self._ids = dict.fromkeys(self._names, 3_000_000_000)
        self._ends = dict.fromkeys(range(PARTITIONS), 0)
        self._rate = rate

    def chunks(self, begin_us: int, length_us: int) -> list[Chunk]:
        """What comes from a time on, a chunk for each partition."""
        count = self._rate * length_us // 1_000_000
        records: dict[int, list[Record]] = {}
        for number, name in enumerate(self._random.choices(self._names, cum_weights=self._weights, k=count)):
            self._ids[name] += 1
            partition = self._homes[name]
            at = begin_us + number * length_us // count
            trade = Trade(
                symbol=name,
                trade_id=str(self._ids[name]),
                price=Decimal(self._random.randint(2_600_000, 2_700_000)) / 1000,
                size=Decimal(self._random.randint(1, 10**9)) / 10**8,
                side=self._random.choice(("buy", "sell")),
                traded_at=at,
                received_at=at,
                sequence=self._ids[name],
            )
            record = Record(self._ends[partition], name.encode(), encode_trade(trade), at // 1000)
            self._ends[partition] += 1
            records.setdefault(partition, []).append(record)
        return [Chunk(number, each[0].offset, each[-1].offset + 1, each) for number, each in records.items()]


async def measure(symbols: int, rate: int, skew: float, budget: WriteBudget, seconds: int) -> dict[str, float]:
    """What is written in `seconds`, after as long as a row waits at most."""
    kafka = CountingKafka()
    pipeline = Pipeline(
        timeframes=TIMEFRAMES,
        rules=WindowRules(TIMEFRAMES[0]),
        quiet_close=True,
        partitions=PARTITIONS,
        tables=[Table(table_name(timeframe)) for timeframe in TIMEFRAMES],
        markers=Table(MARKERS_TABLE),
        kafka=kafka,
        session_guard=SessionGuard(10**12),
        budget=budget,
        now_us=lambda: kafka.now_us,
        monotonic_s=lambda: kafka.now_us / 1e6,
    )
    await pipeline.resume({number: PartitionOffsets(None, 0, 0) for number in range(PARTITIONS)})

    async def acknowledge() -> None:
        return None

    market = Market(symbols, skew, rate)
    checkpoints, behind, most_rows, cpu_s = 0, 0, 0, 0.0
    for checkpoint in range(round((budget.longest_wait_s + seconds) * 1e6 / INTERVAL_US)):
        if checkpoint == round(budget.longest_wait_s * 1e6 / INTERVAL_US):
            kafka.rows = kafka.bytes = kafka.packed = kafka.markers = kafka.marker_bytes = most_rows = 0
            checkpoints, behind, cpu_s = 0, 0, 0.0
        for _ in range(CHUNKS_PER_CHECKPOINT):
            length_us = INTERVAL_US // CHUNKS_PER_CHECKPOINT
            for chunk in market.chunks(kafka.now_us, length_us):
                kafka.ends[chunk.partition] = chunk.end
                await pipeline.on_chunk(chunk, acknowledge)
            kafka.now_us += length_us
        before, began = kafka.rows, time.process_time()
        await pipeline.checkpoint()
        cpu_s += time.process_time() - began
        most_rows = max(most_rows, kafka.rows - before)
        behind = max(behind, sum(end - kafka.durable.get(number, 0) for number, end in kafka.ends.items()))
        checkpoints += 1
    trades = rate * seconds
    return {
        "symbols": symbols,
        "trades_per_second": rate,
        "skew": skew,
        "rows_per_checkpoint": budget.rows,
        "longest_wait_s": budget.longest_wait_s,
        "rows_per_second": kafka.rows / seconds,
        "rows_per_trade": kafka.rows / trades,
        "bytes_per_trade": kafka.bytes / trades,
        "megabytes_per_second": kafka.bytes / seconds / 1e6,
        "bytes_per_row": kafka.bytes / max(kafka.rows, 1),
        "zstd_bytes_per_trade": kafka.packed / trades,
        "marker_bytes_per_trade": kafka.marker_bytes / trades,
        "most_rows": most_rows,
        "checkpoint_cpu_ms": cpu_s / checkpoints * 1000,
        "replay_trades": behind,
        "replay_seconds": behind / rate,
    }


def _rows(text: str) -> int:
    return ALL if text == "all" else positive(text)


def main() -> int:
    """Run it and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=several(positive), default="10000")
    parser.add_argument("--seconds", type=positive, default=30)
    parser.add_argument("--rates", type=several(positive), default="2000,20000")
    parser.add_argument(
        "--rows", type=several(_rows), default=f"all,{ROWS_PER_CHECKPOINT}", help="of a checkpoint; or all"
    )
    parser.add_argument(
        "--waits", type=several(seconds), default=f"{LONGEST_WAIT_S:g}", help="seconds that a row waits at most"
    )
    parser.add_argument("--skew", type=several(exponent), default="0,1")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each")
    arguments = parser.parse_args()
    columns = ("rows/s", "rows/trade", "B/trade", "zstd", "MB/s", "B/row", "marker B", "most rows", "ms", "behind s")
    if not arguments.json:
        first = f"{'symbols':>8}{'trades/s':>9}{'skew':>5}{'rows':>6}{'wait':>5}"
        print(first + "".join(f"{name:>11}" for name in columns))
    chosen = (arguments.symbols, arguments.rates, arguments.skew, arguments.waits, arguments.rows)
    for symbols, rate, skew, wait, rows in product(*chosen):
        result = asyncio.run(measure(symbols, rate, skew, WriteBudget(rows, wait), arguments.seconds))
        if arguments.json:
            print(json.dumps(result), flush=True)
            continue
        keys = (
            *("rows_per_second", "rows_per_trade", "bytes_per_trade", "zstd_bytes_per_trade"),
            *("megabytes_per_second", "bytes_per_row", "marker_bytes_per_trade", "most_rows"),
            *("checkpoint_cpu_ms", "replay_seconds"),
        )
        print(
            f"{symbols:>8}{rate:>9}{skew:>5g}{'all' if rows == ALL else rows:>6}{wait:>5g}"
            + "".join(f"{result[key]:>11,.2f}" for key in keys),
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Rows per second from a file of trades into topic `trades`, and what memory it takes: one `ashi ingest replay`.

    .venv/bin/python benchmarks/trade_files.py [--rows N] [--layouts spot,gmo,bitflyer] [--pack zip] [--json]

The rows are made up, as the venues publish theirs. Broker and command are processes of their own, on this machine. The
rate is what the command says itself: from its first byte to Kafka's last acknowledgment, without the start of Python.
Memory is what the process held at most, and stands beside the text that it read.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import random
import signal
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from arguments import one_of, several

from ashi.contracts.topics import TRADES, topic_specs
from ashi.runtime.kafka.cluster.topics import create_topics
from ashi.runtime.kafka.connections.clients import assigned_consumer
from ashi.runtime.settings import Settings
from ashi_cli.onemachine.broker import Broker
from ashi_cli.onemachine.children import spawn

ASHI = (sys.executable, "-m", "ashi_cli.main")
BEGAN = datetime(2025, 6, 30, 21, tzinfo=UTC)
DIFFERENT_ROWS = 200_000
"""So many are made up, with new ids and times each time they are repeated."""


@dataclass(frozen=True, slots=True)
class Row:
    """What a row tells; the price in hundredths, the size in 100,000ths."""

    after_ms: int
    price: int
    size: int
    sells: bool


@dataclass(frozen=True, slots=True)
class Result:
    """One file. `text_mb` is what was in it, `file_mb` what it was on disk."""

    layout: str
    rows: int
    rows_per_second: float
    cpu_us_per_row: float
    memory_mb: float
    text_mb: float
    file_mb: float


def make_rows() -> list[Row]:
    """A market that trades 15 times a second, every other time in the same millisecond as before."""
    chance = random.Random(7)
    price = 61_837_63
    rows = []
    for _ in range(DIFFERENT_ROWS):
        price += chance.choice((0, 0, 0, 0, -1, 1, -37, 35))
        size = chance.choice((200, 1_000, chance.randrange(1, 900_000)))
        rows.append(Row(chance.choice((0, 0, 0, 1, 20, 400)), price, size, chance.random() < 0.5))
    return rows


def spot(number: int, ms: int, row: Row) -> str:
    """A row of Binance's spot files."""
    price, size = f"{row.price / 100:.8f}", f"{row.size / 1e5:.8f}"
    return f"{number},{price},{size},{row.price * row.size / 1e7:.8f},{ms}000,{row.sells},True\n"


def gmo(_: int, ms: int, row: Row) -> str:
    """A row of GMO Coin's files."""
    at = (BEGAN + timedelta(milliseconds=ms - int(BEGAN.timestamp()) * 1_000)).isoformat(" ", "milliseconds")[:23]
    return f"BTC_JPY,{'SELL' if row.sells else 'BUY'},{row.size / 1e5:.5f},{row.price}.000,{at}\n"


def bitflyer(number: int, ms: int, row: Row) -> str:
    """A row as programs write bitFlyer's executions."""
    at = (BEGAN + timedelta(milliseconds=ms - int(BEGAN.timestamp()) * 1_000)).isoformat("T", "milliseconds")[:23]
    return f"{number},{'SELL' if row.sells else 'BUY'},{row.price}.0,{row.size / 1e5},{at}Z,JRF1,JRF2\n"


LAYOUTS: dict[str, tuple[str, str, Callable[[int, int, Row], str]]] = {
    "spot": ("binance", "BTCUSDT-trades-2025-07", spot),
    "gmo": ("gmo", "20250701_BTC_JPY", gmo),
    "bitflyer": ("bitflyer", "FX_BTC_JPY", bitflyer),
}
"""Venue, name of the file, and how a row stands in it."""


def texts(rows: int, write: Callable[[int, int, Row], str]) -> Iterator[bytes]:
    """The file's text, in pieces."""
    made, ms = make_rows(), int(BEGAN.timestamp()) * 1_000
    for begin in range(0, rows, DIFFERENT_ROWS):
        lines = []
        for number, row in enumerate(made[: rows - begin], 3_735_683_259 + begin):
            ms += row.after_ms
            lines.append(write(number, ms, row))
        yield "".join(lines).encode()


def write_file(directory: Path, layout: str, rows: int, pack: str) -> tuple[Path, int]:
    """Write a file; say how long its text is."""
    _, name, write = LAYOUTS[layout]
    path = directory / f"{name}.{'zip' if pack == 'zip' else 'csv.gz'}"
    size = 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) if pack == "zip" else gzip.open(path, "w", 6) as packed:
        file = packed.open(f"{name}.csv", "w", force_zip64=True) if isinstance(packed, zipfile.ZipFile) else packed
        for text in texts(rows, write):
            size += len(text)
            file.write(text)
        file.close()
    return path, size


def replayed(env: dict[str, str], venue: str, path: Path, directory: Path) -> tuple[dict, float, float]:
    """Run the command; what it says it did, its CPU time, s, and its greatest memory, MB."""
    summary = directory / "summary.json"
    process = spawn([*ASHI, "ingest", "replay", "--venue", venue, "--summary", str(summary), str(path)], env=env)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the command ended with {os.waitstatus_to_exitcode(status)}")
    return json.loads(summary.read_text()), usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


async def published(settings: Settings) -> int:
    """Trades in the topic."""
    async with assigned_consumer(settings, TRADES) as (consumer, partitions):
        return sum((await consumer.end_offsets(partitions)).values())


def measure(layout: str, rows: int, pack: str) -> Result:
    """One file with a new, empty broker."""
    with tempfile.TemporaryDirectory(prefix="ashi-bench-") as name:
        directory = Path(name)
        path, text = write_file(directory, layout, rows, pack)
        broker = Broker(directory / "kafka")
        broker.start(child=True, fresh=True)
        try:
            env = os.environ | {"ASHI_KAFKA_BOOTSTRAP": broker.bootstrap, "ASHI_LOG_LEVEL": "warning"}
            settings = Settings.from_environment(env)
            asyncio.run(create_topics(settings, topic_specs(settings.partitions, settings.timeframes)))
            done, cpu_s, memory_mb = replayed(env, LAYOUTS[layout][0], path, directory)
            if not rows == done["trades_published"] == asyncio.run(published(settings)):
                raise SystemExit(f"of {rows} rows {done['trades_published']} were published")
        finally:
            broker.stop()
        return Result(
            layout,
            rows,
            rows / done["seconds"],
            cpu_s / rows * 1e6,
            memory_mb,
            text / 1e6,
            path.stat().st_size / 1e6,
        )


def main() -> int:
    """Run it and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--layouts", type=several(one_of(*LAYOUTS)), default=list(LAYOUTS))
    parser.add_argument("--pack", type=one_of("zip", "gzip"), default="zip")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if not arguments.json:
        print("layout         rows      rows/s  CPU, µs/row  memory, MB  text, MB  file, MB")
    for layout in arguments.layouts:
        result = measure(layout, arguments.rows, arguments.pack)
        if arguments.json:
            print(json.dumps(asdict(result)))
        else:
            print(
                f"{layout:<8} {result.rows:>10,} {result.rows_per_second:>11,.0f} {result.cpu_us_per_row:>12.2f} "
                f"{result.memory_mb:>11.0f} {result.text_mb:>9.0f} {result.file_mb:>9.0f}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())

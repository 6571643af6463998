"""What compression saves and costs: bytes and CPU a record, by codec, of records as Ashi's producers write them.

    .venv/bin/python benchmarks/compression.py [--json]

The trades are those of the bundled recordings, all of one symbol, and drawn ones of fifty, whose sizes repeat as little
as can be; candles and rows are what a worker makes of the former. They are put into
record batches by the client library's own builder, of so many records each as a quiet market, a busy one and a replay
give, and read out of them again. No broker: it keeps batches, and hands them on, as they are.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from trades import make_messages

import ashi_ingest.recording.bundled
from ashi.contracts.candle import CANDLE_SCHEMA, encode_candle
from ashi.contracts.timeframe import parse_timeframes
from ashi.contracts.trade import TRADE_SCHEMA, encode_trade
from ashi.runtime.kafka.connections.clients import MAX_BATCH_BYTES
from ashi.runtime.kafka.producing.dead_letters import message_headers
from ashi_aggregate.core.codec import encode
from ashi_aggregate.core.symbol import SymbolAggregator
from ashi_aggregate.core.window_state import WindowRules
from ashi_cli.recorded_trades import read_trades

CODECS: Final = {
    "none": 0,
    "gzip": DefaultRecordBatch.CODEC_GZIP,
    "snappy": DefaultRecordBatch.CODEC_SNAPPY,
    "lz4": DefaultRecordBatch.CODEC_LZ4,
    "zstd": DefaultRecordBatch.CODEC_ZSTD,
}
TIMEFRAMES: Final = parse_timeframes("1s,1m,5m,1h")
RECORDINGS: Final = sorted(Path(ashi_ingest.recording.bundled.__file__).parent.glob("binance-*.txt.gz"))
BATCHES: Final = (
    ("trades", 1),
    ("trades", 10),
    ("trades", 100),
    ("trades", 10_000),
    ("trades of 50 symbols", 10),
    ("trades of 50 symbols", 10_000),
    ("candles", 50),
    ("rows", 4),
)
"""What is written, and how many records a batch has at most."""
CHUNK: Final = 200
SYMBOLS: Final = 50
LEAST_S: Final = 0.4
"""Each measurement is repeated for so long."""

Record = tuple[bytes | None, bytes, list[tuple[str, bytes]]]


def make_records() -> dict[str, list[Record]]:
    """Trades, candles and rows, in the order in which they are written."""
    trades = read_trades("binance", RECORDINGS)
    finest = TIMEFRAMES[0]
    aggregator = SymbolAggregator(TIMEFRAMES, WindowRules(finest, 2_000_000, 3_600_000_000, 0, 0))
    candles: list[Record] = []
    rows: list[Record] = []
    candle_headers = message_headers(CANDLE_SCHEMA)
    for begin in range(0, len(trades), CHUNK):
        chunk = trades[begin : begin + CHUNK]
        outcome = aggregator.on_trades(chunk, list(range(begin, begin + len(chunk))))
        candles += [(each.symbol.encode(), encode_candle(each), candle_headers) for each in outcome.candles]
        rows += [(chunk[0].symbol.encode(), encode(row), []) for row in aggregator.state_rows()]
        aggregator.drop_final()
    headers = message_headers(TRADE_SCHEMA)
    return {
        "trades": [(trade.symbol.encode(), encode_trade(trade), headers) for trade in trades],
        "trades of 50 symbols": [(key, value, headers) for key, value in make_messages(len(trades), SYMBOLS)],
        "candles": candles,
        "rows": rows,
    }


def make_batches(records: Sequence[Record], size: int, codec: int) -> Iterator[bytes]:
    """Record batches as the producer makes them, of at most so many records."""
    builder, count = None, 0
    for key, value, headers in records:
        if builder is not None and (count == size or builder.append(count, 0, key, value, headers) is None):
            yield bytes(builder.build())
            builder = None
        elif builder is not None:
            count += 1
        if builder is None:
            builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, 0, MAX_BATCH_BYTES)
            if builder.append(0, 0, key, value, headers) is None:
                raise AssertionError(f"a record of {len(value)} bytes does not fit an empty batch")
            count = 1
    if builder is not None:
        yield bytes(builder.build())


def read_batches(batches: Sequence[bytes]) -> int:
    """How many records are read out of them."""
    return sum(1 for batch in batches for _ in DefaultRecordBatch(bytearray(batch)))


def cpu_us(run: Callable[[], object]) -> float:
    """CPU of one call, µs."""
    calls, began = 0, time.process_time()
    while (spent := time.process_time() - began) < LEAST_S:
        run()
        calls += 1
    return spent / calls * 1e6


def measure(records: Sequence[Record], size: int, codec: int) -> dict[str, float]:
    """Bytes a record as they are sent and kept, and µs of CPU a record for writing and for reading."""
    batches = list(make_batches(records, size, codec))
    if read_batches(batches) != len(records):
        raise AssertionError("what is read is not what was written")
    return {
        "bytes": sum(map(len, batches)) / len(records),
        "write_us": cpu_us(lambda: sum(map(len, make_batches(records, size, codec)))) / len(records),
        "read_us": cpu_us(lambda: read_batches(batches)) / len(records),
    }


def main() -> int:
    """Run it and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    records = make_records()
    results: dict[str, Any] = {}
    for what, size in BATCHES:
        for name, codec in CODECS.items():
            result = results[f"{what}, {size} a batch, {name}"] = measure(records[what], size, codec)
            if not arguments.json:
                print(
                    f"{what:20} {size:6} a batch  {name:7} {result['bytes']:8.1f} bytes"
                    f"  write {result['write_us']:7.2f} µs  read {result['read_us']:7.2f} µs a record",
                    flush=True,
                )
    if arguments.json:
        print(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())

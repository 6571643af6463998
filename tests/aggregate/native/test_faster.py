"""A guard, not a benchmark: by how much the native fold must be cheaper than Python's, in CPU time of the same run.

Both do all that a worker does from the bytes of a fetch to the closed candles. A busy machine changes times, and not a
ratio of CPU times; the floors are about half of what was measured: 16, 9, 18 and 14.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from decimal import Decimal

import pytest
from aiokafka.record.memory_records import MemoryRecords

from ashi.contracts import Trade, encode_trade
from ashi.contracts.timeframe import parse_timeframes
from ashi.contracts.trade import TRADE_SCHEMA
from ashi.runtime.kafka.consuming.raw_batches import RawBatches
from ashi.runtime.kafka.producing.dead_letters import message_headers
from ashi_aggregate import WindowRules
from ashi_aggregate.chunk import Chunk, LogRecord
from ashi_aggregate.core.symbol import SymbolAggregator
from ashi_aggregate.native.columns import scan
from ashi_aggregate.native.decoder import NativeDecoder
from kafka_topics.fetched_batches import encode_batch, kernel
from kafka_topics.simulated_log import Record
from samples.hypothesis_strategies import START

TIMEFRAMES = parse_timeframes("1m,5m,1h")
RULES = WindowRules(TIMEFRAMES[0])
CHUNK = 4_000
CHUNKS = 5
BETWEEN_US = 5_000
ROUNDS = 3

_Fetch = tuple[int, bytes]
"""The offset of its first record, and its batch."""


def fetches(symbols: int, trade_id: Callable[[int], str], *, twice: bool = False) -> list[_Fetch]:
    """A log of trades as `ashi ingest` writes them, cut into fetches."""
    rng = random.Random(1)
    headers = tuple(message_headers(TRADE_SCHEMA))
    made: list[_Fetch] = []
    number = 0
    for begin in range(0, CHUNK * CHUNKS, CHUNK):
        records: list[Record] = []
        while len(records) < CHUNK:
            number += 1
            symbol = f"binance:S{rng.randrange(symbols)}USDT"
            price = Decimal(rng.randrange(2_600_000, 2_700_000)).scaleb(-3)
            size = Decimal(rng.randrange(1, 10**9)).scaleb(-8)
            at = START + number * BETWEEN_US
            value = encode_trade(
                Trade(symbol, trade_id(number), price, size, "buy" if number % 2 else "sell", at, at, number)
            )
            for _ in range(2 if twice else 1):
                records.append(Record(begin + len(records), symbol.encode(), value, at // 1000, 1, headers=headers))
        made.append((begin, encode_batch(records)))
    return made


def natively(begin: int, data: bytes) -> Sequence[LogRecord]:
    return scan(kernel(), RawBatches(data, CHUNK), begin)


def by_python(begin: int, data: bytes) -> Sequence[LogRecord]:
    """As the library reads them; that it makes another object of each is left out, in Python's favour."""
    batches = MemoryRecords(data)
    records: list[LogRecord] = []
    while (batch := batches.next_batch()) is not None:
        records += batch
    return records


def cpu_s(log: list[_Fetch], read: Callable[[int, bytes], Sequence[LogRecord]]) -> tuple[float, int]:
    """CPU seconds from the bytes to closed candles, and how many trades counted."""
    decoder, aggregators, counted = NativeDecoder(1), {}, 0
    began_s = time.process_time()
    for begin, data in log:
        groups, rejected = decoder.decode(Chunk(0, begin, begin + CHUNK, read(begin, data)))
        assert not rejected
        for symbol in groups:
            if symbol not in aggregators:
                aggregators[symbol] = SymbolAggregator(TIMEFRAMES, RULES)
        counted += sum(outcome.counted for outcome in decoder.fold(groups, aggregators, RULES).values())
    return time.process_time() - began_s, counted


@pytest.mark.parametrize(
    ("what", "symbols", "trade_id", "twice", "floor"),
    [
        ("eight symbols", 8, str, False, 8),
        ("sixty symbols", 60, str, False, 4.5),
        ("every trade twice, of two ingesters", 8, str, True, 8),
        ("ids that are no numbers", 8, "{:x}-z".format, False, 6.5),
    ],
)
def test_the_native_fold_costs_a_small_part_of_pythons(
    what: str, symbols: int, trade_id: Callable[[int], str], twice: bool, floor: float
) -> None:
    log = fetches(symbols, trade_id, twice=twice)
    ratios = []
    for _ in range(ROUNDS):
        (python_s, counted), (native_s, counted_natively) = cpu_s(log, by_python), cpu_s(log, natively)
        assert counted == counted_natively == CHUNK * CHUNKS // (2 if twice else 1)
        ratios.append(python_s / native_s)
    assert max(ratios) >= floor, f"{what}: Python takes only {max(ratios):.1f} times the CPU time"

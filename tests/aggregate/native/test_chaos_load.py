"""The load of the chaos test goes the native way, so that what that test says is said of the native fold."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest

from ashi.contracts.timeframe import parse_timeframes
from ashi.runtime.kafka.connections.clients import partition_of
from ashi.runtime.metrics.aggregate import records_slow
from ashi_aggregate import WindowRules
from ashi_aggregate.chunk import Chunk
from ashi_aggregate.core.symbol import SymbolAggregator
from ashi_aggregate.native.decoder import NativeDecoder
from chaos.harness import HORIZON_S, TIMEFRAMES
from chaos.market import LATENESS_US, PARTITIONS, Market, messages
from kafka_topics.fetched_batches import fetched
from kafka_topics.simulated_log import Record

RECORDS = 6_000
APPENDED_MS = 1_700_000_100_000


def slow() -> float:
    return sum(
        sample.value for metric in records_slow.collect() for sample in metric.samples if sample.name.endswith("_total")
    )


@pytest.mark.parametrize("symbols", [24, 2_000])
@pytest.mark.parametrize("fetch", [7, 400])
def test_of_the_legal_records_of_the_chaos_test_python_folds_none_whatever_stands_beside_them(
    symbols: int, fetch: int
) -> None:
    load = messages(random.Random(1), Market(symbols))
    logs: dict[int, list[Record]] = defaultdict(list)
    unsound = 0
    for _ in range(RECORDS):
        message = next(load)
        unsound += not message.sound
        partition = partition_of(message.key, PARTITIONS) if message.partition is None else message.partition
        logs[partition].append(Record(len(logs[partition]), message.key, message.value, APPENDED_MS))
    assert unsound > RECORDS / 200, "else nothing stands beside them"
    timeframes = parse_timeframes(",".join(TIMEFRAMES))
    rules = WindowRules(timeframes[0], lateness_us=LATENESS_US, horizon_us=HORIZON_S * 1_000_000)
    before, refused = slow(), 0
    for partition, log in logs.items():
        decoder = NativeDecoder(PARTITIONS)
        aggregators: dict[str, SymbolAggregator] = {}
        for begin in range(0, len(log), fetch):
            records = log[begin : begin + fetch]
            groups, rejected = decoder.decode(Chunk(partition, begin, begin + len(records), fetched(records)))
            refused += len(rejected)
            for symbol in groups:
                aggregators.setdefault(symbol, SymbolAggregator(timeframes, rules))
            decoder.fold(groups, aggregators, rules)
    assert refused == unsound
    assert slow() - before == unsound, "these Python refuses, and reads nothing more"

"""Raw batches hold what the library's own reader of records gives, whatever a producer or a transaction did."""

from __future__ import annotations

import gc
import inspect
import random
import weakref
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher as library
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from ashi.runtime.kafka.consuming.raw_batches import KeptRecords, is_at_end, keep_bytes, keys_and_values, take_batches
from kafka_topics.fetched_batches import CODECS, CONTROL_BIT, TRANSACTIONAL_BIT, encode_batch, fetched_from
from kafka_topics.simulated_log import Record

ABORT, COMMIT = b"\0\0\0\0", b"\0\0\0\1"


def of(data: bytes, begin: int = 0, aborted: Sequence[tuple[int, int]] = (), level: int = READ_COMMITTED) -> Any:
    """What the library makes of a fetched set."""
    return PartitionRecords(
        TopicPartition("trades", 0), KeptRecords(data), list(aborted), begin, None, None, True, level
    )


def by_library(data: bytes, *arguments: Any) -> tuple[list[tuple[int, bytes | None, bytes | None, int]], int]:
    records = of(data, *arguments)
    read = [(each.offset, each.key, each.value, each.timestamp) for each in records]
    return read, records.next_fetch_offset


def raw(data: bytes, begin: int = 0, *arguments: Any, at_once: int = 10**6) -> tuple[list[Any], int]:
    records = of(data, begin, *arguments)
    read = []
    while not is_at_end(records):
        since = records.next_fetch_offset
        batches = take_batches(records, at_once)
        assert batches is not None
        records_of_it = [(each.offset, each.key, each.value, each.timestamp) for each in fetched_from(batches, since)]
        assert [(key, value) for _, key, value, _ in records_of_it] == keys_and_values(batches, since)
        read += records_of_it
    return read, records.next_fetch_offset


def some(begin: int, count: int) -> list[Record]:
    return [Record(begin + n, b"key-%d" % n, b"value " * 30 + b"%d" % n, 1_700_000_000_000 + n) for n in range(count)]


@pytest.mark.parametrize("codec", CODECS)
def test_batches_of_every_codec(codec):
    data = encode_batch(some(0, 50), codec) + encode_batch(some(60, 3), codec) + encode_batch(some(63, 1))
    assert raw(data) == by_library(data)
    assert raw(data, 40) == by_library(data, 40)
    assert raw(data, at_once=1) == by_library(data)


@pytest.mark.parametrize("seed", range(60))
def test_transactions_and_what_they_have_aborted(seed):
    rng = random.Random(seed)
    data, aborted, offset = b"", [], rng.choice([0, 5])
    running: dict[int, int] = {}
    for _ in range(rng.randint(1, 14)):
        producer = rng.randint(1, 3)
        kind = rng.random()
        if kind < 0.6:
            running.setdefault(producer, offset)
            records = some(offset, rng.randint(1, 4))
            data += encode_batch(records, rng.choice(list(CODECS)), attributes=TRANSACTIONAL_BIT, producer_id=producer)
        elif kind < 0.8 and producer in running:
            ended = rng.choice([ABORT, COMMIT])
            first = running.pop(producer)
            if ended == ABORT:
                aborted.append((producer, first))
            records = [Record(offset, ended, bytes(6), 1)]
            data += encode_batch(records, attributes=TRANSACTIONAL_BIT | CONTROL_BIT, producer_id=producer)
        else:
            records = some(offset, rng.randint(1, 3))
            data += encode_batch(records)
        offset = records[-1].offset + 1 + rng.choice([0, 0, 3])
    for level in (READ_COMMITTED, READ_UNCOMMITTED):
        begin = rng.choice([0, MemoryRecords(data).next_batch().next_offset - 1])  # a broker sends nothing before it
        assert raw(data, begin, aborted, level, at_once=rng.choice([1, 5, 100])) == by_library(
            data, begin, aborted, level
        )


def test_a_batch_that_the_fetch_has_cut_off_is_not_there():
    whole, cut = encode_batch(some(0, 5)), encode_batch(some(5, 5))
    for length in (0, 1, 11, 12, 30, len(cut) - 1):
        assert raw(whole + cut[:length]) == by_library(whole + cut[:length])
        assert len(raw(whole + cut[:length])[0]) == 5


def test_a_wrong_checksum_is_told_as_the_library_tells_it():
    data = bytearray(encode_batch(some(0, 5), "zstd"))
    data[-1] ^= 1
    for read in (raw, by_library):
        with pytest.raises(CorruptRecordException, match="Invalid CRC"):
            read(bytes(data))


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_what_was_fetched_is_let_go_as_soon_as_it_is_taken_whole_and_not_when_cycles_are_looked_for(codec):
    fetched = of(encode_batch(some(0, 5), codec) + encode_batch(some(5, 5), codec))
    its_bytes = weakref.ref(fetched._records)
    gc.disable()
    try:
        assert take_batches(fetched, 5) is not None
        assert not is_at_end(fetched)
        assert take_batches(fetched, 5) is not None
        assert is_at_end(fetched)
        del fetched
        assert its_bytes() is None
    finally:
        gc.enable()


def test_batches_of_earlier_formats_are_the_librarys():
    builder = LegacyRecordBatchBuilder(magic=1, compression_type=0, batch_size=10_000)
    builder.append(0, timestamp=1, key=b"k", value=b"v")
    old = bytes(builder.build())
    for data in (old, encode_batch(some(0, 2)) + old):
        assert take_batches(of(data), 100) is None


def test_what_was_fetched_without_its_bytes_is_the_librarys():
    records = of(encode_batch(some(0, 2)))
    records._records = MemoryRecords(encode_batch(some(0, 2)))
    assert take_batches(records, 100) is None


def test_the_library_makes_its_parser_where_we_put_ours(monkeypatch):
    monkeypatch.setattr(library, "MemoryRecords", MemoryRecords)
    keep_bytes()
    assert library.MemoryRecords is KeptRecords
    assert "records = MemoryRecords(" in inspect.getsource(library.Fetcher._proc_fetch_request)

"""What the native library keeps of a changelog's fetch leaves a table as all of its records would."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from ashi.contracts.errors import StateError
from ashi.runtime.kafka.consuming.raw_batches import RawBatches
from ashi.runtime.kafka.consuming.records import keep_newest
from ashi_aggregate.core.codec import ROW_FORMAT, Marker, encode, rank_of
from ashi_aggregate.native.newest import read_newest
from kafka_topics.fetched_batches import encode_batch, kernel
from kafka_topics.simulated_log import Record


def batches(rows: Sequence[tuple[bytes, bytes | None]], begin: int = 0) -> RawBatches:
    records = [Record(begin + number, key, value, 1_700_000_000_000) for number, (key, value) in enumerate(rows)]
    return RawBatches(encode_batch(records), len(records))


@pytest.mark.parametrize("seed", range(100))
def test_the_newest_of_each_fetch_leave_what_all_records_leave(seed):
    rng = random.Random(seed)
    whole: dict[bytes, bytes] = {}
    newest: dict[bytes, bytes] = {}
    for fetch in range(6):
        keys, rows = rng.choice([1, 3, 9]), []
        for number in range(rng.choice([1, 5, 60])):
            # Of few ranks, so that some are equal; some take a key away.
            row = bytes([ROW_FORMAT]) + rng.randint(0, 5).to_bytes(8) + bytes([fetch, number])
            rows.append((b"key-%d" % rng.randrange(keys), None if rng.random() < 0.15 else row))
        read = read_newest(kernel(), batches(rows), 0)
        assert read.read == len(rows)
        assert len(read) <= 2 * keys
        keep_newest(whole, rows, rank_of)
        keep_newest(newest, read, rank_of)
        assert newest == whole


def test_only_what_was_asked_for_is_read():
    rows = [(b"a", bytes([ROW_FORMAT]) + number.to_bytes(8) + b"x") for number in (9, 1, 2)]
    read = read_newest(kernel(), batches(rows, begin=10), 11)
    assert list(read) == [rows[2]]
    assert read.read == 2


def test_rows_of_an_earlier_version_are_pythons():
    marker = encode(Marker(20, begins_at=1))
    rows = [(b"a", marker), (b"b", bytes([ROW_FORMAT]) + bytes(8) + b"x"), (b"a", None)]
    read = read_newest(kernel(), batches(rows), 0)
    assert list(read) == rows
    assert read.read == 3


@pytest.mark.parametrize("value", [b"", b"\x02", b"\x02" + bytes(8), b"\x09" + bytes(20)])
def test_what_is_no_row_reaches_python_which_says_so(value):
    read = read_newest(kernel(), batches([(b"a", value)]), 0)
    assert list(read) == [(b"a", value)]
    with pytest.raises(StateError, match=r"cannot be read|has format"):
        keep_newest({b"a": bytes([ROW_FORMAT]) + bytes(8) + b"x"}, read, rank_of)

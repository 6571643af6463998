"""Batches that are made as bytes: the library reads of them what was put in, and sends them as its own."""

from __future__ import annotations

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatch
from hypothesis import given
from hypothesis import strategies as st

from ashi.contracts.interleave import interleave
from ashi.runtime.kafka.producing.encoded_batches import EncodedBatch, encode_records

HEADERS = [("content-type", b"application/json"), ("schema", b"ashi.trade.v1")]


def encoded(values: list[bytes], compression: str | None = None) -> EncodedBatch:
    records = encode_records([b"venue:KEY"], [b"<%b>" % value for value in values], HEADERS)
    return EncodedBatch(records, len(values), compression)


def built(batch: EncodedBatch | BatchBuilder) -> bytes:
    batch._set_producer_state(7, 3, 11)
    return bytes(batch._build())


@pytest.mark.parametrize("compression", [None, "gzip", "snappy", "lz4", "zstd"])
@pytest.mark.parametrize("count", [1, 64, 65, 8_192, 8_193])
def test_the_library_reads_what_was_put_in(count: int, compression: str | None) -> None:
    values = [b"%d" % number * (number % 90) for number in range(count)]
    data = built(encoded(values, compression))
    batch = DefaultRecordBatch(data)
    assert batch.validate_crc()
    assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (7, 3, 11)
    assert (batch.compression_type != 0) == (compression is not None and count > 1)
    records = list(batch)
    assert [record.offset for record in records] == [*range(count)]
    assert [record.value for record in records] == [b"<%b>" % value for value in values]
    assert {record.key for record in records} == {b"venue:KEY"}
    assert all(record.headers == HEADERS for record in records)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=200))
def test_the_records_are_those_of_the_library_byte_for_byte(values: list[bytes]) -> None:
    ours = encoded(values)
    size = ours.size()
    theirs = BatchBuilder(1_000_000, 0)
    for value in values:
        assert theirs.append(timestamp=ours._made_ms, key=b"venue:KEY", value=b"<%b>" % value, headers=HEADERS)
    theirs.close()
    assert ours.record_count() == theirs.record_count()
    data = built(ours)
    assert data == built(theirs)
    assert size == ours.size() == len(data)


@given(st.lists(st.tuples(st.sampled_from([b"a:B", b"a:LONGER", b""]), st.binary(max_size=300)), min_size=1))
def test_each_record_may_have_a_key_of_its_own(records: list[tuple[bytes, bytes]]) -> None:
    keys, values = zip(*records, strict=True)
    ours = EncodedBatch(encode_records(keys, values, HEADERS), len(records), None)
    theirs = BatchBuilder(1_000_000, 0)
    for key, value in records:
        assert theirs.append(timestamp=ours._made_ms, key=key, value=value, headers=HEADERS)
    theirs.close()
    assert built(ours) == built(theirs)


def test_one_that_is_sent_again_is_the_same_and_takes_no_more() -> None:
    batch = encoded([b"a", b"b"])
    first = built(batch)
    assert bytes(batch._build()) == first
    assert batch.closed()
    batch.append(timestamp=None, key=b"k", value=b"c")
    assert batch.record_count() == 2


def test_a_column_that_is_too_short_is_an_error() -> None:
    assert interleave([b"a", [b"1", b"2"], b";"], 2) == b"a1;a2;"
    with pytest.raises(ValueError, match="2 cells"):
        interleave([[b"1"]], 2)

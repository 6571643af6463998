"""Records as a broker sends them: the bytes of record batches, and what the native library reads in them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from ashi.runtime.kafka.consuming.raw_batches import RawBatches
from ashi_aggregate.chunk import LogRecord
from ashi_aggregate.native.columns import ScannedRecords, scan
from ashi_aggregate.native.kernel import Kernel
from ashi_aggregate.native.library import load_kernel

APPEND_TIME_BIT, TRANSACTIONAL_BIT, CONTROL_BIT = 0x08, 0x10, 0x20
CODECS = {
    "none": DefaultRecordBatch.CODEC_NONE,
    "gzip": DefaultRecordBatch.CODEC_GZIP,
    "snappy": DefaultRecordBatch.CODEC_SNAPPY,
    "lz4": DefaultRecordBatch.CODEC_LZ4,
    "zstd": DefaultRecordBatch.CODEC_ZSTD,
}


def encode_batch(
    records: Sequence[LogRecord], codec: str = "none", *, attributes: int = 0, producer_id: int = -1
) -> bytes:
    """One batch of records, at least one. Of append time all have the last one's."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=CODECS[codec],
        is_transactional=int(bool(attributes & TRANSACTIONAL_BIT)),
        producer_id=producer_id,
        producer_epoch=0,
        base_sequence=0,
        batch_size=2**30,
    )
    base = records[0].offset
    for record in records:
        headers = list(record.headers)
        assert builder.append(record.offset - base, record.timestamp, record.key, record.value, headers) is not None
    batch = bytearray(builder.build())
    batch[:8] = base.to_bytes(8, "big")
    if records[-1].timestamp_type == 1:
        attributes |= APPEND_TIME_BIT
        batch[35:43] = records[-1].timestamp.to_bytes(8, "big", signed=True)
    batch[21:23] = (int.from_bytes(batch[21:23], "big") | attributes).to_bytes(2, "big")
    return with_checksum(batch)


def with_checksum(batch: bytearray) -> bytes:
    """The batch with the checksum of what it holds now."""

    batch[17:21] = calc_crc32c(bytes(batch[21:])).to_bytes(4, "big")
    return bytes(batch)


def encode_batches(records: Sequence[LogRecord]) -> bytes:
    """Records as batches: those that were appended together in one."""
    together = groupby(records, lambda record: (record.timestamp, record.timestamp_type))
    return b"".join(encode_batch(list(those)) for _, those in together)


def kernel() -> Kernel:
    """The native library, which every machine that runs these tests can have."""
    found = load_kernel()
    assert found is not None, "no native fold for these sources: `python aggregate/build_native.py` builds it"
    return found


def fetched_from(batches: RawBatches, begin: int) -> ScannedRecords:
    """What the library reads in batches from an offset on."""
    return scan(kernel(), batches, begin)


def fetched(records: Sequence[Any]) -> ScannedRecords:
    """Records as the transport hands them over."""
    data = encode_batches(records) if records else b""
    return scan(kernel(), RawBatches(data, len(records)), records[0].offset if records else 0)

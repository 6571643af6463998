"""Fetched record batches as bytes, checked and decompressed, without what is aborted: for who reads records itself.

The library makes an object of each record, which takes longer than all that is done with it. Here its own parser of
batches says what each one is; what is in it stays bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiokafka import codec
from aiokafka.consumer import fetcher as library
from aiokafka.consumer.fetcher import READ_COMMITTED
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.memory_records import MemoryRecords

if TYPE_CHECKING:
    from collections.abc import Callable

HEADER_BYTES: Final = 61
"""Of a batch, before its records: 8 base offset, 4 length, 4 leader epoch, 1 magic, 4 checksum, 2 attributes, 4 last
offset delta, 8 and 8 timestamps, 8 producer id, 2 its epoch, 4 first sequence, 4 number of records."""
_LENGTH: Final = slice(8, 12)
_ATTRIBUTES: Final = slice(21, 23)
_COUNT: Final = slice(57, 61)
_CODEC_MASK: Final = 0x07

_DECODERS: Final[dict[int, Callable[[bytes], bytes]]] = {
    DefaultRecordBatch.CODEC_GZIP: codec.gzip_decode,
    DefaultRecordBatch.CODEC_SNAPPY: codec.snappy_decode,
    DefaultRecordBatch.CODEC_LZ4: codec.lz4_decode,
    DefaultRecordBatch.CODEC_ZSTD: codec.zstd_decode,
}


class RawBatches(NamedTuple):
    """Batches of format 2, not compressed, one behind the other, with at most so many records in all.

    Records before the offset that was asked for may be among them.
    """

    data: bytes
    max_records: int


class KeptRecords(MemoryRecords):  # type: ignore[misc]  # not typed
    """The library's parser of a fetched set, with the bytes that it parses."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.unread = memoryview(data)


def keep_bytes() -> None:
    """Let fetched sets be had as bytes, in every consumer of this process that is made by the library."""
    library.MemoryRecords = KeptRecords


def take_batches(fetched: Any, max_records: int) -> RawBatches | None:
    """Batches of the library's `PartitionRecords`, up to some `max_records`; None where only the library can read them.

    Its `next_fetch_offset` is then that after them. Raises CorruptRecordException where a checksum is wrong.
    """
    records = fetched._records
    if not isinstance(records, KeptRecords) or not _is_all_of_format_2(records.unread):
        return None
    parts: list[bytes | memoryview] = []
    count = 0
    while count < max_records and records.has_next():
        batch = records.next_batch()
        length = 12 + int.from_bytes(records.unread[_LENGTH], "big", signed=True)
        data, records.unread = records.unread[:length], records.unread[length:]
        if fetched._check_crcs and not batch.validate_crc():
            raise CorruptRecordException(f"Invalid CRC - {fetched._tp}")
        if not _is_left_out(fetched, batch):
            _append(parts, data, batch.compression_type)
            count += int.from_bytes(data[_COUNT], "big", signed=True)
        fetched.next_fetch_offset = batch.next_offset
    if not records.has_next():
        # It and its iterator hold each other and what was fetched; at the end the library parts them so.
        fetched._records_iterator = None
    return RawBatches(b"".join(parts), count)


def keys_and_values(batches: RawBatches, begin: int) -> list[tuple[bytes | None, bytes | None]]:
    """Of each record from offset `begin` on, as the library reads it."""
    records = MemoryRecords(batches.data)
    found = []
    while records.has_next():
        found += [(record.key, record.value) for record in records.next_batch() if record.offset >= begin]
    return found


def is_at_end(fetched: Any) -> bool:
    """Whether all batches have been taken."""
    return not fetched._records.has_next()


def _is_left_out(fetched: Any, batch: Any) -> bool:
    """Whether it is a marker or of an aborted transaction, as `PartitionRecords._unpack_records` decides it."""
    if fetched._isolation_level == READ_COMMITTED and batch.producer_id is not None:
        fetched._consume_aborted_up_to(batch.base_offset)
        if batch.is_control_batch and fetched._contains_abort_marker(batch):
            fetched._aborted_producers.discard(batch.producer_id)
        if batch.is_transactional and batch.producer_id in fetched._aborted_producers:
            return True
    return bool(batch.is_control_batch)


def _append(parts: list[bytes | memoryview], data: memoryview, compression: int) -> None:
    if compression == DefaultRecordBatch.CODEC_NONE:
        parts.append(data)
        return
    records = _DECODERS[compression](bytes(data[HEADER_BYTES:]))
    header = bytearray(data[:HEADER_BYTES])
    attributes = int.from_bytes(header[_ATTRIBUTES], "big") & ~_CODEC_MASK
    header[_LENGTH] = (HEADER_BYTES - 12 + len(records)).to_bytes(4, "big")
    header[_ATTRIBUTES] = attributes.to_bytes(2, "big")
    parts += [bytes(header), records]


def _is_all_of_format_2(unread: memoryview) -> bool:
    """Whether every batch is; the last may have been cut off by the fetch, and is then not there for anybody."""
    at = 0
    while len(unread) - at > 16:
        if unread[at + 16] != 2:
            return False
        at += 12 + max(int.from_bytes(unread[at + 8 : at + 12], "big", signed=True), 0)
    return True

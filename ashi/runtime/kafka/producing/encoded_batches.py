"""Batches of records that are made as bytes, all records of a batch by one operation, and sent as the library's own.

The library's builder takes a record at a time, which for millions of them costs as much as reading them. The format is
Kafka's of records, version 2: https://kafka.apache.org/documentation/#recordbatch
"""

from __future__ import annotations

import struct
import time
from functools import lru_cache
from operator import add
from typing import TYPE_CHECKING, Any, Final

from aiokafka import codec
from aiokafka.record.util import calc_crc32c, encode_varint

from ashi.contracts.interleave import interleave

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ashi.runtime.kafka.producing.dead_letters import Headers

_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
"""See `raw_batches.HEADER_BYTES`."""
_LENGTH_FROM: Final = 12
_CHECKSUM: Final = struct.Struct(">I")
_CHECKSUM_AT: Final = 17
_CHECKED_FROM: Final = 21
_MAGIC: Final = 2
_NO_EPOCH: Final = -1

_CODECS: Final[dict[str, tuple[int, Callable[[bytes], bytes]]]] = {
    "gzip": (1, codec.gzip_encode),
    "snappy": (2, codec.snappy_encode),
    "lz4": (3, codec.lz4_encode),
    "zstd": (4, codec.zstd_encode),
}


class EncodedBatch:
    """Finished records, in the place of the library's `BatchBuilder`: what its producer asks of one, this answers.

    It is compressed when it is made, so that may be done in another thread.
    """

    def __init__(self, records: bytes, count: int, compression: str | None) -> None:
        """`records`: `count` of them, as `encode_records` makes them. `compression`: as `compression_of` names it."""
        self._count = count
        self._codec = 0
        self._records = records
        if compression is not None:
            number, compress = _CODECS[compression]
            compressed = compress(records)
            if len(compressed) < len(records):
                self._codec, self._records = number, compressed
        self._producer = (-1, -1, 0)
        self._made_ms = time.time_ns() // 1_000_000
        self._buffer: bytearray | None = None

    def append(self, **_: Any) -> None:
        """None: it takes no more."""

    def close(self) -> None:
        """Nothing: it is closed."""

    def closed(self) -> bool:
        """Whether it takes no more."""
        return True

    def record_count(self) -> int:
        """How many records it has."""
        return self._count

    def size(self) -> int:
        """How long it is, bytes."""
        return _HEADER.size + len(self._records) if self._buffer is None else len(self._buffer)

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self._producer = (producer_id, producer_epoch, base_sequence)

    def _build(self) -> bytearray:
        if self._buffer is None:
            buffer = bytearray(_HEADER.size) + self._records
            _HEADER.pack_into(
                buffer,
                0,
                0,
                len(buffer) - _LENGTH_FROM,
                _NO_EPOCH,
                _MAGIC,
                0,
                self._codec,
                self._count - 1,
                self._made_ms,
                self._made_ms,
                *self._producer,
                self._count,
            )
            _CHECKSUM.pack_into(buffer, _CHECKSUM_AT, calc_crc32c(buffer[_CHECKED_FROM:]))
            self._buffer, self._records = buffer, b""
        return self._buffer


def encode_records(keys: Sequence[bytes], values: Sequence[bytes], headers: Headers) -> bytes:
    """Records with the same headers, all of one time. `keys`: one for all of them, or one for each."""
    count = len(values)
    keyed = {key: _varint(len(key)) + key for key in {*keys}}
    before_key = [keyed[keys[0]]] * count if len(keys) == 1 else [*map(keyed.__getitem__, keys)]
    ending = _varint(len(headers)) + b"".join(map(_header, headers))
    value_lengths = [*map(len, values)]
    before_value = [*map({length: _varint(length) for length in {*value_lengths}}.__getitem__, value_lengths)]
    lengths = [*map(add, map(add, map(len, before_key), map(len, before_value)), value_lengths)]
    beginnings: list[bytes] = []
    for end in _OFFSETS_TO:  # offsets of one, two and three bytes
        begin = len(beginnings)
        if begin == count:
            break
        beside = len(_ATTRIBUTES_AND_TIME) + len(_varint(begin)) + len(ending)
        sized = {length: _varint(beside + length) + _ATTRIBUTES_AND_TIME for length in {*lengths[begin:end]}}
        beginnings += map(sized.__getitem__, lengths[begin:end])
    return interleave([beginnings, _offsets(count), before_key, before_value, values, ending], count)


_ATTRIBUTES_AND_TIME: Final = bytes(2)
"""No attributes, and no time after the batch's."""
_OFFSETS_TO: Final = (64, 8_192, 1_048_576)
"""From which offsets on they take one byte more."""


@lru_cache(maxsize=64)
def _offsets(count: int) -> list[bytes]:
    return [_varint(offset) for offset in range(count)]


def _header(header: tuple[str, bytes]) -> bytes:
    name, text = header[0].encode(), header[1]
    return _varint(len(name)) + name + _varint(len(text)) + text


@lru_cache(maxsize=65_536)
def _varint(number: int) -> bytes:
    encoded = bytearray()
    encode_varint(number, encoded.append)
    return bytes(encoded)

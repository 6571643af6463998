"""The native library `kernel.zig` by its C interface: memory laid out as it has it, and its calls.

Calls by ctypes go without Python's lock, so that other threads run meanwhile.
"""

from __future__ import annotations

import ctypes
import secrets
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

import msgspec

from ashi_aggregate.core.fold import Fold

RECORD: Final = Struct("<qqqqQQQ8I8B")
"""`Record`: offset, timestamp, traded_at, sequence, id, price, size, at, value_at, value_len, symbol, next, slow,
id_at, price_at, id_len, price_len, price_scale, size_scale, side, id_is_number, timestamp_type, is_copy."""
ID_OF_RECORD: Final = Struct("<q8xq48xI4xI4xB")
"""Of a `Record`: offset, traded_at, next, id_at, id_len. To read all of it takes three times as long."""
RANK_OF_RECORD: Final = Struct("<16xqq48x2I2B")
"""Of a `Record`: traded_at, sequence, id_at, price_at, id_len, price_len."""
OFFSET_OF_RECORD: Final = Struct("<q")
TIME_OF_RECORD: Final = Struct("<8xq79xB")
"""Of a `Record`: timestamp, is_copy."""
NEXT_OF_RECORD: Final = Struct("<I")
NEXT_AT: Final = 72
"""Where `next` is in a `Record`."""
SYMBOL: Final = Struct("<7I")
"""`Symbol`: key_at, key_len, first, last, count, slow, order_at."""
PLACE: Final = Struct("<I")
"""Of a record, in `Scanned.order`."""
KNOWN: Final = Struct("<4q4I")
"""`Known`: applied_offset, stream_time, dropped_until, greatest_id, id_room, mode, windows_at, windows_len."""
WINDOW: Final = Struct("<q2I")
"""`Window`: start, at, len."""
PART_BYTES: Final = 176
LATE_BYTES: Final = 16
SLOT_BYTES: Final = 16
ROW: Final = Struct("<6I")
"""`Row`: key_at, key_len, value_at, value_len, was_removed, has_value."""

INTERFACE: Final = 4
"""As `ashi_interface` has it."""
MAX_BYTES: Final = 2**31
"""Of the batches of one scan; places in them have 32 bits."""
NUMBERS_OF_RECORD: Final = 5
"""So many numbers of 64 bits the ids of a record take at most while they are counted."""
MESSAGE_BYTES: Final = 2**20
"""Room for a message at first. A fold takes some 200 bytes of it, an id that is a text its length and one or two."""
NO_ROOM: Final = -2

_FAILURES: Final = {
    -1: "the bytes are no record batches of format 2, or end within one",
    -2: "the batches hold more records than they say",
}


class Mode(IntEnum):
    """What is to be done with a symbol; see `interface.zig`."""

    LEAVE = 0
    ASCENDING = 1
    INTERVALS = 2
    GIVEN = 3
    TEXTS = 4


class Verdict(IntEnum):
    """What became of a symbol; see `interface.zig`."""

    LEFT = 0
    FOLDED = 1
    SEEN = 2
    SLOW = 3
    IDS = 4
    ROOM = 5
    OVERFLOW = 6
    TIE = 7
    TEXTS = 8


class Slow(IntEnum):
    """Why a record is left to Python; see `trade.zig`."""

    NONE = 0
    NO_KEY = 1
    NO_VALUE = 2
    HEADERS = 3
    JSON = 4
    DIGITS = 5
    BOUNDS = 6
    KEY = 7


class Malformed(ValueError):  # noqa: N818  (what the bytes are)
    """The bytes are no record batches that the library reads."""


class FoldedSymbol(msgspec.Struct, array_like=True, gc=False):
    """What the library made of one symbol.

    Attributes:
        stream_time: after all of its records, µs.
        last_offset: of the last of them.
        counted: how many were folded.
        duplicates: how many were not because they had come before.
        folds: of each timeframe one for each window, oldest first, without the symbol.
        intervals: the ids that are numbers, by the start of their finest window (µs): of mode `ASCENDING` those of the
            records, of mode `INTERVALS` all of each window that has some new ones.
        texts: of mode `TEXTS` the start of each finest window (µs), the weight of its ids, as in `trade_ids`, and them.
        late: of each record that came too late the stream time then (µs), its place, and 1 for beyond the horizon or 2
            for in a window that was dropped.

    """

    stream_time: int
    last_offset: int
    counted: int
    duplicates: int
    folds: list[list[Fold]]
    intervals: list[tuple[int, list[int]]]
    texts: list[tuple[int, int, list[str]]]
    late: list[tuple[int, int, int]]


_message_decoder: Final = msgspec.msgpack.Decoder(list[int | FoldedSymbol])


class _Folding(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_void_p)
            for name in (
                "records", "symbols", "order", "known", "windows", "numbers", "admitted", "lengths", "parts", "late",
                "numbers_out", "slots", "data", "message",
            )
        ),
        *((name, ctypes.c_int64) for name in ("finest_us", "horizon_us", "copies_apart_us")),
        *(
            (name, ctypes.c_uint32)
            for name in (
                "records_len", "order_len", "symbols_len", "windows_len", "numbers_len", "data_len", "slots_len",
                "lengths_len", "max_parts", "max_late", "max_numbers", "message_len",
            )
        ),
    ]  # fmt: skip


class _ScanResult(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("records", "symbols", "slow", "reserved")]


class _NewestResult(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("rows", "records")]


class Newest(NamedTuple):
    """What a fetch of a changelog brings of each key, and of how many records that was read.

    A key and None where what was known of it counts no more, and a key and its newest value; of some keys both.
    """

    rows: list[tuple[bytes, bytes | None]]
    records: int


class Scanned(NamedTuple):
    """What `scan` gives: arrays as they lie in memory, and how many there are.

    `order`: the places of the records of each symbol, from its `order_at` on.
    """

    data: bytes
    records: bytearray
    symbols: bytearray
    order: bytearray
    record_count: int
    symbol_count: int


class Rules(NamedTuple):
    """What folding goes by, µs; `lengths_us` are those of the timeframes, the finest first."""

    lengths_us: Sequence[int]
    horizon_us: int
    copies_apart_us: int


class _Room:
    """Memory that calls work in. It is kept: to get some megabytes of the system each time takes as long as to fold."""

    def __init__(self) -> None:
        self.work = bytearray()
        self.message = bytearray(MESSAGE_BYTES)

    def places(self, *sizes: int) -> list[int]:
        """Addresses of so many bytes each, at multiples of 16, with what was in them before."""
        whole = 16 + sum(size + -size % 16 for size in sizes)
        if len(self.work) < whole:
            self.work = bytearray(whole)
        at = _at(self.work)
        at += -at % 16
        found = []
        for size in sizes:
            found.append(at)
            at += size + -size % 16
        return found


class Kernel:
    """The library, loaded."""

    def __init__(self, path: Path) -> None:
        """Raises OSError when there is no such library for this machine, or one of another version."""
        library = ctypes.CDLL(str(path))
        if (known := getattr(library, "ashi_interface", lambda: None)()) != INTERFACE:
            raise OSError(
                f"{path} has interface {known}, and {INTERFACE} is wanted: it was built from the sources of another "
                "version, so build it again with `python aggregate/build_native.py`"
            )
        self._seed = secrets.randbits(64)
        self._rooms: list[_Room] = []
        self._scan = library.ashi_scan
        self._scan.argtypes = [
            ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int64, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p,
            ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64, ctypes.POINTER(_ScanResult),
        ]  # fmt: skip
        self._newest = library.ashi_newest
        self._newest.argtypes = [
            ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int64, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32,
            ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64, ctypes.POINTER(_NewestResult),
        ]  # fmt: skip
        self._fold = library.ashi_fold
        self._fold.argtypes = [ctypes.POINTER(_Folding), ctypes.POINTER(ctypes.c_uint32)]
        self.read_columns = library.ashi_rows
        """These two are called by `rows.py`."""
        self.recount = library.ashi_recount
        self.read_columns.argtypes = [
            ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p,
        ]  # fmt: skip
        self.recount.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        self.recount.restype = None

    def scan(self, data: bytes, begin: int, max_records: int) -> Scanned:
        """Read uncompressed batches from the record of offset `begin` on, of at most so many records in all.

        Raises Malformed when they are none, or hold more.
        """
        _check_size(data)
        records, symbols = bytearray(RECORD.size * max_records), bytearray(SYMBOL.size * max_records)
        table = _table(max_records)
        result = _ScanResult()
        failed = self._scan(
            data, len(data), begin, _at(records), max_records, _at(symbols), max_records, _at(table),
            len(table) // 4, self._seed, ctypes.byref(result),
        )  # fmt: skip
        if failed:
            raise Malformed(_FAILURES[failed])
        return Scanned(data, records, symbols, table, result.records, result.symbols)

    def newest(self, data: bytes, begin: int, max_records: int, row_format: int) -> Newest:
        """Of uncompressed batches of a changelog, from offset `begin` on, what counts of each key.

        Raises Malformed when they are none, when a record has no key, or a value another format than that.
        """
        _check_size(data)
        rows, table, result = bytearray(ROW.size * max_records), _table(max_records), _NewestResult()
        failed = self._newest(
            data, len(data), begin, row_format, _at(rows), max_records, _at(table), len(table) // 4, self._seed,
            ctypes.byref(result),
        )  # fmt: skip
        if failed:
            raise Malformed(_FAILURES[failed])
        newest: list[tuple[bytes, bytes | None]] = []
        for key_at, key_len, at, length, removed, has_value in ROW.iter_unpack(rows[: ROW.size * result.rows]):
            key = data[key_at : key_at + key_len]
            if removed:
                newest.append((key, None))
            if has_value:
                newest.append((key, data[at : at + length]))
        return Newest(newest, result.records)

    def fold(
        self,
        scanned: Scanned,
        rules: Rules,
        known: bytearray,
        *,
        first: int,
        windows: bytearray,
        numbers: bytes,
        admitted: bytearray,
        slots: int,
    ) -> list[int | FoldedSymbol]:
        """Fold the records of symbols as the `Known` of each says; of those not folded gives the `Verdict`.

        `first`: the number of the first symbol of those in `known`. Nothing of the arguments changes.
        """
        finest_us, *coarser_us = rules.lengths_us
        records = scanned.record_count
        most_numbers = NUMBERS_OF_RECORD * records + len(numbers) // 8
        lengths = (ctypes.c_int64 * len(coarser_us))(*coarser_us)
        room = self._rooms.pop() if self._rooms else _Room()
        try:
            parts_at, late_at, numbers_at, slots_at = room.places(
                PART_BYTES * records, LATE_BYTES * records, 8 * most_numbers, SLOT_BYTES * slots
            )
            used = ctypes.c_uint32()
            while True:
                message = room.message
                folding = _Folding(
                    _at(scanned.records), _at(scanned.symbols) + SYMBOL.size * first, _at(scanned.order),
                    _at(known), _at(windows), _read_only(numbers),
                    _at(admitted), ctypes.addressof(lengths), parts_at, late_at, numbers_at, slots_at,
                    _read_only(scanned.data), _at(message), finest_us, rules.horizon_us, rules.copies_apart_us,
                    records, records, len(known) // KNOWN.size, len(windows) // WINDOW.size, len(numbers) // 8,
                    len(scanned.data), slots, len(coarser_us), records, records, most_numbers, len(message),
                )  # fmt: skip
                if self._fold(ctypes.byref(folding), ctypes.byref(used)) != NO_ROOM:
                    return _message_decoder.decode(memoryview(message)[: used.value])
                room.message = bytearray(2 * len(message))
        finally:
            self._rooms.append(room)


def _check_size(data: bytes) -> None:
    if len(data) > MAX_BYTES:
        raise Malformed(f"batches of {len(data)} bytes are more than can be read at once")


def _table(entries: int) -> bytearray:
    """Places for the numbers of so many keys: at least twice as many, a power of two."""
    return bytearray(b"\xff") * (4 * (2 << entries.bit_length()))


def _read_only(data: bytes) -> int | None:
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value


def _at(memory: bytearray) -> int:
    return ctypes.addressof((ctypes.c_char * len(memory)).from_buffer(memory)) if memory else 0

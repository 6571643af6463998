"""The native library `kernel.zig` by its C interface: memory laid out as it has it, and its calls.

Calls by ctypes go without Python's lock, so that other threads run meanwhile.
"""

from __future__ import annotations

import ctypes
import secrets
from enum import IntEnum
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

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
SYMBOL: Final = Struct("<6I")
"""`Symbol`: key_at, key_len, first, last, count, slow."""
KNOWN: Final = Struct("<4q4I")
"""`Known`: applied_offset, stream_time, dropped_until, greatest_id, id_room, mode, windows_at, windows_len."""
WINDOW: Final = Struct("<q2I")
"""`Window`: start, at, len."""
OUTCOME: Final = Struct("<2q12I")
"""`Outcome`: stream_time, last_offset, verdict, counted, duplicates, unseen, first_unseen, parts_at, parts_len,
late_at, late_len, windows_at, windows_len, reserved."""
PART: Final = Struct("<8Q2q8I4B2I4x")
"""`Part`: volume, quote, buy_volume, buy_quote (each the low 64 bits, the high ones), open_time, last_offset, count,
first, last, high, low, ids_at, ids_len, last_run, and the scales of the four sums, reserved."""
LATE: Final = Struct("<q2I")
"""`Late`: stream_time, record, reason."""
SLOT_BYTES: Final = 16
ROW: Final = Struct("<6I")
"""`Row`: key_at, key_len, value_at, value_len, was_removed, has_value."""

MAX_BYTES: Final = 2**31
"""Of the batches of one scan; places in them have 32 bits."""


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


class Sizes(ctypes.Structure):
    """How much output there is, or room for it."""

    _fields_ = [(name, ctypes.c_uint32) for name in ("parts", "late", "windows", "numbers")]


class _Folding(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_void_p)
            for name in (
                "records", "symbols", "known", "outcomes", "windows", "numbers", "admitted", "parts", "late",
                "windows_out", "numbers_out", "slots", "data",
            )
        ),
        *((name, ctypes.c_int64) for name in ("finest_us", "horizon_us", "copies_apart_us")),
        *(
            (name, ctypes.c_uint32)
            for name in ("records_len", "symbols_len", "windows_len", "numbers_len", "data_len", "slots_len")
        ),
        ("max", Sizes),
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
    """What `scan` gives: arrays as they lie in memory, and how many there are."""

    data: bytes
    records: bytearray
    symbols: bytearray
    record_count: int
    symbol_count: int


class Rules(NamedTuple):
    """What folding goes by, µs."""

    finest_us: int
    horizon_us: int
    copies_apart_us: int


class Folded(NamedTuple):
    """What `fold` gives, as it lies in memory; of `numbers` pairs of 64 bits are intervals."""

    outcomes: bytearray
    parts: bytearray
    late: bytearray
    windows: bytearray
    numbers: memoryview


class Kernel:
    """The library, loaded."""

    def __init__(self, path: Path) -> None:
        """Raises OSError when there is no such library for this machine."""
        library = ctypes.CDLL(str(path))
        self._seed = secrets.randbits(64)
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
        self._fold.argtypes = [ctypes.POINTER(_Folding), ctypes.POINTER(Sizes)]

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
        return Scanned(data, records, symbols, result.records, result.symbols)

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
        windows: bytearray,
        numbers: bytes,
        admitted: bytearray,
        slots: int,
    ) -> Folded:
        """Fold the records of each symbol as its `Known` says. Nothing of the arguments changes."""
        records = scanned.record_count
        room = Sizes(records, records, 2 * records + slots, 5 * records + len(numbers) // 8)
        outcomes = bytearray(OUTCOME.size * scanned.symbol_count)
        parts, late = bytearray(PART.size * room.parts + 16), bytearray(LATE.size * room.late)
        windows_out, numbers_out = bytearray(WINDOW.size * room.windows), bytearray(8 * room.numbers)
        slots_out = bytearray(SLOT_BYTES * slots)
        aligned = -ctypes.addressof(ctypes.c_char.from_buffer(parts)) % 16
        folding = _Folding(
            _at(scanned.records), _at(scanned.symbols), _at(known), _at(outcomes), _at(windows), _read_only(numbers),
            _at(admitted), _at(parts) + aligned, _at(late), _at(windows_out), _at(numbers_out), _at(slots_out),
            _read_only(scanned.data), *rules, records, scanned.symbol_count, len(windows) // WINDOW.size,
            len(numbers) // 8, len(scanned.data), slots, room,
        )  # fmt: skip
        used = Sizes()
        self._fold(ctypes.byref(folding), ctypes.byref(used))
        return Folded(
            outcomes,
            parts[aligned : aligned + PART.size * used.parts],
            late,
            windows_out,
            memoryview(numbers_out).cast("Q"),
        )


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

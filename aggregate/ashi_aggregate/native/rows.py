"""Trades of one symbol from columns, in rows that the native library reads and adds up: for `ashi rebuild`.

Columns come by Arrow's C interface (https://arrow.apache.org/docs/format/CDataInterface.html), which every library of
columns speaks, so none of them is imported here.
"""

from __future__ import annotations

import ctypes
import secrets
from array import array
from collections.abc import Sequence
from decimal import Decimal
from struct import Struct
from typing import Any, Final, NamedTuple, Protocol

from ashi.contracts.trade import MAX_ID_LENGTH, Side, Trade
from ashi_aggregate.native.kernel import Kernel, Verdict

COLUMNS: Final = (
    "kafka_partition", "kafka_offset", "traded_at", "received_at", "sequence", "trade_id", "price", "size", "side"
)  # fmt: skip
"""What is read, in this order: five of 64-bit integers (times in µs) and four of texts, of which a side may be null."""
MAX_ROWS: Final = 2**24
"""At once."""

_ROW: Final = Struct("<4q3Q3I6B6x")
"""`Row`: offset, traded_at, received_at, sequence, id, price, size, before, partition, id_at, id_len, id_is_number,
side, price_scale, size_scale, is_copy."""
_SUM: Final = Struct("<8Q2q5I4B8x")
"""`Sum`: volume, quote, buy_volume, buy_quote (each the low 64 bits, the high ones), open_time, offset, count, first,
last, high, low, and the scales of the four sums."""
_INTEGERS: Final = 5
_FORMATS: Final = [b"l"] * _INTEGERS + [b"vu"] * (len(COLUMNS) - _INTEGERS)
_SIDES: Final[tuple[Side | None, ...]] = (None, "buy", "sell")
_TEXT_PER_ROW: Final = 24
"""Bytes of ids for each row, to begin with."""


class UnknownColumnsError(ValueError):
    """The columns are not those that the library reads, or hold more than there is room for."""


class ArrowColumns(Protocol):
    """Some rows of columns, whoever holds them."""

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        """Capsules of a schema and of an array, which is a struct."""


class WindowSums(NamedTuple):
    """What the trades of one finest window add up to; `offset` is the greatest of theirs."""

    open_time: int
    first: Trade
    last: Trade
    high: Decimal
    low: Decimal
    volume: Decimal
    quote_volume: Decimal
    trade_count: int
    taker_buy_volume: Decimal
    taker_buy_quote_volume: Decimal
    offset: int


class Recounted(NamedTuple):
    """What rows add up to.

    Attributes:
        windows: by finest window, oldest first.
        late: of the offsets told as late those that are no copies, with their trades; added up nowhere.
        clock: the greatest `traded_at` of all of these, µs; 0 where there are none.
        first: the least, µs; of no meaning where there are none.
        counted: how many were added up.

    """

    windows: list[WindowSums]
    late: list[tuple[int, Trade]]
    clock: int
    first: int
    counted: int


class _Schema(ctypes.Structure):
    pass


_Schema._fields_ = [
    ("format", ctypes.c_char_p), ("name", ctypes.c_char_p), ("metadata", ctypes.c_void_p), ("flags", ctypes.c_int64),
    ("n_children", ctypes.c_int64), ("children", ctypes.POINTER(ctypes.POINTER(_Schema))),
    ("dictionary", ctypes.c_void_p), ("release", ctypes.c_void_p), ("private_data", ctypes.c_void_p),
]  # fmt: skip


class _Array(ctypes.Structure):
    pass


_Array._fields_ = [
    ("length", ctypes.c_int64), ("null_count", ctypes.c_int64), ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64), ("n_children", ctypes.c_int64), ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_Array))), ("dictionary", ctypes.c_void_p),
    ("release", ctypes.c_void_p), ("private_data", ctypes.c_void_p),
]  # fmt: skip


class _Texts(ctypes.Structure):
    _fields_ = [
        ("views", ctypes.c_void_p), ("buffers", ctypes.c_void_p), ("lengths", ctypes.c_void_p),
        ("buffers_len", ctypes.c_uint32), ("reserved", ctypes.c_uint32),
    ]  # fmt: skip


class _Columns(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in COLUMNS[:_INTEGERS]),
        *((name, _Texts) for name in COLUMNS[_INTEGERS:]),
        ("side_valid", ctypes.c_void_p), ("side_valid_at", ctypes.c_uint32), ("count", ctypes.c_uint32),
    ]  # fmt: skip


class _Taken(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("rows", "text", "slow", "reserved")]


class _Recount(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("rows", "text", "late", "keys", "table", "sums", "late_out")),
        *(
            (name, ctypes.c_int64)
            for name in ("finest_us", "copies_apart_us", "begin", "end", "unread_begin", "unread_end")
        ),
        ("seed", ctypes.c_uint64),
        *(
            (name, ctypes.c_uint32)
            for name in ("rows_len", "text_len", "late_len", "table_len", "sums_len", "late_out_len")
        ),
    ]


class _Recounted(ctypes.Structure):
    _fields_ = [
        ("clock", ctypes.c_int64), ("first", ctypes.c_int64),
        *((name, ctypes.c_uint32) for name in ("counted", "sums", "late", "verdict")),
    ]  # fmt: skip


_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype = ctypes.c_void_p
_pointer_of.argtypes = [ctypes.py_object, ctypes.c_char_p]


class TradeRows:
    """Room for trades of one symbol at a time, used again and again. Not for use by two threads at once."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._seed = secrets.randbits(64)
        self._rows = bytearray()
        self._text = bytearray()
        self._keys = bytearray()
        self._table = bytearray()
        self._taken = _Taken()

    def __len__(self) -> int:
        return int(self._taken.rows)

    @property
    def slow(self) -> int:
        """How many are written otherwise than Ashi does, and are not read."""
        return int(self._taken.slow)

    @property
    def partition(self) -> int:
        """The partition of `trades` of the first of them; they may be of several."""
        return int(_ROW.unpack_from(self._rows)[8])

    def begin(self, rows: int) -> None:
        """Forget what was there, and expect about so many."""
        self._taken = _Taken()
        self._make_room(min(rows, MAX_ROWS), 0)

    def add(self, batch: ArrowColumns) -> None:
        """Put rows of `COLUMNS` behind those that are there.

        Raises UnknownColumnsError for other columns, and for more than `MAX_ROWS` in all.
        """
        schema_capsule, array_capsule = batch.__arrow_c_array__()
        schema = _Schema.from_address(_address(schema_capsule, b"arrow_schema"))
        table = _Array.from_address(_address(array_capsule, b"arrow_array"))
        formats = [schema.children[number].contents.format for number in range(schema.n_children)]
        if schema.format != b"+s" or formats != _FORMATS or table.offset:
            raise UnknownColumnsError(f"the columns of trades are of the kinds {formats}")
        if not table.length:
            return
        fields = [table.children[number].contents for number in range(table.n_children)]
        side = fields[-1]
        if any(field.null_count for field in fields[:-1]) or any(field.length != table.length for field in fields):
            raise UnknownColumnsError("columns of trades hold no value where there must be one")
        columns = _Columns(
            *(field.buffers[1] + 8 * field.offset for field in fields[:_INTEGERS]),
            *(_texts(field) for field in fields[_INTEGERS:]),
            side.buffers[0] if side.null_count else None,
            side.offset,
            table.length,
        )
        self._make_room(table.length, MAX_ID_LENGTH)
        failed = self._kernel.read_columns(
            ctypes.byref(columns), _address_of(self._rows), len(self._rows) // _ROW.size, _address_of(self._text),
            len(self._text), ctypes.byref(self._taken),
        )  # fmt: skip
        del schema_capsule, array_capsule  # till here they have held the memory
        if failed:
            raise UnknownColumnsError(f"there was no room for {table.length} trades")

    def _make_room(self, rows: int, id_bytes: int) -> None:
        """Have room for so many rows more, and for ids of that length, where there is less. Raises for too many."""
        needed = len(self) + rows
        if needed > MAX_ROWS:
            raise UnknownColumnsError(f"{needed} trades at once are more than {MAX_ROWS}")
        _grow(self._rows, _ROW.size * needed)
        _grow(self._text, max(self._taken.text + id_bytes * (rows + 1), _TEXT_PER_ROW * needed))

    def recount(
        self,
        symbol: str,
        *,
        finest_us: int,
        copies_apart_us: int,
        begin: int,
        end: int,
        unread: range,
        late: Sequence[int],
    ) -> Recounted | None:
        """What they add up to, each trade once; None where that is Python's to say.

        Args:
            symbol: whose trades they are.
            finest_us: length of the finest windows, µs.
            copies_apart_us: the most that two copies of a trade are stamped apart, µs.
            begin: the first `traded_at` that counts, µs. Rows outside of the time say what is a copy.
            end: the first `traded_at` after them that does not.
            unread: offsets that do not count.
            late: offsets, ascending, of the trades that are to be given back by themselves.

        """
        rows = len(self)
        if not rows:
            return Recounted([], [], 0, 0, 0)
        if self.slow:
            return None
        most = min(rows, (end - begin) // finest_us + 2)
        sums, late_out, offsets = bytearray(_SUM.size * most + 16), array("I", bytes(4 * len(late))), array("q", late)
        aligned = -_address_of(sums) % 16
        table_len = 2 << rows.bit_length()
        _grow(self._keys, 8 * rows)
        _grow(self._table, 4 * table_len)
        result = _Recounted()
        self._kernel.recount(
            ctypes.byref(
                _Recount(
                    _address_of(self._rows), _address_of(self._text), offsets.buffer_info()[0],
                    _address_of(self._keys), _address_of(self._table), _address_of(sums) + aligned,
                    late_out.buffer_info()[0], finest_us, copies_apart_us, begin, end, unread.start, unread.stop,
                    self._seed, rows, self._taken.text, len(late), table_len, most, len(late),
                )
            ),
            ctypes.byref(result),
        )  # fmt: skip
        if Verdict(result.verdict) is not Verdict.FOLDED:
            return None
        found = memoryview(sums)[aligned : aligned + _SUM.size * result.sums]
        windows = sorted((self._sums(symbol, each) for each in _SUM.iter_unpack(found)), key=_open_time)
        given_back = [self._offset_and_trade(symbol, place) for place in late_out[: result.late]]
        return Recounted(windows, given_back, result.clock, result.first, result.counted)

    def _sums(self, symbol: str, each: tuple[int, ...]) -> WindowSums:
        open_time, offset, count, first, last, high, low = each[8:15]
        opened = self._trade(symbol, first)
        closed = opened if last == first else self._trade(symbol, last)
        volume, quote, buy_volume, buy_quote = (
            _decimal(each[2 * place] | each[2 * place + 1] << 64, each[15 + place]) for place in range(4)
        )
        return WindowSums(
            open_time, opened, closed, self._price(high), self._price(low), volume, quote, count, buy_volume, buy_quote,
            offset,
        )  # fmt: skip

    def _offset_and_trade(self, symbol: str, place: int) -> tuple[int, Trade]:
        return int(_ROW.unpack_from(self._rows, place * _ROW.size)[0]), self._trade(symbol, place)

    def _trade(self, symbol: str, place: int) -> Trade:
        (
            _, traded_at, received_at, sequence, _, price, size, _, _, id_at, id_len, _, side, price_scale, size_scale,
            _,
        ) = _ROW.unpack_from(self._rows, place * _ROW.size)  # fmt: skip
        trade_id = self._text[id_at : id_at + id_len].decode()
        return Trade(
            symbol, trade_id, _decimal(price, price_scale), _decimal(size, size_scale), _SIDES[side], traded_at,
            received_at, sequence,
        )  # fmt: skip

    def _price(self, place: int) -> Decimal:
        row = _ROW.unpack_from(self._rows, place * _ROW.size)
        return _decimal(row[5], row[13])


def _grow(memory: bytearray, needed: int) -> None:
    if needed > len(memory):
        memory += bytes(max(needed, len(memory) * 5 // 4) - len(memory))


def _open_time(window: WindowSums) -> int:
    return window.open_time


def _address_of(memory: bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory)) if memory else 0


def _address(capsule: object, name: bytes) -> int:
    return int(_pointer_of(capsule, name))


def _texts(field: Any) -> _Texts:
    """A column of views: validity, views, the buffers that these are into, and the lengths of those."""
    buffers = field.n_buffers - 3
    first = ctypes.addressof(field.buffers.contents) + 2 * ctypes.sizeof(ctypes.c_void_p)
    return _Texts(field.buffers[1] + 16 * field.offset, first, field.buffers[field.n_buffers - 1], buffers, 0)


def _decimal(value: int, scale: int) -> Decimal:
    """The decimal of so many places after the point."""
    return Decimal(value).scaleb(-scale) if value < 10**28 else Decimal(f"{value}E-{scale}")

"""How state is written to the changelogs. A row: a byte for the format, eight that rank it, then msgpack.

The rank stands first and is of one length, so that a recovery finds the newest write of a row by comparing bytes and
decodes none of the others. What follows are arrays without names; decimals are text, exact to the last digit, as text
is what they are read from and printed to anyway. Markers are JSON, and so were rows at first: see `json_rows`.
"""

from __future__ import annotations

from decimal import Decimal
from itertools import accumulate
from operator import sub
from typing import Final, TypeVar

import msgspec
from msgspec import field

from ashi.contracts.candle import Candle
from ashi.contracts.errors import StateError
from ashi_aggregate.core.json_rows import UNREADABLE, Epoch, Offset, decode_json_rank, decode_json_row, is_json
from ashi_aggregate.core.trade_ids import WindowIds
from ashi_aggregate.core.window_state import StateRow, Window

ROW_FORMAT: Final = 2
"""The first byte of a row. JSON, which was format 1, begins with a brace."""
_RANK: Final = slice(1, 9)
_BODY: Final = slice(9, None)
_OFFSET_BITS: Final = 48
_OFFSET_MASK: Final = 2**_OFFSET_BITS - 1
_GREATEST: Final = 2**63 - 1

_Text = str | None
_Dropped = tuple[
    str, int, int, Decimal, Decimal, Decimal, Decimal, Decimal, Decimal, int, Decimal, Decimal, _Text, _Text, int
]
"""The fields of a candle in their order, without the symbol, which is the row's."""


class Marker(msgspec.Struct):
    """How far a partition has been made durable. In the changelog some fields have the names they had at first.

    Attributes:
        epoch: in which it was written; a marker of an earlier one says nothing.
        durable_offset: of the last record whose effects are all acknowledged.
        begins_at: no trade before where the state begins is stamped later than this, µs; 0 if it begins with the log,
            None if nothing has been read yet. See `find_complete_from`.
        topic_id: of the topic `trades` that was read, where the broker told it.
        records: fingerprints of records that were read, the last one and some before: offset, append time in ms and
            checksum, as in `ashi.runtime.kafka.cluster.log_identity`.
        positions: of each symbol the offset that its rows have come to in every table, or beyond: see
            `ashi_aggregate.census`. Written by versions before; now `listed_by` and `behind` say it.
        listed_by: names the `SymbolList` whose first symbols this marker lists; None where it lists none so.
        behind: of each of those how far `durable_offset` is beyond its position, in the order of the list.

    """

    durable_offset: Offset = field(name="position")
    begins_at: int | None = field(default=0, name="edge")
    epoch: Epoch = 0
    topic_id: str | None = None
    records: list[tuple[int, int, int]] = []
    positions: dict[str, int] | None = None
    listed_by: str | None = None
    behind: list[int] = []


class SymbolList(msgspec.Struct):
    """Symbols of a partition, in the order in which the markers of one state came to list them.

    Attributes:
        durable_offset: of the marker it was first written for; with `epoch` it ranks the record.

    """

    durable_offset: Offset = field(name="position")
    epoch: Epoch
    symbols: list[str]


class RowHead(msgspec.Struct, array_like=True, gc=False):
    """What a row tells without being decoded as a whole. Fields as in `StateRow`, from where nothing is closed on."""

    symbol: str
    stream_time: int
    appended_at: int
    dropped_until: int
    complete_from: int
    closes_from: int


class StoredRow(msgspec.Struct, gc=False):
    """A row as it stands in a changelog, and what it tells without being decoded."""

    value: bytes
    applied_offset: int
    head: RowHead


class _Ids(msgspec.Struct, array_like=True, omit_defaults=True):
    """`WindowIds` as differences, which take a third of the space; as text where msgpack's integers do not reach."""

    differences: list[int] = []
    texts: set[str] = set()
    wide: list[str] = []


class _Body(RowHead, array_like=True, gc=False):
    closed_until: int
    windows: list[Window]
    ids: dict[int, _Ids]
    dropped: _Dropped | None


_Head = TypeVar("_Head", bound=RowHead)

_encoder = msgspec.msgpack.Encoder()
_body_decoder = msgspec.msgpack.Decoder(_Body)
_head_decoder = msgspec.msgpack.Decoder(RowHead)
_marker_encoder = msgspec.json.Encoder()
_marker_decoder = msgspec.json.Decoder(Marker)
_list_decoder = msgspec.json.Decoder(SymbolList)


def encode(state: StateRow | Marker | SymbolList) -> bytes:
    """A row, marker or list as its changelog value."""
    return _encode_row(state) if isinstance(state, StateRow) else _marker_encoder.encode(state)


def _encode_row(row: StateRow) -> bytes:
    ids = {start: _write_ids(kept) for start, kept in row.ids.items()}
    dropped = None if row.dropped is None else msgspec.structs.astuple(row.dropped)[1:]
    body = _Body(
        row.symbol,
        row.stream_time,
        row.appended_at,
        row.dropped_until,
        row.complete_from,
        row.closes_from,
        row.closed_until,
        list(row.windows.values()),
        ids,
        dropped,
    )
    rank = row.epoch << _OFFSET_BITS | row.applied_offset + 1
    return bytes((ROW_FORMAT, *rank.to_bytes(8))) + _encoder.encode(body)


def _write_ids(kept: WindowIds) -> _Ids:
    differences = list(map(sub, kept.numbers, [0, *kept.numbers]))
    if kept.numbers and kept.numbers[-1] > _GREATEST:
        return _Ids([], kept.texts, list(map(str, differences)))
    return _Ids(differences, kept.texts)


def _read_ids(kept: _Ids) -> WindowIds:
    return WindowIds(list(accumulate(map(int, kept.wide) if kept.wide else kept.differences)), kept.texts)


def decode_row(value: bytes) -> StateRow:
    """Read a row. Raises StateError when it is not one, or of a later format."""
    if is_json(value):
        return decode_json_row(value)
    body = _decode(value, _body_decoder)
    epoch, applied_offset = read_rank(value)
    try:
        ids = {start: _read_ids(kept) for start, kept in body.ids.items()}
    except ValueError as error:
        raise _unreadable("a row", error, value) from None
    return StateRow(
        symbol=body.symbol,
        epoch=epoch,
        applied_offset=applied_offset,
        stream_time=body.stream_time,
        appended_at=body.appended_at,
        dropped_until=body.dropped_until,
        complete_from=body.complete_from,
        closed_until=body.closed_until,
        windows={window.fold.open_time: window for window in body.windows},
        ids=ids,
        dropped=None if body.dropped is None else Candle(body.symbol, *body.dropped),
    )


def read_stored(value: bytes) -> StoredRow:
    """What a row tells without being decoded, in a tenth of the time that takes. Raises as `decode_row`."""
    _, applied_offset = read_rank(value)
    if not is_json(value):
        return StoredRow(value, applied_offset, _decode(value, _head_decoder))
    row = decode_json_row(value)
    head = RowHead(row.symbol, row.stream_time, row.appended_at, row.dropped_until, row.complete_from, row.closes_from)
    return StoredRow(value, applied_offset, head)


def _decode(value: bytes, decoder: msgspec.msgpack.Decoder[_Head]) -> _Head:
    _check_format(value)
    try:
        return decoder.decode(memoryview(value)[_BODY])
    except UNREADABLE as error:
        raise _unreadable("a row", error, value) from None


def _unreadable(what: str, error: Exception, value: bytes) -> StateError:
    return StateError(f"{what} in the changelog cannot be read ({error}): {value[:200]!r}")


def _check_format(value: bytes) -> None:
    """Raise StateError unless a value that is not JSON is a row of the format that this version writes."""
    if len(value) <= _RANK.stop:
        raise StateError(f"a row in the changelog cannot be read (it is cut off): {value!r}")
    if value[0] != ROW_FORMAT:
        raise StateError(
            f"a row in the changelog has format {value[0]}, this version of Ashi knows up to {ROW_FORMAT}, so start "
            f"the version that wrote it; or it is not a row: {value[:200]!r}"
        )


def decode_marker(value: bytes) -> Marker:
    """Read a marker. Raises StateError when it is not one."""
    try:
        return _marker_decoder.decode(value)
    except UNREADABLE as error:
        raise _unreadable("a marker", error, value) from None


def decode_list(value: bytes) -> SymbolList:
    """Read a list of symbols. Raises StateError when it is none."""
    try:
        return _list_decoder.decode(value)
    except UNREADABLE as error:
        raise _unreadable("a list of symbols", error, value) from None


def rank_of(value: bytes) -> bytes:
    """What orders the writes of a row or marker: of two, the greater is the later. Raises StateError."""
    if is_json(value):
        epoch, applied_offset = decode_json_rank(value)
        return (epoch << _OFFSET_BITS | applied_offset + 1).to_bytes(8)
    _check_format(value)
    return value[_RANK]


def read_rank(value: bytes) -> tuple[int, int]:
    """Epoch and offset of a row or marker. Raises StateError."""
    rank = int.from_bytes(rank_of(value))
    return rank >> _OFFSET_BITS, (rank & _OFFSET_MASK) - 1

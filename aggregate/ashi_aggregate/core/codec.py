"""How rows and markers are written to the changelogs: JSON with decimals as text, exact to the last digit."""

from __future__ import annotations

from itertools import accumulate
from operator import sub

import msgspec
from msgspec import field

from ashi.contracts.errors import StateError
from ashi_aggregate.core.window_state import ROW_FORMAT, StateRow


class Marker(msgspec.Struct):
    """How far a partition has been made durable. In the changelog some fields have the names they had at first.

    Attributes:
        epoch: in which it was written; a marker of an earlier one says nothing.
        durable_offset: of the last record whose effects are all acknowledged.
        begins_at: no trade before where the state begins is stamped later than this, µs; 0 if it begins with the log,
            None if nothing has been read yet. See `find_complete_from`.
        topic_id: of the topic `trades` that was read, where the broker told it.
        records: fingerprints of records that were read, the last one and some before: offset, append time in ms and
            checksum, as in `ashi.runtime.kafka.log_identity`.
        positions: of each symbol the offset that its rows have come to in every table, or beyond: see
            `ashi_aggregate.census`. None in markers of versions that listed none.

    """

    durable_offset: int = field(name="position")
    begins_at: int | None = field(default=0, name="edge")
    epoch: int = 0
    topic_id: str | None = None
    records: list[tuple[int, int, int]] = []
    positions: dict[str, int] | None = None


class _Rank(msgspec.Struct):
    """What a row and a marker have in common."""

    offset: int = field(name="position")
    epoch: int = 0


_encoder = msgspec.json.Encoder()
_row_decoder = msgspec.json.Decoder(StateRow)
_marker_decoder = msgspec.json.Decoder(Marker)
_rank_decoder = msgspec.json.Decoder(_Rank)


def encode(state: StateRow | Marker) -> bytes:
    """A row or marker as its changelog value. Ids are written as differences, which take a third of the space."""
    if isinstance(state, StateRow):
        ids = {
            start: msgspec.structs.replace(kept, numbers=list(map(sub, kept.numbers, [0, *kept.numbers])))
            for start, kept in state.ids.items()
        }
        state = msgspec.structs.replace(state, ids=ids)
    return _encoder.encode(state)


def decode_row(value: bytes) -> StateRow:
    """Read a row. Raises StateError when it is not one, or of a later format."""
    try:
        row = _row_decoder.decode(value)
    except msgspec.MsgspecError as error:
        raise StateError(f"a row in the changelog cannot be read ({error}): {value[:200]!r}") from None
    if row.format > ROW_FORMAT:
        raise StateError(
            f"the row of {row.symbol} has format {row.format}, this version of Ashi knows up to {ROW_FORMAT}: "
            "start the version that wrote it"
        )
    for kept in row.ids.values():
        kept.numbers = list(accumulate(kept.numbers))
    return row


def decode_marker(value: bytes) -> Marker:
    """Read a marker. Raises StateError when it is not one."""
    try:
        return _marker_decoder.decode(value)
    except msgspec.MsgspecError as error:
        raise StateError(f"a marker in the changelog cannot be read ({error}): {value[:200]!r}") from None


def rank_of(value: bytes) -> tuple[int, int]:
    """Epoch and offset of a row or marker: of two, the greater is the later. Raises StateError."""
    try:
        rank = _rank_decoder.decode(value)
    except msgspec.MsgspecError as error:
        raise StateError(f"a changelog record has no position ({error}): {value[:200]!r}") from None
    return rank.epoch, rank.offset

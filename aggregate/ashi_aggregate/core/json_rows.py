"""Rows as version 0.1.0 wrote them: JSON, in which some fields have the names they had at first."""

from __future__ import annotations

from decimal import Decimal
from itertools import accumulate
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import field

from ashi.contracts.candle import Candle
from ashi.contracts.errors import StateError
from ashi_aggregate.core.fold import Rank
from ashi_aggregate.core.window_state import StateRow

JSON_FORMAT: Final = 1
UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)
"""All that bytes of a changelog can raise which somebody else has written; of ValueError that they are no UTF-8."""


class _Fold(msgspec.Struct):
    open_time: int
    first: Rank
    last: Rank
    high: Decimal
    low: Decimal
    volume: Decimal
    quote_volume: Decimal
    trade_count: int
    taker_buy_volume: Decimal
    taker_buy_quote_volume: Decimal
    offset: int


class _Window(msgspec.Struct):
    fold: _Fold
    emitted: int


class _WindowIds(msgspec.Struct):
    numbers: list[int] = []
    texts: set[str] = set()


Offset: TypeAlias = Annotated[int, msgspec.Meta(ge=-1, lt=2**48 - 1)]
Epoch: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=2**16)]
"""As far as the eight bytes reach that rank a write."""


class _Rank(msgspec.Struct):
    """What rows and markers have in common."""

    applied_offset: Offset = field(name="position")
    epoch: Epoch = 0


class _Row(msgspec.Struct):
    applied_offset: Offset = field(name="position")
    epoch: Epoch = 0
    symbol: str = ""
    stream_time: int = field(default=0, name="data_clock")
    appended_at: int = 0
    dropped_until: int = field(default=0, name="floor")
    complete_from: int = field(default=0, name="edge")
    closed_until: int = 0
    windows: dict[int, _Window] = {}
    ids: dict[int, _WindowIds] = {}
    dropped: Candle | None = None
    format: int = JSON_FORMAT


_row_decoder = msgspec.json.Decoder(_Row)
_rank_decoder = msgspec.json.Decoder(_Rank)


def is_json(value: bytes) -> bool:
    """Whether a value of a changelog is JSON: rows of later versions begin with their format's number."""
    return value[:1] == b"{"


def decode_json_row(value: bytes) -> StateRow:
    """Read a row. Raises StateError when it is not one, or of a later format."""
    try:
        row = _row_decoder.decode(value)
    except UNREADABLE as error:
        raise StateError(f"a row in the changelog cannot be read ({error}): {value[:200]!r}") from None
    if row.format > JSON_FORMAT:
        raise StateError(
            f"the row of {row.symbol} has format {row.format}, and rows in JSON are known up to {JSON_FORMAT}: "
            "start the version that wrote it"
        )
    for key, window in row.windows.items():
        if key != window.fold.open_time:
            raise StateError(
                f"the row of {row.symbol} has under {str(key)[:30]} the window that opens at {window.fold.open_time}: "
                "no version of Ashi has written it"
            )
    for kept in row.ids.values():
        kept.numbers = list(accumulate(kept.numbers))
    return msgspec.convert(row, StateRow, from_attributes=True)


def decode_json_rank(value: bytes) -> tuple[int, int]:
    """Epoch and offset of a row or marker. Raises StateError."""
    try:
        rank = _rank_decoder.decode(value)
    except UNREADABLE as error:
        raise StateError(f"a changelog record has no position ({error}): {value[:200]!r}") from None
    return rank.epoch, rank.applied_offset

"""Rows of a store as messages again, and what is said of a row that no worker can have written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from ashi.contracts.candle import DECIMAL_FIELDS, Candle
from ashi.contracts.decimals import parse_decimal
from ashi.contracts.errors import ContractError, StorageError
from ashi.contracts.feed import FeedGap, FeedStatus
from ashi.contracts.venue_candle import VENUE_NULLABLE, VenueCandle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_Candle = TypeVar("_Candle", Candle, VenueCandle)
_Message = TypeVar("_Message", FeedGap, FeedStatus)

SERIES_KEY: Final = 3
"""So many fields come first in a row of candles and name it: symbol, timeframe, open time."""


def candle_from(kind: type[_Candle], row: Sequence[Any], *, where: object, table: str) -> _Candle:
    """The candle of a row that has its fields in their order, the decimals as text.

    Raises StorageError where a decimal is none, or NULL in a candle of trades; `where`: the store, for the message.
    """
    fields = dict(zip(kind.__struct_fields__, row, strict=True))
    try:
        _parse_decimals(fields, VENUE_NULLABLE if kind is VenueCandle else frozenset())
    except ContractError as error:
        raise changed_by_hand(where, table, row[:SERIES_KEY], error) from error
    return kind(**fields)


def _parse_decimals(fields: dict[str, Any], nullable: frozenset[str]) -> None:
    for name in DECIMAL_FIELDS:
        if (text := fields[name]) is not None:
            fields[name] = parse_decimal(name, text)
        elif name not in nullable:
            raise ContractError(f"{name} is NULL")


def message_from(
    kind: type[_Message], fields: Mapping[str, Any], *, where: object, table: str, key: Sequence[str]
) -> _Message:
    """What was said of a feed, by the fields of a row. `key`: those that name it. Raises StorageError."""
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise changed_by_hand(where, table, [fields[name] for name in key], error) from error


def changed_by_hand(where: object, table: str, key: Sequence[object], error: object) -> StorageError:
    """What is raised for the row of `key`: no worker writes such a one."""
    return StorageError(f"{where}: the row {'/'.join(map(str, key))} of {table} was changed by hand: {error}")

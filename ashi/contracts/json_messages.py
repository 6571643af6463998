"""What the messages of all topics have in common as JSON: how one is decoded, and its decimals written out."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, TypeVar

import msgspec

from ashi.contracts.decimals import format_decimal
from ashi.contracts.errors import ContractError

_Message = TypeVar("_Message")


def decode_json(decoder: msgspec.json.Decoder[_Message], message: bytes, what: str) -> _Message:
    """Decode a message by its types alone. Raises ContractError that begins "not a candle", if that is `what`."""
    try:
        return decoder.decode(message)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ContractError(f"not {what}: {error}") from None


def plain_fields(message: msgspec.Struct) -> dict[str, Any]:
    """The fields of a message in their order: decimals as plain strings, everything else as it is."""
    return {
        field: format_decimal(value) if isinstance(value := getattr(message, field), Decimal) else value
        for field in message.__struct_fields__
    }

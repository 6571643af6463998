"""How every answer of GMO Coin's REST interface begins: its status, and what the venue says of an error.

Source: https://api.coin.z.com/docs/en/#error-codes

    {"status":5,"messages":[{"message_code":"ERR-5201","message_string":"MAINTENANCE. Please wait for a while"}],…}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from ashi.contracts.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Sequence

BUSY: Final = frozenset({"ERR-5003", "ERR-5201", "ERR-5202", "ERR-554", "ERR-626"})
"""Errors that pass: too many requests, maintenance (regular and emergency), server unavailable, server busy."""


class Message(msgspec.Struct):
    """An error of the venue's."""

    message_code: str = ""
    message_string: str = ""


def check_status(status: int, messages: Sequence[Message], path: str) -> None:
    """Raise ContractError with the venue's own words if an answer is an error (`"status":5`)."""
    if status != 0:
        errors = "; ".join(f"{message.message_code} {message.message_string}" for message in messages) or "nothing more"
        raise ContractError(f"GMO Coin answered {path} with status {status}: {errors[:200]}")

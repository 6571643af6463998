"""A refused record that tells its symbol and its time: a trade may be missing there, which is a gap. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from ashi.contracts.errors import ContractError
from ashi.contracts.feed import REFUSED_REASON, FeedGap
from ashi.contracts.symbol import split_symbol
from ashi.contracts.trade import EARLIEST_US, LATEST_US

if TYPE_CHECKING:
    from ashi_aggregate.chunk import RejectedRecord

MAX_REASON: Final = 400
BEFORE_US: Final = 1
"""A gap is named by its beginning. Those of feeds begin with a trade's time, so this one begins before, µs: whatever
becomes of the other, it keeps its name."""


class _Told(msgspec.Struct, gc=False):
    symbol: str
    traded_at: int


_decoder: Final = msgspec.json.Decoder(_Told)


def gap_of(rejected: RejectedRecord) -> FeedGap | None:
    """The gap that a refused record leaves; None when it does not tell a symbol and a time.

    It is the same however often the record is read: its `updated_at` is when the record was appended.
    """
    try:
        told = _decoder.decode(rejected.record.value or b"")
        split_symbol(told.symbol)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ContractError):
        return None
    if not EARLIEST_US < told.traded_at < LATEST_US:
        return None
    reason = f"{REFUSED_REASON}, see trades.dead: {rejected.reason}"[:MAX_REASON]
    appended_us = min(max(rejected.record.timestamp * 1000, EARLIEST_US), LATEST_US)
    return FeedGap(told.symbol, told.traded_at - BEFORE_US, told.traded_at + 1, "lost", 0, reason, appended_us)

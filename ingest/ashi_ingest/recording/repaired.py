"""Trades that were fetched over REST, as a recording holds them: a line of their own among the frames.

    <receive time in ns since the epoch> {"ashi.repaired":[<trade as in topic trades>,…]}

Without them a replay would lack what the connections had missed. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from ashi.contracts.errors import ContractError
from ashi.contracts.trade import Trade, decode_trade, encode_trade

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PREFIX: Final = b'{"ashi.repaired":['
TRADES_PER_LINE: Final = 1_000
"""A line is at most 16 MiB long."""


class _Repaired(msgspec.Struct, gc=False):
    trades: list[msgspec.Raw] = msgspec.field(name="ashi.repaired")


_decoder: Final = msgspec.json.Decoder(_Repaired)


def repaired_lines(trades: Sequence[Trade]) -> Iterator[tuple[int, bytes]]:
    """What is to be recorded of fetched trades: of each line when they were received, ns, and what is its frame."""
    for first in range(0, len(trades), TRADES_PER_LINE):
        part = trades[first : first + TRADES_PER_LINE]
        yield part[0].received_at * 1_000, PREFIX + b",".join(map(encode_trade, part)) + b"]}"


def read_repaired(frame: bytes, venue: str) -> list[Trade]:
    """The trades of such a line. Raises ContractError when they cannot be read or are of another venue."""
    try:
        raws = _decoder.decode(frame).trades
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ContractError(f"not a line of trades that were fetched: {error}") from None
    trades = [decode_trade(bytes(raw)) for raw in raws]
    for trade in trades:
        if not trade.symbol.startswith(f"{venue}:"):
            raise ContractError(f"trades that were fetched of {trade.symbol} in a recording of {venue}")
    return trades

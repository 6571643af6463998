"""Lines of a recording that are ours and not a venue's: what REST brought, what waited for it, over which connection.

They stand in the place of a frame, each with one key:

    {"ashi.repaired":[<trade as in topic trades>,…]}  fetched over REST, and published here
    {"ashi.waits":"<symbol>"}                         its trades wait from now on: a repair is published before them
    {"ashi.passes":"<symbol>"}                        what has waited is published here, then its trades as they come
    {"ashi.connection":"<name>"}                      the frames from here on came over this one

Without them a replay would lack what the connections had missed, or have it after what came later. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from ashi.contracts.errors import ContractError
from ashi.contracts.trade import Trade, check_trade, encode_trade

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PREFIX: Final = b'{"ashi.'
"""How each of them begins, and no frame of a venue does."""
TRADES_PER_LINE: Final = 1_000
"""A line is at most 16 MiB long."""

Key: TypeAlias = Literal["waits", "passes", "connection"]


class OwnLine(msgspec.Struct, rename=lambda name: f"ashi.{name}", forbid_unknown_fields=True):
    """What such a line says: of the four, one."""

    repaired: list[Trade] = []
    waits: str | None = None
    passes: str | None = None
    connection: str | None = None


_decoder: Final = msgspec.json.Decoder(OwnLine)


def repaired_lines(trades: Sequence[Trade]) -> Iterator[tuple[int, bytes]]:
    """What is to be recorded of fetched trades: of each line when they were received, ns, and what is its frame."""
    for first in range(0, len(trades), TRADES_PER_LINE):
        part = trades[first : first + TRADES_PER_LINE]
        yield part[0].received_at * 1_000, PREFIX + b'repaired":[' + b",".join(map(encode_trade, part)) + b"]}"


def own_line(key: Key, value: str) -> bytes:
    """What is to be recorded of anything else: of a symbol, or the name of a connection."""
    return msgspec.json.encode({f"ashi.{key}": value})


def read_own_line(frame: bytes, venue: str) -> OwnLine:
    """What such a line says.

    Raises:
        ContractError: a trade is not one, or it is of another venue.
        msgspec.MsgspecError, UnicodeDecodeError, RecursionError: it is cut or damaged, or of a later version.

    """
    line = _decoder.decode(frame)
    for trade in line.repaired:
        check_trade(trade)
    for symbol in {trade.symbol for trade in line.repaired}.union(filter(None, (line.waits, line.passes))):
        if not symbol.startswith(f"{venue}:"):
            raise ContractError(f"a line about {symbol} in a recording of {venue}")
    return line

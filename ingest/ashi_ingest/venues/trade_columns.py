"""Many trades of one market as columns of text, as they stand in messages: for files with millions of rows.

To make a `Trade` of each row, check it and write it as JSON takes longer than all else that is done with it. Here a
check looks at a whole column, and messages are written by one operation for all rows. What comes out is the same, byte
for byte: a test compares it with `encode_trade`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Final

from ashi.contracts.interleave import interleave
from ashi.contracts.trade import decode_trade, decode_trades

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ashi.contracts.trade import Trade

BUY: Final = b'"buy"'
SELL: Final = b'"sell"'
NO_SIDE: Final = b"null"


@dataclass(frozen=True, slots=True)
class TradeColumns:
    """Trades in the order of their file. They were not received: `received_at` is `traded_at`.

    Attributes:
        symbol: of all of them.
        ids: ASCII without quotes and backslashes.
        prices: plain notation, without trailing zeros, as `format_decimal` writes them; `sizes` likewise.
        sides: BUY, SELL or NO_SIDE.
        traded_ms: when they were traded, milliseconds.
        sequences: whole numbers.

    """

    symbol: str
    ids: Sequence[bytes]
    prices: Sequence[bytes]
    sizes: Sequence[bytes]
    sides: Sequence[bytes]
    traded_ms: Sequence[bytes]
    sequences: Sequence[bytes]

    def __len__(self) -> int:
        """How many trades these are."""
        return len(self.ids)

    def part(self, begin: int, end: int) -> TradeColumns:
        """The trades of these places."""
        return TradeColumns(self.symbol, *(column[begin:end] for column in self._columns))

    @property
    def message(self) -> list[bytes | Sequence[bytes]]:
        """What the messages of topic `trades` are put together of: what stands in each of them, and columns."""
        return _message(_beginning(self.symbol), self, self.traded_ms, b"000")

    def messages(self) -> list[bytes]:
        """The message of each trade; none has a newline."""
        return interleave([*self.message, b"\n"], len(self)).split(b"\n")[:-1]

    def trades(self) -> list[Trade]:
        """The same as objects. Raises ContractError if one of them breaks the contract."""
        if not self.ids:
            return []
        trades = decode_trades(b"[" + interleave([*self.message, b","], len(self))[:-1] + b"]")
        if trades is None:  # one by one, so that the error names the trade's field
            trades = [decode_trade(interleave(self.part(at, at + 1).message, 1)) for at in range(len(self))]
        return trades

    @property
    def _columns(self) -> tuple[Sequence[bytes], ...]:
        return self.ids, self.prices, self.sizes, self.sides, self.traded_ms, self.sequences


@dataclass(frozen=True, slots=True)
class ReceivedColumns:
    """Trades of several markets as they came, each in a frame of its own. As `TradeColumns`, but for these.

    Attributes:
        symbols: of each.
        received_us: when its frame was received, µs.

    """

    symbols: Sequence[str]
    ids: Sequence[bytes]
    prices: Sequence[bytes]
    sizes: Sequence[bytes]
    sides: Sequence[bytes]
    traded_ms: Sequence[bytes]
    received_us: Sequence[bytes]
    sequences: Sequence[bytes]

    def messages(self) -> list[bytes]:
        """The message of each trade; none has a newline."""
        beginnings = {symbol: _beginning(symbol) for symbol in {*self.symbols}}
        parts = _message([*map(beginnings.__getitem__, self.symbols)], self, self.received_us, b"")
        return interleave([*parts, b"\n"], len(self.symbols)).split(b"\n")[:-1]


def _beginning(symbol: str) -> bytes:
    return b'{"symbol":"%b","trade_id":"' % symbol.encode()


def _message(
    beginning: bytes | Sequence[bytes], of: TradeColumns | ReceivedColumns, received: Sequence[bytes], digits: bytes
) -> list[bytes | Sequence[bytes]]:
    """What messages are put together of; `digits` follow the time of receipt, so that it is in µs."""
    return [
        beginning,
        of.ids,
        b'","price":"',
        of.prices,
        b'","size":"',
        of.sizes,
        b'","side":',
        of.sides,
        b',"traded_at":',
        of.traded_ms,
        b'000,"received_at":',
        received,
        digits + b',"sequence":',
        of.sequences,
        b"}",
    ]


def joined(parts: Iterable[TradeColumns]) -> TradeColumns:
    """The trades of several, of one symbol, one behind the other; at least one."""
    first, *others = parts
    if not others:
        return first
    columns = zip(first._columns, *(part._columns for part in others), strict=True)
    return TradeColumns(first.symbol, *([*chain.from_iterable(column)] for column in columns))


_ALL_PLAIN: Final = re.compile(rb"(?:(?:0|[1-9][0-9]{0,18}+)(?:\.[0-9]{1,19}+)?+\n)*+")
"""38 digits at most, a line each. Nothing is ever tried again with fewer, which takes a third less."""


def plain_amounts(cells: Sequence[bytes]) -> Sequence[bytes] | None:
    """Prices or sizes as they stand in messages, where all are in plain notation and sound; None: look at each."""
    text = b"\n".join(cells) + b"\n"
    if _ALL_PLAIN.fullmatch(text) is None or text.count(b"\n") != len(cells):
        return None
    if text.count(b".") == len(cells):
        return [cell.rstrip(b"0").rstrip(b".") for cell in cells]
    return [cell.rstrip(b"0").rstrip(b".") if b"." in cell else cell for cell in cells]

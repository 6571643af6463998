"""What a venue says of files of trades, a row each: which column is what. Shared by the venues; pure.

How a row reads is the same for all: numbers in plain or scientific notation, times as numbers of milli- or
microseconds, or as dates in UTC. `traded_at` is floored to the millisecond, as venues tell it over the websocket and
REST: so a trade is the same whichever way it came. Columns are looked at as a whole, and each value of them once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol

from ashi.contracts.decimals import check_amount, format_decimal
from ashi.contracts.errors import ContractError
from ashi.contracts.trade import EARLIEST_US, LATEST_US, MAX_SEQUENCE
from ashi_ingest.venues.parsing import parse_epoch, parse_utc, second_us
from ashi_ingest.venues.trade_columns import BUY, SELL, TradeColumns, plain_amounts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

FIELDS: Final = ("id", "price", "size", "side", "time", "market")
"""What a column may be."""
NEEDED: Final = ("price", "size", "side", "time")


@dataclass(frozen=True, slots=True)
class Layout:
    """Which column is what.

    Attributes:
        width: how many columns each row has.
        has_header: whether the first row names them.
        columns: of a field, the place of its column from 0.

    """

    width: int
    has_header: bool
    columns: Mapping[str, int]


class NewestFirstError(ContractError):
    """Rows stand newest first, and are to be numbered as they happened."""


class Numbering(Protocol):
    """Gives ids to the trades of a venue that has none, of one market."""

    def begin(self) -> None:
        """Another file begins, which may go on in the midst of a millisecond, or be the same once more."""

    def number(
        self, traded_ms: Sequence[bytes], prices: Sequence[bytes], sizes: Sequence[bytes], sides: Sequence[bytes]
    ) -> tuple[list[bytes], list[bytes]]:
        """The ids and sequences of the next trades. Raises ContractError, and has then counted none of them.

        NewestFirstError where no other order of rows than that can be seen.
        """


@dataclass(frozen=True, slots=True)
class TradeFileFormat:
    """How the files of a venue stand.

    Attributes:
        described: the rows, in prose, for errors.
        market_in: the market that a file's name tells; None if it tells none.
        names: of each field, the names that its column may have in a header, in lower case without underscores.
        without_header: of a row of so many columns without a header, which column is what.
        sides: of a cell of the column `side`, how it stands in a message.
        refuse: why files with this first row, of this name, are none of the venue's trades, and what to do; None: they
            may be.
        numbering: for a venue without ids.

    """

    described: str
    market_in: Callable[[str], str | None]
    names: Mapping[str, tuple[str, ...]]
    without_header: Mapping[int, Mapping[str, int]]
    sides: Mapping[bytes, bytes]
    refuse: Callable[[Sequence[str], str], str | None] = lambda _row, _name: None
    numbering: Callable[[], Numbering] | None = None

    def layout(self, first: Sequence[str], name: str, named: Mapping[str, str]) -> Layout:
        """By the first row. `name`: the file's. `named`: what somebody says the columns of fields are called.

        Raises:
            ContractError: see `refuse`; a column is missing, or there are more or fewer than in the venue's files.

        """
        if (why := self.refuse(first, name)) is not None:
            raise ContractError(why)
        found = [cell.strip().lower().replace("_", "") for cell in first]
        columns: dict[str, int] = {}
        for each in FIELDS:
            if each in named:
                columns[each] = _place_of(named[each], each, first)
            elif (
                place := next((found.index(name) for name in self.names.get(each, ()) if name in found), None)
            ) is not None:
                columns[each] = place
        needed = [each for each in (*NEEDED, *(("id",) if self.numbering is None else ())) if each not in columns]
        if named or "price" in columns or "time" in columns:
            if needed:
                raise ContractError(
                    f"no column of its header says {' nor '.join(needed)}: name those of another name with --columns, "
                    f"such as {needed[0]}=…; there are {', '.join(first)[:200]}"
                )
            return Layout(len(first), has_header=True, columns=columns)
        if len(first) not in self.without_header:
            raise ContractError(f"a row has {len(first)} columns, and {self.described}")
        return Layout(len(first), has_header=False, columns=self.without_header[len(first)])


def _place_of(column: str, each: str, first: Sequence[str]) -> int:
    names = [cell.strip() for cell in first]
    if column not in names:
        raise ContractError(f"there is no column {column!r} for {each}: there are {', '.join(names)[:200]}")
    return names.index(column)


@dataclass(slots=True)
class RowConverter:
    """Makes trades of the rows of one market.

    Attributes:
        symbol: of the market.

    """

    symbol: str
    market: bytes
    file_format: TradeFileFormat
    numbering: Numbering | None = None

    def convert(self, cells: Mapping[str, Sequence[bytes]]) -> TradeColumns:
        """The trades of some rows, by field their cells. Raises ContractError when any of them is none.

        Then nothing has been done: whoever wants to know which gives them one by one.
        """
        if "market" in cells and (others := {*cells["market"]} - {self.market}):
            raise ContractError(
                f"the row is of market {min(others)[:40].decode(errors='replace')!r} and not of "
                f"{self.market.decode()!r}: give each market's file by itself"
            )
        sides = self._sides(cells["side"])
        prices, sizes = read_amounts("price", cells["price"]), read_amounts("size", cells["size"])
        traded_ms = read_times(cells["time"])
        if self.numbering is not None:
            ids, sequences = self.numbering.number(traded_ms, prices, sizes, sides)
            return TradeColumns(self.symbol, ids, prices, sizes, sides, traded_ms, sequences)
        numbers = read_ids(cells["id"])
        return TradeColumns(self.symbol, numbers, prices, sizes, sides, traded_ms, numbers)

    def _sides(self, cells: Sequence[bytes]) -> Sequence[bytes]:
        known = self.file_format.sides
        try:
            return [*map(known.__getitem__, cells)]
        except KeyError as error:
            cell = error.args[0][:20].decode(errors="replace")
            raise ContractError(f"side {cell!r} is none of {', '.join(key.decode() for key in known if key)}") from None


_NUMBER: Final = re.compile(r"-?[0-9]{1,60}(?:\.[0-9]{1,60})?(?:[eE][+-]?[0-9]{1,2})?", re.ASCII)


def read_amounts(name: str, cells: Sequence[bytes]) -> Sequence[bytes]:
    """Prices or sizes as they stand in messages. Raises ContractError naming `name`."""
    plain = plain_amounts(cells)
    return [_read_amount(name, cell) for cell in cells] if plain is None else plain


def _read_amount(name: str, cell: bytes) -> bytes:
    text = cell.decode(errors="replace")
    if _NUMBER.fullmatch(text) is None:
        raise ContractError(f"{name} {text[:60]!r} is not a number such as 61837.63 or 1e-08")
    return format_decimal(check_amount(name, Decimal(text))).encode()


def read_ids(cells: Sequence[bytes]) -> Sequence[bytes]:
    """Whole numbers of 0 to 2^63 - 1, as they stand in messages. Raises ContractError."""
    if max(map(len, cells)) <= _SHORT_ID and min(cells) >= b"1" and b"".join(cells).isdigit():
        return cells
    return [_read_id(cell) for cell in cells]


_SHORT_ID: Final = 18
_MOST_DIGITS: Final = 30


def _read_id(cell: bytes) -> bytes:
    if not cell.isdigit() or len(cell) > _MOST_DIGITS or int(cell) > MAX_SEQUENCE:
        raise ContractError(
            f"id {cell[:40].decode(errors='replace')!r} is not a whole number: if a program has saved the file "
            "that takes it for another kind of number, use it as it was published"
        )
    return b"%d" % int(cell)


_MS_DIGITS: Final = 13
_US_DIGITS: Final = 16
_EARLIEST_MS: Final = b"%d" % (EARLIEST_US // 1_000)
_LATEST_MS: Final = b"%d" % (LATEST_US // 1_000)


def read_times(cells: Sequence[bytes]) -> Sequence[bytes]:
    """Times in milliseconds, what is finer floored. Raises ContractError."""
    lengths = {*map(len, cells)}
    digits = lengths.pop() if len(lengths) == 1 else 0
    # of equally many digits, texts are in the order of the numbers
    if (
        digits in (_MS_DIGITS, _US_DIGITS)
        and b"".join(cells).isdigit()
        and min(cells)[:_MS_DIGITS] >= _EARLIEST_MS
        and max(cells)[:_MS_DIGITS] < _LATEST_MS
    ):
        return cells if digits == _MS_DIGITS else [cell[:_MS_DIGITS] for cell in cells]
    if _ALL_DATES.fullmatch(b"\n".join(cells) + b"\n") is not None:
        try:
            seconds = {at: b"%d" % (second_us(at.decode()) // 1_000_000) for at in {cell[:_SECOND] for cell in cells}}
        except ValueError:
            pass  # it is told below which one is none of the calendar
        else:
            return [seconds[cell[:_SECOND]] + cell[_MILLISECOND] for cell in cells]
    return [_read_time(cell) for cell in cells]


_DATE: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?(?:Z|\+00:?00| UTC)?", re.ASCII
)
_ALL_DATES: Final = re.compile(
    rb"(?:20[1-9][0-9]-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3,9}(?:Z|\+00:00)?\n)*"
)
"""As most stand, a line each, of years that are in range."""
_SECOND: Final = 19
_MILLISECOND: Final = slice(20, 23)


def _read_time(cell: bytes) -> bytes:
    text = cell.decode(errors="replace")
    if cell.isdigit() and len(cell) <= _MOST_DIGITS:
        us = parse_epoch("time", int(cell), "it must be milliseconds or microseconds since 1970")
        return b"%d" % (us // 1000)
    match = _DATE.fullmatch(text)
    if match is None:
        subject = f"time {text[:40]!r}" if text.strip() else "the time is blank: it"
        raise ContractError(
            f"{subject} is neither a number of milli- or microseconds nor a date such as 2025-06-30 21:00:19.862"
        )
    day, second, fraction = match.groups(default="")
    us = parse_utc("time", text, f"{day}T{second}", fraction)
    if not EARLIEST_US <= us <= LATEST_US:
        raise ContractError(f"time {text!r} is not between 2001 and 2255")
    return b"%d" % (us // 1_000)


TAKER_SIDES: Final[Mapping[bytes, bytes]] = MappingProxyType(
    {
        cell: side
        for name, side in (("buy", BUY), ("sell", SELL))
        for cell in (name.upper().encode(), name.encode(), name.title().encode())
    }
)
"""BUY and SELL, of the taker."""

"""Reading the answers of a venue's REST interface: the whole, and row by row.

An answer that cannot be read at all is a ContractError. One bad row is not: the good ones are published, and the repair
ends with a reason that names the bad one.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

import msgspec

from ashi.contracts.decimals import check_amount, parse_decimal
from ashi.contracts.errors import ContractError
from ashi_ingest.venues.parsing import BAD_FRAME, explain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from decimal import Decimal

    from ashi.contracts.trade import Trade

MAX_TRIES: Final = 2
"""How often in a row a plan asks for what the REST interface does not show yet: it lags behind the websocket. Whoever
runs the plan makes another one later, at growing distances: asking is not free of charge, and repairs of many markets
are asked for at once, so that nothing but that distance gives REST the time."""
_SHOWN: Final = 120

T = TypeVar("T")


def latest(shown_until: int | None, trades: Iterable[Trade], disorder_us: int) -> int | None:
    """Until when REST has shown everything, µs, when it also lists `trades`; see `RepairEnd.shown_until`."""
    newest = max((trade.traded_at for trade in trades), default=None)
    if newest is None:
        return shown_until
    return max(newest - disorder_us, shown_until or 0)


def is_listed(known: Trade, trades: Iterable[Trade]) -> bool:
    """Whether an answer lists a trade that is known. One that does not, and should, says less than is known.

    Raises ContractError when it lists something else under that id: it is of another market.
    """
    listed = next((trade for trade in trades if trade.trade_id == known.trade_id), None)
    if listed is None:
        return False
    if (listed.price, listed.size, listed.side) != (known.price, known.size, known.side):
        raise ContractError(f"it lists another trade {known.trade_id} than is known of {known.symbol}")
    return True


class Rows(NamedTuple, Generic[T]):
    """What an answer holds: the rows that could be read, how many there were, and what was wrong with the first bad."""

    good: list[T]
    total: int
    bad: str | None


_raws = msgspec.json.Decoder(list[msgspec.Raw])


def decode_answer(decoder: msgspec.json.Decoder[T], body: bytes, what: str) -> T:
    """Decode a whole answer. Raises ContractError that says which answer it was and what is wrong."""
    try:
        return decoder.decode(body)
    except BAD_FRAME as error:
        shown = body[:_SHOWN].decode(errors="replace")
        raise ContractError(
            f"the answer of {what} cannot be read: {explain(body, error)}; it begins {shown!r}"
        ) from None


def read_list(body: bytes, read: Callable[[msgspec.Raw], T], what: str) -> Rows[T]:
    """Read a JSON array row by row. Raises ContractError when it is none."""
    return read_rows(decode_answer(_raws, body, what), read, what)


def read_rows(raws: list[msgspec.Raw], read: Callable[[msgspec.Raw], T], what: str) -> Rows[T]:
    """Read rows one by one, so that a bad one costs only itself."""
    good: list[T] = []
    bad = None
    for raw in raws:
        try:
            good.append(read(raw))
        except BAD_FRAME as error:
            row = bytes(raw)
            shown = row[:_SHOWN].decode(errors="replace")
            bad = bad or f"{what} gave a row that is not a trade ({explain(row, error)}): {shown}"
    return Rows(good, len(raws), bad)


def read_step(text: str | None) -> Decimal | None:
    """The step of prices or sizes, in plain notation; None where there is none that can be read.

    No error: no trade is given up because of a step.
    """
    try:
        return check_amount("step", parse_decimal("step", text or "0")) or None
    except ContractError:
        return None


def in_words(time_us: int) -> str:
    """A time, µs, as reasons name it: `2025-04-30T13:09:43.601+00:00`."""
    return datetime.fromtimestamp(time_us / 1e6, UTC).isoformat(timespec="milliseconds")

"""What happens on the simulated market, and what must become of it."""

from __future__ import annotations

from bisect import bisect_left
from decimal import Decimal
from operator import itemgetter
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PER_MS: Final = 10_000
"""Ticks in a millisecond: bitFlyer tells time in units of 100 ns, so this is what the simulator counts in."""
PER_S: Final = 10_000_000

MARKET: Final = "MARKET"


class Execution(NamedTuple):
    """One execution, as the matching engine would know it.

    `price` and `size` stand as the venue writes them. `taker` is BUY, SELL, or empty in an auction. `at` counts 100 ns
    since the epoch. `kind` is MARKET but for what USD-M trades outside the order book. The `number` is the venue's id;
    GMO has one too, but never tells it.
    """

    number: int
    price: str
    size: str
    taker: str
    at: int
    kind: str = MARKET


class ExecutionBatch(NamedTuple):
    """Executions of one market that the venue pushes in one go: what one order swept."""

    market: str
    executions: list[Execution]


class TrueTrade(NamedTuple):
    """An execution as the public contract says that it must be published. `traded_at` is in µs."""

    symbol: str
    trade_id: str
    price: Decimal
    size: Decimal
    side: Literal["buy", "sell"] | None
    traded_at: int
    sequence: int


_number = itemgetter(0)
_SIDES: Final[dict[str, Literal["buy", "sell"] | None]] = {"BUY": "buy", "SELL": "sell", "": None}


class TradeHistory:
    """All executions of one market, in the order of their numbers."""

    def __init__(self, venue: str, market: str) -> None:
        self._venue = venue
        self.symbol = f"{venue}:{market}"
        self.executions: list[Execution] = []

    def known(self, until: int) -> Sequence[Execution]:
        """What the venue's REST interface knows when it has seen only what happened by `until` (100 ns)."""
        end = len(self.executions)
        while end and self.executions[end - 1].at > until:
            end -= 1
        return self.executions if end == len(self.executions) else self.executions[:end]

    def truth(self, since_us: int) -> Iterator[TrueTrade]:
        """Every trade at or after `since_us` (µs), in the order of the market."""
        named = self._gmo_names() if self._venue == "gmo" else self._numbered_names()
        for execution, trade_id, sequence in named:
            traded_at = execution.at // PER_MS * 1000
            if execution.kind == MARKET and traded_at >= since_us:
                yield TrueTrade(
                    self.symbol,
                    trade_id,
                    Decimal(execution.price),
                    Decimal(execution.size),
                    _SIDES[execution.taker],
                    traded_at,
                    sequence,
                )

    def _numbered_names(self) -> Iterator[tuple[Execution, str, int]]:
        for execution in self.executions:
            yield execution, str(execution.number), execution.number

    def _gmo_names(self) -> Iterator[tuple[Execution, str, int]]:
        """GMO has no ids: the n-th of equal trades of a millisecond, the s-th of all trades of a millisecond."""
        current = -1
        sequence = 0
        equals: dict[str, int] = {}
        for execution in self.executions:
            ms = execution.at // PER_MS
            if ms != current:
                current, sequence, equals = ms, 0, {}
            content = f"{ms}-{execution.price}-{execution.size}-{execution.taker}"
            ordinal = equals[content] = equals.get(content, -1) + 1
            yield execution, f"{content}-{ordinal}", sequence
            sequence += 1


def place_of(executions: Sequence[Execution], number: int) -> int:
    """The place of the first execution whose number is not below `number`."""
    return bisect_left(executions, number, key=_number)

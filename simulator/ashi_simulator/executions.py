"""What happens on the simulated market, and what must become of it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
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
    """All executions of one market, in the order of their numbers, with the times at which they happened.

    What a venue says of their times (`at`) is another matter: its clock may be off, and bitFlyer's are in disorder.
    """

    def __init__(self, venue: str, market: str) -> None:
        self._venue = venue
        self.symbol = f"{venue}:{market}"
        self.executions: list[Execution] = []
        self._happened: list[int] = []

    def add(self, executions: Sequence[Execution], happened: int) -> None:
        """Remember what has happened at a time (100 ns, never before that of an earlier call)."""
        self.executions.extend(executions)
        self._happened.extend([happened] * len(executions))

    def known(self, until: int) -> Sequence[Execution]:
        """What the venue's REST interface knows when it has seen only what happened by `until` (100 ns)."""
        end = bisect_right(self._happened, until)
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
        sequences: defaultdict[int, int] = defaultdict(int)  # of all of them: a clock that is set back passes ms again
        equals: defaultdict[str, int] = defaultdict(int)
        for execution in self.executions:
            ms = execution.at // PER_MS
            content = f"{ms}-{execution.price}-{execution.size}-{execution.taker}"
            yield execution, f"{content}-{equals[content]}", sequences[ms]
            sequences[ms] += 1
            equals[content] += 1


def place_of(executions: Sequence[Execution], number: int) -> int:
    """The place of the first execution whose number is not below `number`."""
    return bisect_left(executions, number, key=_number)

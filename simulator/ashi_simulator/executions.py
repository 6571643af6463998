"""What happens on the simulated market, and what must become of it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from decimal import Decimal
from operator import itemgetter
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

PER_MS: Final = 10_000
"""Ticks in a millisecond: bitFlyer tells time in units of 100 ns, so this is what the simulator counts in."""
PER_S: Final = 10_000_000
PER_US: Final = 10

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


class History(Protocol):
    """All executions of one market, in the order of their numbers."""

    symbol: str

    def add(self, executions: Sequence[Execution], happened: int) -> None:
        """They have happened at a time (100 ns, never before that of an earlier call)."""

    def known(self, until: int) -> Sequence[Execution]:
        """What the venue's REST interface knows when it has seen only what happened by `until` (100 ns)."""

    def truth(self, since_us: int) -> Iterator[TrueTrade]:
        """Every trade at or after `since_us` (µs), in the order of the market."""

    def since(self, place: int) -> Iterator[tuple[Execution, int]]:
        """The executions from a place on, and when they happened (100 ns)."""


@runtime_checkable
class Numbered(Protocol):
    """Executions that know their places without being looked at: to make one of them takes long."""

    def place_of(self, number: int) -> int:
        """See `place_of`."""


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
        return (trade for trade, _ in TruthReader(self._venue, self).new() if trade.traded_at >= since_us)

    def since(self, place: int) -> Iterator[tuple[Execution, int]]:
        """The executions from a place on, and when they happened (100 ns)."""
        return zip(self.executions[place:], self._happened[place:], strict=True)


class TruthReader:
    """Reads a market's truth as it grows."""

    def __init__(self, venue: str, history: History) -> None:
        self._history = history
        self._place = 0
        self._namer = _namer(venue)

    def new(self) -> Iterator[tuple[TrueTrade, int]]:
        """What must be published of what has happened since the last call, and when it happened (µs)."""
        for execution, happened in self._history.since(self._place):
            self._place += 1
            name = self._namer(execution)
            if execution.kind == MARKET:
                yield _true_trade(self._history.symbol, name, execution), happened // PER_US


def true_trades(venue: str, symbol: str, executions: Iterable[Execution]) -> Iterator[TrueTrade]:
    """What must be published of executions, of which the first is the first of its millisecond."""
    namer = _namer(venue)
    for execution in executions:
        name = namer(execution)
        if execution.kind == MARKET:
            yield _true_trade(symbol, name, execution)


def _true_trade(symbol: str, name: tuple[str, int], execution: Execution) -> TrueTrade:
    trade_id, sequence = name
    return TrueTrade(
        symbol,
        trade_id,
        Decimal(execution.price),
        Decimal(execution.size),
        _SIDES[execution.taker],
        execution.at // PER_MS * 1000,
        sequence,
    )


def _namer(venue: str) -> Callable[[Execution], tuple[str, int]]:
    return _GmoNames() if venue == "gmo" else _numbered_name


def _numbered_name(execution: Execution) -> tuple[str, int]:
    return str(execution.number), execution.number


class _GmoNames:
    """GMO has no ids: the n-th of equal trades of a millisecond, the s-th of all trades of a millisecond.

    Of all that ever were in it: a clock that is set back passes milliseconds again.
    """

    def __init__(self) -> None:
        self._sequences: defaultdict[int, int] = defaultdict(int)
        self._equals: defaultdict[str, int] = defaultdict(int)

    def __call__(self, execution: Execution) -> tuple[str, int]:
        ms = execution.at // PER_MS
        content = f"{ms}-{execution.price}-{execution.size}-{execution.taker}"
        name = f"{content}-{self._equals[content]}", self._sequences[ms]
        self._sequences[ms] += 1
        self._equals[content] += 1
        return name


def place_of(executions: Sequence[Execution], number: int) -> int:
    """The place of the first execution whose number is not below `number`."""
    if isinstance(executions, Numbered):
        return executions.place_of(number)
    return bisect_left(executions, number, key=_number)


def is_too_old(executions: Sequence[Execution], place: int, now: int, history_s: float | None) -> bool:
    """Whether the execution at a place is older than the venue's REST interface goes back (`now`: 100 ns)."""
    if history_s is None or not 0 <= place < len(executions):
        return False
    return executions[place].at < now - round(history_s * PER_S)

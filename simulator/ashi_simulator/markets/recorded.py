"""A market that was recorded: its executions happen again now, at their own pace or faster."""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple

from ashi.contracts.decimals import format_decimal
from ashi_simulator.executions import PER_MS, Execution, ExecutionBatch
from ashi_simulator.notation import venue_price, venue_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ashi.contracts.trade import Trade

PER_US: Final = 10
"""Units of 100 ns in a µs."""
_TAKERS: Final = {"buy": "BUY", "sell": "SELL", None: ""}


_frame_of = attrgetter("symbol", "received_at")


class _Moment(NamedTuple):
    """The trades of one frame, and when they are due: 100 ns after the first trade of all."""

    after: int
    market: str
    trades: list[Trade]


class RecordedMarket:
    """Trades that the venue made before, in the order given; afterwards the market is quiet.

    What was received of a market at one time came in one frame, and does so again. Prices, sizes, takers and ids are
    the recorded ones, times are moved to now. A trade whose id does not follow the one before is left out, because a
    recording may hold a reconnection's duplicates.
    """

    def __init__(self, venue: str, trades: Iterable[Trade], *, speed: float) -> None:
        """`trades`: of this venue, at least one."""
        self._venue = venue
        self._speed = speed
        self._moments = _moments(trades)
        self.markets = tuple(dict.fromkeys(moment.market for moment in self._moments))
        self._next = 0
        self._began: int | None = None
        self._paused: int | None = None
        self._open = set(self.markets)
        self._left_out: dict[str, int] = {}
        self._numbers: dict[str, int] = {}
        self._latest: dict[str, int] = {}

    def start(self, now: int) -> None:
        """Trade from `now` on (100 ns since the epoch); after a pause, go on where it was."""
        if self._began is None:
            self._began = now
        elif self._paused is not None:
            self._began += now - self._paused

    def open(self, markets: Sequence[str]) -> None:
        """From now on these trade, and no other. What was recorded of another's time is left out, its ids too."""
        self._open = set(markets)

    def due(self, now: int) -> Iterator[ExecutionBatch]:
        """What happened since the last call, up to `now`."""
        assert self._began is not None  # noqa: S101  (started)
        self._paused = now
        while self._next < len(self._moments):
            moment = self._moments[self._next]
            if self._began + int(moment.after / self._speed) > now:
                return
            self._next += 1
            if moment.market not in self._open:
                self._left_out[moment.market] = self._left_out.get(moment.market, 0) + len(moment.trades)
                continue
            executions = [execution for trade in moment.trades if (execution := self._again(moment.market, trade))]
            if executions:
                yield ExecutionBatch(moment.market, executions)

    def _again(self, market: str, trade: Trade) -> Execution | None:
        assert self._began is not None  # noqa: S101
        number = (
            self._numbers.get(market, -1) + 1
            if self._venue == "gmo"
            else trade.sequence - self._left_out.get(market, 0)
        )
        if number <= self._numbers.get(market, -1):
            return None
        self._numbers[market] = number
        at = self._began + int((trade.traded_at - self._moments[0].trades[0].traded_at) * PER_US / self._speed)
        if self._venue == "bitflyer":
            at = at // PER_MS * PER_MS + (number % (PER_MS - 1) + 1)  # the parser has cut what is below a millisecond
        else:
            at = self._latest[market] = max(at, self._latest.get(market, at))
        return Execution(
            number,
            venue_price(self._venue, format_decimal(trade.price)),
            venue_size(self._venue, format_decimal(trade.size)),
            _TAKERS[trade.side],
            at,
        )


def _moments(trades: Iterable[Trade]) -> list[_Moment]:
    """The frames that the trades came in. None is due before one that came earlier."""
    moments: list[_Moment] = []
    first: int | None = None
    latest = 0
    for (symbol, _), together in groupby(trades, _frame_of):
        frame = list(together)
        first = frame[0].traded_at if first is None else first
        latest = max(latest, max(trade.traded_at for trade in frame) - first)
        moments.append(_Moment(latest * PER_US, symbol.partition(":")[2], frame))
    return moments

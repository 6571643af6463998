"""A market that was recorded: its executions happen again now, at their own pace or faster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from ashi.contracts.decimals import format_decimal
from ashi.contracts.errors import UsageError
from ashi_ingest.recording.format import BadLine, preflight, read_recording
from ashi_simulator.executions import PER_MS, Batch, Execution
from ashi_simulator.notation import venue_price, venue_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ashi.contracts.trade import Trade

PER_US: Final = 10
"""Units of 100 ns in a µs."""
_TAKERS: Final = {"buy": "BUY", "sell": "SELL", None: ""}


class _Moment(NamedTuple):
    """The trades of one frame, and when they are due: 100 ns after the recording's first trade."""

    after: int
    market: str
    trades: list[Trade]


class RecordedMarket:
    """Executions read from recordings of the venue, in the order of the files; afterwards the market is quiet.

    Prices, sizes, takers and ids are the recorded ones, times are moved to now. A trade whose id does not follow the
    one before is left out, because a recording may hold a reconnection's duplicates.
    """

    def __init__(self, venue: str, recordings: Sequence[Path], *, speed: float) -> None:
        self._venue = venue
        self._speed = speed
        self._moments = _read(venue, recordings)
        self.markets = tuple(dict.fromkeys(moment.market for moment in self._moments))
        self._next = 0
        self._began: int | None = None
        self._paused: int | None = None
        self._numbers: dict[str, int] = {}
        self._latest: dict[str, int] = {}

    def start(self, now: int) -> None:
        """Trade from `now` on (100 ns since the epoch); after a pause, go on where it was."""
        if self._began is None:
            self._began = now
        elif self._paused is not None:
            self._began += now - self._paused

    def due(self, now: int) -> Iterator[Batch]:
        """What happened since the last call, up to `now`."""
        assert self._began is not None  # noqa: S101  (started)
        self._paused = now
        while self._next < len(self._moments):
            moment = self._moments[self._next]
            if self._began + int(moment.after / self._speed) > now:
                return
            self._next += 1
            executions = [execution for trade in moment.trades if (execution := self._again(moment.market, trade))]
            if executions:
                yield Batch(moment.market, executions)

    def _again(self, market: str, trade: Trade) -> Execution | None:
        assert self._began is not None  # noqa: S101
        number = self._numbers.get(market, -1) + 1 if self._venue == "gmo" else trade.sequence
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


def _read(venue: str, recordings: Sequence[Path]) -> list[_Moment]:
    """All trades of the recordings. Raises UsageError for a file that is none, RecordingError for a damaged one."""
    for path in recordings:
        preflight(path)
    from ashi_ingest.venues.registry import (
        VENUES,  # here only: all else of the simulator must work without what it tests
    )

    parser = VENUES[venue]()
    moments: list[_Moment] = []
    first: int | None = None
    latest = 0
    for path in recordings:
        for line in read_recording(path):
            trades = [] if isinstance(line, BadLine) else parser.parse(line.frame, line.received_at).trades
            if trades:
                first = trades[0].traded_at if first is None else first
                latest = max(latest, max(trade.traded_at for trade in trades) - first)
                moments.append(_Moment(latest * PER_US, trades[0].symbol.partition(":")[2], trades))
    if not moments:
        named = ", ".join(map(str, recordings))
        raise UsageError(f"{named}: no trade of {venue} is in there; is it a recording of another venue?")
    return moments

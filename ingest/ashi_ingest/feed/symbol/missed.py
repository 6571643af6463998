"""What a feed has missed and not got yet: between which two trades it lies, what of it is known, and when it is whole.

Pure: no I/O and no clock. REST lags behind the websocket, refuses and fails, so what was missed may come long after the
live trades that followed it. Until then this knows what to ask for, and what of an answer is new.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ashi.contracts.trade import Trade
    from ashi_ingest.venues.base import RepairEnd


class MissedTrades:
    """The trades of one symbol after those of `since`, or, where nothing was published before, a time, before `until`.

    Attributes:
        since: the trades published last before it, oldest first; none while only a time is known.
        since_us: when the last of them happened, or that time, µs.
        until: the first that came over the connection after it; None while none has come.
        until_came_us: when that came, µs by our clock; None when it did not come.
        end_us: what happened at or after this time, µs, came over the connection.
        gaps: the gaps that tell of it, by their `from_time`, once live trades are published while it is missing.
        hole: how many ids are missing, when it is a hole in contiguous ids; 0 for an interruption.
        recovered: how many trades have been got.
        reason: what broke the feed.
        is_behind: live trades are published already, though it is missing. `is_let_go`: they are about to be.
        is_quiet: REST answers and lists nothing of it; it is only early to say that nothing was missed.
        is_shown: a comparison with REST has shown the time after it.
        wake: is called when a trade has come that may settle it.

    """

    def __init__(
        self,
        since: Sequence[Trade],
        end_us: int,
        reason: str,
        *,
        since_us: int = 0,
        ordered_ids: bool,
        contiguous: bool,
        hole: int = 0,
    ) -> None:
        """`since_us`: the time, where `since` is empty. `ordered_ids`, `contiguous`: as `TradeSequencer` takes them."""
        self.since: list[Trade] = []
        self.until: Trade | None = None
        self.until_came_us: int | None = None
        self.since_us = since[-1].traded_at if since else since_us
        self.end_us = end_us
        self.reason = reason
        self.hole = hole
        self.gaps: list[int] = []
        self.recovered = 0
        self.is_behind = False
        self.is_let_go = False
        self.is_quiet = False
        self.is_shown = False
        self._ordered_ids = ordered_ids
        self._contiguous = contiguous
        self.wake: Callable[[], None] = lambda: None
        self._known: set[str] = set()
        self._reached = -1
        self._beyond: set[int] = set()
        self.advance(since)

    @property
    def is_settled_by_itself(self) -> bool:
        """Whether it is asked for whatever becomes of the connection: both its ends are known."""
        return self.is_behind and self.until is not None

    @property
    def is_closed_by_ids(self) -> bool:
        """Whether the ids before and after follow each other, so that nothing was missed at all."""
        return self._contiguous and self.until is not None and self.until.sequence <= self._reached + 1

    def covers(self, first: int, last: int) -> bool:
        """Whether it asks for these ids, whatever becomes of the connection."""
        if not (self._contiguous and self.is_behind) or self.until is None:
            return False
        return self._reached < first and last < self.until.sequence

    def advance(self, since: Sequence[Trade]) -> None:
        """All up to these has been published, they last."""
        self.since = list(since)
        self._known = {trade.trade_id for trade in since}
        self._reached = max((trade.sequence for trade in since), default=-1)
        self._beyond.clear()

    def reach(self, until: Trade, *, came: bool = True) -> None:
        """Take this for the first trade that came over the connection, or was fetched, if it did not come."""
        self.until = until
        self.until_came_us = until.received_at if came else None
        self.end_us = max(self.end_us, until.traded_at + 1)  # another one may have happened at the same time

    def show(self, until_us: int | None) -> None:
        """Everything before this time, µs, is known by a comparison with REST."""
        if until_us is not None and self.is_behind and self.until is None and until_us >= self.end_us:
            self.is_shown = True
            self.wake()

    def note(self, trades: Iterable[Trade], *, live: bool) -> None:
        """Trades of the symbol have been published. `live`: over the connection."""
        for trade in trades:
            if live and self.is_behind and self.until is None and not self._is_before(trade):
                self.reach(trade)
                self.wake()
            if self.until is None or self._age(trade) <= self._age(self.until):
                self._known.add(trade.trade_id)
            if self._contiguous and (self.until is None or trade.sequence < self.until.sequence):
                self._beyond.add(trade.sequence)
        while self._reached + 1 in self._beyond:
            self._reached += 1
            self._beyond.discard(self._reached)

    def new(self, trades: Iterable[Trade]) -> list[Trade]:
        """Those of an answer that were missed and have not been published. Live trades must have come since.

        Without ids that grow, what is listed before the first live trade was missed, whatever the venue's clock said.
        """
        until = self.until
        if until is None:
            raise RuntimeError("what is newer than all that is known is for the sequencer")
        listed, end = list(trades), self._age(until)
        place = -1
        if not self._ordered_ids:
            place = next((place for place, trade in enumerate(listed) if trade.trade_id == until.trade_id), -1)
        return [
            trade
            for number, trade in enumerate(listed)
            if trade.trade_id not in self._known and (number < place or self._age(trade) <= end)
        ]

    def is_whole(self, end: RepairEnd, until: Trade | None, asked_us: int, allowance_us: int) -> bool:
        """Whether a plan that was made for `until`, and ended like this, shows that nothing is missing any more.

        `asked_us`: when it was begun. `allowance_us`: REST knows what happened so long before it is asked.
        """
        if end.reason is not None:
            return False
        if until is not None:
            return until is self.until
        return max(end.shown_until or 0, asked_us - allowance_us) >= self.end_us

    def _is_before(self, trade: Trade) -> bool:
        """Whether it is one that comes late, from before what was missed."""
        return self._contiguous and trade.sequence <= self._reached

    def _age(self, trade: Trade) -> int:
        return trade.sequence if self._ordered_ids else trade.traded_at

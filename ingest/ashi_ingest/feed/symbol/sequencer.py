"""The order and identity of one symbol's trades: what comes live and what is repaired become one sequence, each once.

Pure: no I/O and no clock but the one it is told. What a feed publishes is the answer of its methods:

    down ── begin_repair ──▶ repairing ── end_repair ──▶ live ── disconnected ──▶ down
                                 ▲                         │
                                 └───── begin_repair ──────┘   (a hole in contiguous ids)

While a feed is not live, what comes live is held: a repair is published before it.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ashi.contracts.trade import Trade

RESUME_TRADES: Final = 200
"""Trades published last that are kept whole, the resume point: a repair begins after them."""
REMEMBERED_IDS: Final = 2_000
"""At least, and up to twice as many; and, where ids are not contiguous, all that REST has not been compared with yet.
Where ids grow, what is older than all of them counts as known, so a copy is told however late it comes; elsewhere only
times would tell, and clocks step. The ids of all markets of a venue (Binance spot has some 1,500) fit into 1 GB."""


class Mode(StrEnum):
    """What a feed does with live trades: hold them (no connection yet, or a repair goes on) or let them pass."""

    DOWN = "down"
    REPAIRING = "repairing"
    LIVE = "live"


class Hole(NamedTuple):
    """Ids that should have come between two trades that did: `first` to `last` are missing, as found at `found_s`."""

    first: int
    last: int
    found_s: float


class TradeSequencer:
    """The trades of one symbol on their way to be published.

    Attributes:
        symbol: `venue:MARKET`.
        contiguous: each trade's `sequence` is that of the one before plus 1.
        ordered_ids: `sequence` is an id of the venue that grows from trade to trade.
        mode: see `Mode`.
        duplicates: trades that came again and were left out, so far.
        hole: the hole that held trades wait behind; None when there is none. Only where ids are contiguous.

    """

    def __init__(
        self, symbol: str, *, contiguous: bool, ordered_ids: bool = True, resume_point: Sequence[Trade] = ()
    ) -> None:
        """Go on after `resume_point`, the trades published last, oldest first.

        `contiguous`: each trade's `sequence` is that of the one before plus 1. `ordered_ids`: `sequence` is an id of
        the venue that grows from trade to trade; without such ids, age is told by the time of trade.
        """
        self.symbol = symbol
        self.mode = Mode.DOWN
        self.duplicates = 0
        self.hole: Hole | None = None
        self.contiguous = contiguous
        self.ordered_ids = ordered_ids
        self._published: deque[Trade] = deque(maxlen=RESUME_TRADES)
        self._known: dict[str, int] = {}  # by id its place in the order: that of ids that grow, else of publication
        self._learned = 0
        self._known_until = -1
        self._forget_until = -1  # where ids are not contiguous: younger ids are kept, as they have to be compared
        self._forget_at = 2 * REMEMBERED_IDS
        self._last = -1
        self._held: dict[str, Trade] = {}
        self._held_sequences: dict[int, Trade] = {}
        for trade in resume_point:
            self._learn(trade)
        if resume_point and ordered_ids:
            self._known_until = min(map(self.age, resume_point)) - 1

    @property
    def held(self) -> int:
        """How many live trades wait here."""
        return len(self._held)

    @property
    def resume_point(self) -> list[Trade]:
        """The trades published last, at most 200, oldest first: what is missing comes after them."""
        return list(self._published)

    @property
    def last_published(self) -> Trade | None:
        """The trade published last; None before the first."""
        return self._published[-1] if self._published else None

    @property
    def last_sequence(self) -> int:
        """The greatest `sequence` published, -1 before the first. Where ids are contiguous, all before are known."""
        return self._last

    @property
    def remembered(self) -> int:
        """How many ids are in memory."""
        return len(self._known)

    def age(self, trade: Trade) -> int:
        """What grows from trade to trade: the venue's id, or, where there are none, the time of trade.

        But no later than it came, as the venue's clock may have been ahead.
        """
        return trade.sequence if self.ordered_ids else min(trade.traded_at, trade.received_at)

    def knows(self, trade: Trade) -> bool:
        """Whether it has been published, or has come and waits to be."""
        return self._is_known(trade) or trade.trade_id in self._held

    def remembers(self, trade: Trade) -> bool:
        """Whether it is known to have been published; not so what only counts as known because it is old."""
        return trade.trade_id in self._known

    def has_passed(self, trade: Trade) -> bool:
        """Whether it is none that will be published yet: it is not held, nor newer than all that was published."""
        return trade.trade_id not in self._held and (not self.ordered_ids or trade.sequence <= self._last)

    def compared(self, trades: Iterable[Trade]) -> None:
        """REST has been compared up to these: ids that are older than all of them need not be kept any longer."""
        if self.ordered_ids:
            places = [trade.sequence for trade in trades]
        else:
            places = [self._known[trade.trade_id] for trade in trades if trade.trade_id in self._known]
        self._forget_until = max(self._forget_until, min(places, default=0) - 1)

    def first_held(self) -> Trade | None:
        """The live trade up to which a repair has to reach; None when none has come yet."""
        if self.contiguous:  # one that comes late, from before the last published, is no end of what is missing
            after = [sequence for sequence in self._held_sequences if sequence > self._last]
            return self._held_sequences[min(after)] if after else None
        return next(iter(self._held.values()), None)

    def last_held(self) -> Trade | None:
        """The newest of those that wait here."""
        if self.ordered_ids:
            return max(self._held.values(), key=self.age, default=None)
        return next(reversed(self._held.values()), None)

    def came_by(self, trade: Trade, until: Trade | None) -> bool:
        """Whether it came over the connection, or will: it is held, or newer than `until`, the first that is held."""
        return trade.trade_id in self._held or (until is not None and self.age(trade) > self.age(until))

    def jumps_in(self, trades: Sequence[Trade]) -> list[int]:
        """The places of those of these fetched trades before which ids have neither been published nor come.

        Where ids are contiguous, so that something may be missing there. Before the first trade of all it may, too.
        """
        if not self.contiguous:
            return []
        places, last = [], self._last
        for place, trade in enumerate(trades):
            if trade.sequence > last + 1 and not self._has_all(last + 1, trade.sequence - 1):
                places.append(place)
            last = max(last, trade.sequence)
        return places

    def holes_in(self, trades: Iterable[Trade], after: int) -> list[tuple[Trade, Trade]]:
        """The trades between which ids are missing in what an earlier process has published after this id.

        Only where ids are contiguous.
        """
        ordered = sorted(trades, key=self.age)
        return [
            (before, first)
            for before, first in pairwise(ordered if self.contiguous else [])
            if after < first.sequence - 1 and first.sequence > before.sequence + 1
            if not self._has_all(before.sequence + 1, first.sequence - 1)
        ]

    def _has_all(self, first: int, last: int) -> bool:
        """Whether all these ids have been published, or have come and wait to be."""
        if first == 0:
            return False
        have = {place for place in (*self._known.values(), *self._held_sequences) if first <= place <= last}
        return len(have) == last - first + 1

    def pass_hole(self) -> None:
        """What comes next lies behind a hole that is asked for by itself: no repair begins before it."""
        self._published.clear()

    def begin_repair(self) -> list[Trade]:
        """From now on live trades are held. Gives the resume point."""
        self.mode = Mode.REPAIRING
        return self.resume_point

    def disconnected(self) -> None:
        """The connection is gone. What was held is discarded: it is not published yet, so the next repair brings it."""
        self.mode = Mode.DOWN
        self.hole = None
        self.discard_held()

    def discard_held(self) -> None:
        """Forget what is held, because it is too much. A repair has to begin again after the trade published last."""
        self._held.clear()
        self._held_sequences.clear()

    def on_live(self, trades: Iterable[Trade], now_s: float) -> list[Trade]:
        """Trades came over the connection. Gives what may be published now, in order."""
        passed: list[Trade] = []
        known, held, is_live = self._known, self._held, self.mode is Mode.LIVE
        for trade in trades:
            trade_id, sequence = trade.trade_id, trade.sequence
            if trade_id in known or (self.ordered_ids and sequence <= self._known_until) or trade_id in held:
                self.duplicates += 1
            elif not is_live or (self.contiguous and 0 <= self._last < sequence - 1):  # there is a hole before it
                self._hold(trade)
            else:
                self._learn(trade)
                passed.append(trade)
        if self._held_sequences and is_live:
            passed += self._fill()
            self._look_for_hole(now_s)
        return passed

    def on_repaired(self, trades: Iterable[Trade]) -> list[Trade]:
        """Trades were fetched. Gives those that have not been published, in the order given."""
        new: list[Trade] = []
        for trade in trades:
            if not self._is_known(trade):
                self._learn(trade)
                new.append(trade)
                if self._held.pop(trade.trade_id, None) is not None:
                    self._held_sequences.pop(trade.sequence, None)
        return new

    def release(self) -> list[Trade]:
        """What was held behind a hole that a repair has filled while the feed is live, in order."""
        if self.mode is not Mode.LIVE or self.hole is None:
            return []
        passed = [self._release(sequence) for sequence in sorted(self._held_sequences) if sequence <= self._last]
        passed += self._fill()
        if not self._held_sequences:
            self.hole = None
        elif self.hole.first <= self._last:
            self.hole = Hole(self._last + 1, min(self._held_sequences) - 1, self.hole.found_s)
        return passed

    def learn_late(self, trades: Iterable[Trade]) -> None:
        """Trades were fetched and published after later ones: they are known, and no repair begins after them."""
        for trade in trades:
            self._know(trade)

    def end_repair(self, now_s: float) -> list[Trade]:
        """All that can be got has been. Gives the live trades that were held, up to the next hole; the feed is live.

        Ids that are still missing in front of them are given up: the venue has none, or they are lost.
        """
        self.mode = Mode.LIVE
        self.hole = None
        held = [trade for trade in self._held.values() if not self._is_known(trade)]
        self.duplicates += len(self._held) - len(held)
        if self.contiguous and held:
            self._held_sequences = {trade.sequence: trade for trade in held}
            self._held = {trade.trade_id: trade for trade in held}
            late = [sequence for sequence in self._held_sequences if sequence <= self._last]
            passed = [self._release(sequence) for sequence in late]
            if self._held_sequences:
                self._last = max(self._last, min(self._held_sequences) - 1)
            passed += self._fill()
            self._look_for_hole(now_s)
            return passed
        self.discard_held()
        for trade in held:
            self._learn(trade)
        return held

    def missing(self) -> int:
        """How many ids the hole in front of the held trades has; 0 without one, or where ids are not contiguous."""
        first = self.first_held()
        return first.sequence - self._last - 1 if self.contiguous and first is not None and self._last >= 0 else 0

    def _hold(self, trade: Trade) -> None:
        self._held[trade.trade_id] = trade
        if self.contiguous:
            self._held_sequences[trade.sequence] = trade

    def _fill(self) -> Iterator[Trade]:
        """What continues the sequence without a hole."""
        while (sequence := self._last + 1) in self._held_sequences:
            yield self._release(sequence)

    def _release(self, sequence: int) -> Trade:
        trade = self._held_sequences.pop(sequence)
        del self._held[trade.trade_id]
        self._learn(trade)
        return trade

    def _look_for_hole(self, now_s: float) -> None:
        if not self._held_sequences:
            self.hole = None
        elif self.hole is None or self.hole.first != self._last + 1:
            self.hole = Hole(self._last + 1, min(self._held_sequences) - 1, now_s)

    def _is_known(self, trade: Trade) -> bool:
        return trade.trade_id in self._known or (self.ordered_ids and trade.sequence <= self._known_until)

    def _know(self, trade: Trade) -> None:
        self._learned += 1
        self._known[trade.trade_id] = trade.sequence if self.ordered_ids else self._learned

    def _learn(self, trade: Trade) -> None:
        self._know(trade)
        self._published.append(trade)
        self._last = max(self._last, trade.sequence)
        if len(self._known) >= self._forget_at:
            self._forget()

    def _forget(self) -> None:
        """All but so many ids, those published first, if they have been compared: one pass for many trades."""
        oldest = list(islice(self._known.items(), len(self._known) - REMEMBERED_IDS))
        if not self.contiguous:
            oldest = [(trade_id, place) for trade_id, place in oldest if place <= self._forget_until]
        if self.ordered_ids:
            self._known_until = max(self._known_until, *(place for _, place in oldest), -1)
        for trade_id, _ in oldest:
            del self._known[trade_id]
        self._forget_at = len(self._known) + REMEMBERED_IDS

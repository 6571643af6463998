"""Until when everything of one symbol is known: `FeedStatus.complete_until`, and the evidence that moves it.

Pure: no I/O and no clock. Only two things are evidence that no trade is missing, see the methods of `Completeness`:

- ids that follow each other without a hole: a trade that has not come has a greater id than the last that has, so it
  did not happen earlier than that one, but for the venue's disorder;
- the venue's REST interface, all of whose trades are known here: a trade that it does not list is newer than its newest
  one, but for the disorder; or it is so young that REST may not know it yet. How long that may take is the one thing
  that is assumed and cannot be checked: see `lag_allowance_us`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ashi.runtime.of_late import GreatestOfLate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ashi.contracts.trade import Trade

REST_LAG_ALLOWANCE_US: Final = 60_000_000
"""What REST does not list so long after it happened, µs, did not happen. Lags of 20 s have been seen, under load."""
MANY: Final = 200
"""Of so many trades that came within that time one at least is listed."""
LAG_FACTOR: Final = 3
"""But a venue that lags a lot now may lag more yet: so many times the worst lag seen lately is allowed."""


class Completeness:
    """Until when everything of one symbol is known. Times in µs, the venue's; it never goes back."""

    def __init__(self, disorder_us: int, until_us: int | None = None) -> None:
        """`disorder_us`: by how much a trade may have happened before one of a smaller id (`Limits.disorder_s`).

        `until_us`: what was known before, by an earlier process.
        """
        self._disorder_us = disorder_us
        self._until_us = until_us

    def on_unbroken(self, traded_at: int) -> None:
        """All ids up to that of a trade of this time are known, or known to be of no trade."""
        self._advance(traded_at - self._disorder_us)

    def on_shown(self, shown_until_us: int) -> None:
        """REST has shown everything before this time (`RepairEnd.shown_until`), and all of it is known."""
        self._advance(shown_until_us)

    def on_nothing_unknown(self, asked_us: int, allowance_us: int) -> None:
        """REST, asked at this time by the venue's clock, has listed nothing that is not known."""
        self._advance(asked_us - allowance_us)

    def until(self, open_since_us: int | None) -> int | None:
        """Until when everything is known, but for gaps that are lost. None: nothing was checked yet.

        `open_since_us`: since when a gap is open. What is missing there is being asked for, so nobody knows yet.
        """
        if self._until_us is None or open_since_us is None:
            return self._until_us
        return min(self._until_us, open_since_us - self._disorder_us)  # what is missing may have happened before

    def _advance(self, until_us: int) -> None:
        if self._until_us is None or until_us > self._until_us:
            self._until_us = until_us


def must_be_listed(known: Sequence[Trade], asked_us: int) -> Trade | None:
    """The trade that any answer of REST lists that was asked at this time, or a newer one. None: no such is known.

    An answer that does not is of a cache, of another market, or of an interface that has lost its memory: it is
    well-formed, and has shown nothing. It is the newest of `known`, oldest first, that came so long before that REST
    lists it, see `REST_LAG_ALLOWANCE_US`; of a market that trades much, the oldest.
    """
    listed = [trade for trade in known if trade.received_at <= asked_us - REST_LAG_ALLOWANCE_US]
    if not listed and len(known) >= MANY:
        listed = [known[0]]
    return max(listed, key=_happened_us, default=None)


def says_less(known: Sequence[Trade], shown_until_us: int | None, disorder_us: int, asked_us: int) -> str | None:
    """Why an answer shows nothing that was asked at this time: it lacks what must be listed. None: it does not.

    `shown_until_us`: see `RepairEnd`. `disorder_us`: see `Limits.disorder_s`.
    """
    least = must_be_listed(known, asked_us)
    if least is None or (shown_until_us is not None and shown_until_us >= _happened_us(least) - disorder_us):
        return None
    what = "lists nothing" if shown_until_us is None else "lists nothing as new"
    return f"the venue's REST interface {what}, though trade {least.trade_id} is known: its answer is of another time"


def _happened_us(trade: Trade) -> int:
    """When it had happened at the latest, µs: the venue's clock may have been ahead."""
    return min(trade.traded_at, trade.received_at)


def lag_allowance_us(worst_lag_us: int) -> int:
    """How young a trade may be that REST does not list though it has happened, µs.

    `worst_lag_us`: the worst lag of this venue seen lately, on trades that came over a connection first.
    """
    return max(REST_LAG_ALLOWANCE_US, LAG_FACTOR * worst_lag_us)


class VenueClock:
    """How far our clock may be ahead of the venue's, or the venue's ahead of ours, µs.

    By the trades that came in the least time. A trade is on its way for some time, so it seems to come later than it
    happened by at least as much as our clock is ahead. And one that is stamped later than it came tells how far the
    venue's clock is ahead, or was. What is kept is the greatest of the last one to two periods; where nothing comes,
    what was known last.
    """

    def __init__(self, period_us: int = 300_000_000) -> None:
        self._ahead_of_ours = GreatestOfLate(period_us)

    def on_trade(self, traded_at: int, received_at: int) -> None:
        """A trade came over a connection: its time, and when by our clock."""
        self._ahead_of_ours.turn(received_at)
        self._ahead_of_ours.see(traded_at - received_at)

    def on_trades(self, trades: Sequence[Trade]) -> None:
        """Trades came over a connection, at least one, all of them together."""
        self._ahead_of_ours.turn(trades[-1].received_at)
        self._ahead_of_ours.see(max([trade.traded_at - trade.received_at for trade in trades]))

    def on_fetched(self, trades: Iterable[Trade]) -> None:
        """REST has listed these: they may have come long after they happened, but none before that."""
        for trade in trades:
            if trade.traded_at > trade.received_at:
                self.on_trade(trade.traded_at, trade.received_at)

    @property
    def ahead_us(self) -> int:
        """By how much a trade may be stamped later than it happened, µs: as far as the clock was seen to be ahead."""
        return max(self._ahead_of_ours.value or 0, 0)

    def venue_us(self, our_us: int) -> int:
        """The time by the venue's clock, or earlier, when it is `our_us` by ours."""
        return our_us + min(self._ahead_of_ours.value or 0, 0)

    def shown_until(self, shown_until_us: int | None, asked_us: int) -> int | None:
        """Until when REST, asked at this time by our clock, has shown everything for sure: see `RepairEnd.shown_until`.

        A clock that is ahead makes no answer a proof of the time after it was asked for. And a trade that was stamped
        while the clock was ahead proves nothing of the time since, once that is right again.
        """
        return None if shown_until_us is None else min(shown_until_us, asked_us) - self.ahead_us


class WorstLag:
    """The worst lag of REST behind the connections, µs, in the last one to two periods."""

    def __init__(self, period_us: int = 1_800_000_000) -> None:
        self._lags = GreatestOfLate(period_us)

    def on_lag(self, lag_us: int, now_us: int) -> None:
        """REST does not list what came over a connection so long before it was asked."""
        self._lags.turn(now_us)
        self._lags.see(lag_us)

    @property
    def worst_us(self) -> int:
        """The worst of late, µs; 0 when none was seen."""
        return max(self._lags.value or 0, 0)

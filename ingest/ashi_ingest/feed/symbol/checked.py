"""What of one symbol has been checked: until when everything is known, and from where the next comparison begins.

Where ids are contiguous, what came live proves itself, and a comparison with REST only tells whether more has happened
since. Elsewhere every trade has to be compared: what lies between the *compared trades* and now is not known to be
whole, so the sequencer keeps the ids of all of it, up to MAX_UNCOMPARED of them.
"""

from __future__ import annotations

from collections import deque
from itertools import takewhile
from typing import TYPE_CHECKING, Final

from ashi.runtime.logs import get_logger
from ashi_ingest.feed.evidence.completeness import Completeness, must_be_listed, says_less
from ashi_ingest.feed.symbol.sequencer import RESUME_TRADES, Mode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ashi.contracts.feed import FeedStatus
    from ashi.contracts.trade import Trade
    from ashi_ingest.feed.evidence.last_ids import Stated
    from ashi_ingest.feed.reporting.reported import ReportedFeed
    from ashi_ingest.feed.reporting.status import FeedReporter
    from ashi_ingest.feed.symbol.sequencer import TradeSequencer
    from ashi_ingest.venues.base import Venue

MAX_UNCOMPARED: Final = 20_000
"""Trades of a symbol that wait to be compared with REST: as many as a repair of GMO Coin can read back, some 3 MB. When
there are more, because REST does not answer for long or the market trades faster than it can be asked, the oldest of
them are given up: nobody can tell any more whether one is missing there, so the time is reported as a lost gap."""

SAMPLE_US: Final = 10_000_000
SAMPLES: Final = 64
"""One of the trades is remembered every ten seconds, for ten minutes: by them an answer of REST is seen to be old."""

_log = get_logger(__name__)


def uncompared_since(venue: Venue, reported: Mapping[str, ReportedFeed]) -> dict[str, int]:
    """Since when others have published what nobody has said to be whole, µs, by symbol.

    Where it has to be compared, that is all since `complete_until`. Where ids are contiguous, what was published after
    the last status: a process may have been killed, or not have been a worker.
    """
    before_us = round(venue.limits.disorder_s * 1e6) + 1
    since = {}
    for symbol, feed in reported.items():
        if feed.status is not None and feed.status.complete_until is not None:
            is_contiguous = venue.contiguous(symbol.partition(":")[2])
            until_us = feed.status.last_traded_at if is_contiguous else feed.status.complete_until
            if until_us is not None:
                since[symbol] = until_us - before_us
    return since


class CheckedSymbol:
    """What of one symbol has been checked.

    Attributes:
        compared_s: when it was compared with REST last, by the monotonic clock; before that, when it began.
        listed_until: the id up to which REST has stated that there may be trades, and has none.
        has_begun: a trade has been published, and what lies before it is known, or told by a gap.

    """

    def __init__(self, sequencer: TradeSequencer, reporter: FeedReporter, *, disorder_us: int, now_s: float) -> None:
        """`disorder_us`: see `Limits.disorder_s`. `now_s`: by the monotonic clock."""
        self.compared_s = now_s
        self.listed_until = -1
        self._sequencer = sequencer
        self._reporter = reporter
        self._disorder_us = disorder_us
        self._completeness = Completeness(disorder_us)
        self._compared: deque[Trade] = deque(maxlen=RESUME_TRADES)
        self._samples: deque[Trade] = deque(maxlen=SAMPLES)
        self._last_seen: Trade | None = None
        self._last_seen_s = now_s
        self.has_begun = False
        self._begun_us = 0

    def begin(
        self, status: FeedStatus | None, published: Sequence[Trade], begun_us: int, *, is_unread: bool = False
    ) -> None:
        """Go on from what an earlier process has said and `published`. What it had not compared can be now.

        But only that: of what was published before these, the ids are not known here. `begun_us`: if nothing was, from
        this time on, µs, everything is to be known. `is_unread`: more may have been published before these.
        """
        self._begun_us = begun_us
        until_us = None if status is None else status.complete_until
        self._completeness = Completeness(self._disorder_us, until_us)
        self.has_begun = self._sequencer.last_published is not None
        if self._sequencer.contiguous or not published:
            return
        if until_us is None:
            self._begin_at(published[:1])
            return
        # Every trade that happened later than `until_us` comes after these, whatever the venue's clock has shown since.
        before_us = until_us - self._disorder_us
        compared = list(takewhile(lambda trade: min(trade.traded_at, trade.received_at) < before_us, published))
        if not compared and is_unread:  # else it is all that was ever published
            first = min(trade.traded_at for trade in published)
            self._give_up(until_us, first, "the worker had ended before it was compared with REST")
        self._begin_at(compared or published[:1])

    def begin_after(self, first: Trade) -> None:
        """The first trade of all is published: what lies before it is known, or told by a gap."""
        self.has_begun = True
        if not self._sequencer.contiguous:
            self._begin_at([first])

    @property
    def since_us(self) -> int:
        """The time since which nothing is known, µs, while nothing is published."""
        return max(self._begun_us, self.known_until or 0)

    @property
    def is_comparable(self) -> bool:
        """Whether it can be compared now: it is live, no hole is waited for, and there is where to begin."""
        sequencer = self._sequencer
        can_begin = sequencer.contiguous or sequencer.last_published is None or bool(self._compared)
        return can_begin and sequencer.mode is Mode.LIVE and sequencer.hole is None

    @property
    def known_until(self) -> int | None:
        """Before this time, µs, everything is known but for what is missing in gaps."""
        return self._completeness.until(None)

    @property
    def contiguous(self) -> bool:
        """Whether the ids of its trades follow each other."""
        return self._sequencer.contiguous

    @property
    def last_sequence(self) -> int:
        """The greatest `sequence` published, -1 before the first."""
        return self._sequencer.last_sequence

    @property
    def recent(self) -> list[Trade]:
        """The trades published last."""
        return self._sequencer.resume_point

    def age(self, trade: Trade) -> int:
        """What grows from trade to trade: the venue's id, or, where there are none, the time of trade."""
        return self._sequencer.age(trade)

    @property
    def since(self) -> list[Trade]:
        """The trades after which a comparison has to begin, the last of them; none before the first: see `since_us`."""
        return self._sequencer.resume_point if self._sequencer.contiguous else list(self._compared)

    def quiet_s(self, now_s: float) -> float:
        """For how long no trade has come, to the second."""
        return now_s - self._last_seen_s

    def lag_us(self, listed: Sequence[Trade], asked_us: int) -> int:
        """By how much REST lags, µs, that was asked then and lists these at last, at least one.

        Of those that have come as well their coming tells how old they are: the venue's clock may have been ahead.
        """
        ids = {trade.trade_id for trade in listed}
        known = [trade for trade in self._sequencer.resume_point if trade.trade_id in ids]
        return self.lag_after_us(max(map(self.age, known or listed)), asked_us)

    def lag_after_us(self, newest: int, asked_us: int) -> int:
        """By how much REST lags, µs, that was asked then and knows of nothing of a greater age than `newest`."""
        newer = (trade.received_at for trade in self._known if self.age(trade) > newest)
        return asked_us - min((asked_us, *newer))

    def says_less(self, shown_until: int | None, asked_us: int) -> str | None:
        """Why an answer of REST, asked at this time, shows nothing: it says less than is known. None: it does not.

        `shown_until`: see `RepairEnd`.
        """
        return says_less(self._known, shown_until, self._disorder_us, asked_us)

    def states_less(self, last: int, asked_us: int) -> bool:
        """Whether a last id that was stated is older than what is known: the statement is of another time."""
        least = must_be_listed(self._known, asked_us)
        return least is not None and last < least.sequence

    @property
    def _known(self) -> list[Trade]:
        return [*self._samples, *self._sequencer.resume_point]

    def look(self, now_s: float, ahead_us: int = 0) -> None:
        """To be called every second: what came live is evidence, or is to be compared.

        `ahead_us`: the last one may be stamped so much later than it happened.
        """
        sequencer = self._sequencer
        last = sequencer.last_published
        if last is not None and sequencer.mode is Mode.LIVE:
            if last is not self._last_seen:
                self._last_seen, self._last_seen_s = last, now_s
                if not self._samples or last.received_at - self._samples[-1].received_at >= SAMPLE_US:
                    self._samples.append(last)
            if sequencer.contiguous:
                # A clock that is ahead makes no trade a proof of the time after it came.
                self._completeness.on_unbroken(min(last.traded_at - ahead_us, last.received_at))
            elif sequencer.remembered > MAX_UNCOMPARED:
                self._give_up_the_oldest()
        self._report()

    def on_compared(self, listed: Sequence[Trade], shown_until: int | None) -> None:
        """REST has listed these since `since`, the newest last, and all of them are known.

        `shown_until`: it has shown everything before this time, µs.
        """
        if not self._sequencer.contiguous and listed:
            have = {trade.trade_id for trade in self._compared}
            self._compared.extend(trade for trade in listed if trade.trade_id not in have)
            self._sequencer.compared(self._compared)
        if shown_until is not None:
            self._completeness.on_shown(shown_until)
        self._report()

    def on_nothing_unknown(self, asked_us: int, allowance_us: int) -> None:
        """REST, asked at this time by the venue's clock, knows of no trade that is not known here."""
        self._completeness.on_nothing_unknown(asked_us, allowance_us)
        self._report()

    def on_listed(self, stated: Stated | None, asked_us: int, allowance_us: int) -> None:
        """REST, asked at this time by our clock, lists nothing that is not known. `stated`: what it had stated before.

        So what was stated and is not listed is of no trade, but only if REST must have known it: an answer may lag
        though the statement before it did not. `allowance_us`: see `REST_LAG_ALLOWANCE_US`.
        """
        if stated is not None and stated.since_us <= asked_us - allowance_us:
            self.listed_until = max(self.listed_until, stated.last)

    def on_out_of_reach(self, listed: Sequence[Trade], reason: str) -> None:
        """REST goes back to the first of these and not to `since`: what was before can never be compared."""
        if self._sequencer.contiguous or not listed or not self._compared:
            return
        self._give_up(max(trade.traded_at for trade in self._compared), listed[0].traded_at, reason)
        self._begin_at(listed[:1])  # what follows is compared again: something else may be wrong with that

    def on_unreadable(self, listed: Sequence[Trade], reason: str) -> None:
        """REST has listed these since `since`, and something that can never be read: a trade may be missing."""
        if self._sequencer.contiguous or not listed or not self._compared:
            return
        self._give_up(
            max(trade.traded_at for trade in self._compared), max(trade.traded_at for trade in listed), reason
        )
        self._begin_at(listed[-1:])  # what is before it is not to be listed again

    def _begin_at(self, trades: Sequence[Trade]) -> None:
        self._compared.clear()
        self._compared.extend(trades)
        self._sequencer.compared(self._compared)

    def _give_up_the_oldest(self) -> None:
        since_us = max(trade.traded_at for trade in self._compared)
        published = self._sequencer.resume_point
        until_us = min(trade.traded_at for trade in published)
        self._give_up(since_us, until_us, f"more than {MAX_UNCOMPARED} trades came before REST could be compared")
        self._begin_at(published)

    def _give_up(self, since_us: int, until_us: int, reason: str) -> None:
        if until_us > since_us:
            _log.warning("a time cannot be compared with REST any more", symbol=self._sequencer.symbol, reason=reason)
            self._reporter.end_gap(self._sequencer.symbol, until_us, "lost", 0, reason, from_time=since_us)

    def _report(self) -> None:
        until_us = self._completeness.until(self._reporter.open_since(self._sequencer.symbol))
        if until_us is not None:
            self._reporter.set_complete_until(self._sequencer.symbol, until_us)

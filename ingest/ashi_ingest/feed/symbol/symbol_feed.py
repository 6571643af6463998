"""One symbol's feed: its order, its state, its gaps, and what is published of it. Nobody else changes any of them.

    down ── on_subscribed, begin_repair ──▶ repairing ── go_live ──▶ live ── go_down ──▶ down
                                                ▲         go_on       │
                                                └ begin_hole_repair ──┘

What a repair has not got in time is missing while the feed is live (`go_on`): see `missed`.

The supervisor brings what comes over connections, a repair what it has fetched. All that is published of the symbol
goes through here, in the order that the sequencer gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ashi.runtime.logs import get_logger
from ashi_ingest.feed.symbol.checked import CheckedSymbol
from ashi_ingest.feed.symbol.missed import MissedTrades
from ashi_ingest.feed.symbol.missed_gaps import MissedGaps
from ashi_ingest.feed.symbol.opening import CLOCK_TOLERANCE_US
from ashi_ingest.feed.symbol.sequencer import Mode
from ashi_ingest.feed.symbol.start import STARTED, tell_of_start
from ashi_ingest.feed.symbol.unpublished import UnpublishedTrades

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ashi.contracts.feed import FeedStatus, GapState
    from ashi.contracts.trade import Trade
    from ashi_ingest.feed.evidence.completeness import VenueClock
    from ashi_ingest.feed.reporting.status import FeedReporter
    from ashi_ingest.feed.symbol.missing import UnreceivedTrades
    from ashi_ingest.feed.symbol.sequencer import TradeSequencer
    from ashi_ingest.publish.buffer import PublishBuffer

HOLE_PATIENCE_S: Final = 0.5
"""How long a hole in contiguous ids is waited for: venues send a little out of order."""
HALTED: Final = "halted: the venue does not trade it now"
UNTOLD: Final = "ids are missing in what was published before the start, and nothing was said of them"
FIRST_OF_ALL: Final = "nothing had come before the first trade that tells whether it was the first"

_log = get_logger(__name__)


class SymbolFeed:
    """The feed of one symbol.

    Attributes:
        market: by the venue's own name.
        symbol: `venue:MARKET`.
        checked: what of it has been checked, and until when everything is known.
        interruptions: how often it has gone down.
        may_discard: a repair is on its way that would bring again what is held.
        missed: what is missing: what a repair that holds live trades asks for, and what has not come in time.
        before_first: what may be missing before the first trade of all, until it is asked for.

    """

    def __init__(
        self,
        market: str,
        sequencer: TradeSequencer,
        *,
        publish_buffer: PublishBuffer,
        reporter: FeedReporter,
        on_lost: Callable[[SymbolFeed, int, bool], None],
        published: Sequence[Trade],
        clock: VenueClock,
        disorder_us: int,
        now_us: Callable[[], int],
        monotonic_s: Callable[[], float],
    ) -> None:
        """`published`: what an earlier process has published last, see `CheckedSymbol.begin`.

        `on_lost`: is told where a lost gap begins of which only the time is known, and whether topic `trades` was cut.
        `clock`: of the venue, as its trades show it. `disorder_us`: see `Limits.disorder_s`.
        """
        self.market = market
        self.symbol = sequencer.symbol
        self.checked = CheckedSymbol(sequencer, reporter, disorder_us=disorder_us, now_s=monotonic_s())
        self._gaps = MissedGaps(self.symbol, reporter, self.checked, clock=clock, disorder_us=disorder_us)
        self.interruptions = 0
        self._disorder_us = disorder_us
        self.may_discard = False
        self.missed: list[MissedTrades] = []
        self.before_first: MissedTrades | None = None
        self._sequencer = sequencer
        self._publish_buffer = publish_buffer
        self._reporter = reporter
        self._on_lost = on_lost
        self._clock = clock
        self._now_us = now_us
        self._monotonic_s = monotonic_s
        self._discarded: Trade | None = None  # the newest of those discarded since the venue is asked
        self._silent = False
        self._halted = False
        self._suspicion: str | None = None
        self._down_reason = ""
        self._missed_until_us = 0  # trades after this came over the connection and were kept, so a gap ends here
        self._published_before = published
        self._missing_recovered = 0  # trades that a comparison has brought, and the gap after it will tell of
        self._unpublished: UnpublishedTrades | None = None
        self._has_come_last = False  # the last trade was published as it came, so it had happened by then

    @property
    def is_live(self) -> bool:
        """Whether its trades are published as they come."""
        return self._sequencer.mode is Mode.LIVE

    @property
    def is_down(self) -> bool:
        """Whether no connection delivers it, or its repair has not begun yet."""
        return self._sequencer.mode is Mode.DOWN

    @property
    def held(self) -> int:
        """How many trades wait here for a repair."""
        return self._sequencer.held

    @property
    def has_discarded(self) -> bool:
        """Whether trades that came were discarded, and the repair that was on its way has not brought the newest."""
        return self._discarded is not None and not self._sequencer.knows(self._discarded)

    @property
    def duplicates(self) -> int:
        """Trades that came again and were left out, so far."""
        return self._sequencer.duplicates

    @property
    def has_lasting_hole(self) -> bool:
        """Whether ids that should be contiguous are not, for longer than disorder takes to settle."""
        hole = self._sequencer.hole
        return hole is not None and self.is_live and self._monotonic_s() - hole.found_s > HOLE_PATIENCE_S

    # What connections bring.

    def learn_late(self, trades: Sequence[Trade]) -> None:
        """Before any connection: these were published late, so a repair is not to publish them once more."""
        self._sequencer.learn_late(trades)

    def begin(self, status: FeedStatus | None, unlisted_us: int | None = None, *, is_unread: bool = False) -> None:
        """Before any connection: what this process was not there for is a gap. `status`: what was said last of it.

        So is the time before the first start of all, which is lost. What happens from then on is asked for by time.
        `unlisted_us`: the venue did not trade the market then, µs, so all of it is asked for. `is_unread`: see
        `CheckedSymbol.begin`.
        """
        self._down_reason = STARTED
        since_us = tell_of_start(
            self.symbol,
            self._reporter,
            self._sequencer.resume_point,
            status,
            now_us=self._now_us(),
            unlisted_us=unlisted_us,
        )
        self._lose_untold_holes(status)
        self.checked.begin(status, self._published_before, since_us, is_unread=is_unread)
        self._published_before = ()
        for from_us in self._reporter.lost_gaps(self.symbol):  # also what can be compared no more
            self._on_lost(self, from_us, False)

    def _lose_untold_holes(self, status: FeedStatus | None) -> None:
        """What was published after the last status leaves ids out, and no gap tells of them: so they may be missing."""
        if status is None or not (status.last_trade_id or "").isdecimal():
            return
        for before, first in self._sequencer.holes_in(self._published_before, int(status.last_trade_id or 0)):
            from_us, until_us = before.traded_at - self._disorder_us, first.traded_at + 1 + self._disorder_us
            if not self._reporter.is_within_lost_gap(self.symbol, before.traded_at, first.traded_at):
                self.lose_time(self._gaps.name(from_us), until_us, UNTOLD)

    def on_subscribed(self) -> None:
        """Trades come from now on. Those before have to be fetched."""
        self._missed_until_us = self._all_until_us()

    def _all_until_us(self) -> int:
        """No trade that has happened by now is stamped later than this, µs, as far as the clock has been seen."""
        return self._now_us() + CLOCK_TOLERANCE_US + self._clock.ahead_us

    def on_live(self, trades: Sequence[Trade], now_s: float) -> None:
        """Trades came over a connection: publish what may be, hold the rest."""
        passed = self._sequencer.on_live(trades, now_s)
        if passed:
            self.set_halted(False)
        self._publish(passed, streamed=True)
        if self.missed and not self.is_live:
            for missed in self.missed:
                missed.wake()

    def on_unpublishable(self, received_at: int, ahead_us: int, reason: str) -> None:
        """A trade came that cannot be published, at this time (µs): it is missing. Those that follow soon are one gap.

        When it happened is not known but by when it came: its way is taken to be no longer than that of the last one.
        `ahead_us`: how far its own time is ahead of that; it belongs there if the venue's clock is right.
        """
        last = self.checked.recent[-1] if self.checked.recent else None
        way_us = 0 if last is None else max(last.received_at - last.traded_at, 0)
        from_us, to_us = received_at - way_us - CLOCK_TOLERANCE_US, received_at + ahead_us + CLOCK_TOLERANCE_US
        if self._reporter.is_within_gap(self.symbol, from_us, to_us):
            return  # it is part of that
        before, now = self._unpublished, UnpublishedTrades(from_us, to_us)
        self._unpublished = now if before is None else before.joined_by(from_us, to_us)
        reason = f"{self._unpublished.what} could not be published and went to trades.dead: {reason}"
        self.lose_time(self._unpublished.since_us, self._unpublished.until_us, reason)

    def lose_time(self, from_us: int, until_us: int, reason: str, *, is_cut: bool = False) -> None:
        """Trades of this time are missing, µs, and nobody knows which: a lost gap, which is asked for by time.

        `is_cut`: they had been published, and topic `trades` has them no more.
        """
        self._reporter.end_gap(self.symbol, until_us, "lost", 0, reason, from_time=from_us)
        self._on_lost(self, from_us, is_cut)

    def set_halted(self, halted: bool) -> None:
        """Whether the venue lists the market as one that it does not trade now."""
        if halted != self._halted:
            self._halted = halted
            if self.is_live:
                self._report_live()

    def set_silent(self, silent: bool) -> None:
        """Whether nothing has come for suspiciously long over any connection that delivers it."""
        self._silent = silent
        if self.is_live:
            self._report_live()

    def go_down(self, since_us: int, reason: str) -> None:
        """Trades do not come any more, since then (µs): a gap begins."""
        self.may_discard = False
        self._look_at_last(self._monotonic_s())
        resume_point = self._sequencer.resume_point
        if self._sequencer.held or self._sequencer.mode is Mode.REPAIRING:  # there is a hole, from before the end
            since_us = min(since_us, resume_point[-1].traded_at if resume_point else self.checked.since_us)
        self._sequencer.disconnected()
        self.interruptions += 1
        self._down_reason = reason
        self._reporter.set_state(self.symbol, "down", reason)
        for missed in self.missed:
            if not missed.is_settled_by_itself:  # what is missing goes on, so it is one gap
                self._gaps.unbound(missed, reason)
        self.missed = [missed for missed in self.missed if missed.is_settled_by_itself]
        # A trade that has not come may have happened before one that has, by the disorder of the venue's times.
        since_us -= self._disorder_us
        self._reporter.open_gap(self.symbol, since_us if resume_point else max(since_us, self.checked.since_us), reason)

    def explain_down(self, reason: str) -> None:
        """If it is down, it stays so for this reason. The gap has begun before, for a reason of its own."""
        if self.is_down:
            self._reporter.set_state(self.symbol, "down", reason)

    def report_stopped(self, reason: str) -> None:
        """The process ends. The gap has begun with the end of the connection."""
        self.may_discard = False
        self._reporter.set_state(self.symbol, "down", reason)

    def discard_held(self) -> None:
        """Forget what waits for a repair, because it is too much: the repair brings it again."""
        _log.info("too much waits for a repair, which fetches it again", symbol=self.symbol, held=self.held)
        self._discarded = self._sequencer.last_held() or self._discarded
        self._sequencer.discard_held()
        for missed in self.missed:
            if not missed.is_behind:
                missed.until = None  # it is missing now as well
        self._missed_until_us = max(self._missed_until_us, self._all_until_us())

    # What is checked.

    def knows(self, trade: Trade) -> bool:
        """Whether it has been published, or has come and waits to be."""
        return self._sequencer.knows(trade)

    def look(self, now_s: float) -> None:
        """To be called every second: see `CheckedSymbol.look`."""
        quiet_s = self.checked.quiet_s(now_s)
        self._look_at_last(now_s)
        if self._suspicion is not None and self.checked.quiet_s(now_s) < quiet_s:
            self.suspect(None)  # a trade has come
        for missed in self.missed:
            missed.show(self.checked.known_until)

    def _look_at_last(self, now_s: float) -> None:
        self.checked.look(now_s, 0 if self._has_come_last else self._clock.ahead_us)

    @property
    def is_asked_for(self) -> bool:
        """Whether a repair asks REST for what is missing, and has not been told yet that it lists nothing of it."""
        return any(not missed.is_quiet for missed in self.missed) and self._reporter.open_since(self.symbol) is not None

    def suspect(self, reason: str | None) -> None:
        """Nothing has come for long for its rhythm, and REST cannot be asked whether that is so. None: no more."""
        if reason != self._suspicion:
            self._suspicion = reason
            if self.is_live:
                self._report_live()

    def publish_missing(self, missing: UnreceivedTrades, reason: str) -> None:
        """Publish what REST lists and no connection has brought. The market has to be subscribed to anew after that.

        But nothing behind ids that are missing still: the repair that follows tells of them.

        Where trades have come since, the gap is told here. Else it is that of the interruption which follows.
        """
        trades = missing.trades
        if not missing.is_all and (jumps := self._sequencer.jumps_in(trades)):
            trades = trades[: jumps[0]]  # what is behind a hole the repair publishes, which tells of that
        new = self._sequencer.on_repaired(trades)
        if new and not self.checked.has_begun:  # REST has listed all since it was compared last
            self.checked.begin_after(new[0])
        self._publish(new, streamed=False)
        self._publish(self._sequencer.release(), streamed=True)
        if missing.until_us is None:
            self._missing_recovered = len(new)
        else:
            from_us = self._gaps.name(missing.since_us)
            self._reporter.end_gap(self.symbol, missing.until_us, "repaired", len(new), reason, from_time=from_us)

    # What a repair does.

    def begin_repair(self) -> MissedTrades:
        """After an interruption: hold what comes live."""
        since = self._sequencer.begin_repair()
        self._reporter.set_state(self.symbol, "repairing", self._down_reason)
        missed = self._miss(since, self._missed_until_us, self._down_reason)
        missed.recovered, self._missing_recovered = self._missing_recovered, 0
        return missed

    def begin_hole_repair(self) -> MissedTrades | None:
        """Hold what comes live, behind a hole. None when what was missing has come just now."""
        until = self._sequencer.first_held()
        if until is None:
            return None
        self._look_at_last(self._monotonic_s())
        since = self._sequencer.begin_repair()
        number = self._sequencer.missing()
        reason = f"{number} trade ids are missing"
        self._reporter.set_state(self.symbol, "repairing", reason)
        self._missed_until_us = until.traded_at + 1
        for missed in self.missed:
            if missed.until is None:  # the interruption was no end of it
                missed.is_behind = missed.is_let_go = False
                missed.reach(until)
                return missed
        missed = self._miss(since, self._missed_until_us, f"{number} trade ids were missing", hole=number)
        missed.reach(until)
        return missed

    def _miss(self, since: list[Trade], end_us: int, reason: str, hole: int = 0) -> MissedTrades:
        sequencer = self._sequencer
        missed = MissedTrades(
            since,
            end_us,
            reason,
            since_us=self.checked.since_us,
            ordered_ids=sequencer.ordered_ids,
            contiguous=sequencer.contiguous,
            hole=hole,
        )
        self.missed.append(missed)
        return missed

    def first_held(self) -> Trade | None:
        """The first trade that came over the connection and waits: up to there has to be fetched. None: none came."""
        return self._sequencer.first_held()

    def begin_fetch(self) -> None:
        """The venue is asked for what is missing, which brings again what is held."""
        self.may_discard, self._discarded = True, None

    def all_fetched(self, missed: MissedTrades) -> None:
        """All that the venue was asked for has been published, though more may be missing by now."""
        missed.advance(self._sequencer.resume_point)

    def publish_fetched(self, trades: Sequence[Trade], until: Trade | None) -> int:
        """Publish what was fetched and has not been published. Gives how many of them no connection brings.

        `until`: the trade up to which it was asked for; what is newer comes over the connection.
        """
        streamed = {trade.trade_id for trade in trades if self._sequencer.came_by(trade, until)}
        new = self._sequencer.on_repaired(trades)
        recovered = sum(trade.trade_id not in streamed for trade in new)
        self._publish(new, streamed=False)
        self._publish(self._sequencer.release(), streamed=True)
        return recovered

    def split_at_jumps(self, trades: Sequence[Trade]) -> list[tuple[bool, Sequence[Trade]]]:
        """Fetched trades in runs, and of each run whether ids are missing before it: see `TradeSequencer.jumps_in`."""
        jumps = self._sequencer.jumps_in(trades)
        begins = [0, *(place for place in jumps if place)]
        ends = [*begins[1:], len(trades)]
        return [(begin in jumps, trades[begin:end]) for begin, end in zip(begins, ends, strict=True)]

    def leave_hole(self, first: Trade, reason: str) -> MissedTrades | None:
        """What is missing before this trade, which was fetched, is a gap, and is missed by itself from now on.

        So what comes after it can be published without making anybody believe that it is there. None: it is asked for
        already.
        """
        begin = self._sequencer.last_sequence + 1
        if any(missed.covers(begin, first.sequence - 1) for missed in self.missed):
            return None
        since = self._sequencer.resume_point
        number = first.sequence - begin if since else 1
        hole = self._miss(since, first.traded_at + 1 + self._clock.ahead_us, reason, hole=number)
        hole.is_behind = hole.is_let_go = True
        hole.reach(first, came=False)
        # Its ids are between those of these two, however long the time before is not known to be whole.
        from_us = hole.since_us - self._clock.ahead_us - self._disorder_us if since else hole.since_us
        self._gaps.open(hole, from_us, self._gaps.at_latest(hole), reason)
        return hole

    async def tell(self) -> None:
        """Tell what is known of gaps, before what comes after them is published."""
        await self._reporter.flush()

    def publish_behind_hole(self, missed: MissedTrades, trades: Sequence[Trade], until: Trade | None) -> int:
        """As `publish_fetched`; what was missed and is not told by itself comes after these."""
        if trades[0].sequence <= self._sequencer.last_sequence:  # it has come meanwhile, and perhaps what is before it
            return self.publish_fetched(trades, until)
        self._sequencer.pass_hole()
        recovered = self.publish_fetched(trades, until)
        missed.advance(self._sequencer.resume_point)
        return recovered

    def publish_late(self, missed: MissedTrades, trades: Sequence[Trade]) -> int:
        """Publish what was missed and was fetched at last, though later trades have been published. Gives how many."""
        late = [trade for trade in missed.new(trades) if not self._sequencer.remembers(trade)]
        if late:
            self._sequencer.learn_late(late)
            for each in self.missed:
                each.note(late, live=False)
            self._publish_buffer.put(late, streamed=False, late=True)
        return len(late)

    def remembers(self, trade: Trade) -> bool:
        """Whether it is known to have been published by this process, or just before it."""
        return self._sequencer.remembers(trade)

    def publish_found(self, trades: Sequence[Trade]) -> list[Trade]:
        """Publish what was found of a time that was lost. Gives those that were: what is newer comes by itself."""
        late = [trade for trade in trades if self._sequencer.has_passed(trade)]
        if late:
            self._sequencer.learn_late(late)
            for missed in self.missed:
                missed.note(late, live=False)
            self._publish_buffer.put(late, streamed=False, late=True)
        return late

    def reaches_live(self, until: Trade | None) -> bool:
        """Whether nothing can be missing in front of what is held, when all up to `until` has been fetched."""
        if self.held and self._sequencer.contiguous:
            return self._sequencer.missing() == 0 or self._sequencer.first_held() is until
        return not self.has_discarded and until is not None

    @property
    def may_have_missed(self) -> bool:
        """Whether ids do not tell that nothing is missing in front of what is held."""
        return self.held > 0 and not (self._sequencer.contiguous and self._sequencer.missing() == 0)

    @property
    def needs_nothing(self) -> bool:
        """Whether nothing has to be held: ids tell whether something is missing in front of what will come."""
        return self._sequencer.contiguous and self.held == 0 and not self.has_discarded

    def _miss_before(self, first: Trade, *, streamed: bool) -> None:
        """The first trade of all is published: what lies between it and the time that is known may be missing.

        It is asked for behind it, unless a repair of that time is on its way.
        """
        since_us = self.checked.since_us
        self.checked.begin_after(first)
        if first.traded_at < since_us or any(not missed.since for missed in self.missed):
            return
        missed = MissedTrades(
            [],
            since_us,
            FIRST_OF_ALL,
            since_us=since_us,
            ordered_ids=self._sequencer.ordered_ids,
            contiguous=self._sequencer.contiguous,
        )
        missed.is_behind = missed.is_let_go = True
        missed.reach(first, came=streamed)
        self._gaps.open(missed, since_us, missed.end_us + self._disorder_us, FIRST_OF_ALL)
        self.missed.append(missed)
        self.before_first = missed

    def end_gaps(self, missed: MissedTrades, state: GapState, reason: str | None, *, final: bool = False) -> None:
        """What was missed has been fetched; or some of it is lost, for this reason.

        `final`: for good, by the venue's own word.
        """
        if not missed.is_behind:
            missed.end_us = max(missed.end_us, self._missed_until_us)
        self._gaps.end(missed, state, reason or missed.reason, final=final)

    async def go_on(self, missed: MissedTrades, reason: str) -> None:
        """What was missed does not come soon: its gap ends here and stays open, and live trades pass.

        That is said before what comes after it, as with what is lost.
        """
        self.may_discard, missed.is_let_go = False, True
        while True:
            until = self._sequencer.first_held()
            if until is not None:
                missed.reach(until)
            missed.end_us = max(missed.end_us, self._missed_until_us)
            self._gaps.bound(missed, reason)
            await self._reporter.flush()
            if self._sequencer.first_held() is until:  # else one has come meanwhile, and tells more of what is missing
                break
        missed.is_behind = True
        self._publish_held()
        self._report_live()

    async def go_live(self, *, lost: bool) -> None:
        """The repair has ended: publish what is held, then let trades pass as they come.

        `lost`: something stays missing, and is said before what came after it: after a crash the later trades would
        hide it from the next start.
        """
        self.may_discard = False
        if lost:
            await self._reporter.flush()
        self._publish_held()
        self._report_live()

    def _publish_held(self) -> None:
        """Up to the next hole."""
        self._publish(self._sequencer.end_repair(self._monotonic_s()), streamed=True)

    def _publish(self, trades: Sequence[Trade], *, streamed: bool) -> None:
        if trades:
            if not self.checked.has_begun:
                self._miss_before(trades[0], streamed=streamed)
            self._has_come_last = streamed
            for missed in self.missed:
                missed.note(trades, live=streamed)
            self._publish_buffer.put(trades, streamed=streamed)
            self._reporter.on_trade(self.symbol, trades[-1])

    def _report_live(self) -> None:
        if self._halted:
            self._reporter.set_state(self.symbol, "silent", HALTED)
        elif self._silent:
            self._reporter.set_state(self.symbol, "silent", "nothing has come from the venue for long")
        elif self._suspicion is not None:
            self._reporter.set_state(self.symbol, "silent", self._suspicion)
        else:
            self._reporter.set_state(self.symbol, "connected", None)

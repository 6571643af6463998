"""Comparing what has come of each market with what REST lists: the check that depends on no connection.

Two lines of it go on beside each other, each with a share of the venue's requests of its own (SHARE). One asks for the
markets that are suspected of having gone mute, the longest quiet for their rhythm first; the other for all in turn, the
one first that was compared longest ago. A venue that states the last id of all its markets in one answer is asked for
that instead, and for a market only when it states one that has not come.

REST may be ahead of a connection. So what it lists and what has not come is missing only when it has not come some
seconds later either.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from ashi.runtime.metrics import ingest as metrics
from ashi.runtime.outage_log import OutageLog
from ashi_ingest.feed.evidence import rhythm
from ashi_ingest.feed.evidence.completeness import WorstLag, lag_allowance_us
from ashi_ingest.feed.evidence.last_ids import LastIds
from ashi_ingest.feed.repair.plans import plan_since
from ashi_ingest.feed.repair.repair_plan import run_repair
from ashi_ingest.feed.symbol.missing import find_missing
from ashi_ingest.rate_limiter import RateLimiter
from ashi_ingest.rest.budget import FIRST, Priority, Urgency
from ashi_ingest.venues.base import RepairEnd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ashi.contracts.trade import Trade
    from ashi_ingest.feed.evidence.completeness import VenueClock
    from ashi_ingest.feed.evidence.last_ids import Stated
    from ashi_ingest.feed.symbol.missing import UnreceivedTrades
    from ashi_ingest.feed.symbol.symbol_feed import SymbolFeed
    from ashi_ingest.rest.client import Asks
    from ashi_ingest.venues.base import Answer, Request, Venue

SHARE: Final = 0.25
"""Of the requests that we make of a venue at most: for the markets in turn, and once more for those suspected."""
MAX_UNREADABLE: Final = 5
"""So often in a row a market's answers may have something wrong in them; then that time is given up as lost."""
UNREADABLE_S: Final = 120.0
"""But not sooner: what the venue has stamped ahead is a trade like any other when its time has come."""


@dataclass(frozen=True, slots=True)
class Times:
    """How often what is compared, seconds.

    Attributes:
        grace_s: how long a trade that REST lists may still be on its way here.
        interval_s: a market is not compared more often than this in its turn.
        quiet_s: of a market with contiguous ids only what comes after its last trade is not proved by the ids; so it is
            compared in its turn when it has been quiet for so long.
        statement_s: how often a venue is asked for the last ids of all its markets.
        suspicion_s: the least time that a market is quiet before it is suspected, see `rhythm.deadline_s`.
        tick_s: how often one looks what is to be done.

    """

    grace_s: float = 5.0
    interval_s: float = 10.0
    quiet_s: float = 10.0
    statement_s: float = 20.0
    suspicion_s: float = rhythm.LEAST_S
    tick_s: float = 0.5


class _Asked(NamedTuple):
    """What REST has said of a market: asked at `asked_us`, by our clock, while `interruptions` of it had been."""

    asked_us: int
    interruptions: int
    listed: list[Trade]
    end: RepairEnd
    stated: Stated | None


class _PacedRest:
    """REST, asked at a share of the pace that the venue allows; and when it was asked first."""

    def __init__(self, rest: Asks, limiter: RateLimiter, now_us: Callable[[], int]) -> None:
        self.asked_us: int | None = None
        self._rest = rest
        self._limiter = limiter
        self._now_us = now_us

    async def get(self, request: Request, urgency: Urgency = FIRST) -> Answer:
        await self._limiter.turn(request.weight)
        if self.asked_us is None:
            self.asked_us = self._now_us()
        return await self._rest.get(request, urgency)


class Comparison:
    """Compares the markets of one venue with its REST interface.

    Attributes:
        last_ids: what the venue states of all of them at once.

    """

    def __init__(
        self,
        venue: Venue,
        feeds: Mapping[str, SymbolFeed],
        *,
        rest: Asks,
        clock: VenueClock,
        on_missing: Callable[[SymbolFeed, UnreceivedTrades], None],
        now_us: Callable[[], int],
        monotonic_s: Callable[[], float],
        times: Times,
    ) -> None:
        """`feeds`: by market. `on_missing` is told what has to be published, of a market that has to be mended."""
        self._venue = venue
        self._feeds = feeds
        self._rest = rest
        self._clock = clock
        self._on_missing = on_missing
        self._now_us = now_us
        self._monotonic_s = monotonic_s
        self._times = times
        self._lag = WorstLag()
        self._busy: set[str] = set()
        self._stated: dict[str, Stated] = {}  # of markets of which something newer is stated than has come
        self._outdated: set[str] = set()  # those of which less is stated than is known
        self.last_ids = LastIds(venue, rest=rest, interval_s=times.statement_s, now_us=now_us, monotonic_s=monotonic_s)
        self._unreadable: dict[str, tuple[int, float]] = {}  # how often in a row, and since when, by market
        self._outages = OutageLog(
            "a market could not be compared with REST", "markets are compared with REST again", monotonic_s
        )
        self._deadlines: dict[str, tuple[Trade | None, float]] = {}

    async def run(self) -> None:
        """Compare for ever. Raises what fails by a mistake of ours."""
        interval_s = self._venue.limits.request_interval_s / SHARE
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.last_ids.run(partial(self._on_stated, group)))
                group.create_task(
                    self._compare_those(
                        self._next_suspect,
                        RateLimiter(interval_s, clock_s=self._monotonic_s),
                        Urgency(Priority.SUSPICION),
                        group,
                    )
                )
                group.create_task(
                    self._compare_those(
                        self._next_in_turn,
                        RateLimiter(interval_s, clock_s=self._monotonic_s),
                        Urgency(Priority.ROTATION),
                        group,
                    )
                )
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    @property
    def allowance_us(self) -> int:
        """How young a trade may be that REST does not list though it has happened, µs."""
        return lag_allowance_us(self._lag.worst_us)

    # Which market is next.

    def _next_suspect(self) -> SymbolFeed | None:
        """The market that is suspected most: that of which more is stated than has come, or the quietest."""
        for market in list(self._stated):
            feed = self._feeds.get(market)
            if feed is None or not feed.checked.is_comparable:
                del self._stated[market]
            elif market not in self._busy:
                return feed
        now_s = self._monotonic_s()
        suspicion = {feed.market: self._suspicion(feed, now_s) for feed in self._free_feeds()}
        most = max(suspicion, key=lambda market: suspicion[market], default=None)
        return None if most is None or suspicion[most] < 1.0 else self._feeds[most]

    def _suspicion(self, feed: SymbolFeed, now_s: float) -> float:
        """For how much of its deadline a market has been quiet; 0 when it was asked after within one."""
        quiet_s = feed.checked.quiet_s(now_s)
        if quiet_s < self._times.suspicion_s:
            return 0.0
        deadline_s = self._deadline_s(feed)
        return quiet_s / deadline_s if now_s - feed.checked.compared_s >= deadline_s else 0.0

    def _deadline_s(self, feed: SymbolFeed) -> float:
        """See `rhythm.deadline_s`; worked out once for each last trade."""
        last = feed.checked.recent[-1] if feed.checked.recent else None
        known, deadline_s = self._deadlines.get(feed.market, (None, 0.0))
        if known is not last or last is None:
            deadline_s = rhythm.deadline_s(feed.checked.recent, self._times.suspicion_s)
            self._deadlines[feed.market] = last, deadline_s
        return deadline_s

    def _next_in_turn(self) -> SymbolFeed | None:
        """The market that was compared longest ago; of several the quietest."""
        now_s, times = self._monotonic_s(), self._times
        due = [
            feed
            for feed in self._free_feeds()
            if now_s - feed.checked.compared_s >= times.interval_s
            and not (feed.checked.contiguous and feed.checked.quiet_s(now_s) < times.quiet_s)
        ]
        return min(due, key=lambda feed: (feed.checked.compared_s, -feed.checked.quiet_s(now_s)), default=None)

    def _free_feeds(self) -> list[SymbolFeed]:
        """Those that may be compared by themselves now. Of a thousand markets mostly none: what tells that comes first.

        Not what a repair asks for: that is not to be found missing here. Nor, as long as the venue states the last ids
        of all its markets, one of which it does.
        """
        stated = self.last_ids.is_fresh
        return [
            feed
            for feed in self._feeds.values()
            if not (stated and feed.checked.contiguous and self._is_stated(feed.market))
            and feed.market not in self._busy
            and feed.checked.is_comparable
            and not feed.is_asked_for
        ]

    def _is_stated(self, market: str) -> bool:
        return self.last_ids.last(market) is not None and market not in self._outdated

    # Comparing one.

    async def _compare_those(
        self,
        choose: Callable[[], SymbolFeed | None],
        limiter: RateLimiter,
        urgency: Urgency,
        group: asyncio.TaskGroup,
    ) -> None:
        while True:
            feed = choose()
            if feed is None:
                await asyncio.sleep(self._times.tick_s)
                continue
            self._busy.add(feed.market)
            asked = await self._ask(feed, _PacedRest(self._rest, limiter, self._now_us), urgency)
            group.create_task(self._conclude(feed, asked))

    async def _ask(self, feed: SymbolFeed, rest: _PacedRest, urgency: Urgency) -> _Asked:
        """What REST lists of a market since it was compared last."""
        listed: list[Trade] = []

        async def take(trades: list[Trade]) -> None:
            listed.extend(trades)

        stated = self._stated.pop(feed.market, None)
        feed.checked.compared_s = self._monotonic_s()
        interruptions, began_us = feed.interruptions, self._now_us()
        plan = plan_since(self._venue, feed.market, feed.checked.since, feed.checked.since_us, None)
        end = await run_repair(rest, plan, take, 0.0, urgency=urgency)
        return _Asked(rest.asked_us or began_us, interruptions, listed, end, stated)

    async def _conclude(self, feed: SymbolFeed, asked: _Asked) -> None:
        """Wait for what may be on its way; what has not come then is missing."""
        try:
            missing = await self._await_unknown(feed, asked)
            if not feed.checked.is_comparable or feed.interruptions != asked.interruptions:
                return  # what has broken off meanwhile is being repaired
            self._settle(feed, asked, missing)
        finally:
            self._busy.discard(feed.market)

    async def _await_unknown(self, feed: SymbolFeed, asked: _Asked) -> list[Trade]:
        unknown = [trade for trade in asked.listed if not feed.knows(trade)]
        until_s = self._monotonic_s() + self._times.grace_s
        while unknown and self._monotonic_s() < until_s:
            await asyncio.sleep(min(self._times.tick_s, self._times.grace_s))
            unknown = [trade for trade in unknown if not feed.knows(trade)]
        return unknown

    def _settle(self, feed: SymbolFeed, asked: _Asked, unknown: list[Trade]) -> None:
        listed, end = asked.listed, asked.end
        self._clock.on_fetched(listed)
        if end.reason is None:  # one that was broken off lists only the first of what it asked for
            self._note_lag(feed, listed, asked.asked_us)
            reason = feed.checked.says_less(end.shown_until, asked.asked_us)
            if reason is not None:
                end = RepairEnd(reason)
                asked = asked._replace(end=end)
        missing = find_missing(listed, unknown, feed.checked, is_all=end.reason is None) if unknown else None
        if not self._is_whole(feed, asked):
            metrics.comparisons.labels(self._venue.name, "failed").inc()
            self._outages.failed(end.reason or "", symbol=feed.symbol)
            self._suspect_unasked(feed, end.reason)
        else:
            self._outages.worked()
            feed.suspect(None)
            metrics.comparisons.labels(self._venue.name, "same" if missing is None else "missing").inc()
        if missing is not None:
            self._on_missing(feed, missing)
        if end.reason is None:
            feed.checked.on_listed(asked.stated, asked.asked_us, self.allowance_us)
            feed.checked.on_compared(listed, self._clock.shown_until(end.shown_until, asked.asked_us))
            feed.checked.on_nothing_unknown(self._clock.venue_us(asked.asked_us), self.allowance_us)

    def _is_whole(self, feed: SymbolFeed, asked: _Asked) -> bool:
        """Whether REST has listed all it knows since the last comparison. What it can never list is given up."""
        end = asked.end
        if end.reason is None:
            self._unreadable.pop(feed.market, None)
            return True
        if end.shown_until is not None:
            times, since_s = self._unreadable.get(feed.market, (0, self._monotonic_s()))
            self._unreadable[feed.market] = times + 1, since_s
        if end.beyond_reach:
            feed.checked.on_out_of_reach(asked.listed, end.reason)
        elif self._is_never_readable(feed.market):
            self._unreadable.pop(feed.market)
            feed.checked.on_unreadable(asked.listed, end.reason)
        return False

    def _is_never_readable(self, market: str) -> bool:
        times, since_s = self._unreadable.get(market, (0, 0.0))
        return times >= MAX_UNREADABLE and self._monotonic_s() - since_s >= UNREADABLE_S

    def _suspect_unasked(self, feed: SymbolFeed, reason: str | None) -> None:
        """Nobody knows whether a market that is quiet beyond its deadline is mute: say so."""
        quiet_s = feed.checked.quiet_s(self._monotonic_s())
        if quiet_s >= self._deadline_s(feed):
            feed.suspect(f"nothing has come of this market for long, and REST could not be asked about it: {reason}")

    def _note_lag(self, feed: SymbolFeed, listed: Sequence[Trade], asked_us: int) -> None:
        if listed:
            self._lag.on_lag(feed.checked.lag_us(listed, asked_us), asked_us)

    # What a venue states of all markets at once.

    def _on_stated(self, group: asyncio.TaskGroup, stated: Mapping[str, Stated], asked_us: int) -> None:
        ahead = self._compare_with(stated, asked_us)
        if ahead:
            group.create_task(self._suspect(ahead))

    def _compare_with(self, stated: Mapping[str, Stated], asked_us: int) -> dict[str, Stated]:
        """Compare all markets with what the venue states. Gives those of which it states more than has come."""
        ahead = {}
        venue_us = self._clock.venue_us(asked_us)
        current = []
        for market, feed in self._feeds.items():
            last = stated.get(market)
            if last is None or not feed.checked.contiguous or not feed.checked.is_comparable:
                continue
            if feed.checked.states_less(last.last, asked_us):
                self._outdated.add(market)
                continue
            self._outdated.discard(market)
            if last.last > max(feed.checked.last_sequence, feed.checked.listed_until):
                if not feed.is_asked_for:
                    ahead[market] = last
                continue
            self._lag.on_lag(feed.checked.lag_after_us(last.last, asked_us), asked_us)
            current.append(feed)
        for feed in current:
            feed.suspect(None)
            feed.checked.compared_s = self._monotonic_s()
            feed.checked.on_nothing_unknown(venue_us, self.allowance_us)
        return ahead

    async def _suspect(self, ahead: Mapping[str, Stated]) -> None:
        await asyncio.sleep(self._times.grace_s)
        for market, last in ahead.items():
            feed = self._feeds.get(market)
            if feed is not None and feed.checked.is_comparable and last.last > feed.checked.last_sequence:
                self._stated[market] = last

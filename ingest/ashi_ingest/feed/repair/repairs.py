"""Fetching what feeds have missed: after an interruption, and where ids that should be contiguous are not.

Each repair is a task of its own. It asks the venue, again and again while REST lags, refuses or fails, and hands the
answers to the feed, which publishes them. Live trades are held meanwhile, so that the order is kept, but no longer
than `HOLD_S` without an answer: then they pass, and what is missing comes after them. It is repaired when REST has
shown the time after it, and lost when that has taken too long; what is lost goes on being asked for, see
`ashi_ingest.feed.repair.lost_gaps`.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from ashi.runtime.first_of import first_of
from ashi.runtime.logs import get_logger
from ashi.runtime.metrics import ingest as metrics
from ashi.runtime.metrics.declare import serve_from_zero
from ashi_ingest.feed.repair.fetched import FetchedTrades
from ashi_ingest.feed.repair.lost_gaps import LostGaps
from ashi_ingest.feed.repair.plans import plan_since
from ashi_ingest.feed.repair.repair_plan import run_repair
from ashi_ingest.rest.budget import Priority, Urgency
from ashi_ingest.venues.base import RepairEnd

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from ashi.contracts.trade import Trade
    from ashi_ingest.feed.evidence.completeness import VenueClock
    from ashi_ingest.feed.evidence.last_ids import LastIds, Stated
    from ashi_ingest.feed.symbol.missed import MissedTrades
    from ashi_ingest.feed.symbol.symbol_feed import SymbolFeed
    from ashi_ingest.publish.backpressure import Backpressure
    from ashi_ingest.rest.client import Asks
    from ashi_ingest.venues.base import Missing, Venue

HOLD_S: Final = 10.0
"""Live trades wait no longer for an answer of the venue."""
FIRST_S: Final = 1.0
"""A repair waits so long for the first live trade: it tells up to where to ask, or that nothing is missing."""
REST_AGE_S: Final = 0.5
"""And so long after it came: what happened just before it REST may not know at once, and asking in vain costs too."""
SETTLE_S: Final = 3.0
"""Where ids do not tell whether something is missing, a feed is not live before so long after its subscription: what a
connection just missed REST may not know at once."""
HELD_WAIT_S: Final = 2.0
"""The longest wait between two plans while live trades are held."""
WAIT_S: Final = (2.0, 60.0)
"""Then the distance between two plans grows from the first to the second, and each is somewhat shorter by chance."""
STATED_S: Final = 10.0
"""A quiet market is asked for by itself when nothing has been stated of it for so long, though the venue does state."""
STATED_TICK_S: Final = 1.0
LOST_PATIENCE_S: Final = 30.0
"""For how long a request for what is lost already is made again: others wait behind it."""
QUIET: Final = 1e9
"""The size of a repair of which nobody knows up to where: others come first, as nothing is held for it."""

SHOWN: Final = RepairEnd()

_log = get_logger(__name__)


class Waits:
    """The distances between two plans of a repair."""

    def __init__(self, *, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._uniform = uniform
        self._next_s, self._most_s = WAIT_S
        self._next_held_s = HELD_WAIT_S / 4

    def next_s(self) -> float:
        """While live trades pass: 2 s, 4, 8, … 60, or up to half of it less."""
        wait_s, self._next_s = self._next_s, min(self._next_s * 2, self._most_s)
        return self._uniform(wait_s / 2, wait_s)

    def next_held_s(self) -> float:
        """While they wait: 0.5 s, 1, 2, 2."""
        wait_s, self._next_held_s = self._next_held_s, min(self._next_held_s * 2, HELD_WAIT_S)
        return self._uniform(wait_s / 2, wait_s)


class Outcome(NamedTuple):
    """What a plan has come to. `whole`: nothing is missing any more; else `reason` says why something is."""

    whole: bool
    reason: str
    end: RepairEnd


@dataclass(slots=True, eq=False)
class Repair:
    """One repair. `until`: the live trade up to which it asks now. `woken`: something has happened that may settle it.

    `begun_s` and `progress_s`: when it began, when it last brought something; `answered_s`: when REST last answered.
    `failure`: what went wrong last. `stated`: what the venue had stated of the market before it was asked.
    """

    feed: SymbolFeed
    missed: MissedTrades
    begun_s: float
    answered_s: float
    progress_s: float
    until: Trade | None = None
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    failure: str | None = None
    stated: Stated | None = None


class Repairs:
    """The repairs of one venue's feeds."""

    def __init__(
        self,
        venue: Venue,
        *,
        rest: Asks,
        clock: VenueClock,
        backpressure: Backpressure,
        patience_s: float,
        monotonic_s: Callable[[], float],
        now_us: Callable[[], int],
        sleep: Callable[[float], Coroutine[None, None, None]] = asyncio.sleep,
        last_ids: LastIds,
        allowance_us: Callable[[], int],
    ) -> None:
        """`patience_s`: after so long without anything new, what is missing is told to be lost.

        `last_ids`: of a market that is quiet after an interruption they tell whether something was missed.
        `allowance_us`: see `REST_LAG_ALLOWANCE_US`; it may grow with the lag that is seen.
        """
        self._venue = venue
        self._rest = rest
        self._clock = clock
        self._backpressure = backpressure
        self._patience_s = patience_s
        self._monotonic_s = monotonic_s
        self._now_us = now_us
        self._sleep = sleep
        self._last_ids = last_ids
        self._allowance_us = allowance_us
        self._repairs: dict[asyncio.Task[None], Repair | SymbolFeed] = {}
        self._failure: BaseException | None = None
        self.lost: LostGaps[Repair] = LostGaps(self.ask_once, now_s=monotonic_s, sleep=sleep)
        outcomes = ("found", "repaired", "absent", "lost")
        serve_from_zero(metrics.feed_holes, *((venue.name, outcome) for outcome in outcomes))

    def repair_interruption(self, feed: SymbolFeed) -> None:
        """Fetch what was missed until the subscription that the venue has accepted just now."""
        self.stop(feed)
        self._start(feed, self._repair_interruption(feed))

    def repair_hole(self, feed: SymbolFeed) -> None:
        """Ids that should be contiguous are not: fetch those between."""
        self._stop([task for task, repair in self._repairs.items() if repair is feed])
        self._start(feed, self._repair_hole(feed))

    def repair_before_first(self, feed: SymbolFeed, missed: MissedTrades) -> None:
        """The first trade of all has come: fetch what may be missing before it, behind it."""
        now_s = self._monotonic_s()
        repair = Repair(feed, missed, now_s, now_s, now_s)
        missed.wake = repair.woken.set
        self._start(repair, self._repair_behind(repair))

    def check(self) -> None:
        """Raise what a repair has failed of by a mistake of ours."""
        failure = self._failure or self.lost.failure()
        if failure is not None:
            raise failure

    def stop(self, feed: SymbolFeed) -> None:
        """No more of the repair that the feed waits for, if there is one, nor of one whose end is not known yet."""
        self._stop(
            [
                task
                for task, repair in self._repairs.items()
                if repair is feed
                or (isinstance(repair, Repair) and repair.feed is feed and not repair.missed.is_settled_by_itself)
            ]
        )
        self.lost.drop(lambda repair: repair.feed is feed and not repair.missed.is_settled_by_itself)

    async def stop_all(self) -> None:
        """No more repairs; returns when all have ended."""
        repairs = list(self._repairs)
        self._repairs.clear()
        for repair in repairs:
            repair.cancel()
        await asyncio.gather(*repairs, self.lost.stop(), return_exceptions=True)

    def _stop(self, tasks: Iterable[asyncio.Task[None]]) -> None:
        for task in tasks:
            del self._repairs[task]
            task.cancel()

    def _start(self, repaired: SymbolFeed | Repair, repair: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(repair)
        self._repairs[task] = repaired
        task.add_done_callback(self._on_ended)

    def _on_ended(self, task: asyncio.Task[None]) -> None:
        self._repairs.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = self._failure or error

    async def _repair_interruption(self, feed: SymbolFeed) -> None:
        """After the start or a reconnection: all since the trade published last."""
        missed = feed.begin_repair()
        repair = self._begin(feed, missed)
        await self._until_woken(repair, FIRST_S, lambda: feed.first_held() is not None)
        if feed.may_have_missed:
            await self._until_woken(repair, REST_AGE_S, lambda: False)
        if feed.needs_nothing:  # if something is missing, the next trade shows a hole
            await feed.go_on(missed, missed.reason)
        await self._run(repair)

    async def _repair_hole(self, feed: SymbolFeed) -> None:
        """Fetch what is missing in front of what is held."""
        missed = feed.begin_hole_repair()
        if missed is None:  # what was missing has come just now
            return
        # An interruption whose end was not known ends with this hole, so it is asked for here from now on.
        self._stop([task for task, repair in self._repairs.items() if _is_about(repair, missed)])
        self.lost.drop(lambda repair: repair.missed is missed)
        metrics.feed_holes.labels(self._venue.name, "found").inc()
        await self._run(self._begin(feed, missed))

    async def _repair_behind(self, repair: Repair) -> None:
        await self._until_woken(repair, REST_AGE_S, lambda: False)
        await self._run(repair)

    def _begin(self, feed: SymbolFeed, missed: MissedTrades) -> Repair:
        now_s = self._monotonic_s()
        repair = Repair(feed, missed, now_s, now_s, now_s)
        missed.wake = repair.woken.set
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        self._repairs[task] = repair
        return repair

    async def _run(self, repair: Repair) -> None:
        """Ask until nothing is missing any more, or patience has ended."""
        feed, missed = repair.feed, repair.missed
        waits = Waits()
        while True:
            await self._wait_while_nothing_is_stated(repair)
            outcome = await self._ask_while_held(repair)
            repair.failure = outcome.end.reason
            if outcome.whole:
                return await self._settle(repair, None, outcome.end)
            if outcome.end.final or outcome.end.beyond_reach:
                return await self._settle(repair, outcome.reason, outcome.end)
            if not missed.is_behind and self._need_not_wait(repair, outcome):
                await feed.go_on(missed, outcome.reason)
            now_s = self._monotonic_s()
            if outcome.end.reason is None:
                repair.progress_s = now_s  # the venue answers, and it is only early to say that this is all
            left_s = repair.progress_s + self._patience_s - now_s
            if missed.is_behind and left_s <= 0:
                return await self._settle(repair, outcome.reason, outcome.end)
            if missed.is_behind:
                wait_s = min(max(waits.next_s(), outcome.end.retry_after_s), max(left_s, 0.1))
            elif outcome.end.reason is None and (feed.held or feed.has_discarded):
                wait_s = 0.0  # more has come meanwhile
            else:
                wait_s = min(waits.next_held_s(), max(repair.begun_s + HOLD_S - now_s, 0.0))
            had = missed.until
            await self._until_woken(repair, wait_s, lambda had=had: missed.until is not had or self._is_settled(repair))  # type: ignore[misc]
            if missed.is_behind and missed.until is not had:
                waits = Waits()

    async def _wait_while_nothing_is_stated(self, repair: Repair) -> None:
        """Wait as long as the venue states, of all markets at once, that nothing of this one was missed."""
        feed, missed = repair.feed, repair.missed
        if self._venue.statement is None or not feed.checked.contiguous:
            return
        while missed.is_behind and missed.until is None and not self._is_settled(repair):
            known = max(feed.checked.last_sequence, feed.checked.listed_until)
            newer = self._last_ids.newer_than(feed.market, known, repair.begun_s)
            now_s = self._monotonic_s()
            repair.stated = self._last_ids.last(feed.market)
            if newer or (newer is None and now_s >= repair.begun_s + STATED_S):
                return
            missed.is_quiet = newer is False
            repair.progress_s = now_s
            await self._until_woken(repair, STATED_TICK_S, lambda: missed.until is not None or self._is_settled(repair))

    async def _ask_while_held(self, repair: Repair) -> Outcome:
        """Carry out one plan. Live trades pass as soon as the venue leaves it unanswered for too long."""
        feed, missed = repair.feed, repair.missed
        while True:
            if self._is_settled(repair):
                return Outcome(True, "", SHOWN)
            repair.woken.clear()
            repair.until = missed.until if missed.is_behind else feed.first_held()
            asking = asyncio.create_task(self._ask(repair, Priority.REPAIR))
            try:
                while not asking.done():
                    left_s = None
                    if not missed.is_behind:
                        left_s = max(repair.begun_s, repair.answered_s) + HOLD_S - self._monotonic_s()
                        if left_s <= 0:
                            unanswered = f"the venue's REST interface has not answered for {HOLD_S:g} s"
                            await feed.go_on(missed, repair.failure or unanswered)
                            continue
                    await first_of(asking, repair.woken.wait(), None if left_s is None else self._sleep(left_s))
                    repair.woken.clear()
                    if self._is_better_known(repair):
                        break
                else:
                    return asking.result()
            finally:
                await _cancel(asking)

    async def _ask(self, repair: Repair, priority: Priority) -> Outcome:
        """Carry out a plan of the venue; publish what it brings."""
        feed, missed, until = repair.feed, repair.missed, repair.until
        if not missed.is_behind:
            if until is not None:
                missed.reach(until)
            if not missed.is_let_go:
                feed.begin_fetch()

        def on_recovered(recovered: int) -> None:
            if recovered:
                repair.progress_s = self._monotonic_s()
            missed.recovered += recovered
            metrics.trades_recovered.labels(self._venue.name).inc(recovered)

        fetched = FetchedTrades(feed, missed, until, leave_hole=self._leave_hole, on_recovered=on_recovered)

        async def publish(trades: list[Trade]) -> None:
            self._clock.on_fetched(trades)
            await fetched.publish(trades)
            await self._backpressure.room_to_repair()

        def on_answer() -> None:
            repair.answered_s = self._monotonic_s()

        asked_us = self._now_us()
        plan = plan_since(self._venue, feed.market, missed.since, missed.since_us, until)
        patience_s = self._patience_s if priority is Priority.REPAIR else LOST_PATIENCE_S
        urgency = Urgency(priority, _size(repair))
        end = await run_repair(
            self._rest, plan, publish, patience_s, urgency=urgency, on_answer=on_answer, on_missing=fetched.on_missing
        )
        shown_until = end.shown_until
        end = end._replace(shown_until=self._clock.shown_until(shown_until, asked_us))
        if fetched.is_all_told(end):
            end = RepairEnd(shown_until=end.shown_until)
        if end.reason is None and until is None:  # else it lists that
            end = end._replace(reason=feed.checked.says_less(shown_until, asked_us))
        missed.is_quiet = end.reason is None and until is None
        if end.reason is not None:
            return Outcome(False, end.reason, end)
        feed.checked.on_listed(repair.stated, asked_us, self._allowance_us())
        if missed.is_behind:
            whole = missed.is_whole(end, until, asked_us, self._allowance_us())
        else:
            whole = (
                feed.reaches_live(until)
                if until is not None or feed.held or feed.has_discarded
                else missed.is_whole(end, until, asked_us, self._allowance_us())
            )
            feed.all_fetched(missed)
        return Outcome(whole, "the venue's REST interface has not shown yet what happened since", end)

    async def _leave_hole(self, feed: SymbolFeed, first: Trade, told: Missing) -> None:
        """Tell what is missing before a trade that was fetched, and ask for it by itself, unless that is in vain."""
        hole = feed.leave_hole(first, told.reason)
        if hole is not None:
            now_s = self._monotonic_s()
            repair = Repair(feed, hole, now_s, now_s, now_s)
            metrics.feed_holes.labels(self._venue.name, "found").inc()
            if told.final or told.beyond_reach:
                end = RepairEnd(told.reason, final=told.final, beyond_reach=told.beyond_reach)
                await self._settle(repair, told.reason, end)
            else:
                hole.wake = repair.woken.set
                self._start(repair, self._repair_behind(repair))
        await feed.tell()

    async def ask_once(self, repair: Repair) -> bool:
        """Ask again for what is lost already. True when that is over."""
        if self._is_settled(repair):
            outcome = Outcome(True, "", SHOWN)
        else:
            repair.until = repair.missed.until
            outcome = await self._ask(repair, Priority.LOST)
        if not outcome.whole and not outcome.end.final and not outcome.end.beyond_reach:
            return False
        await self._settle(repair, None if outcome.whole else outcome.reason, outcome.end)
        return True

    def _is_settled(self, repair: Repair) -> bool:
        """Whether it is known without asking that nothing is missing any more."""
        missed = repair.missed
        if not missed.is_behind:
            return False
        return missed.is_closed_by_ids or (missed.until is None and missed.is_shown)

    def _is_better_known(self, repair: Repair) -> bool:
        """Whether a plan that was made without a trade to reach, and is not answered, is better made anew."""
        if self._is_settled(repair):
            return True
        if repair.until is not None or repair.answered_s > repair.begun_s:
            return False
        return (repair.missed.until if repair.missed.is_behind else repair.feed.first_held()) is not None

    def _need_not_wait(self, repair: Repair, outcome: Outcome) -> bool:
        """Whether live trades may pass though something may be missing: they have waited long, or none waits."""
        now_s = self._monotonic_s()
        if now_s >= repair.begun_s + HOLD_S and outcome.end.reason is not None:
            return True
        shown = outcome.end.reason is None and repair.until is None and not repair.feed.held
        return shown and (repair.feed.needs_nothing or now_s >= repair.begun_s + SETTLE_S)

    async def _settle(self, repair: Repair, failure: str | None, end: RepairEnd) -> None:
        feed, missed = repair.feed, repair.missed
        outcome = "lost" if failure is not None else "repaired" if missed.recovered or not missed.hole else "absent"
        if missed.hole:
            metrics.feed_holes.labels(self._venue.name, outcome).inc()
        given_up = end.final or end.beyond_reach
        if failure is None or given_up:
            feed.missed.remove(missed)
        if outcome != "absent" or missed.gaps:
            feed.end_gaps(missed, "repaired" if failure is None else "lost", failure, final=end.final)
        _log.info(
            outcome,
            symbol=feed.symbol,
            trades_recovered=missed.recovered,
            missing_ids=missed.hole or None,
            reason=failure,
            final=end.final or None,
        )
        if not missed.is_behind:
            missed.is_behind = True
            await feed.go_live(lost=failure is not None)
        if failure is not None and not given_up:
            self.lost.add(repair)

    async def _until_woken(self, repair: Repair, seconds: float, condition: Callable[[], bool]) -> None:
        """Wait so long, or until something happens after which `condition()` is true."""
        until_s = self._monotonic_s() + seconds
        while not condition() and (left_s := until_s - self._monotonic_s()) > 0:
            repair.woken.clear()
            await first_of(repair.woken.wait(), self._sleep(left_s))


def _is_about(repair: Repair | SymbolFeed, missed: MissedTrades) -> bool:
    return isinstance(repair, Repair) and repair.missed is missed


async def _cancel(task: asyncio.Task[Outcome]) -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait([task])


def _size(repair: Repair) -> float:
    """How much is to be fetched, about, in seconds: see `Urgency`."""
    until, missed = repair.until, repair.missed
    if until is None:
        return QUIET
    return max(until.traded_at - (missed.since[-1].traded_at if missed.since else missed.since_us), 0) / 1e6

"""Lost gaps of which only the time is known: asked for by time, until REST has shown it.

There are three kinds: trades that came and could not be published, most often because the venue's clock was ahead (once
real time has passed what they are stamped with, REST lists them as trades like any other); what Kafka had and has no
more; and what an earlier process had given up. Each is a gap in `feed.gaps` already, and the reporter knows until when
it goes; here it is asked for, with what the budget leaves (`ashi_ingest.feed.repair.lost_gaps`), by `Venue.history`.

What stands in topic `trades` is left out, by its id: memory tells of the last trades, and of older ones the log.

A long one is asked for in slices, and what the venue says of a slice is said of no other: of a gap that is there in
part, that part is `repaired`, and what is left is `lost`, each piece under the time at which it begins.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from ashi.contracts.errors import BrokerError
from ashi.contracts.timeframe import HOUR_US
from ashi.runtime.logs import get_logger
from ashi.runtime.metrics import ingest as metrics
from ashi_ingest.feed.repair.lost_gaps import LostGaps
from ashi_ingest.feed.repair.repair_plan import run_repair
from ashi_ingest.rest.budget import Priority, Urgency
from ashi_ingest.venues.base import RepairEnd

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from ashi.contracts.feed import FeedGap
    from ashi.contracts.trade import Trade
    from ashi_ingest.feed.evidence.completeness import VenueClock
    from ashi_ingest.feed.reporting.status import FeedReporter
    from ashi_ingest.feed.symbol.symbol_feed import SymbolFeed
    from ashi_ingest.publish.backpressure import Backpressure
    from ashi_ingest.rest.client import Asks
    from ashi_ingest.venues.base import Venue

SLICE_US: Final = HOUR_US
"""So much is asked for at once, µs: the ids of its trades that are published are in memory meanwhile."""
STEP_US: Final = 60_000_000
"""The venue's clock may have stepped by so much, µs, so as much is asked for before and after: rows that are stamped
ahead are no end, nor are such as are stamped behind the beginning."""
PATIENCE_S: Final = 30.0
"""For how long a request is made again: others wait behind it."""
BROKEN_OFF: Final = 2
"""When so many slices in a row were broken off, it is weather and not what they hold: the others wait as well."""
SHOWN: Final = RepairEnd()

_log = get_logger(__name__)


async def nothing_published(_symbol: str, _from_us: int, _until_us: int) -> set[str]:
    """Topic `trades` is not asked."""
    return set()


class Slice(NamedTuple):
    """A time, µs, from inclusive, until exclusive."""

    from_us: int
    until_us: int


@dataclass(slots=True, eq=False)
class LostTime:
    """A lost gap of a feed, by its beginning.

    Attributes:
        is_cut: Kafka has lost what had been published of it, so memory does not tell what is there.
        left: slices that are still to be had, those that were asked for longest ago first.
        settled: the others, and what is known of each: that all of it is there (`SHOWN`), or why it never will be.
        recovered: how many trades have been published for it.

    """

    feed: SymbolFeed
    from_us: int
    is_cut: bool
    left: list[Slice] = field(default_factory=list)
    settled: dict[Slice, RepairEnd] = field(default_factory=dict)
    recovered: int = 0

    def reach(self, until_us: int) -> None:
        """It goes until then, µs, or has grown to that."""
        from_us = max((each.until_us for each in (*self.left, *self.settled)), default=self.from_us)
        until_us = max(until_us, self.from_us + 1)
        while from_us < until_us:
            self.left.append(Slice(from_us, min(until_us, from_us + SLICE_US)))
            from_us = self.left[-1].until_us

    def pieces(self) -> list[tuple[Slice, RepairEnd | None]]:
        """All of it in the order of time, and what is known of each piece: None of what is left."""
        found: list[tuple[Slice, RepairEnd | None]] = []
        for each, end in sorted([*self.settled.items(), *((each, None) for each in self.left)], key=lambda of: of[0]):
            if found and found[-1][1] == end:
                found[-1] = Slice(found[-1][0].from_us, each.until_us), end
            else:
                found.append((each, end))
        return found


class LostTimes:
    """The lost times of one venue's feeds."""

    def __init__(
        self,
        venue: Venue,
        *,
        rest: Asks,
        clock: VenueClock,
        reporter: FeedReporter,
        backpressure: Backpressure,
        published: Callable[[str, int, int], Awaitable[set[str]]],
        allowance_us: Callable[[], int],
        now_us: Callable[[], int],
        monotonic_s: Callable[[], float],
        sleep: Callable[[float], Coroutine[None, None, None]] = asyncio.sleep,
    ) -> None:
        """`published`: the ids of the trades of a symbol in topic `trades` that were traded in a time, µs.

        It raises BrokerError. `allowance_us`: see `REST_LAG_ALLOWANCE_US`.
        """
        self._venue = venue
        self._rest = rest
        self._clock = clock
        self._reporter = reporter
        self._backpressure = backpressure
        self._published = published
        self._allowance_us = allowance_us
        self._now_us = now_us
        self._lost: dict[tuple[str, int], LostTime] = {}
        self._queue: LostGaps[LostTime] = LostGaps(self._ask, now_s=monotonic_s, sleep=sleep)

    def __len__(self) -> int:
        return len(self._lost)

    def add(self, feed: SymbolFeed, from_us: int, is_cut: bool = False) -> None:
        """Ask for this lost gap of a feed from now on. One that was added before may have grown since.

        What has been published for it may be what was cut now: then all of it is asked for anew.
        """
        before = self._lost.get((feed.symbol, from_us))
        if before is not None and not is_cut:
            return
        if before is not None:
            self._queue.drop(lambda lost: lost is before)
        lost = LostTime(feed, from_us, is_cut)
        self._lost[feed.symbol, from_us] = lost
        self._queue.add(lost)

    def check(self) -> None:
        """Raise what asking has failed of by a mistake of ours."""
        failure = self._queue.failure()
        if failure is not None:
            raise failure

    async def stop(self) -> None:
        """Ask no more. The next process finds the gaps in `feed.gaps`."""
        await self._queue.stop()

    async def _ask(self, lost: LostTime) -> bool:
        """Ask for what is left of it. True when that is over."""
        is_over = await self._ask_on(lost)
        if is_over:
            self._forget(lost)
        return is_over

    def _forget(self, lost: LostTime) -> None:
        if self._lost.get((lost.feed.symbol, lost.from_us)) is lost:
            del self._lost[lost.feed.symbol, lost.from_us]

    async def _ask_on(self, lost: LostTime) -> bool:
        symbol = lost.feed.symbol
        asked: set[Slice] = set()
        broken_off = 0
        while broken_off < BROKEN_OFF:
            gap = self._reporter.lost_gap(symbol, lost.from_us)
            if gap is None or gap.to_time is None:  # another worker has published it, or it is asked for elsewhere
                return True
            lost.reach(gap.to_time)
            wanted = next((each for each in lost.left if each not in asked), None)
            if wanted is None:
                return self._settle(lost, gap)
            asked.add(wanted)
            try:
                end = await self._fetch(lost, wanted)
            except BrokerError as error:
                _log.warning("topic trades cannot be read, so what was lost waits", symbol=symbol, reason=str(error))
                return False
            lost.left.remove(wanted)
            if end.reason is None:
                lost.settled[wanted] = SHOWN
            elif end.final or end.beyond_reach:
                lost.settled[wanted] = RepairEnd(end.reason, final=end.final, beyond_reach=end.beyond_reach)
            else:
                _log.info("what was lost is not to be had yet", symbol=symbol, since=wanted.from_us, reason=end.reason)
                lost.left.append(wanted)
            broken_off = broken_off + 1 if wanted in lost.left and end.shown_until is None else 0
        return False

    async def _fetch(self, lost: LostTime, wanted: Slice) -> RepairEnd:
        """Publish what REST has of a slice and topic `trades` has not. A reason says why that is not all."""
        feed, (from_us, until_us) = lost.feed, wanted
        published: set[str] | None = None
        is_early = lists_known = False
        listed: set[str] = set()
        found: list[Trade] = []  # waits until the venue lists a trade that is known as well: it may be another market's

        async def publish(trades: list[Trade]) -> None:
            nonlocal published, is_early, lists_known
            self._clock.on_fetched(trades)
            lists_known = lists_known or any(map(feed.remembers, trades))
            if not lists_known:
                listed.update(trade.trade_id for trade in trades)
            within = [trade for trade in trades if from_us <= trade.traded_at < until_us]
            within = [trade for trade in within if lost.is_cut or not feed.remembers(trade)]
            if not within:
                return
            if published is None:
                published = await self._published(feed.symbol, from_us - STEP_US, until_us + STEP_US)
            lists_known = lists_known or not listed.isdisjoint(published)
            found.extend(within)
            if lists_known or not published:
                await hand_on(published)

        async def hand_on(published: set[str]) -> None:
            nonlocal is_early
            if not found:
                return
            new = [trade for trade in found if trade.trade_id not in published]
            found.clear()
            late = feed.publish_found(new)
            published.update(trade.trade_id for trade in late)  # the second plan lists them again
            is_early = is_early or len(late) < len(new)
            self._count(lost, late)
            await self._backpressure.room_to_repair()

        urgency = Urgency(Priority.LOST, (until_us - from_us) / 1e6)
        for since_us in (from_us - STEP_US, from_us):  # a market may not be older than that
            asked_us = self._now_us()
            plan = self._venue.history(feed.market, since_us, until_us + STEP_US)
            end = await run_repair(self._rest, plan, publish, PATIENCE_S, urgency=urgency)
            if not end.beyond_reach:
                break
        is_over = end.final or end.beyond_reach
        if end.reason is not None and not is_over:
            return end
        if not lists_known and (found or not is_over):
            if published is None:
                published = await self._published(feed.symbol, from_us - STEP_US, until_us + STEP_US)
            if published and listed.isdisjoint(published):
                return RepairEnd("the venue's REST interface lists none of the trades of that time that are known")
            await hand_on(published)
        if is_early:
            return RepairEnd(
                "some of it is not before the trade published last, which a repair brings", end.shown_until
            )
        shown_us = self._clock.shown_until(end.shown_until, asked_us) or 0
        if (end.shown_until or 0) < until_us + STEP_US:  # else it was not asked for the newest
            less = feed.checked.says_less(end.shown_until, asked_us)
            if less is not None:
                return RepairEnd(less)
        if max(shown_us, self._clock.venue_us(asked_us) - self._allowance_us()) < until_us:
            return RepairEnd("the venue's REST interface has not shown yet what happened since", end.shown_until)
        return end

    def _count(self, lost: LostTime, published: Sequence[Trade]) -> None:
        lost.recovered += len(published)
        metrics.trades_recovered.labels(self._venue.name).inc(len(published))

    def _settle(self, lost: LostTime, gap: FeedGap) -> bool:
        """Tell what has become of a gap when all of it has been asked for. False when nothing has."""
        symbol = lost.feed.symbol
        pieces = lost.pieces()
        missing = [(piece, end) for piece, end in pieces if end != SHOWN]
        shown_until_us = max((piece.until_us for piece, end in pieces if end == SHOWN), default=None)
        if all(end is None for _, end in pieces):
            return False
        self._forget(lost)
        # What is there may be told only when Kafka has it, but what is lost at once: so that goes under other names.
        kept = missing.pop(0) if shown_until_us is None else None
        for piece, end in missing:
            begun = piece.from_us
            while self._reporter.has_gap(symbol, begun):  # rather too much is called lost than too little
                begun -= 1
            self._lose(lost, Slice(begun, piece.until_us), end, gap.reason, 0)
        if kept is not None:
            self._lose(lost, *kept, gap.reason, lost.recovered)
        if shown_until_us is not None:
            self._reporter.end_gap(
                symbol, shown_until_us, "repaired", lost.recovered, gap.reason, from_time=lost.from_us
            )
            _log.info("repaired", symbol=symbol, since=lost.from_us, trades_recovered=lost.recovered)
        return True

    def _lose(self, lost: LostTime, piece: Slice, end: RepairEnd | None, reason: str, recovered: int) -> None:
        """Tell that a piece of a gap is lost. Without an end it is asked for again."""
        symbol = lost.feed.symbol
        final = end is not None and end.final
        text = reason if end is None or end.reason is None else end.reason
        self._reporter.end_gap(symbol, piece.until_us, "lost", recovered, text, from_time=piece.from_us, final=final)
        if end is None:
            self.add(lost.feed, piece.from_us, lost.is_cut)
        _log.info(
            "lost", symbol=symbol, since=piece.from_us, trades_recovered=recovered, reason=text, final=final or None
        )

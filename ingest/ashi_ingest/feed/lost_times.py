"""Lost gaps of which only the time is known: asked for by time, until REST has shown it.

There are three kinds: trades that came and could not be published, most often because the venue's clock was ahead (once
real time has passed what they are stamped with, REST lists them as trades like any other); what Kafka had and has no
more; and what an earlier process had given up. Each is a gap in `feed.gaps` already, and the reporter knows until when
it goes; here it is asked for, with what the budget leaves (`ashi_ingest.feed.lost_gaps`), by `Venue.history`.

What stands in topic `trades` is left out, by its id: memory tells of the last trades, and of older ones the log.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import BrokerError
from ashi.runtime.logs import get_logger
from ashi.runtime.metrics import ingest as metrics
from ashi_ingest.feed.lost_gaps import LostGaps
from ashi_ingest.feed.repair_plan import run_repair
from ashi_ingest.rest.budget import Priority, Urgency

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from ashi.contracts.feed import GapState
    from ashi.contracts.trade import Trade
    from ashi_ingest.feed.completeness import VenueClock
    from ashi_ingest.feed.status import FeedReporter
    from ashi_ingest.feed.symbol_feed import SymbolFeed
    from ashi_ingest.publish.backpressure import Backpressure
    from ashi_ingest.rest.client import Asks
    from ashi_ingest.venues.base import RepairEnd, Venue

SLICE_US: Final = 3_600_000_000
"""So much is asked for at once, µs: the ids of its trades that are published are in memory meanwhile."""
STEP_US: Final = 60_000_000
"""The venue's clock may have stepped by so much, µs, so as much is asked for before and after: rows that are stamped
ahead are no end, nor are such as are stamped behind the beginning."""
PATIENCE_S: Final = 30.0
"""For how long a request is made again: others wait behind it."""

_log = get_logger(__name__)


async def nothing_published(_symbol: str, _from_us: int, _until_us: int) -> set[str]:
    """Topic `trades` is not asked."""
    return set()


@dataclass(slots=True, eq=False)
class LostTime:
    """A lost gap of a feed, by its beginning.

    Attributes:
        is_cut: Kafka has lost what had been published of it, so memory does not tell what is there.
        done_us: REST has shown everything before this time, µs, and it has been published.
        recovered: how many trades have been published for it.

    """

    feed: SymbolFeed
    from_us: int
    is_cut: bool
    done_us: int
    recovered: int = 0


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
        """Ask for this lost gap of a feed from now on. One that was added before may have grown since."""
        if (feed.symbol, from_us) not in self._lost:
            lost = LostTime(feed, from_us, is_cut, from_us)
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
            del self._lost[lost.feed.symbol, lost.from_us]
        return is_over

    async def _ask_on(self, lost: LostTime) -> bool:
        symbol = lost.feed.symbol
        while True:
            gap = self._reporter.lost_gap(symbol, lost.from_us)
            if gap is None or gap.to_time is None:  # another worker has published it, or it is asked for elsewhere
                return True
            until_us = min(gap.to_time, lost.done_us + SLICE_US)
            try:
                end = await self._fetch(lost, until_us)
            except BrokerError as error:
                _log.warning("topic trades cannot be read, so what was lost waits", symbol=symbol, reason=str(error))
                return False
            if end.final or end.beyond_reach:
                self._end(lost, gap.to_time, end, gap.reason)
                return True
            if end.reason is not None:
                _log.info("what was lost is not to be had yet", symbol=symbol, since=lost.from_us, reason=end.reason)
                return False
            lost.done_us = until_us
            grown = self._reporter.lost_gap(symbol, lost.from_us)
            if until_us == gap.to_time and grown is not None and grown.to_time == until_us:
                self._end(lost, until_us, end, gap.reason)
                return True

    async def _fetch(self, lost: LostTime, until_us: int) -> RepairEnd:
        """Publish what REST has from `done_us` on and topic `trades` has not. A reason says why that is not all."""
        feed, from_us = lost.feed, lost.done_us
        published: set[str] | None = None
        is_early = False

        async def publish(trades: list[Trade]) -> None:
            nonlocal published, is_early
            self._clock.on_fetched(trades)
            wanted = [trade for trade in trades if from_us <= trade.traded_at < until_us]
            wanted = [trade for trade in wanted if lost.is_cut or not feed.remembers(trade)]
            if not wanted:
                return
            if published is None:
                published = await self._published(feed.symbol, from_us, until_us)
            found = [trade for trade in wanted if trade.trade_id not in published]
            late = feed.publish_found(found)
            is_early = is_early or len(late) < len(found)
            self._count(lost, late)
            await self._backpressure.room_to_repair()

        urgency = Urgency(Priority.LOST, (until_us - from_us) / 1e6)
        for since_us in (from_us - STEP_US, from_us):  # a market may not be older than that
            asked_us = self._now_us()
            plan = self._venue.history(feed.market, since_us, until_us + STEP_US)
            end = await run_repair(self._rest, plan, publish, PATIENCE_S, urgency=urgency)
            if not end.beyond_reach:
                break
        if end.reason is not None:
            return end
        if is_early:
            return end._replace(reason="some of it is not before the trade published last, which a repair brings")
        shown_us = self._clock.shown_until(end.shown_until, asked_us) or 0
        if max(shown_us, self._clock.venue_us(asked_us) - self._allowance_us()) < until_us:
            return end._replace(reason="the venue's REST interface has not shown yet what happened since")
        return end

    def _count(self, lost: LostTime, published: Sequence[Trade]) -> None:
        lost.recovered += len(published)
        metrics.trades_recovered.labels(self._venue.name).inc(len(published))

    def _end(self, lost: LostTime, until_us: int, end: RepairEnd, reason: str) -> None:
        """All that can be had has been published."""
        state: GapState = "repaired" if end.reason is None else "lost"
        symbol = lost.feed.symbol
        self._reporter.end_gap(
            symbol,
            until_us,
            state,
            lost.recovered,
            end.reason or reason,
            from_time=lost.from_us,
            final=end.final,
        )
        _log.info(
            state,
            symbol=symbol,
            since=lost.from_us,
            trades_recovered=lost.recovered,
            reason=end.reason,
            final=end.final or None,
        )

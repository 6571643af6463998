"""Fetching what feeds have missed: after an interruption, and where ids that should be contiguous are not.

Each repair is a task of its own. It asks the venue and hands the answers to the feed, which publishes them, and holds
live trades meanwhile; the feed goes live when what was missed has been published, or cannot be had.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from ashi.runtime.logs import get_logger
from ashi.runtime.metrics import ingest as metrics
from ashi_ingest.feed.repair_plan import run_repair
from ashi_ingest.feed.symbol_feed import NOTHING_BEFORE

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ashi.contracts.trade import Trade
    from ashi_ingest.feed.symbol_feed import SymbolFeed
    from ashi_ingest.publish.backpressure import Backpressure
    from ashi_ingest.rest.client import RestClient
    from ashi_ingest.venues.base import Venue

SETTLE_S: Final = 1.5
"""A repair goes on until so long after the subscription: REST may not know at once what a connection just missed."""

_log = get_logger(__name__)


class Backfill:
    """The repairs of one venue's feeds, at most one of a feed at a time."""

    def __init__(
        self,
        venue: Venue,
        *,
        rest: RestClient,
        backpressure: Backpressure,
        patience_s: float,
        monotonic_s: Callable[[], float],
    ) -> None:
        """`patience_s`: for how long a request is made again that fails."""
        self._venue = venue
        self._rest = rest
        self._backpressure = backpressure
        self._patience_s = patience_s
        self._monotonic_s = monotonic_s
        self._repairs: dict[str, asyncio.Task[None]] = {}
        self._failure: BaseException | None = None

    def repair_interruption(self, feed: SymbolFeed) -> None:
        """Fetch what was missed until the subscription that the venue has accepted just now."""
        self._start(feed, self._repair_interruption(feed, self._monotonic_s()))

    def repair_hole(self, feed: SymbolFeed) -> None:
        """Ids that should be contiguous are not: fetch those between."""
        self._start(feed, self._repair_hole(feed))

    def check(self) -> None:
        """Raise what a repair has failed of by a mistake of ours."""
        if self._failure is not None:
            raise self._failure

    def stop(self, feed: SymbolFeed) -> None:
        """No more of the repair of a feed, if there is one."""
        repair = self._repairs.pop(feed.symbol, None)
        if repair is not None:
            repair.cancel()

    async def stop_all(self) -> None:
        """No more repairs; returns when all have ended."""
        repairs = list(self._repairs.values())
        self._repairs.clear()
        for repair in repairs:
            repair.cancel()
        await asyncio.gather(*repairs, return_exceptions=True)

    def _start(self, feed: SymbolFeed, repair: Coroutine[None, None, None]) -> None:
        self.stop(feed)
        self._repairs[feed.symbol] = task = asyncio.create_task(repair)
        task.add_done_callback(self._on_ended)

    def _on_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = self._failure or error

    async def _repair_interruption(self, feed: SymbolFeed, subscribed_s: float) -> None:
        """After the start or a reconnection: all since the trade published last, then live."""
        known = feed.begin_repair()
        failure = await self._catch_up(feed, subscribed_s) if known else NOTHING_BEFORE
        feed.end_interruption(failure)
        outcome = "begins" if not known else "repaired" if failure is None else "lost"
        _log.info(outcome, symbol=feed.symbol, trades_recovered=feed.recovered, reason=failure)
        await feed.go_live(lost=failure is not None)

    async def _catch_up(self, feed: SymbolFeed, subscribed_s: float) -> str | None:
        """Fetch until what is published reaches what has come live. Gives the reason when something stays missing."""
        while True:
            until = feed.first_held()
            if until is not None:
                feed.extend_missed(until)
            failure = await self._fetch(feed, until)
            left_s = subscribed_s + SETTLE_S - self._monotonic_s()
            if failure is not None or (left_s <= 0 and feed.reaches_live(until)):
                return failure
            await asyncio.sleep(left_s)

    async def _repair_hole(self, feed: SymbolFeed) -> None:
        """Fetch what is missing in front of what is held, then live."""
        missing = feed.begin_hole_repair()
        if missing is None:
            return
        metrics.feed_holes.labels(self._venue.name, "found").inc()
        failure = await self._fetch(feed, feed.first_held())
        while failure is None and feed.has_discarded:
            failure = await self._fetch(feed, feed.first_held())
        outcome = "lost" if failure is not None else "repaired" if feed.recovered else "absent"
        metrics.feed_holes.labels(self._venue.name, outcome).inc()
        if outcome != "absent":
            feed.report_hole(missing, failure)
        _log.info("hole in trade ids", symbol=feed.symbol, missing=missing.number, outcome=outcome, reason=failure)
        await feed.go_live(lost=failure is not None)

    async def _fetch(self, feed: SymbolFeed, until: Trade | None) -> str | None:
        """Bring what the venue has since the trade published last, up to `until`, the first one that came live.

        Gives the reason when something of it could not be had.
        """

        async def publish(trades: list[Trade]) -> None:
            recovered = feed.publish_fetched(trades, until)
            metrics.trades_recovered.labels(self._venue.name).inc(recovered)
            await self._backpressure.room_to_repair()

        plan = self._venue.repair(feed.market, feed.begin_fetch(), until)
        return (await run_repair(self._rest, plan, publish, self._patience_s)).reason

"""Repairing feeds: after an interruption, and where ids that should be contiguous are not.

Each repair is a task of its own. Meanwhile live trades are held by the feed; it goes live when what was missed has been
published, or cannot be had.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ashi.runtime.logs import get_logger
from ashi.runtime.metrics import ingest as metrics
from ashi_ingest.feed.repair_plan import run_repair
from ashi_ingest.feed.sequencer import Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from ashi.contracts.feed import GapState
    from ashi.contracts.trade import Trade
    from ashi_ingest.feed.sequencer import TradeSequencer
    from ashi_ingest.feed.status import FeedReporter
    from ashi_ingest.publish.buffer import PublishBuffer
    from ashi_ingest.rest.client import RestClient
    from ashi_ingest.venues.base import RepairEnd, Venue

HOLE_PATIENCE_S: Final = 0.5
"""How long a hole in contiguous ids is waited for: venues send a little out of order."""
SETTLE_S: Final = 1.5
"""A repair goes on until so long after the subscription: REST may not know at once what a connection just missed."""
NOTHING_BEFORE: Final = "nothing had been published before, so there is nothing to go on from"
RELIEF: Final = 0.5
"""When too much is held, what waits behind repairs is let go until this part of the bound is left."""
_log = get_logger(__name__)


@dataclass(slots=True)
class SymbolState:
    """What the process knows of one symbol beside its feed.

    `missed_until_us`: trades after this came over the connection and were kept, so a gap ends here.
    `may_let_go`: a repair is on its way that would bring what is held.
    `has_let_go`: since the venue's last answer, trades that came were let go, so the repair has to bring them.
    """

    market: str
    feed: TradeSequencer
    missed_until_us: int = 0
    subscribed_s: float = 0.0
    recovered: int = 0
    may_let_go: bool = False
    has_let_go: bool = False
    hole_from_us: int = 0
    repair: asyncio.Task[None] | None = None
    down_reason: str = ""


class Backfill:
    """Repairs the feeds of one venue's markets.

    Attributes:
        failure: what a repair has failed of by a mistake of ours.

    """

    def __init__(
        self,
        venue: Venue,
        *,
        outbox: PublishBuffer,
        reporter: FeedReporter,
        rest: RestClient,
        buffer: int,
        patience_s: float,
        monotonic_s: Callable[[], float],
        on_live: Callable[[SymbolState], None],
    ) -> None:
        """`buffer`: the most trades held in memory. `on_live` is told of each feed that is live again."""
        self.failure: BaseException | None = None
        self._venue = venue
        self._outbox = outbox
        self._reporter = reporter
        self._rest = rest
        self._buffer = buffer
        self._patience_s = patience_s
        self._monotonic_s = monotonic_s
        self._on_live = on_live

    def repair_interruption(self, state: SymbolState, missed_until_us: int) -> None:
        """Trades of a symbol come from now on. Those before this time (µs) have to be fetched."""
        state.missed_until_us, state.subscribed_s = missed_until_us, self._monotonic_s()
        self._start(state, self._repair_interruption(state))

    def look(self, states: Iterable[SymbolState]) -> None:
        """To be called every tenth of a second: begins to repair holes that stay. Raises `failure`."""
        if self.failure is not None:
            raise self.failure
        now_s = self._monotonic_s()
        for state in states:
            hole = state.feed.hole
            if state.feed.mode is Mode.LIVE and hole is not None and now_s - hole.found_s > HOLE_PATIENCE_S:
                self._start(state, self._repair_hole(state))

    def stop(self, state: SymbolState) -> None:
        """No more of the repair of a symbol, if there is one."""
        state.may_let_go = False
        if state.repair is not None:
            state.repair.cancel()
            state.repair = None

    def publish(self, state: SymbolState, trades: list[Trade], *, live: bool) -> None:
        """Hand over what comes next of a symbol."""
        if trades:
            self._outbox.put(trades, streamed=live)
            self._reporter.on_trade(state.feed.symbol, trades[-1])

    def release(self, state: SymbolState) -> None:
        """Publish the live trades that are held, up to the next hole."""
        self.publish(state, state.feed.end_repair(self._monotonic_s()), live=True)

    def let_go(self, states: Iterable[SymbolState], too_many: Callable[[], bool], now_us: int) -> None:
        """Let go what waits behind the longest repairs, while it is too much: they bring it again."""
        waiting = [state for state in states if state.may_let_go and state.feed.held]
        for state in sorted(waiting, key=lambda state: state.feed.held, reverse=True):
            if not too_many():
                break
            _log.info(
                "too much waits for a repair, which fetches it again", symbol=state.feed.symbol, held=state.feed.held
            )
            state.feed.let_go()
            state.has_let_go, state.missed_until_us = True, max(state.missed_until_us, now_us)

    def _start(self, state: SymbolState, repair: Coroutine[None, None, None]) -> None:
        self.stop(state)
        state.repair = asyncio.create_task(repair)
        state.repair.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failure = self.failure or error

    async def _repair_interruption(self, state: SymbolState) -> None:
        """After the start or a reconnection: all since the trade published last, then live."""
        feed = state.feed
        before = state.recovered
        failure: str | None = NOTHING_BEFORE
        known = feed.begin_repair()
        if known:
            self._reporter.set_state(feed.symbol, "repairing", state.down_reason)
            failure = await self._catch_up(state)
        outcome: GapState = "repaired" if failure is None else "lost"
        recovered = state.recovered - before
        self._reporter.end_gap(feed.symbol, state.missed_until_us, outcome, recovered, failure or state.down_reason)
        _log.info(outcome if known else "begins", symbol=feed.symbol, trades_recovered=recovered, reason=failure)
        await self._resume(state, failure)

    async def _catch_up(self, state: SymbolState) -> str | None:
        """Fetch until what is published reaches what has come live. Gives the reason when something stays missing."""
        feed = state.feed
        while True:
            until = feed.first_held()
            if until is not None:
                state.missed_until_us = max(state.missed_until_us, until.traded_at)
            failure = (await self._fetch(state, until)).reason
            left_s = state.subscribed_s + SETTLE_S - self._monotonic_s()
            if failure is not None or (left_s <= 0 and self._reaches_live(state, until)):
                return failure
            await asyncio.sleep(left_s)

    def _reaches_live(self, state: SymbolState, until: Trade | None) -> bool:
        """Whether nothing can be missing in front of what is held, when all up to `until` has been fetched."""
        feed = state.feed
        if feed.held and self._venue.contiguous(state.market):
            return feed.missing() == 0 or feed.first_held() is until
        return not state.has_let_go and (until is not None or feed.held == 0)

    async def _repair_hole(self, state: SymbolState) -> None:
        """Ids that should be contiguous are not: fetch those between, then go on."""
        feed = state.feed
        until = feed.first_held()
        if until is None:
            return  # what was missing has come just now
        since = feed.begin_repair()
        missing = feed.missing()
        before = state.recovered
        state.missed_until_us = until.traded_at
        metrics.feed_holes.labels(self._venue.name, "found").inc()
        self._reporter.set_state(feed.symbol, "repairing", f"{missing} trade ids are missing")
        failure = (await self._fetch(state, until)).reason
        while failure is None and state.has_let_go:
            failure = (await self._fetch(state, feed.first_held())).reason
        recovered = state.recovered - before
        outcome = "lost" if failure is not None else "repaired" if recovered else "absent"
        metrics.feed_holes.labels(self._venue.name, outcome).inc()
        if outcome != "absent":
            from_us = min(since[-1].traded_at, until.traded_at)
            if from_us <= state.hole_from_us < from_us + 1000:  # a gap is named by its beginning, and that one has it
                from_us = state.hole_from_us + 1
            state.hole_from_us = from_us
            self._reporter.end_gap(
                feed.symbol,
                state.missed_until_us,
                "lost" if failure is not None else "repaired",
                recovered,
                failure or f"{missing} trade ids were missing",
                from_time=from_us,
            )
        _log.info("hole in trade ids", symbol=feed.symbol, missing=missing, outcome=outcome, reason=failure)
        await self._resume(state, failure)

    async def _fetch(self, state: SymbolState, until: Trade | None) -> RepairEnd:
        """Publish what the venue has since the trade published last, up to `until`, the first one that came live."""
        feed = state.feed
        state.may_let_go, state.has_let_go = True, False

        async def publish(trades: list[Trade]) -> None:
            state.has_let_go = False
            came = {trade.trade_id for trade in trades if feed.came_by(trade, until)}
            new = feed.on_repaired(trades)
            recovered = sum(trade.trade_id not in came for trade in new)
            state.recovered += recovered
            metrics.trades_recovered.labels(self._venue.name).inc(recovered)
            self.publish(state, new, live=False)
            await self._outbox.room(self._buffer // 2)  # a repair of hours must not fill the memory

        plan = self._venue.repair(state.market, feed.tail, until)
        return await run_repair(self._rest, plan, publish, self._patience_s)

    async def _resume(self, state: SymbolState, failure: str | None) -> None:
        """After a repair, let live trades pass."""
        state.may_let_go = False
        if failure is not None:
            # Before them: after a crash they would hide from the next start that something is missing.
            await self._reporter.flush()
        self.release(state)
        self._on_live(state)

"""All feeds of a process: frames become trades, feeds order them, holes and interruptions are repaired.

This is the handler of `ingest.session`: what connections do is told here, and what follows from it for each symbol
is decided here. Nothing in it waits but the repairs, each a task of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from ashi.contracts.symbol import make_symbol
from ashi.runtime import metrics
from ashi.runtime.logs import get_logger
from ingest.feed import Mode, SymbolFeed
from ingest.policy import Reason
from ingest.repair import run_repair

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from ashi.contracts.feed import FeedStatus
    from ashi.contracts.trade import Trade
    from ingest.outbox import Outbox
    from ingest.recorder import Recorder
    from ingest.rest import Rest
    from ingest.session import Link
    from ingest.status import FeedReporter
    from ingest.venues.live import LiveVenue, RepairEnd
    from ingest.venues.protocol import Venue

HOLE_PATIENCE_S: Final = 0.5
"""How long a hole in contiguous ids is waited for: venues send a little out of order."""
SETTLE_S: Final = 1.5
"""A repair goes on until so long after the subscription: REST may not know at once what a connection just missed."""
ROOM: Final = 0.25
"""Connections that were closed because too much was held open again when this part of the bound is left."""
LOGGED_REJECTIONS: Final = 20
"""More are only counted: all of them are in `trades.dead`."""

_log = get_logger(__name__)


@dataclass(slots=True)
class _State:
    """What the process knows of one symbol beside its feed."""

    feed: SymbolFeed
    subscribed_us: int = 0
    subscribed_s: float = 0.0
    recovered: int = 0
    repair: asyncio.Task[None] | None = None
    down_reason: str = "starting"


@dataclass(slots=True)
class _Source:
    """What the process keeps of one connection: its own parser, and the link by which it can be closed."""

    link: Link
    parser: Venue
    frames: Counter[str] = field(default_factory=Counter)


class Feeds:
    """The feeds of one venue's markets in this process."""

    def __init__(
        self,
        venue: LiveVenue,
        tails: Mapping[str, Sequence[Trade]],
        *,
        outbox: Outbox,
        reporter: FeedReporter,
        rest: Rest,
        recorder: Recorder | None,
        buffer: int,
        patience_s: float,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`tails`: of each market the trades published last. `buffer`: the most trades held in memory."""
        self._venue = venue
        self._outbox = outbox
        self._reporter = reporter
        self._rest = rest
        self._recorder = recorder
        self._buffer = buffer
        self._patience_s = patience_s
        self._now_us = now_us
        self._monotonic_s = monotonic_s
        self._states = {
            market: _State(
                SymbolFeed(
                    make_symbol(venue.name, market),
                    contiguous=venue.contiguous(market),
                    ordered_ids=venue.ordered_ids,
                    tail=tail,
                )
            )
            for market, tail in tails.items()
        }
        self._by_symbol = {state.feed.symbol: state for state in self._states.values()}
        self._sources: dict[int, _Source] = {}
        self._duplicates = 0
        self._rejections = 0
        self._failure: BaseException | None = None

    @property
    def held(self) -> int:
        """Trades in memory: behind repairs, and on their way to Kafka."""
        return self._outbox.held + sum(state.feed.held for state in self._states.values())

    @property
    def live(self) -> int:
        """How many symbols publish their trades as they come."""
        return sum(state.feed.mode is Mode.LIVE for state in self._states.values())

    def begin(self, symbol: str, status: FeedStatus | None) -> None:
        """Before any connection: what this process was not there for is a gap. `status`: what was said last of it."""
        state = self._by_symbol[symbol]
        self._reporter.set_state(symbol, "down", state.down_reason)
        tail = state.feed.tail
        if tail:
            since = tail[-1].received_at
            if status is not None:
                since = max(since, status.updated_at if status.state == "connected" else status.since)
            self._reporter.open_gap(symbol, min(since, self._now_us()), "the worker has been started again")

    # What the session tells.

    async def may_connect(self) -> None:
        """Wait until there is room for what a connection will bring."""
        await self._outbox.room(int(self._buffer * ROOM))

    def on_open(self, link: Link) -> None:
        """A connection is open; each has a parser of its own."""
        self._sources[link.number] = _Source(link, self._venue.parser())
        metrics.feed_connections.labels(self._venue.name).inc()

    def on_subscribed(self, link: Link, markets: Sequence[str]) -> None:  # noqa: ARG002
        """Trades of these markets come from now on: fetch what was missed before."""
        for market in markets:
            state = self._states[market]
            if state.feed.mode is Mode.DOWN:  # else it is a renewal, and the connection before still delivers
                state.subscribed_us, state.subscribed_s = self._now_us(), self._monotonic_s()
                self._start(state, partial(self._repair_interruption, state))

    def on_refused(self, market: str, reason: str) -> None:
        """There is no such market; the others go on."""
        _log.error("the venue refuses a market, it is left out", venue=self._venue.name, market=market, reason=reason)
        state = self._states[market]
        self._stop_repair(state)
        state.feed.disconnected()
        self._reporter.set_state(state.feed.symbol, "down", reason)

    def on_frame(self, link: Link, frame: bytes, received_ns: int) -> bool:
        """A frame came. True when it was about trades, readable or not."""
        source = self._sources[link.number]
        if self._recorder is not None:
            self._recorder.write(received_ns, frame)
        parsed = source.parser.parse(frame, received_ns // 1000)
        if parsed.trades:
            self._on_trades(parsed.trades)
        if parsed.rejected:
            self._count_rejected(parsed.rejected[0].reason)
            self._outbox.reject(parsed.rejected, f"feed:{self._venue.name}/{link.number}/{received_ns}")
            source.frames["dead"] += 1
            return True
        source.frames["trades" if parsed.trades else "skipped"] += 1
        return bool(parsed.trades)

    def on_silent(self, link: Link, silent: bool) -> None:
        """Nothing has come for suspiciously long, or comes again."""
        for market in link.markets:
            state = self._states[market]
            if state.feed.mode is Mode.LIVE:
                self._reporter.set_state(
                    state.feed.symbol,
                    "silent" if silent else "connected",
                    "nothing has come from the venue for long" if silent else None,
                )

    def on_closed(self, link: Link, reason: Reason, detail: str, last_frame_ns: int | None, *, replaced: bool) -> None:
        """A connection is gone. Unless another one has taken over, its symbols are down and a gap begins."""
        source = self._sources.pop(link.number)
        self._count_frames(source)
        metrics.feed_connections.labels(self._venue.name).dec()
        metrics.reconnects.labels(self._venue.name, reason).inc()
        if replaced:
            return
        text = f"{reason}: {detail}" if detail else str(reason)
        since = last_frame_ns // 1000 if last_frame_ns is not None else self._now_us()
        for market in link.markets:
            state = self._states[market]
            self._stop_repair(state)
            state.feed.disconnected()
            state.down_reason = text
            self._reporter.set_state(state.feed.symbol, "down", text)
            if state.feed.tail:
                self._reporter.open_gap(state.feed.symbol, since, text)

    # What follows.

    def _on_trades(self, trades: list[Trade]) -> None:
        now_s = self._monotonic_s()
        if len(trades) == 1 or all(trade.symbol == trades[0].symbol for trade in trades):
            self._deliver(trades[0].symbol, trades, now_s)
            return
        groups: dict[str, list[Trade]] = defaultdict(list)
        for trade in trades:
            groups[trade.symbol].append(trade)
        for symbol, group in groups.items():
            self._deliver(symbol, group, now_s)

    def _deliver(self, symbol: str, trades: list[Trade], now_s: float) -> None:
        state = self._by_symbol.get(symbol)
        if state is None:
            return  # of a market that was refused, or that another worker has: nobody subscribed to it here
        self._publish(state, state.feed.on_live(trades, now_s), live=True)

    def _publish(self, state: _State, trades: list[Trade], *, live: bool) -> None:
        if trades:
            self._outbox.put(trades, live=live)
            self._reporter.on_trade(state.feed.symbol, trades[-1])

    def _start(self, state: _State, repair: Callable[[], Coroutine[None, None, None]]) -> None:
        self._stop_repair(state)
        state.repair = asyncio.create_task(repair())
        state.repair.add_done_callback(self._repaired)

    def _stop_repair(self, state: _State) -> None:
        if state.repair is not None:
            state.repair.cancel()
            state.repair = None

    def _repaired(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = self._failure or error

    async def _repair_interruption(self, state: _State) -> None:
        """After the start or a reconnection: all since the trade published last, then live."""
        feed = state.feed
        since = feed.begin_repair()
        before = state.recovered
        end_reason = None
        if since:
            self._reporter.set_state(feed.symbol, "repairing", state.down_reason)
            while True:
                end_reason = (await self._fetch(state, since)).reason
                left_s = state.subscribed_s + SETTLE_S - self._monotonic_s()
                if end_reason is not None or left_s <= 0:
                    break
                await asyncio.sleep(left_s)
                since = feed.tail
        self._resume(state)
        recovered = state.recovered - before
        if since:
            outcome = "repaired" if end_reason is None else "lost"
            self._reporter.end_gap(
                feed.symbol,
                state.subscribed_us,
                "repaired" if end_reason is None else "lost",
                recovered,
                end_reason or state.down_reason,
            )
            _log.info(outcome, symbol=feed.symbol, trades_recovered=recovered, reason=end_reason)
        self._reporter.set_state(feed.symbol, "connected", None)

    async def _repair_hole(self, state: _State) -> None:
        """Ids that should be contiguous are not: fetch those between, then go on."""
        feed = state.feed
        since = feed.begin_repair()
        until = feed.first_held()
        missing = feed.missing()
        before = state.recovered
        metrics.feed_holes.labels(self._venue.name, "found").inc()
        self._reporter.set_state(feed.symbol, "repairing", f"{missing} trade ids are missing")
        end = await self._fetch(state, since)
        self._resume(state)
        recovered = state.recovered - before
        outcome = "lost" if end.reason is not None else "repaired" if recovered else "absent"
        metrics.feed_holes.labels(self._venue.name, outcome).inc()
        if outcome != "absent" and since and until is not None:
            self._reporter.end_gap(
                feed.symbol,
                until.traded_at,
                "lost" if end.reason is not None else "repaired",
                recovered,
                end.reason or f"{missing} trade ids were missing",
                from_time=min(since[-1].traded_at, until.traded_at),
            )
        _log.info("hole in trade ids", symbol=feed.symbol, missing=missing, outcome=outcome, reason=end.reason)
        self._reporter.set_state(feed.symbol, "connected", None)

    async def _fetch(self, state: _State, since: list[Trade]) -> RepairEnd:
        """Publish what the venue has since then, up to the first live trade."""
        market = state.feed.symbol.partition(":")[2]

        async def publish(trades: list[Trade]) -> None:
            new = state.feed.on_repaired(trades)
            state.recovered += len(new)
            metrics.trades_recovered.labels(self._venue.name).inc(len(new))
            self._publish(state, new, live=False)
            await self._outbox.room(self._buffer // 2)  # a repair of hours must not fill the memory

        plan = self._venue.repair(market, since, state.feed.first_held())
        return await run_repair(self._rest, plan, publish, self._patience_s)

    def _resume(self, state: _State) -> None:
        self._publish(state, state.feed.end_repair(self._monotonic_s()), live=True)

    def _count_rejected(self, reason: str) -> None:
        self._rejections += 1
        if self._rejections <= LOGGED_REJECTIONS:
            _log.warning("frame is not readable, sent to trades.dead", venue=self._venue.name, reason=reason)

    def _count_frames(self, source: _Source) -> None:
        for outcome, count in source.frames.items():
            metrics.frames.labels(self._venue.name, outcome).inc(count)
        source.frames.clear()

    # What time brings.

    def look(self) -> None:
        """To be called every tenth of a second: holes that stay, too much in memory, metrics.

        Raises whatever a repair has failed of.
        """
        if self._failure is not None:
            raise self._failure
        now_s = self._monotonic_s()
        for state in self._states.values():
            hole = state.feed.hole
            if state.feed.mode is Mode.LIVE and hole is not None and now_s - hole.found_s > HOLE_PATIENCE_S:
                self._start(state, partial(self._repair_hole, state))
        held = self.held
        if held > self._buffer:
            _log.warning("too much is held, closing the connections until Kafka has taken it", held=held)
            for source in list(self._sources.values()):
                source.link.drop(Reason.BUFFER_FULL)
        metrics.trades_held.labels(self._venue.name).set(held)
        for source in self._sources.values():
            self._count_frames(source)
        duplicates = sum(state.feed.duplicates for state in self._states.values())
        metrics.duplicates_removed.labels(self._venue.name).inc(duplicates - self._duplicates)
        self._duplicates = duplicates

    async def stop(self, reason: str) -> None:
        """No more repairs; every symbol is reported as down."""
        repairs = [state.repair for state in self._states.values() if state.repair is not None]
        for state in self._states.values():
            self._stop_repair(state)
            self._reporter.set_state(state.feed.symbol, "down", reason)
        await asyncio.gather(*repairs, return_exceptions=True)

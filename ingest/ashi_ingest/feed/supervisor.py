"""All feeds of a process: frames become trades, feeds order them, holes and interruptions are repaired.

This is the handler of `ashi_ingest.websocket.session`: what connections do is told here, and what follows from it for
each symbol is decided here. Nothing in it waits but the repairs, each a task of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ashi.contracts.symbol import make_symbol
from ashi.runtime.logs import get_logger
from ashi.runtime.metrics import ingest as metrics
from ashi_ingest.errors import Reason
from ashi_ingest.feed.backfill import NOTHING_BEFORE, RELIEF, Backfill, SymbolState
from ashi_ingest.feed.sequencer import Mode, TradeSequencer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ashi.contracts.feed import FeedStatus
    from ashi.contracts.trade import Trade
    from ashi_ingest.feed.status import FeedReporter
    from ashi_ingest.publish.buffer import PublishBuffer
    from ashi_ingest.recording.recorder import Recorder
    from ashi_ingest.rest.client import RestClient
    from ashi_ingest.venues.base import Venue
    from ashi_ingest.venues.parsing import FrameParser
    from ashi_ingest.websocket.handler import Connection

ROOM: Final = 0.25
"""Connections that were closed because too much was held open again when this part of the bound is left."""
APART_US: Final = 1_000_000
"""The clocks of a venue and ours may be so far apart, and a frame may be on its way so long: gaps by our clock begin
earlier and end later by this, µs."""
LOGGED_REJECTIONS: Final = 20
"""More are only counted: all of them are in `trades.dead`."""

_log = get_logger(__name__)


@dataclass(slots=True)
class _Source:
    """What the process keeps of one connection: its own parser, and since when (µs) it delivers which markets.

    `last_traded_at`: of the trade that came last, in the venue's time.
    """

    connection: Connection
    parser: FrameParser
    subscribed: dict[str, int] = field(default_factory=dict)
    last_traded_at: int | None = None
    silent: bool = False
    frames: Counter[str] = field(default_factory=Counter)


class FeedSupervisor:
    """The feeds of one venue's markets in this process."""

    def __init__(
        self,
        venue: Venue,
        tails: Mapping[str, Sequence[Trade]],
        *,
        outbox: PublishBuffer,
        reporter: FeedReporter,
        rest: RestClient,
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
        self._recorder = recorder
        self._buffer = buffer
        self._now_us = now_us
        self._monotonic_s = monotonic_s
        self._states = {
            market: SymbolState(
                market,
                TradeSequencer(
                    make_symbol(venue.name, market),
                    contiguous=venue.contiguous(market),
                    ordered_ids=venue.ordered_ids,
                    tail=tail,
                ),
            )
            for market, tail in tails.items()
        }
        self._by_symbol = {state.feed.symbol: state for state in self._states.values()}
        self._sources: dict[int, _Source] = {}
        self._duplicates = 0
        self._rejections = 0
        self._mender = Backfill(
            venue,
            outbox=outbox,
            reporter=reporter,
            rest=rest,
            buffer=buffer,
            patience_s=patience_s,
            monotonic_s=monotonic_s,
            on_live=self._tell_live,
        )

    @property
    def held(self) -> int:
        """Trades in memory: behind repairs, and on their way to Kafka."""
        return self._outbox.held + sum(state.feed.held for state in self._states.values())

    @property
    def live(self) -> int:
        """How many symbols publish their trades as they come."""
        return sum(state.feed.mode is Mode.LIVE for state in self._states.values())

    def begin(self, symbol: str, status: FeedStatus | None) -> None:
        """Before any connection: what this process was not there for is a gap. `status`: what was said last of it.

        So is the time before the first start of all: the first candles are not whole.
        """
        state = self._by_symbol[symbol]
        state.down_reason = "the worker has been started"
        tail = state.feed.tail
        last = tail[-1] if tail else None
        if last is not None:
            self._reporter.on_trade(symbol, last)  # what was said last may be of a trade that Kafka never had
        self._reporter.set_state(symbol, "down", state.down_reason)
        self._reporter.open_gap(symbol, _missed_since(last, status, self._now_us()), state.down_reason)

    # What the session tells.

    async def may_connect(self) -> None:
        """Wait until there is room for what a connection will bring."""
        await self._outbox.room(int(self._buffer * ROOM))

    def on_open(self, connection: Connection) -> None:
        """A connection is open; each has a parser of its own."""
        self._sources[connection.number] = _Source(connection, self._venue.parser())
        metrics.feed_connections.labels(self._venue.name).inc()

    def on_subscribed(self, connection: Connection, markets: Sequence[str]) -> None:
        """Trades of these markets come from now on: fetch what was missed before."""
        source = self._sources[connection.number]
        for market in markets:
            state = self._states[market]
            before_us = source.subscribed.pop(market, None)
            if before_us is not None and not self._is_delivered(market):
                self._lose(state, before_us - APART_US, "the venue had refused the subscription that seemed accepted")
            source.subscribed[market] = self._now_us()
            if state.feed.mode is Mode.DOWN:  # else it is a renewal, and the connection before still delivers
                self._regain(state)
            elif state.feed.mode is Mode.LIVE:
                self._tell_live(state)

    def on_refused(self, market: str, reason: str) -> None:
        """There is no such market; the others go on. Its gap stays open, as the feed does not come back."""
        _log.error("the venue refuses a market, it is left out", venue=self._venue.name, market=market, reason=reason)
        state = self._states[market]
        self._lose(state, self._now_us() - APART_US, reason)
        self._by_symbol.pop(state.feed.symbol, None)  # a connection that is being replaced may still deliver it
        for source in self._sources.values():
            source.subscribed.pop(market, None)

    def on_frame(self, connection: Connection, frame: bytes, received_ns: int) -> bool:
        """A frame came. True when it was about trades, readable or not."""
        source = self._sources[connection.number]
        if self._recorder is not None:
            self._recorder.write(received_ns, frame)
        parsed = source.parser.parse(frame, received_ns // 1000)
        if parsed.trades:
            source.last_traded_at = parsed.trades[-1].traded_at
            self._on_trades(parsed.trades)
        if parsed.rejected:
            self._count_rejected(parsed.rejected[0].reason)
            self._outbox.reject(parsed.rejected, f"feed:{self._venue.name}/{connection.number}/{received_ns}")
            source.frames["dead"] += 1
            return True
        source.frames["trades" if parsed.trades else "skipped"] += 1
        return bool(parsed.trades)

    def on_silent(self, connection: Connection, silent: bool) -> None:
        """Nothing has come for suspiciously long, or comes again."""
        self._sources[connection.number].silent = silent
        self._tell_all_live(connection.markets)

    def on_closed(
        self, connection: Connection, reason: Reason, detail: str, last_frame_ns: int | None, *, replaced: bool
    ) -> None:
        """A connection is gone. Unless another one has taken over, its symbols are down and a gap begins."""
        source = self._sources.pop(connection.number)
        self._count_frames(source)
        metrics.feed_connections.labels(self._venue.name).dec()
        metrics.reconnects.labels(self._venue.name, reason).inc()
        if replaced:
            self._tell_all_live(connection.markets)
            return
        text = f"{reason}: {detail}" if detail else str(reason)
        since_us = (last_frame_ns // 1000 if last_frame_ns is not None else self._now_us()) - APART_US
        if source.last_traded_at is not None:
            since_us = min(since_us, source.last_traded_at)
        for market in connection.markets:
            state = self._states[market]
            self._lose(state, since_us, text)
            if self._is_delivered(market):  # by the next one, which has not all of its markets yet
                self._regain(state)

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
            return  # of a market that was refused, or that nobody subscribed to here
        self._mender.publish(state, state.feed.on_live(trades, now_s), live=True)

    def _is_delivered(self, market: str) -> bool:
        return any(market in source.subscribed for source in self._sources.values())

    def _lose(self, state: SymbolState, since_us: int, reason: str) -> None:
        """Trades of a symbol do not come any more, since then (µs)."""
        self._mender.stop(state)
        feed = state.feed
        if not feed.tail:  # nothing that a repair could begin after: keep what came
            first = feed.first_held()
            self._mender.release(state)
            if first is not None:
                self._reporter.end_gap(feed.symbol, first.traded_at, "lost", 0, NOTHING_BEFORE)
        elif feed.held or feed.mode is Mode.REPAIRING:  # there is a hole, from before the end
            since_us = min(since_us, feed.tail[-1].traded_at)
        feed.disconnected()
        state.down_reason = reason
        self._reporter.set_state(feed.symbol, "down", reason)
        self._reporter.open_gap(feed.symbol, since_us, reason)

    def _regain(self, state: SymbolState) -> None:
        """Trades of a symbol come from now on."""
        self._mender.repair_interruption(state, self._now_us() + APART_US)

    def _tell_all_live(self, markets: Sequence[str]) -> None:
        for market in markets:
            state = self._states[market]
            if state.feed.mode is Mode.LIVE:
                self._tell_live(state)

    def _tell_live(self, state: SymbolState) -> None:
        """Say that a symbol is connected; or silent, when each connection that delivers it is."""
        silent = [source.silent for source in self._sources.values() if state.market in source.subscribed]
        if silent and all(silent):
            self._reporter.set_state(state.feed.symbol, "silent", "nothing has come from the venue for long")
        else:
            self._reporter.set_state(state.feed.symbol, "connected", None)

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
        self._mender.look(self._states.values())
        if self.held > self._buffer:
            self._make_room()
        metrics.trades_held.labels(self._venue.name).set(self.held)
        for source in self._sources.values():
            self._count_frames(source)
        duplicates = sum(state.feed.duplicates for state in self._states.values())
        metrics.duplicates_removed.labels(self._venue.name).inc(duplicates - self._duplicates)
        self._duplicates = duplicates

    def _make_room(self) -> None:
        """Let go first what repairs bring again, because then no other symbol suffers."""
        held = self.held
        enough = self._buffer * RELIEF
        self._mender.let_go(self._states.values(), lambda: self.held > enough, self._now_us() + APART_US)
        if self.held > self._buffer:
            _log.warning("too much is held, closing the connections until Kafka has taken it", held=held)
            for source in list(self._sources.values()):
                source.connection.drop(Reason.BUFFER_FULL)

    async def stop(self, reason: str) -> None:
        """No more repairs; every symbol is reported as down. The gaps have begun with the ends of the connections."""
        repairs = [state.repair for state in self._states.values() if state.repair is not None]
        for state in self._by_symbol.values():
            self._mender.stop(state)
            self._reporter.set_state(state.feed.symbol, "down", reason)
        await asyncio.gather(*repairs, return_exceptions=True)


def _missed_since(last: Trade | None, status: FeedStatus | None, now_us: int) -> int:
    """Since when Kafka may lack trades, µs: by the last one it has, and by what was said last before this start."""
    said_us = now_us
    if status is not None:
        said_us = status.updated_at if status.state == "connected" else status.since
    if last is None:
        return min(said_us, now_us) - APART_US
    if status is None or status.state not in {"connected", "down"} or status.last_trade_id != last.trade_id:
        return min(last.traded_at, now_us)  # what was said does not tell what Kafka has
    late_us = max(last.received_at - last.traded_at, APART_US)
    return min(max(said_us - late_us, last.traded_at), now_us)

"""All feeds of a process: frames become trades, each goes to its symbol's feed, and what feeds miss is fetched.

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
from ashi.runtime.wall_clock import now_us
from ashi_ingest.errors import Reason
from ashi_ingest.feed.evidence.clock_watch import ClockWatch
from ashi_ingest.feed.evidence.completeness import VenueClock
from ashi_ingest.feed.repair.comparison import Comparison, Times
from ashi_ingest.feed.repair.lost_times import LostTimes, nothing_published
from ashi_ingest.feed.repair.repairs import Repairs
from ashi_ingest.feed.reporting.partner_gaps import LEFT_BEHIND
from ashi_ingest.feed.symbol.opening import CLOCK_TOLERANCE_US
from ashi_ingest.feed.symbol.sequencer import TradeSequencer
from ashi_ingest.feed.symbol.symbol_feed import SymbolFeed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence

    from ashi.contracts.feed import FeedStatus
    from ashi.contracts.trade import Trade
    from ashi_ingest.feed.reporting.status import FeedReporter
    from ashi_ingest.feed.symbol.missing import UnreceivedTrades
    from ashi_ingest.publish.backpressure import Backpressure
    from ashi_ingest.publish.buffer import PublishBuffer
    from ashi_ingest.publish.publisher import Appended
    from ashi_ingest.recording.feed_recorder import FeedRecorder
    from ashi_ingest.rest.client import RestClient
    from ashi_ingest.venues.base import Venue
    from ashi_ingest.venues.parsing import FrameParser, Rejected
    from ashi_ingest.websocket.handler import Connection

CHECK_INTERVAL_S: Final = 1.0
"""How often one looks what is known of each symbol: what comes live costs nothing for it."""
LOGGED_REJECTIONS: Final = 20
"""More are only counted: all of them are in `trades.dead`."""

_log = get_logger(__name__)


@dataclass(slots=True)
class _Source:
    """What the process keeps of one connection: its own parser, and since when (µs) it delivers which markets.

    `last`: the trade that came last; `looked_at`: the last one whose time was compared with the clocks.
    """

    connection: Connection
    parser: FrameParser
    subscribed: dict[str, int] = field(default_factory=dict)
    last: Trade | None = None
    looked_at: Trade | None = None
    silent: bool = False
    frames: Counter[str] = field(default_factory=Counter)


class FeedSupervisor:
    """The feeds of one venue's markets in this process."""

    def __init__(
        self,
        venue: Venue,
        resume_points: Mapping[str, Sequence[Trade]],
        *,
        publish_buffer: PublishBuffer,
        reporter: FeedReporter,
        rest: RestClient,
        recorder: FeedRecorder | None,
        backpressure: Backpressure,
        patience_s: float,
        now_us: Callable[[], int] = now_us,
        monotonic_s: Callable[[], float] = time.monotonic,
        published: Callable[[str, int, int], Awaitable[set[str]]] = nothing_published,
        late: Mapping[str, Sequence[Trade]] | None = None,
        comparison_times: Times | None = None,
        sleep: Callable[[float], Coroutine[None, None, None]] = asyncio.sleep,
    ) -> None:
        """`resume_points`: of each market the trades published last. `patience_s`: of repairs, see `run_repair`.

        `published`: see `LostTimes`. `late`: by symbol, what was published late among the resume points.
        """
        self._venue = venue
        self._publish_buffer = publish_buffer
        self._recorder = recorder
        self._backpressure = backpressure
        self._now_us = now_us
        self._monotonic_s = monotonic_s
        self._reporter = reporter
        reporter.on_left_behind = self._take_over
        self._clock = VenueClock()
        self._lost_times = LostTimes(
            venue,
            rest=rest,
            clock=self._clock,
            reporter=reporter,
            backpressure=backpressure,
            published=published,
            allowance_us=lambda: self._comparison.allowance_us,
            now_us=now_us,
            monotonic_s=monotonic_s,
            sleep=sleep,
        )
        self._feeds = {market: self._new_feed(market, trades) for market, trades in resume_points.items()}
        for feed in self._feeds.values():
            feed.learn_late((late or {}).get(feed.symbol, ()))
        self._by_symbol = {feed.symbol: feed for feed in self._feeds.values()}
        self._sources: dict[int, _Source] = {}
        self._duplicates = 0
        self._rejections = 0
        self._clock_watch = ClockWatch(venue.name)
        self._appended: Appended | None = None
        self._looked_s = monotonic_s()
        self._comparison = Comparison(
            venue,
            self._feeds,
            rest=rest,
            clock=self._clock,
            on_missing=self._mend,
            now_us=now_us,
            monotonic_s=monotonic_s,
            times=comparison_times or Times(),
        )
        self._repairs = Repairs(
            venue,
            rest=rest,
            backpressure=backpressure,
            patience_s=patience_s,
            monotonic_s=monotonic_s,
            now_us=now_us,
            sleep=sleep,
            clock=self._clock,
            last_ids=self._comparison.last_ids,
            allowance_us=lambda: self._comparison.allowance_us,
        )

    def _new_feed(self, market: str, resume_point: Sequence[Trade]) -> SymbolFeed:
        return SymbolFeed(
            market,
            TradeSequencer(
                make_symbol(self._venue.name, market),
                contiguous=self._venue.contiguous(market),
                ordered_ids=self._venue.ordered_ids,
                resume_point=resume_point,
            ),
            publish_buffer=self._publish_buffer,
            reporter=self._reporter,
            on_lost=self._lost_times.add,
            published=resume_point,
            clock=self._clock,
            disorder_us=round(self._venue.limits.disorder_s * 1e6),
            now_us=self._now_us,
            monotonic_s=self._monotonic_s,
        )

    @property
    def symbols(self) -> list[str]:
        """Those that are read."""
        return list(self._by_symbol)

    @property
    def held(self) -> int:
        """Trades in memory: behind repairs, and on their way to Kafka."""
        return self._publish_buffer.held + sum(feed.held for feed in self._feeds.values())

    @property
    def live(self) -> int:
        """How many symbols publish their trades as they come."""
        return sum(feed.is_live for feed in self._feeds.values())

    def begin(self, symbol: str, status: FeedStatus | None, *, is_unread: bool = False) -> None:
        """Before any connection: what this process was not there for is a gap. `status`: what was said last of it.

        `is_unread`: see `CheckedSymbol.begin`.
        """
        self._by_symbol[symbol].begin(status, is_unread=is_unread)

    def _take_over(self, symbol: str, from_us: int, until_us: int) -> None:
        feed = self._by_symbol.get(symbol)
        if feed is not None:
            feed.lose_time(from_us, until_us, LEFT_BEHIND)

    def lose_time(self, symbol: str, from_us: int, until_us: int, reason: str) -> None:
        """What had been published of this time, µs, is in topic `trades` no more."""
        self._by_symbol[symbol].lose_time(from_us, until_us, reason, is_cut=True)

    # Markets that come and go.

    def knows(self, market: str) -> bool:
        """Whether it is read, or was read before by this process."""
        return market in self._feeds

    def add(
        self,
        market: str,
        resume_point: Sequence[Trade],
        status: FeedStatus | None,
        unlisted_us: int | None = None,
        late: Sequence[Trade] = (),
        *,
        is_unread: bool = False,
    ) -> None:
        """Before any connection for it: read a market as well. For one that was read before nothing else is needed.

        `unlisted_us`, `is_unread`: see `SymbolFeed.begin`. `late`: what was published late among the resume point.
        """
        if market not in self._feeds:
            self._feeds[market] = feed = self._new_feed(market, resume_point)
            feed.learn_late(late)
            feed.begin(status, unlisted_us, is_unread=is_unread)
        self._by_symbol[self._feeds[market].symbol] = self._feeds[market]

    def remove(self, market: str, reason: str) -> None:
        """Read a market no more. No connection is for it any more, or will not be from now on."""
        feed = self._feeds[market]
        self._lose(feed, self._now_us() - CLOCK_TOLERANCE_US, reason)
        self._by_symbol.pop(feed.symbol, None)
        for source in self._sources.values():
            source.subscribed.pop(market, None)

    def set_halted(self, market: str, halted: bool) -> None:
        """Whether the venue does not trade it now. The first trade that comes ends that as well."""
        self._feeds[market].set_halted(halted)

    # What the session tells.

    async def may_connect(self) -> None:
        """Wait until there is room for what a connection will bring."""
        await self._backpressure.room_to_connect()

    def on_cannot_connect(self, markets: Sequence[str], reason: Reason, detail: str) -> None:
        """What is down stays down, for this reason."""
        for market in markets:
            self._feeds[market].explain_down(f"{reason}: {detail}")

    def on_open(self, connection: Connection) -> None:
        """A connection is open; each has a parser of its own."""
        self._sources[connection.number] = _Source(connection, self._venue.parser())
        metrics.feed_connections.labels(self._venue.name).inc()

    def on_subscribed(self, connection: Connection, markets: Sequence[str]) -> None:
        """Trades of these markets come from now on: fetch what was missed before."""
        source = self._sources[connection.number]
        for market in markets:
            feed = self._feeds[market]
            before_us = source.subscribed.pop(market, None)
            if before_us is not None and not self._is_delivered(market):
                self._lose(
                    feed,
                    before_us - CLOCK_TOLERANCE_US,
                    "the venue had refused the subscription that seemed accepted",
                )
            source.subscribed[market] = self._now_us()
            feed.set_silent(self._is_silent(market))
            if feed.is_down:  # else it is a renewal, and the connection before still delivers
                self._regain(feed)

    def on_deferred(self, connection: Connection, market: str, reason: str) -> None:
        """The venue does not accept this one for now: what is down stays down, for this reason."""
        before_us = self._sources[connection.number].subscribed.pop(market, None)
        if self._is_delivered(market):
            return
        feed = self._feeds[market]
        if before_us is None:
            feed.explain_down(reason)
        else:
            self._lose(feed, before_us - CLOCK_TOLERANCE_US, f"the subscription that seemed accepted failed: {reason}")

    def on_refused(self, market: str, reason: str) -> None:
        """There is no such market; the others go on. Its gap stays open while the feed does not come back."""
        _log.error("the venue refuses a market, it is left out", venue=self._venue.name, market=market, reason=reason)
        feed = self._feeds[market]
        self._lose(feed, self._now_us() - CLOCK_TOLERANCE_US, reason)
        self._by_symbol.pop(feed.symbol, None)  # a connection that is being replaced may still deliver it
        for source in self._sources.values():
            source.subscribed.pop(market, None)

    def on_frames(self, connection: Connection, frames: Sequence[bytes], received_ns: int) -> int:
        """Frames came, each a nanosecond after the one before. Gives how many from the first on were about trades.

        Their trades are seen to together: nobody can tell in which order the frames of one read came of two markets.
        """
        source = self._sources[connection.number]
        parse, recorder = source.parser.parse, self._recorder
        trades: list[Trade] = []
        last_of_each: list[Trade] = []
        taken = dead = 0
        for taken, frame in enumerate(frames):
            at_ns = received_ns + taken
            if recorder is not None:
                recorder.frame(connection.number, at_ns, frame)
            parsed = parse(frame, at_ns // 1000)
            if parsed.trades:
                trades += parsed.trades
                last_of_each.append(parsed.trades[-1])
            if parsed.rejected:
                self._on_trades(trades, last_of_each, source)
                trades, last_of_each = [], []
                self._on_rejected(parsed.rejected, source, at_ns)
                dead += 1
            elif not parsed.trades:
                source.frames["skipped"] += 1
                break
        else:
            taken = len(frames)
        self._on_trades(trades, last_of_each, source)
        for outcome, count in (("trades", taken - dead), ("dead", dead)):
            if count:
                source.frames[outcome] += count
        return taken

    def on_silent(self, connection: Connection, silent: bool) -> None:
        """Nothing has come for suspiciously long, or comes again."""
        self._sources[connection.number].silent = silent
        self._update_silence(connection.markets)

    def on_closed(
        self, connection: Connection, reason: Reason, detail: str, last_frame_ns: int | None, *, replaced: bool
    ) -> None:
        """A connection is gone. Unless another one has taken over, its symbols are down and a gap begins.

        The other one may not have all of them, see `on_deferred`.
        """
        source = self._sources.pop(connection.number)
        self._count_frames(source)
        metrics.feed_connections.labels(self._venue.name).dec()
        metrics.reconnects.labels(self._venue.name, reason).inc()
        text = f"{reason}: {detail}" if detail else str(reason)
        since_us = (last_frame_ns // 1000 if last_frame_ns is not None else self._now_us()) - CLOCK_TOLERANCE_US
        if source.last is not None:
            since_us = min(since_us, source.last.traded_at)
        for market in connection.markets:
            feed = self._feeds[market]
            if replaced and (self._is_delivered(market) or market not in source.subscribed):
                feed.set_silent(self._is_silent(market))
                continue
            self._lose(feed, since_us, text)
            if self._is_delivered(market):  # by the next one, which has not all of its markets yet
                feed.set_silent(self._is_silent(market))
                self._regain(feed)

    # What follows.

    def _on_trades(self, trades: list[Trade], last_of_each: Sequence[Trade], source: _Source) -> None:
        """Trades came over a connection. `last_of_each`: the last of each frame."""
        if not trades:
            return
        source.last = trades[-1]
        self._clock.on_trades(last_of_each)
        now_s = self._monotonic_s()
        symbol = trades[0].symbol
        if len(trades) == 1 or all(trade.symbol == symbol for trade in trades):
            groups = {symbol: trades}
        else:
            groups = defaultdict(list)
            for trade in trades:
                groups[trade.symbol].append(trade)
        for symbol, group in groups.items():
            feed = self._by_symbol.get(symbol)
            if feed is not None:  # else of a market that was refused, or that nobody subscribed to here
                feed.on_live(group, now_s)
                if feed.is_down:
                    source.connection.has_traded(feed.market)

    def _on_rejected(self, rejected: Sequence[Rejected], source: _Source, received_ns: int) -> None:
        """What came and cannot be published is missing. Where ids are contiguous they show that; else nothing would.

        But when the clock is wrong, REST lists the same trades with the same times, and the ids show nothing.
        """
        self._count_rejected(rejected[0].reason)
        place = f"feed:{self._venue.name}/{source.connection.number}/{received_ns}"
        self._publish_buffer.reject(rejected, place)
        received_at = received_ns // 1000
        for each in rejected:
            if each.ahead_us is not None:
                self._clock_watch.on_refused(each.ahead_us)
                self._clock.on_trade(received_at + each.ahead_us, received_at)
            feed = None if each.symbol is None else self._by_symbol.get(each.symbol)
            if feed is not None and (each.ahead_us is not None or not feed.checked.contiguous):
                feed.on_unpublishable(received_at, each.ahead_us or 0, each.reason)

    def _is_delivered(self, market: str) -> bool:
        return any(market in source.subscribed for source in self._sources.values())

    def _is_silent(self, market: str) -> bool:
        """Whether each connection that delivers it is silent."""
        silent = [source.silent for source in self._sources.values() if market in source.subscribed]
        return bool(silent) and all(silent)

    def _update_silence(self, markets: Sequence[str]) -> None:
        for market in markets:
            self._feeds[market].set_silent(self._is_silent(market))

    def _lose(self, feed: SymbolFeed, since_us: int, reason: str) -> None:
        """Trades of a symbol do not come any more, since then (µs)."""
        self._repairs.stop(feed)
        feed.go_down(since_us, reason)

    def _regain(self, feed: SymbolFeed) -> None:
        """Trades of a symbol come from now on."""
        feed.on_subscribed()
        self._comparison.last_ids.ask_soon()
        self._repairs.repair_interruption(feed)

    def _mend(self, feed: SymbolFeed, missing: UnreceivedTrades) -> None:
        """REST lists trades of a market that its connection has not brought: publish them and subscribe to it anew."""
        reason = f"{len(missing.trades)} trades that REST lists had not come"
        _log.warning("a market has lost trades, subscribing to it anew", symbol=feed.symbol, reason=reason)
        feed.publish_missing(missing, reason)
        is_mute = missing.until_us is None
        self._lose(feed, missing.since_us if is_mute else self._now_us() - CLOCK_TOLERANCE_US, reason)
        for source in list(self._sources.values()):
            if source.subscribed.pop(feed.market, None) is not None:
                source.connection.resubscribe(feed.market)

    def _count_rejected(self, reason: str) -> None:
        self._rejections += 1
        if self._rejections <= LOGGED_REJECTIONS:
            _log.warning("frame is not readable, sent to trades.dead", venue=self._venue.name, reason=reason)

    def _count_frames(self, source: _Source) -> None:
        for outcome, count in source.frames.items():
            metrics.frames.labels(self._venue.name, outcome).inc(count)
        source.frames.clear()

    # What time brings.

    async def compare(self) -> None:
        """Compare all markets with REST, for ever. Raises what fails by a mistake of ours."""
        await self._comparison.run()

    def look(self) -> None:
        """To be called every tenth of a second: holes that stay, too much in memory, metrics.

        Raises whatever a repair has failed of.
        """
        self._repairs.check()
        self._lost_times.check()
        for feed in self._feeds.values():
            if feed.has_lasting_hole:
                self._repairs.repair_hole(feed)
            if feed.before_first is not None:
                self._repairs.repair_before_first(feed, feed.before_first)
                feed.before_first = None
        now_s = self._monotonic_s()
        if now_s - self._looked_s >= CHECK_INTERVAL_S:
            self._looked_s = now_s
            self._look_what_is_known(now_s)
        held = self.held
        if self._backpressure.is_exceeded(held):
            self._make_room()
            held = self.held
        metrics.trades_held.labels(self._venue.name).set(held)
        for source in self._sources.values():
            self._count_frames(source)

    def _look_what_is_known(self, now_s: float) -> None:
        for source in self._sources.values():
            if source.last is not None and source.last is not source.looked_at:
                self._clock_watch.on_trade(source.last.traded_at, source.last.received_at)
                source.looked_at = source.last
        appended = self._publish_buffer.appended
        if appended is not None and appended is not self._appended:
            self._clock_watch.on_append(appended.at, appended.acknowledged_at)
            self._appended = appended
        self._reporter.set_warning(self._clock_watch.look(now_s))
        for feed in self._feeds.values():
            feed.look(now_s)
        duplicates = sum(feed.duplicates for feed in self._feeds.values())
        metrics.duplicates_removed.labels(self._venue.name).inc(duplicates - self._duplicates)
        self._duplicates = duplicates

    def _make_room(self) -> None:
        """Discard first what repairs bring again, because then no other symbol suffers."""
        held = self.held
        waiting = [feed for feed in self._feeds.values() if feed.may_discard and feed.held]
        for feed in sorted(waiting, key=lambda feed: feed.held, reverse=True):
            if self._backpressure.is_relieved(self.held):
                break
            feed.discard_held()
        if self._backpressure.is_exceeded(self.held):
            _log.warning("too much is held, closing the connections until Kafka has taken it", held=held)
            for source in list(self._sources.values()):
                source.connection.drop(Reason.BUFFER_FULL)

    async def stop(self, reason: str) -> None:
        """No more repairs; every symbol is reported as down. The gaps have begun with the ends of the connections."""
        for feed in self._by_symbol.values():
            feed.report_stopped(reason)
        await self.end_asking()

    async def end_asking(self) -> None:
        """No more questions to the venue; returns when all have ended. May be called again."""
        await self._repairs.stop_all()
        await self._lost_times.stop()

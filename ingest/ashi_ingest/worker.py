"""A live ingest worker: one venue, some of its markets, from the websocket to topic `trades`."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from ashi.contracts.access import INGEST
from ashi.contracts.errors import BrokerError, UsageError, VenueError
from ashi.contracts.symbol import make_symbol
from ashi.contracts.trade import EARLIEST_US
from ashi.runtime import wall_clock
from ashi.runtime.logs import get_logger
from ashi.runtime.service import StoppedError, run_service, run_until_first_ends
from ashi.runtime.spelling import closest, did_you_mean
from ashi.runtime.waiting import start_when_kafka_is_there
from ashi_ingest.feed.reporting.follower import follow_feeds
from ashi_ingest.feed.reporting.partners import new_identity
from ashi_ingest.feed.reporting.reported import read_feed
from ashi_ingest.feed.reporting.status import FeedReporter
from ashi_ingest.feed.supervisor import FeedSupervisor
from ashi_ingest.feed.symbol.checked import uncompared_since
from ashi_ingest.feed.symbol.opening import CLOCK_TOLERANCE_US
from ashi_ingest.feed.symbol.published import read_published_ids
from ashi_ingest.feed.symbol.resume import read_resume_points
from ashi_ingest.history.beginnings import Beginnings, is_to_begin
from ashi_ingest.history.progress import time_in_words
from ashi_ingest.instruments import InstrumentReporter, read_instruments
from ashi_ingest.known_venues import venue_named
from ashi_ingest.market_follower import MarketFollower
from ashi_ingest.markets import Choice, choose_markets
from ashi_ingest.publish.backpressure import Backpressure
from ashi_ingest.publish.buffer import PublishBuffer
from ashi_ingest.publish.publisher import open_publisher
from ashi_ingest.rate_limiter import RateLimiter
from ashi_ingest.recording.feed_recorder import FeedRecorder
from ashi_ingest.recording.recorder import Recorder
from ashi_ingest.rest.client import RestClient
from ashi_ingest.running_feeds import RunningFeeds
from ashi_ingest.venues.registry import VENUES
from ashi_ingest.websocket.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from ashi.contracts.feed import FeedState
    from ashi.contracts.instrument import Instrument
    from ashi.contracts.trade import Trade
    from ashi.runtime.service import Service
    from ashi.runtime.settings import Settings
    from ashi_ingest.feed.reporting.reported import ReportedFeed
    from ashi_ingest.markets import Markets
    from ashi_ingest.publish.publisher import Publisher
    from ashi_ingest.shard import Shard
    from ashi_ingest.venues.base import Venue

LOOK_INTERVAL_S: Final = 0.1
OTHERS_INTERVAL_S: Final = 1.0
NAMED: Final = 20
"""Of more markets than this an error names only the first."""
FLUSH_BOUND_S: Final = 8.0
"""How long a worker that is told to stop waits for Kafka to take what it holds."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """What a live worker reads.

    Attributes:
        venue: such as `bitflyer`.
        markets: by the venue's own names; empty for all of the venue.
        shard: the part of them that is this worker's; None for all.
        record: directory that every frame, and what REST brings, is recorded to; None for no recording.
        redundant: other workers read the same markets on purpose.
        since_us: symbols of which nothing was published begin at this time, µs; None: when the worker starts.

    """

    venue: str
    markets: Sequence[str]
    shard: Shard | None = None
    record: Path | None = None
    redundant: bool = False
    since_us: int | None = None


def run_live(settings: Settings, options: LiveOptions) -> int:
    """The command `ashi ingest VENUE MARKET…`: run until SIGTERM; gives the exit status.

    Raises UsageError when the venue is not known or a market's name cannot be one.
    """
    venue_named(options.venue)
    for market in options.markets:
        make_symbol(options.venue, market)
    if options.since_us is not None:
        _check_since(settings, options.venue, options.since_us)
    recorder = None if options.record is None else Recorder(options.record, options.venue)

    async def main(service: Service) -> None:
        try:
            await _Worker(service, options, recorder).run()
        finally:
            if recorder is not None:
                recorder.close()

    return run_service(f"ingest-{options.venue}", settings, main)


def _check_since(settings: Settings, venue: str, since_us: int) -> None:
    """Raises UsageError when nothing can begin then."""
    now_us = wall_clock.now_us()
    if not EARLIEST_US <= since_us <= now_us:
        when = "in the future" if since_us > now_us else "before any trade there is"
        raise UsageError(f"--since {time_in_words(since_us)} is {when}: write the time from which trades are wanted")
    key = VENUES[venue].api_key
    if key is not None and settings.secret(key.setting) is None:
        raise UsageError(f"{venue} gives the past only with an API key: set {key.setting}, or leave out --since")


class _Start(NamedTuple):
    """What a worker goes on from.

    Attributes:
        markets: which it reads, and which it cannot.
        resume_points: of each of those it reads, the trades published last.
        late: by symbol, what was published late among these.
        unread: the symbols of which more may have been published before these.
        beginning: those of them that begin in the past, see `ashi_ingest.history.beginnings`.
        reported: what was reported last, of the symbols of all of them.
        instruments: what was said last of the venue's markets.

    """

    markets: Markets
    resume_points: dict[str, list[Trade]]
    late: dict[str, list[Trade]]
    unread: set[str]
    beginning: list[str]
    reported: dict[str, ReportedFeed]
    instruments: dict[str, Instrument]


class _Worker:
    def __init__(self, service: Service, options: LiveOptions, recorder: Recorder | None) -> None:
        settings = service.settings
        self._service = service
        self._options = options
        self._choice = Choice(options.markets, options.shard)
        description = VENUES[options.venue]
        key = None if description.api_key is None else settings.secret(description.api_key.setting)
        self._venue: Venue = description.live(has_key=key is not None)
        self._recorder = (
            None if recorder is None else FeedRecorder(recorder, with_connections=not self._venue.ordered_ids)
        )
        self._rest = RestClient(self._venue, settings.rest_url or self._venue.limits.rest_url, key)
        self._cut: defaultdict[str, list[tuple[str, int, int, str]]] = defaultdict(list)

    async def run(self) -> None:
        """Work until the service stops. While Kafka cannot be reached at the start, it is waited for."""
        async with self._rest:
            await start_when_kafka_is_there(self._service, INGEST, self._run)

    async def _run(self, on_begun: Callable[[], None]) -> None:
        async with open_publisher(self._service.settings, self._venue.name, live=True) as publisher:
            start = await self._service.unless_stopped(self._read_start())
            on_begun()
            identity = new_identity(redundant=self._options.redundant)
            reporter = FeedReporter(
                publisher, self._venue.name, start.reported, identity=identity, on_state=self._record_state
            )
            self._leave_out(start, reporter)
            if start.markets.absent and not start.resume_points:
                with suppress(StoppedError):
                    await self._service.unless_stopped(reporter.close())
                raise self._nothing_left(start.markets.absent, start.markets.listed)
            await self._work(start, reporter, publisher)

    async def _read_start(self) -> _Start:
        """Find out what is to be read, and what was said and published of it before."""
        settings, name = self._service.settings, self._venue.name
        markets = await choose_markets(self._rest, self._venue, self._choice)
        symbols = {market: make_symbol(name, market) for market in markets.present}
        absent = [make_symbol(name, market) for market in markets.absent]
        reported = await read_feed(settings, [*symbols.values(), *absent])
        since = uncompared_since(self._venue, reported)
        late: dict[str, list[Trade]] = {}
        unread: set[str] = set()
        points = await read_resume_points(settings, symbols.values(), reported, since=since, late=late, unread=unread)
        instruments = await read_instruments(settings, name)
        resume_points = {market: points[symbol] for market, symbol in symbols.items()}
        beginning = self._beginning(resume_points, reported)
        return _Start(markets, resume_points, late, unread, beginning, reported, instruments)

    def _beginning(self, resume_points: dict[str, list[Trade]], reported: dict[str, ReportedFeed]) -> list[str]:
        """The markets that begin in the past. Of the others `--since` changes nothing, which the log says."""
        since_us = self._options.since_us
        if since_us is None:
            return []
        beginning = []
        for market, point in resume_points.items():
            symbol = make_symbol(self._venue.name, market)
            if is_to_begin(point, reported[symbol].gaps, since_us):
                beginning.append(market)
            else:
                _log.warning(
                    "trades of it have been published already, so --since is not applied to it; what lies before them "
                    f"is fetched by `ashi ingest backfill {self._venue.name} {market} --from … --to …`",
                    symbol=symbol,
                    last_traded_at=time_in_words(point[-1].traded_at),
                )
        return beginning

    def _leave_out(self, start: _Start, reporter: FeedReporter) -> None:
        for market in start.markets.absent:
            reason = f"{self._venue.name} has no such market{did_you_mean(market, start.markets.listed or ())}"
            _log.error(
                "the venue has no such market, it is left out", venue=self._venue.name, market=market, reason=reason
            )
            symbol = make_symbol(self._venue.name, market)
            reporter.set_state(symbol, "down", reason)
            status = start.reported[symbol].status
            if status is not None and status.last_traded_at is not None:  # it had
                reporter.open_gap(symbol, status.updated_at, reason)

    async def _work(self, start: _Start, reporter: FeedReporter, publisher: Publisher) -> None:
        settings = self._service.settings
        publish_buffer = PublishBuffer(publisher, self._record_fetched)
        live = {market: point for market, point in start.resume_points.items() if market not in start.beginning}
        feeds = FeedSupervisor(
            self._venue,
            live,
            publish_buffer=publish_buffer,
            reporter=reporter,
            rest=self._rest,
            recorder=self._recorder,
            backpressure=Backpressure(publish_buffer, settings.feed_buffer),
            patience_s=settings.repair_patience_us / 1e6,
            published=partial(read_published_ids, settings),
            late=start.late,
        )
        for market in live:
            symbol = make_symbol(self._venue.name, market)
            feeds.begin(symbol, start.reported[symbol].status, is_unread=symbol in start.unread)
        finish = partial(self._finish, feeds, publish_buffer, reporter)
        try:
            try:
                await self._until_stopped(start, feeds, publish_buffer, reporter, publisher)
            except VenueError as error:  # nothing is wrong with Kafka: say what happened
                await finish(f"the worker has ended: {error}")
                raise
            await finish("the worker has been stopped")
        finally:  # whatever has failed: what it asks with is closed next
            await feeds.end_asking()

    async def _finish(
        self,
        feeds: FeedSupervisor,
        publish_buffer: PublishBuffer,
        reporter: FeedReporter,
        reason: str,
    ) -> None:
        try:
            async with asyncio.timeout(FLUSH_BOUND_S):
                await feeds.stop(reason)
                await publish_buffer.empty()
                await reporter.close()
        except TimeoutError:
            raise BrokerError(
                f"Kafka at {self._service.settings.kafka_bootstrap} has not taken the last {publish_buffer.held} "
                f"trades within {FLUSH_BOUND_S:g} s; the next start fetches them from the venue"
            ) from None

    async def _until_stopped(
        self,
        start: _Start,
        feeds: FeedSupervisor,
        publish_buffer: PublishBuffer,
        reporter: FeedReporter,
        publisher: Publisher,
    ) -> None:
        """Run everything until the service stops; raise what any part of it fails of."""
        settings, limits = self._service.settings, self._venue.limits
        session = Session(
            self._venue,
            [market for market in start.markets.present if feeds.knows(market)],
            feeds,
            url=settings.websocket_url or limits.websocket_url,
            limiter=RateLimiter(limits.message_interval_s),
        )

        def hand_over(market: str, resume_point: list[Trade]) -> None:
            feeds.add(market, resume_point, None)
            for lost in self._cut.pop(market, ()):
                feeds.lose_time(*lost)
            session.add([market])

        beginnings = Beginnings(
            self._venue,
            self._options.since_us,
            rest=self._rest,
            publish_buffer=publish_buffer,
            backpressure=Backpressure(publish_buffer, settings.feed_buffer),
            reporter=reporter,
            hand_over=hand_over,
        )
        for market in start.beginning:
            beginnings.add(market, start.resume_points[market])
        follower = MarketFollower(
            self._venue,
            self._rest,
            self._choice,
            start.markets,
            feeds=RunningFeeds(
                settings, self._venue, feeds=feeds, session=session, reporter=reporter, beginnings=beginnings
            ),
            instruments=InstrumentReporter(publisher, self._venue.name, start.instruments),
        )
        try:
            await run_until_first_ends(
                self._run_sessions(session, follower, beginnings),
                beginnings.run(),
                follower.run(settings.market_list_interval_us / 1e6),
                publish_buffer.run(),
                self._look(feeds, follower, beginnings),
                feeds.compare(),
                _report(reporter),
                follow_feeds(settings, reporter),
                _look_for_others(reporter),
                self._look_for_losses(feeds, publisher, beginnings, reporter),
            )
        finally:
            await beginnings.stop("the worker has ended")

    async def _run_sessions(self, session: Session, follower: MarketFollower, beginnings: Beginnings) -> None:
        """One after the other; each ends when it has no market, as all are delisted. Raises when all are refused."""
        stopping = self._service.stopping
        while not stopping.is_set():
            await session.run(stopping)
            is_without = not session.markets and not beginnings.markets
            if follower.reading and is_without and not stopping.is_set():
                raise self._nothing_left(follower.reading)
            while not session.markets and not stopping.is_set():
                await self._service.pause(LOOK_INTERVAL_S)

    def _record_fetched(self, trades: Sequence[Trade]) -> None:
        if self._recorder is not None:
            self._recorder.fetched(trades)

    def _record_state(self, symbol: str, state: FeedState) -> None:
        if self._recorder is not None:
            self._recorder.state(symbol, state)

    def _nothing_left(self, markets: Sequence[str], listed: Iterable[str] | None = None) -> VenueError:
        named = ", ".join(markets[:NAMED]) + (f" and {len(markets) - NAMED} more" if len(markets) > NAMED else "")
        right = [name for market in markets[:NAMED] if (name := closest(market, listed or ())) is not None]
        hint = f"; did you mean {', '.join(right)}?" if right else ": correct their names"
        return VenueError(f"{self._venue.name} has none of the markets {named}{hint}")

    async def _look_for_losses(
        self, feeds: FeedSupervisor, publisher: Publisher, beginnings: Beginnings, reporter: FeedReporter
    ) -> None:
        """What Kafka had acknowledged and has no more is a gap like any other; which trades it was nobody knows.

        Of a symbol that begins in the past it is asked for when that has come to the present.
        """
        while True:
            for lost in publisher.take_losses():
                until_us = wall_clock.now_us() + CLOCK_TOLERANCE_US
                reason = f"topic trades was cut or made anew at offset {lost.begin} of {lost.end}"
                for symbol in feeds.symbols:
                    if publisher.shares(symbol, lost):
                        feeds.lose_time(symbol, lost.from_time, until_us, reason)
                for market in beginnings.markets:
                    symbol = make_symbol(self._venue.name, market)
                    if publisher.shares(symbol, lost):
                        from_us = lost.from_time
                        while reporter.has_gap(symbol, from_us):  # a gap is named by its beginning
                            from_us -= 1
                        reporter.end_gap(symbol, until_us, "lost", 0, reason, from_time=from_us)
                        self._cut[market].append((symbol, from_us, until_us, reason))
            await asyncio.sleep(LOOK_INTERVAL_S)

    async def _look(self, feeds: FeedSupervisor, follower: MarketFollower, beginnings: Beginnings) -> None:
        while True:
            feeds.look()
            self._service.health.beat()
            self._service.health.set_ready(*self._readiness(feeds, follower, beginnings))
            await asyncio.sleep(LOOK_INTERVAL_S)

    def _readiness(self, feeds: FeedSupervisor, follower: MarketFollower, beginnings: Beginnings) -> tuple[bool, str]:
        """Whether it works. A shard may have no market, as there may be more workers than markets: it is ready.

        So is one all of whose symbols are still being fetched from the past: that takes hours, and nothing is wrong.
        """
        if follower.reading:
            if beginnings.markets and not feeds.symbols:
                return True, f"{len(beginnings.markets)} symbols are being fetched from the past"
            live = feeds.live
            return live > 0, f"{live} of {len(feeds.symbols)} symbols are live"
        if self._choice.followed(self._venue.name):
            return False, "all of its markets are delisted"
        return True, "no market belongs to this shard"


async def _report(reporter: FeedReporter) -> None:
    while True:
        await reporter.flush()
        await asyncio.sleep(LOOK_INTERVAL_S)


async def _look_for_others(reporter: FeedReporter) -> None:
    while True:
        reporter.look_for_others()
        await asyncio.sleep(OTHERS_INTERVAL_S)

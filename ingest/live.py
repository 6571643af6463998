"""A live ingest worker: one venue, some of its markets, from the websocket to topic `trades`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import BrokerError, UsageError, VenueError
from ashi.contracts.symbol import make_symbol
from ashi.runtime.logs import get_logger
from ashi.runtime.service import run_service
from ingest.feeds import Feeds
from ingest.outbox import Outbox
from ingest.policy import Backoff, Pace
from ingest.publisher import open_publisher
from ingest.recorder import Recorder
from ingest.rest import Rest, RestError
from ingest.session import run_session
from ingest.shard import Shard, select
from ingest.status import FeedReporter, read_feed
from ingest.tail import read_tails
from ingest.venues import LIVE_VENUES

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from pathlib import Path

    from ashi.runtime.service import Service
    from ashi.runtime.settings import Settings
    from ingest.publisher import Publisher
    from ingest.venues.live import LiveVenue

LOOK_INTERVAL_S: Final = 0.1
MARKETS_TRIES: Final = 3
"""So often the venue is asked for its markets before the worker goes on without having checked them."""
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
        record: directory that every frame is recorded to; None for no recording.

    """

    venue: str
    markets: Sequence[str]
    shard: Shard | None = None
    record: Path | None = None


def run_live(settings: Settings, options: LiveOptions) -> int:
    """The command `ashi ingest VENUE MARKET…`: run until SIGTERM; gives the exit status.

    Raises UsageError when the venue is not known or a market's name cannot be one.
    """
    if options.venue not in LIVE_VENUES:
        raise UsageError(f"there is no venue {options.venue!r}: write one of {', '.join(LIVE_VENUES)}")
    for market in options.markets:
        make_symbol(options.venue, market)
    recorder = None if options.record is None else Recorder(options.record, options.venue)

    async def main(service: Service) -> None:
        try:
            await _Worker(service, options, recorder).run()
        finally:
            if recorder is not None:
                recorder.close()

    return run_service(f"ingest-{options.venue}", settings, main)


class _Worker:
    def __init__(self, service: Service, options: LiveOptions, recorder: Recorder | None) -> None:
        settings = service.settings
        self._service = service
        self._options = options
        self._recorder = recorder
        key = settings.binance_api_key
        self._venue: LiveVenue = LIVE_VENUES[options.venue](has_key=key is not None)
        self._rest = Rest(self._venue, settings.rest_url or self._venue.limits.rest_url, key)

    async def run(self) -> None:
        settings, venue = self._service.settings, self._venue
        async with self._rest, open_publisher(settings, venue.name, live=True) as publisher:
            markets = await self._markets()
            if self._service.stopping.is_set():
                return
            symbols = [make_symbol(venue.name, market) for market in markets]
            known = await read_feed(settings, symbols)
            tails = await read_tails(settings, symbols, known)
            reporter = FeedReporter(publisher, venue.name, known)
            outbox = Outbox(publisher)
            feeds = Feeds(
                venue,
                {market: tails[symbol] for market, symbol in zip(markets, symbols, strict=True)},
                outbox=outbox,
                reporter=reporter,
                rest=self._rest,
                recorder=self._recorder,
                buffer=settings.feed_buffer,
                patience_s=settings.repair_patience_us / 1e6,
            )
            for symbol in symbols:
                feeds.begin(symbol, known[symbol].status)
            await self._until_stopped(markets, feeds, outbox, reporter)
            await self._finish(feeds, outbox, reporter, publisher)

    async def _finish(self, feeds: Feeds, outbox: Outbox, reporter: FeedReporter, publisher: Publisher) -> None:
        try:
            async with asyncio.timeout(FLUSH_BOUND_S):
                await feeds.stop("the worker has been stopped")
                await outbox.empty()
                await reporter.flush()
                await publisher.flush()
        except TimeoutError:
            raise BrokerError(
                f"Kafka at {self._service.settings.kafka_bootstrap} has not taken the last {outbox.held} trades within "
                f"{FLUSH_BOUND_S:g} s; the next start fetches them from the venue"
            ) from None

    async def _until_stopped(
        self, markets: Sequence[str], feeds: Feeds, outbox: Outbox, reporter: FeedReporter
    ) -> None:
        """Run everything until the service stops; raise what any part of it fails of."""
        settings, limits = self._service.settings, self._venue.limits
        stopping = self._service.stopping
        sessions = run_session(
            self._venue,
            markets,
            feeds,
            url=settings.websocket_url or limits.websocket_url,
            pace=Pace(limits.message_interval_s),
            stopping=stopping,
        )
        await _until_first_ends(
            self._end_of(sessions), outbox.run(), self._look(feeds, len(markets)), _report(reporter)
        )

    async def _end_of(self, sessions: Coroutine[None, None, None]) -> None:
        await sessions
        if not self._service.stopping.is_set():
            raise VenueError(
                f"{self._venue.name} has none of the markets {', '.join(self._options.markets)}: correct their names"
            )

    async def _look(self, feeds: Feeds, symbols: int) -> None:
        while True:
            feeds.look()
            self._service.health.beat()
            live = feeds.live
            self._service.health.set_ready(live > 0, f"{live} of {symbols} symbols are live")
            await asyncio.sleep(LOOK_INTERVAL_S)

    async def _markets(self) -> list[str]:
        """The markets of this worker, those that the venue has not left out."""
        wanted = list(dict.fromkeys(self._options.markets))
        known = await self._known_markets(needed=not wanted)
        if known is not None:
            for market in [market for market in wanted if market not in known]:
                _log.error("the venue has no such market, it is left out", venue=self._venue.name, market=market)
            wanted = [market for market in wanted if market in known] if wanted else sorted(known)
        if not wanted and not self._service.stopping.is_set():
            raise VenueError(
                f"{self._venue.name} has none of the markets {', '.join(self._options.markets)}: correct their names"
            )
        if self._options.shard is None:
            return wanted
        mine = select([make_symbol(self._venue.name, market) for market in wanted], self._options.shard)
        return [symbol.partition(":")[2] for symbol in mine]

    async def _known_markets(self, *, needed: bool) -> set[str] | None:
        """What the venue lists, or None when it does not answer and the list is not needed."""
        backoff = Backoff()
        tries = 0
        while not self._service.stopping.is_set():
            self._service.health.beat()
            tries += 1
            try:
                answer = await self._rest.get(self._venue.markets_request())
                return set(self._venue.read_markets(answer.body))
            except RestError as error:
                if tries >= MARKETS_TRIES and not needed:
                    _log.warning("the venue does not list its markets, going on unchecked", reason=str(error))
                    return None
                _log.warning("the venue does not list its markets, asking again", reason=str(error))
                await asyncio.sleep(error.retry_after_s or backoff.next_s())
        return None


async def _report(reporter: FeedReporter) -> None:
    while True:
        await reporter.flush()
        await asyncio.sleep(LOOK_INTERVAL_S)


async def _until_first_ends(*parts: Coroutine[None, None, object]) -> None:
    """Run all until one ends; cancel the others. Raises what it, or one of the others, failed of."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in ended:
        task.result()

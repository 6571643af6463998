"""`ashi ingest backfill`: fetch a stretch of time, publish what topic `trades` lacks, tell `feed.gaps`.

A trade that later ones of its symbol stand before carries the header `ashi.late`, so that no worker goes on after it.
What is newer than all that was published is left to the worker that reads the symbol, if there is one. Without one it
continues the stream; but where it does not join on to it, it is late too, as the next worker has to begin where the
last one ended. What the venue could not give in between is a `lost` gap before anything newer stands in the topic: that
worker goes on after the newest.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from ashi.contracts.access import INGEST
from ashi.contracts.errors import UsageError
from ashi.contracts.feed import FEED_GAP_SCHEMA, STALE_AFTER_US, FeedGap, encode_feed
from ashi.contracts.late_gaps import is_late_gap
from ashi.contracts.symbol import make_symbol
from ashi.contracts.topics import FEED_GAPS
from ashi.contracts.trade import EARLIEST_US
from ashi.runtime import wall_clock
from ashi.runtime.kafka.cluster.access import require_access
from ashi.runtime.service import run_service
from ashi_ingest.feed.reporting.reported import read_feed, read_unrepaired
from ashi_ingest.feed.symbol.resume import read_resume_points
from ashi_ingest.history.fetch import HistoryFetch
from ashi_ingest.history.progress import Progress, in_days, time_in_words
from ashi_ingest.history.settled_gaps import Span, settle, without
from ashi_ingest.history.topic_trades import topic_trades
from ashi_ingest.known_venues import venue_named
from ashi_ingest.markets import Choice, choose_markets
from ashi_ingest.publish.publisher import open_publisher
from ashi_ingest.rest.client import RestClient
from ashi_ingest.venues.registry import VENUES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ashi.contracts.trade import Trade
    from ashi.runtime.service import Service
    from ashi.runtime.settings import Settings
    from ashi_ingest.history.topic_trades import TopicStretch
    from ashi_ingest.publish.publisher import Publisher
    from ashi_ingest.venues.base import Venue

EXIT_NOT_ALL: Final = 1
TELL_INTERVAL_S: Final = 5.0
RECENT_US: Final = 60_000_000
"""What happened so shortly ago, µs, REST may not list yet, and a worker may be publishing: it is not fetched."""


@dataclass(frozen=True, slots=True)
class BackfillOptions:
    """What is to be fetched: markets of a venue, from when (inclusive) to when (exclusive; None: a minute ago), µs."""

    venue: str
    markets: Sequence[str]
    from_us: int
    to_us: int | None = None


class _Outcome(NamedTuple):
    """What has become of a market; `reason`: why some of it is missing."""

    symbol: str
    reason: str | None


def run_backfill(settings: Settings, options: BackfillOptions, tell: Callable[[str], None]) -> int:
    """The command `ashi ingest backfill`; gives the exit status: 0 when everything was got, else 1.

    `tell` gets a line of text now and then: what is done, how long it will take, what has come of it.

    Raises:
        UsageError: the venue is not known, or the time is none that can be fetched.

    """
    newest_us = wall_clock.now_us() - RECENT_US
    check_stretch(options, newest_us)
    to_us = newest_us if options.to_us is None else min(options.to_us, newest_us)
    outcomes: list[_Outcome] = []

    async def main(service: Service) -> None:
        await _run(service, options, Span(options.from_us, to_us), tell, outcomes)

    status = run_service("ingest-backfill", settings, main)
    missing = [outcome for outcome in outcomes if outcome.reason is not None]
    return EXIT_NOT_ALL if status == 0 and (missing or len(outcomes) < len(set(options.markets))) else status


def check_stretch(options: BackfillOptions, newest_us: int) -> None:
    """Raise UsageError unless it can be fetched; what happened after `newest_us`, µs, can not."""
    venue_named(options.venue)
    if not options.markets:
        raise UsageError("name the markets to fetch")
    for market in options.markets:
        make_symbol(options.venue, market)
    to_us = newest_us if options.to_us is None else options.to_us
    if options.from_us < EARLIEST_US:
        raise UsageError(f"--from {time_in_words(options.from_us)} is before any trade there is")
    if options.from_us >= min(to_us, newest_us):
        raise UsageError(
            f"from {time_in_words(options.from_us)} to {time_in_words(to_us)} is not a time in the past: --from must "
            "be before --to, and more than a minute ago"
        )


async def _run(
    service: Service, options: BackfillOptions, stretch: Span, tell: Callable[[str], None], outcomes: list[_Outcome]
) -> None:
    settings = service.settings
    description = VENUES[options.venue]
    key = None if description.api_key is None else settings.secret(description.api_key.setting)
    venue = description.live(has_key=key is not None)
    await require_access(settings, INGEST)
    async with (
        RestClient(venue, settings.rest_url or venue.limits.rest_url, key) as rest,
        open_publisher(settings, venue.name) as publisher,
    ):
        markets = await service.unless_stopped(choose_markets(rest, venue, Choice(options.markets, None)))
        if markets.absent:
            raise UsageError(f"{venue.name} has no market {', '.join(markets.absent)}: correct the name")
        service.health.set_ready(True, "fetching")
        for market in markets.present:
            fetch = _Market(settings, venue, market, stretch, rest=rest, publisher=publisher, tell=tell)
            outcomes.append(await fetch.run(service.stopping))
            if service.stopping.is_set():
                return


class _Market:
    """The stretch of one market."""

    def __init__(
        self,
        settings: Settings,
        venue: Venue,
        market: str,
        stretch: Span,
        *,
        rest: RestClient,
        publisher: Publisher,
        tell: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._venue = venue
        self._symbol = make_symbol(venue.name, market)
        self._stretch = stretch
        self._publisher = publisher
        self._tell = tell
        self._patience_s = settings.repair_patience_us / 1e6
        self._progress = Progress(*stretch)
        self._gaps: list[FeedGap] = []
        self._told: dict[int, FeedGap] = {}  # by its number, what is missing before trades that continue the stream
        self._streamed_us: int | None = None  # when the trade had happened that they go on after
        self._recovered: dict[int, int] = {}
        self._is_read = False
        self._left = 0
        self._topic: TopicStretch | None = None
        self._handing_over: asyncio.Future[None] | None = None
        self._fetch = HistoryFetch(
            venue, market, stretch.from_us, rest=rest, publish=self._publish, progress=self._progress
        )
        self._market = market

    async def run(self, stopping: asyncio.Event) -> _Outcome:
        """Fetch until all is there, the venue's patience has ended, or the process is told to stop; then tell."""
        symbol, stretch = self._symbol, self._stretch
        self._tell(
            f"{symbol}: from {time_in_words(stretch.from_us)} to {time_in_words(stretch.to_us)}, "
            f"{in_days(stretch.to_us - stretch.from_us)}"
        )
        reported = (await read_feed(self._settings, [symbol]))[symbol]
        status = reported.status
        now_us = wall_clock.now_us()
        self._is_read = status is not None and status.state != "down" and status.updated_at > now_us - STALE_AFTER_US
        self._gaps = await self._unrepaired()
        points = await read_resume_points(self._settings, [symbol], {symbol: reported})
        self._fetch.known = points[symbol]
        newest = max(points[symbol], key=lambda trade: (trade.traded_at, trade.sequence), default=None)
        async with topic_trades(
            self._settings, self._venue, self._market, symbol, stretch=stretch, newest=newest
        ) as topic:
            self._topic = topic
            self._streamed_us = None if topic.newest is None else topic.newest.traded_at
            reason = await self._until_stopped(stopping)
            await self._publisher.flush()
        await self._tell_gaps()
        reason = "; ".join(filter(None, (reason, *(short.reason for short in self._fetch.shorts)))) or None
        left = f", {self._left:,} newer ones left to the worker that reads it" if self._left else ""
        outcome = "all of it is there" if reason is None else f"not all of it could be got: {reason}"
        self._tell(
            f"{symbol}: {outcome}. {self._progress.trades:,} trades, {self._progress.published:,} of them new"
            f"{left}, {self._progress.requests:,} requests"
        )
        return _Outcome(symbol, reason)

    async def _until_stopped(self, stopping: asyncio.Event) -> str | None:
        """Why the rest could not be got; None: it could."""
        fetching = asyncio.create_task(self._fetch.run(self._stretch.to_us, patience_s=self._patience_s))
        stopped = asyncio.create_task(stopping.wait())
        try:
            while not fetching.done() and not stopped.done():
                await asyncio.wait({fetching, stopped}, timeout=TELL_INTERVAL_S, return_when=asyncio.FIRST_COMPLETED)
                if not fetching.done() and not stopped.done():
                    self._tell(f"{self._symbol}: {self._progress.in_words(time.monotonic())}")
            if fetching.done():
                return fetching.result()
            return "it was told to stop; the same command goes on where it was"
        finally:
            for task in (fetching, stopped):
                task.cancel()
            await asyncio.gather(fetching, stopped, return_exceptions=True)
            if self._handing_over is not None:  # what is half handed over goes out whole
                await self._handing_over

    async def _publish(self, trades: list[Trade]) -> None:
        """Publish what the topic lacks as it is now."""
        topic = self._topic
        assert topic is not None  # noqa: S101
        await topic.read_on()
        late: list[Trade] = []
        fresh: list[Trade] = []
        for trade in trades:
            if trade in topic:
                continue
            if not topic.is_after_newest(trade):
                late.append(trade)
            elif self._is_read:
                self._left += 1
            elif topic.newest is None or self._stretch.from_us <= topic.newest.traded_at:
                fresh.append(trade)
                topic.note(trade, late=False)
            else:
                late.append(trade)
        if fresh:
            await self._tell_shorts()
        self._handing_over = asyncio.ensure_future(self._hand_over(late, fresh))
        await asyncio.shield(self._handing_over)

    async def _hand_over(self, late: list[Trade], fresh: list[Trade]) -> None:
        await self._publisher.publish(late, late=True)
        await self._publisher.publish(fresh)
        await self._publisher.send_batches()
        topic = self._topic
        assert topic is not None  # noqa: S101
        for trade in late:
            topic.note(trade, late=True)
        self._progress.published += len(late) + len(fresh)
        for gap in self._gaps:
            end_us = gap.to_time or self._stretch.to_us
            within = sum(gap.from_time <= trade.traded_at < end_us for trade in (*late, *fresh))
            self._recovered[gap.from_time] = self._recovered.get(gap.from_time, 0) + within

    async def _tell_shorts(self) -> None:
        """Tell what is not to be had between the stream as it was and the trades that continue it now."""
        disorder_us = round(self._venue.limits.disorder_s * 1e6)
        begin_us = self._stretch.from_us if self._streamed_us is None else self._streamed_us - disorder_us
        is_news = False
        for number, short in enumerate(self._fetch.shorts):
            from_us, to_us = max(short.from_us, begin_us), short.to_us + disorder_us
            told = self._told.get(number)
            if to_us <= begin_us or (told is not None and (told.to_time or 0) >= to_us):
                continue
            if told is not None:
                from_us = told.from_time
            names = {gap.from_time for gap in (*self._gaps, *self._told.values())}
            while told is None and from_us in names:  # a gap is named by its beginning
                from_us -= 1
            gap = FeedGap(self._symbol, from_us, to_us, "lost", 0, short.reason, wall_clock.now_us(), short.final)
            await self._publisher.announce(FEED_GAPS, self._symbol, encode_feed(gap), FEED_GAP_SCHEMA)
            self._told[number] = gap
            is_news = True
        if is_news:
            await self._publisher.flush()

    async def _unrepaired(self) -> list[FeedGap]:
        """The gaps of what was not published. Of what came too late for its candles, `ashi rebuild` ends those."""
        gaps = (await read_unrepaired(self._settings, [self._symbol]))[self._symbol]
        return [gap for gap in gaps if not is_late_gap(gap)]

    async def _tell_gaps(self) -> None:
        """Tell what is known now, and not before all that was published stands in the topic."""
        known = [Span(self._stretch.from_us, min(self._fetch.handed_on_until, self._stretch.to_us))]
        for short in self._fetch.shorts:
            known = without(known, Span(short.from_us, short.to_us))
        gaps = await self._unrepaired()
        settled = settle(
            gaps, known, self._recovered, now_us=wall_clock.now_us(), reason="fetched by `ashi ingest backfill`"
        )
        for gap in settled:
            await self._publisher.announce(FEED_GAPS, self._symbol, encode_feed(gap), FEED_GAP_SCHEMA)
        await self._publisher.flush()
        repaired = sum(gap.state == "repaired" for gap in settled)
        if settled:
            self._tell(f"{self._symbol}: {repaired} gaps are repaired")

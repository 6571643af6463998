"""A market of a live connection goes mute, or loses one frame: the real feeds of each venue against the simulator."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from checked_world import Kafka, Topics

from ashi.contracts.feed import FeedGap, decode_feed_gap
from ashi.contracts.symbol import make_symbol
from ashi.runtime.settings import Secret
from ashi_ingest.feed.comparison import Times
from ashi_ingest.feed.reported import ReportedFeed
from ashi_ingest.feed.status import FeedReporter
from ashi_ingest.feed.supervisor import FeedSupervisor
from ashi_ingest.publish.backpressure import Backpressure
from ashi_ingest.rate_limiter import RateLimiter
from ashi_ingest.rest.client import RestClient
from ashi_ingest.venues.registry import VENUES
from ashi_ingest.websocket.session import Session
from ashi_simulator import Simulator

MARKETS = {
    "bitflyer": ("BTC_JPY", "FX_BTC_JPY", "ETH_JPY"),
    "gmo": ("BTC", "BTC_JPY"),
    "binance": ("BTCUSDT", "ETHUSDT"),
    "binance-usdm": ("BTCUSDT", "ETHUSDT"),
}
QUICK = Times(grace_s=1.0, interval_s=1.0, quiet_s=1.0, statement_s=2.0, suspicion_s=3.0, tick_s=0.1)
WITHIN_S = 12.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


class AllTopics(Topics):
    """Of all symbols the gaps, by symbol and beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.all: dict[tuple[str, int], FeedGap] = {}

    async def announce(
        self, topic: str, key: str, value: bytes, schema: str, on_acknowledged: Callable[[], None] = lambda: None
    ) -> None:
        on_acknowledged()
        if topic == "feed.gaps":
            gap = decode_feed_gap(value)
            self.all[gap.symbol, gap.from_time] = gap

    def of_comparisons(self) -> list[FeedGap]:
        return [gap for gap in self.all.values() if "REST lists" in gap.reason]


class Feeds:
    """The feeds of a venue, read from a simulator, without Kafka."""

    def __init__(self, simulator: Simulator, venue: str) -> None:
        self.simulator = simulator
        self.kafka = Kafka()
        self.topics = AllTopics()
        self.venue = VENUES[venue].live(has_key=True)
        symbols = [make_symbol(venue, market) for market in MARKETS[venue]]
        stand_in: Callable[[Any], Any] = lambda fake: fake  # noqa: E731
        self.reporter = FeedReporter(stand_in(self.topics), venue, {each: ReportedFeed(None, ()) for each in symbols})
        self.rest = RestClient(self.venue, simulator.rest_url, Secret("a-key-the-simulator-takes"))
        self.feeds = FeedSupervisor(
            self.venue,
            {market: [] for market in MARKETS[venue]},
            publish_buffer=stand_in(self.kafka),
            reporter=self.reporter,
            rest=self.rest,
            recorder=None,
            backpressure=Backpressure(stand_in(self.kafka), 100_000),
            patience_s=30.0,
            comparison_times=QUICK,
        )
        for symbol in symbols:
            self.feeds.begin(symbol, None)

    @asynccontextmanager
    async def running(self):
        session = Session(
            self.venue,
            MARKETS[self.venue.name],
            self.feeds,
            url=self.simulator.websocket_url,
            limiter=RateLimiter(self.venue.limits.message_interval_s),
        )
        stopping = asyncio.Event()

        async def look() -> None:
            while True:
                self.feeds.look()
                await self.reporter.flush()
                await asyncio.sleep(0.05)

        async with self.rest:
            tasks = [asyncio.create_task(part) for part in (session.run(stopping), look(), self.feeds.compare())]
            try:
                await self.simulator.wait_subscribed()
                yield
            finally:
                stopping.set()
                for task in tasks[1:]:
                    task.cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
                await self.feeds.stop("the test ends")
        assert all(isinstance(each, asyncio.CancelledError | None) for each in results), results

    def missing(self) -> list[str]:
        truth = Counter((trade.symbol, trade.trade_id) for trade in self.simulator.truth())
        published = Counter((trade.symbol, trade.trade_id) for trade in self.kafka.trades)
        assert max(published.values()) == 1
        assert not published - truth
        return [trade_id for _, trade_id in truth - published]

    def of_market(self, market: str) -> int:
        return sum(trade.symbol.endswith(f":{market}") for trade in self.kafka.trades)


async def until(condition: Callable[[], bool], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def at_each_venue(play: Callable[[Feeds], Awaitable[None]], venues: tuple[str, ...]) -> None:
    """All at once: they wait more than they compute."""

    async def at(venue: str) -> None:
        async with Simulator(venue, MARKETS[venue], seed=4, rate=10) as simulator:
            feeds = Feeds(simulator, venue)
            async with feeds.running():
                simulator.start_market()
                await until(lambda: all(feeds.of_market(market) > 5 for market in MARKETS[venue]), 30)
                await play(feeds)
                await simulator.stop_market()
                await until(lambda: not feeds.missing(), 10)

    async def all_of_them() -> None:
        async with asyncio.TaskGroup() as group:
            for venue in venues:
                group.create_task(at(venue))

    asyncio.run(all_of_them())


def test_a_market_that_goes_mute_is_found_and_subscribed_anew_and_its_neighbours_notice_nothing():
    async def play(feeds: Feeds) -> None:
        name = feeds.venue.name
        market = MARKETS[name][0]
        feeds.simulator.fault("mute", market=market)
        await until(lambda: bool(feeds.topics.of_comparisons()), WITHIN_S)
        (gap,) = feeds.topics.of_comparisons()
        await until(lambda: feeds.topics.all[gap.symbol, gap.from_time].state == "repaired", WITHIN_S)
        assert gap.symbol == make_symbol(name, market)
        assert feeds.topics.all[gap.symbol, gap.from_time].trades_recovered > 0
        seen = feeds.of_market(market)
        await until(lambda: feeds.of_market(market) > seen + 5, WITHIN_S)
        (only,) = feeds.topics.of_comparisons()
        assert only.from_time == gap.from_time
        begun = {symbol for symbol, _ in feeds.topics.all} - {gap.symbol}
        told = [symbol for symbol, _ in feeds.topics.all]
        assert all(told.count(symbol) == 2 for symbol in begun), "before their start, and at it"

    at_each_venue(play, tuple(MARKETS))


def test_one_lost_frame_of_a_market_without_contiguous_ids_is_found():
    async def play(feeds: Feeds) -> None:
        name = feeds.venue.name
        market = MARKETS[name][0]
        feeds.simulator.fault("lose", market=market)
        await until(lambda: bool(feeds.topics.of_comparisons()), 2 * WITHIN_S)
        gap = feeds.topics.of_comparisons()[0]
        assert gap.symbol == make_symbol(name, market)
        assert gap.trades_recovered >= 1

    at_each_venue(play, ("bitflyer", "gmo"))

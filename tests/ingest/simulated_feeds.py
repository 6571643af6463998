"""The real feeds of a venue's markets, read from the simulator, without Kafka; comparisons are quick."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from checked_world import Topics

from ashi.contracts.feed import FeedGap, decode_feed_gap
from ashi.contracts.symbol import make_symbol
from ashi.runtime.settings import Secret
from ashi_ingest.feed.repair.comparison import Times
from ashi_ingest.feed.reporting.reported import ReportedFeed
from ashi_ingest.feed.reporting.status import FeedReporter
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


class SimulatedFeeds:
    """The feeds of a venue. What they publish goes to `publish_buffer`, what they tell to `topics`."""

    def __init__(
        self, simulator: Simulator, venue: str, publish_buffer: Any, recorder: Any = None, **reporting: Any
    ) -> None:
        self.simulator = simulator
        self.topics = AllTopics()
        self.venue = VENUES[venue].live(has_key=True)
        self.markets = MARKETS[venue]
        symbols = [make_symbol(venue, market) for market in self.markets]
        stand_in: Callable[[Any], Any] = lambda fake: fake  # noqa: E731
        nothing = {each: ReportedFeed(None, ()) for each in symbols}
        self.reporter = FeedReporter(stand_in(self.topics), venue, nothing, **reporting)
        self.rest = RestClient(self.venue, simulator.rest_url, Secret("a-key-the-simulator-takes"))
        self.feeds = FeedSupervisor(
            self.venue,
            {market: [] for market in self.markets},
            publish_buffer=publish_buffer,
            reporter=self.reporter,
            rest=self.rest,
            recorder=recorder,
            backpressure=Backpressure(publish_buffer, 100_000),
            patience_s=30.0,
            comparison_times=QUICK,
        )
        for symbol in symbols:
            self.feeds.begin(symbol, None)

    @asynccontextmanager
    async def running(self, *others: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """All that a worker runs for them, and `others`, from when all markets are subscribed to."""
        session = Session(
            self.venue,
            self.markets,
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
            parts = (session.run(stopping), look(), self.feeds.compare(), *others)
            tasks = [asyncio.create_task(part) for part in parts]
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


async def until(condition: Callable[[], bool], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)

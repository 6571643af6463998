"""A market of a live connection goes mute, or loses one frame: the real feeds of each venue against the simulator."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from checked_world import Kafka
from simulated_feeds import MARKETS, SimulatedFeeds, until

from ashi.contracts.symbol import make_symbol
from ashi_simulator import Simulator

WITHIN_S = 12.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


class Feeds(SimulatedFeeds):
    """The feeds of a venue, and what they have published."""

    def __init__(self, simulator: Simulator, venue: str) -> None:
        self.kafka = Kafka()
        super().__init__(simulator, venue, self.kafka)

    def missing(self) -> list[str]:
        truth = Counter((trade.symbol, trade.trade_id) for trade in self.simulator.truth())
        published = Counter((trade.symbol, trade.trade_id) for trade in self.kafka.trades)
        assert max(published.values()) == 1
        assert not published - truth
        return [trade_id for _, trade_id in truth - published]

    def of_market(self, market: str) -> int:
        return sum(trade.symbol.endswith(f":{market}") for trade in self.kafka.trades)


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

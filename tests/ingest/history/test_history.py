"""A stretch of time is fetched from servers: the simulated venues, and those written from the documentation alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from ashi.contracts.trade import Trade
from ashi.runtime.settings.declare import Secret
from ashi_ingest.feed.repair.repair_plan import run_repair
from ashi_ingest.rest.client import RestClient
from ashi_ingest.venues.base import RepairEnd
from ashi_ingest.venues.bitflyer import repair as bitflyer_repair
from ashi_ingest.venues.registry import VENUES
from ashi_simulator import RULES, Simulator
from outside_venue.server import Venue as OutsideVenue

pytestmark = pytest.mark.slow

DAY_US = 86_400_000_000
MARKETS = {"bitflyer": "FX_BTC_JPY", "gmo": "BTC_JPY", "binance": "BTCUSDT", "binance-usdm": "BTCUSDT"}
TRADES = 1500

Row = tuple[Any, ...]


def row(trade: Any) -> Row:
    return trade.trade_id, trade.price, trade.size, trade.side, trade.traded_at, trade.sequence


async def fetch(venue: str, url: str, since_us: int, until_us: int | None) -> tuple[list[Trade], RepairEnd]:
    """By the real client, but for its pace."""
    live = VENUES[venue].live(has_key=True)
    limits = replace(live.limits, request_interval_s=0.0, address_weight=None)
    asked: Any = SimpleNamespace(name=venue, limits=limits)
    trades: list[Trade] = []

    async def publish(found: list[Trade]) -> None:
        trades.extend(found)

    async with RestClient(asked, url, Secret("k")) as rest:
        end = await run_repair(rest, live.history(MARKETS[venue], since_us, until_us), publish, 5.0)
    within = [each for each in trades if since_us <= each.traded_at and (until_us is None or each.traded_at < until_us)]
    return within, end


@contextlib.asynccontextmanager
async def traded(venue: str, **rules: Any) -> AsyncIterator[Simulator]:
    allowed = replace(RULES[venue], rest_weight=None, **rules)
    async with Simulator(venue, [MARKETS[venue], "ETH_JPY"], rate=6000.0, rules=allowed) as sim:
        sim.start_market()
        while sim.trades < 2 * TRADES:  # noqa: ASYNC110  (the market trades by itself)
            await asyncio.sleep(0.01)
        await sim.stop_market()
        yield sim


@pytest.mark.parametrize("venue", MARKETS)
def test_the_stretches_of_a_simulated_venue_are_what_it_traded(venue: str) -> None:
    async def run() -> None:
        async with asyncio.timeout(60), traded(venue) as sim:
            truth = sim.truth(markets=[MARKETS[venue]])
            times = sorted(each.traded_at for each in truth)
            for since, until in ((40, None), (len(times) // 3, 2 * len(times) // 3), (len(times) - 700, -1)):
                since_us, until_us = times[since], None if until is None else times[until]
                trades, end = await fetch(venue, sim.rest_url, since_us, until_us)
                assert [row(each) for each in trades] == [
                    row(each)
                    for each in truth
                    if since_us <= each.traded_at and (until_us is None or each.traded_at < until_us)
                ]
                assert end.reason is None

    asyncio.run(run())


@pytest.mark.parametrize("venue", [venue for venue, rules in RULES.items() if rules.history_s is not None])
def test_a_venue_that_refuses_to_go_back_so_far_gives_what_it_has(venue: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with asyncio.timeout(60), traded(venue, history_s=1000.0) as sim:
            truth = sim.truth(markets=[MARKETS[venue]])
            oldest_us = truth[len(truth) // 4].traded_at
            monkeypatch.setattr(sim._exchange, "told_time", lambda: (oldest_us + 1_000_000_000) * 10)
            monkeypatch.setattr(bitflyer_repair, "RECENT_US", -DAY_US)  # what it does not list is a month old
            trades, end = await fetch(venue, sim.rest_url, truth[0].traded_at, None)
            assert end.beyond_reach
            assert [row(each) for each in trades] == [row(each) for each in truth[-len(trades) :]]
            assert trades[0].traded_at - oldest_us == pytest.approx(0, abs=10_000)

    asyncio.run(run())


@pytest.mark.parametrize("venue", MARKETS)
def test_the_stretch_of_a_venue_that_others_wrote_is_what_it_traded(venue: str) -> None:
    async def run() -> None:
        outside = OutsideVenue(venue, {MARKETS[venue]: 0.0})
        await outside.start()
        try:
            for _ in range(900):
                outside.push(MARKETS[venue], 3)
                await asyncio.sleep(0.001)
            truth = outside.truth.markets[MARKETS[venue]].trades
            since_us = truth[600].at_us // 1000 * 1000
            trades, end = await fetch(venue, f"http://127.0.0.1:{outside.port}", since_us, None)
        finally:
            await outside.close()
        wanted = [each for each in truth if each.at_us // 1000 * 1000 >= since_us]
        told: Callable[[Any], Row] = lambda each: (Decimal(each.price), Decimal(each.size), each.at_us // 1000 * 1000)  # noqa: E731
        assert [(each.price, each.size, each.traded_at) for each in trades] == [told(each) for each in wanted]
        assert end.reason is None

    asyncio.run(asyncio.wait_for(run(), 60))

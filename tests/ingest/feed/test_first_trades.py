"""Markets of which nothing was ever published: from the start of the worker on they are asked for by time."""

from __future__ import annotations

import pytest
from rehearsal import Rehearsal

from ashi_simulator import RULES

pytestmark = pytest.mark.slow

MARKETS = {
    "bitflyer": ("BTC_JPY", "FX_BTC_JPY", "ETH_JPY"),
    "gmo": ("BTC", "BTC_JPY", "ETH_JPY"),
    "binance": ("BTCUSDT", "ETHUSDT", "BNBUSDT"),
    "binance-usdm": ("BTCUSDT", "ETHUSDT", "BNBUSDT"),
}
FOUND_S = 60.0

each_venue = pytest.mark.parametrize("venue", MARKETS)


def test_every_venue_is_tried() -> None:
    assert set(MARKETS) == set(RULES)


def rehearsal(venue: str, rate: float = 2.0) -> Rehearsal:
    return Rehearsal(venue, MARKETS[venue], rate=rate)


def assert_whole(run: Rehearsal) -> None:
    run.assert_told_the_truth()
    run.assert_all_is_known()
    for symbol in run.reader.symbols.values():
        unrepaired = [gap for gap in symbol.gaps.values() if gap.state != "repaired" and "stopped" not in gap.reason]
        assert [gap.final for gap in unrepaired] == [False], unrepaired
        assert unrepaired[0].to_time is not None
        assert unrepaired[0].to_time <= run.began_us + 2_000_000, "only the time before the first start is lost"


@each_venue
def test_first_trades_that_were_lost_on_the_way_are_fetched(venue: str) -> None:
    async def act(run: Rehearsal) -> None:
        for market in run.markets:
            run.fault("mute", market=market, seconds=12.0)
        await run.pause(60)

    assert_whole(rehearsal(venue).run(act))


@each_venue
def test_a_market_that_is_mute_from_its_first_subscription_on_is_found(venue: str) -> None:
    async def act(run: Rehearsal) -> None:
        market = run.markets[0]
        run.fault("mute", market=market)
        await run.until(lambda: bool(run.reader.symbols[run.symbol(market)].published), FOUND_S)
        await run.until(run.is_whole(market), 20)
        assert run.sim.limits()["connections"] == 1
        await run.pause(30)

    assert_whole(rehearsal(venue).run(act))


@each_venue
def test_what_was_traded_in_an_interruption_before_the_first_trade_that_came_is_fetched(venue: str) -> None:
    async def act(run: Rehearsal) -> None:
        run.fault("silence", seconds=8.0)
        await run.pause(60)

    assert_whole(rehearsal(venue).run(act))

"""Holes in ids and gaps, fetched over a REST interface that lags, fails or lists nothing."""

from __future__ import annotations

import pytest
from supervised_feeds import (
    HOLD_S,
    PATIENCE_S,
    SHARED,
    SPOT,
    FakeConnection,
    T,
    at,
    hole,
    live_connection,
    play,
    trades,
)

from ashi_ingest.feed.evidence.completeness import lag_allowance_us
from ashi_ingest.feed.repair import comparison as comparison_module
from ashi_ingest.feed.symbol.symbol_feed import HOLE_PATIENCE_S
from ashi_ingest.rest.client import RestError

pytestmark = pytest.mark.usefixtures("believed_at_once")


# Holes.


def test_a_hole_is_fetched_and_told_with_what_was_missing_only():
    async def scenario(world):
        connection = await live_connection(world, SPOT)
        world.happen(SPOT, 11, 12, 13, 14, 15)
        await hole(world, connection, 13, 14)
        assert world.ids() == [11, 12, 13, 14, 15]
        gap = world.gaps()[0]
        assert (gap.from_time, gap.to_time, gap.state, gap.trades_recovered) == (at(10), at(13), "repaired", 2)
        assert world.state() == "connected"
        assert connection.deliver(SPOT, 15, 16)
        assert world.ids()[-1] == 16

    play(scenario, {SPOT: trades(SPOT, 10)})


def test_a_hole_that_the_venue_has_not_either_is_no_gap():
    """What the answer has beside it came live, and was not missing."""

    async def scenario(world):
        connection = await live_connection(world, SPOT)
        world.happen(SPOT, 13, 14, 15)
        await hole(world, connection, 13, 14)
        assert world.ids() == [13, 14, 15]
        assert world.outcomes() == [("repaired", 0)]  # of the start

    play(scenario, {SPOT: trades(SPOT, 10)})


def test_a_hole_that_cannot_be_fetched_is_open_then_lost_and_the_feed_goes_on():
    async def scenario(world):
        connection = await live_connection(world, SPOT)
        world.rest.failure = RestError("no", None)
        await hole(world, connection, 12)
        assert world.ids() == []
        assert world.state() == "repairing"
        await world.pass_by(HOLD_S)
        assert world.ids() == [12]
        gap = world.gaps()[0]
        assert (gap.state, gap.from_time, gap.to_time, gap.reason) == ("open", at(10), at(12) + 1, "no")
        assert world.state() == "connected"
        connection.deliver(SPOT, 13)
        assert world.ids() == [12, 13]
        await world.pass_by(PATIENCE_S)
        assert world.outcomes()[0] == ("lost", 0)

    play(scenario, {SPOT: trades(SPOT, 10)})


def test_a_lost_hole_stays_lost_when_one_in_the_same_millisecond_is_repaired(monkeypatch):
    monkeypatch.setattr("supervised_feeds.at", lambda number: T)

    async def scenario(world):
        connection = await live_connection(world, SPOT)
        world.rest.failure = RestError("no", None)
        await hole(world, connection, 12)
        await world.pass_by(HOLD_S + PATIENCE_S)
        world.rest.failure = None
        world.happen(SPOT, 12, 13, 14)
        await hole(world, connection, 14)
        assert world.ids() == [12, 13, 14]
        assert [gap.state for gap in world.gaps() if gap.reason != "the worker has been started"] == [
            "lost",
            "repaired",
        ]

    play(scenario, {SPOT: trades(SPOT, 10)})


def test_a_hole_that_fills_just_before_its_repair_is_none():
    async def scenario(world):
        connection = await live_connection(world, SPOT)
        connection.deliver(SPOT, 12)
        world.later(HOLE_PATIENCE_S + 0.1)
        asked = len(world.rest.asked)
        world.look()
        connection.deliver(SPOT, 11)
        await world.settle()
        assert world.ids() == [11, 12]
        assert len(world.rest.asked) == asked
        assert [gap.state for gap in world.gaps()] == ["repaired"]

    play(scenario, {SPOT: trades(SPOT, 10)})


def test_a_connection_that_ends_with_a_hole_has_a_gap_that_covers_the_hole():
    async def scenario(world):
        connection = await live_connection(world, SPOT)
        connection.deliver(SPOT, 11)
        world.later()
        connection.deliver(SPOT, 13)
        connection.close()
        await world.settle()
        gap = world.gaps()[-1]
        assert (gap.state, gap.from_time) == ("open", at(11))

    play(scenario, {SPOT: trades(SPOT, 10)})


def test_a_trade_from_before_the_last_one_does_not_end_a_repair():
    """Id 9 had been given up, and comes at last."""

    async def scenario(world):
        world.happen(SPOT, 11, 12)
        connection = FakeConnection(world, SPOT)
        connection.deliver(SPOT, 9, 12)
        connection.subscribe()
        await world.settle()
        assert world.ids() == [11, 12, 9]
        assert world.outcomes() == [("repaired", 1)]

    play(scenario, {SPOT: trades(SPOT, 8, 10)})


# REST.


@pytest.mark.parametrize("market", [SPOT, SHARED])
def test_a_trade_that_comes_live_while_rest_lags_is_waited_for_by_the_repair(market):
    """When the repair began nothing had come, so it did not know up to where it must reach."""

    async def scenario(world):
        world.happen(market, 11, 12)
        world.rest.lag = 1
        connection = FakeConnection(world, market)

        def come_live():
            if world.rest.lag:
                world.happen(market, 13)
                connection.deliver(market, 13)
                world.rest.lag = 0

        world.rest.on_answer = come_live
        connection.subscribe()
        await world.settle()
        await world.pass_by(1.0)  # ids show a hole behind the trade that came
        assert world.ids(market) == [11, 12, 13]
        assert {gap.state for gap in world.gaps(market)} == {"repaired"}
        assert sum(gap.trades_recovered for gap in world.gaps(market)) == 2

    play(scenario, {market: trades(market, 10)})


def test_a_repair_asks_again_when_rest_has_had_time_to_know(monkeypatch):
    monkeypatch.setattr(comparison_module, "lag_allowance_us", lag_allowance_us)

    async def scenario(world):
        world.happen(SHARED, 11)
        world.rest.lag = 1
        FakeConnection(world, SHARED).subscribe()
        await world.settle()
        assert world.outcomes(SHARED) == [("open", 0)]
        world.rest.lag = 0
        await world.pass_by(10)
        assert world.ids(SHARED) == [11]
        assert world.outcomes(SHARED) == [("open", 0)], "there may be more that REST does not know yet"
        await world.pass_by(130)
        assert world.outcomes(SHARED) == [("repaired", 1)]

    play(scenario, {SHARED: trades(SHARED, 10)})


def test_a_venue_whose_rest_fails_holds_up_live_trades_for_a_while_and_its_gap_is_open_then_lost():
    async def scenario(world):
        world.rest.failure = RestError("HTTP 404", None)
        connection = FakeConnection(world, SPOT)
        connection.deliver(SPOT, 15)
        connection.subscribe()
        await world.settle()
        assert world.ids() == []
        await world.pass_by(HOLD_S)
        assert world.ids() == [15]
        (gap,) = world.gaps()
        assert (gap.state, gap.reason, gap.to_time) == ("open", "HTTP 404", at(1001))
        assert world.state() == "connected"
        await world.pass_by(PATIENCE_S)
        (gap,) = world.gaps()
        assert (gap.state, gap.reason, gap.to_time) == ("lost", "HTTP 404", at(1001))

    play(scenario, {SPOT: trades(SPOT, 10)})


@pytest.mark.parametrize("market", [SPOT, SHARED])
@pytest.mark.parametrize("away_s", [HOLD_S + 5, PATIENCE_S + HOLD_S + 60])
def test_what_comes_after_all_is_published_and_its_gap_repaired(market, away_s):
    """Also when it was called lost, and when thousands of trades have come since."""

    async def scenario(world):
        world.happen(market, *range(11, 15))
        world.rest.failure = RestError("HTTP 403", None)
        connection = FakeConnection(world, market)
        connection.subscribe()
        for number in range(15, 5015):
            world.happen(market, number)
            connection.deliver(market, number)
        await world.settle()
        await world.pass_by(away_s)
        assert world.ids(market) == list(range(15, 5015))
        assert world.outcomes(market) == [("lost" if away_s > PATIENCE_S else "open", 0)]
        world.rest.failure = None
        await world.pass_by(3600 if away_s > PATIENCE_S else 60)
        assert world.ids(market) == [*range(15, 5015), *range(11, 15)]
        assert world.outcomes(market) == [("repaired", 4)]
        connection.deliver(market, 12, 5015)
        assert world.ids(market)[-1] == 5015, "the late ones are known"
        assert world.topics.statuses[market].last_trade_id == "5014"

    play(scenario, {market: trades(market, 10)}, buffer=10_000)


@pytest.mark.parametrize(("lag_s", "repaired"), [(0, True), (100, False)])
def test_what_a_quiet_market_has_not_shown_is_assumed_as_late_as_rest_is_seen_to_lag(lag_s, repaired, monkeypatch):
    monkeypatch.setattr(comparison_module, "lag_allowance_us", lag_allowance_us)
    monkeypatch.setattr(comparison_module.WorstLag, "worst_us", lag_s * 1_000_000)

    async def scenario(world):
        connection = await live_connection(world, SHARED)
        connection.deliver(SHARED, 11)
        connection.close()
        connection = FakeConnection(world, SHARED)
        connection.subscribe()
        await world.settle()
        await world.pass_by(200)
        assert world.outcomes(SHARED)[-1] == ("repaired" if repaired else "open", 0)
        await world.pass_by(200)
        assert world.outcomes(SHARED)[-1] == ("repaired", 0)

    play(scenario, {SHARED: trades(SHARED, 10)})


@pytest.mark.parametrize("market", [SPOT, SHARED])
def test_a_gap_is_not_repaired_before_rest_has_shown_what_came_after_it(market, monkeypatch):
    """It lags by ten seconds, and the market is quiet: every answer is fine, and shows nothing new."""
    monkeypatch.setattr(comparison_module, "lag_allowance_us", lag_allowance_us)

    async def scenario(world):
        connection = await live_connection(world, market)
        connection.deliver(market, 11)
        connection.close()
        world.happen(market, 11, 12, 13)
        world.rest.lag = 2
        connection = FakeConnection(world, market)
        connection.subscribe()
        await world.settle()
        await world.pass_by(5)
        assert world.state(market) == "connected", "nothing waits"
        assert world.outcomes(market)[-1] == ("open", 0)
        world.happen(market, 14)
        connection.deliver(market, 14)
        await world.settle()
        await world.pass_by(5)
        assert world.outcomes(market)[-1] == ("open", 0), "REST has not shown trade 14, which the connection brought"
        world.rest.lag = 0
        await world.pass_by(30)
        assert sorted(world.ids(market)) == [11, 12, 13, 14]
        assert world.outcomes(market)[-1] == ("repaired", 2)

    play(scenario, {market: trades(market, 10)})


def test_ids_that_follow_each_other_prove_that_nothing_was_missed_without_a_request(monkeypatch):
    monkeypatch.setattr(comparison_module, "lag_allowance_us", lag_allowance_us)

    async def scenario(world):
        world.rest.gate.clear()
        connection = FakeConnection(world, SPOT)
        connection.subscribe()
        await world.settle()
        assert world.state() == "connected"
        assert world.outcomes() == [("open", 0)]
        connection.deliver(SPOT, 11)
        await world.settle()
        assert world.outcomes() == [("repaired", 0)]

    play(scenario, {SPOT: trades(SPOT, 10)})


def test_a_comparison_that_shows_the_time_after_a_gap_repairs_it(monkeypatch):
    monkeypatch.setattr(comparison_module, "lag_allowance_us", lag_allowance_us)

    async def scenario(world):
        await live_connection(world, SPOT)
        (missed,) = world.feeds._feeds[SPOT].missed
        missed.show(at(1001) - 1)
        await world.settle()
        assert world.outcomes() == [("open", 0)]
        missed.show(at(1001))
        await world.settle()
        assert world.outcomes() == [("repaired", 0)]

    play(scenario, {SPOT: trades(SPOT, 10)})


@pytest.mark.parametrize("market", [SPOT, SHARED])
def test_a_feed_that_goes_down_while_its_gap_is_open_has_one_gap_if_nothing_came_between(market, monkeypatch):
    monkeypatch.setattr(comparison_module, "lag_allowance_us", lag_allowance_us)

    async def scenario(world):
        connection = await live_connection(world, market)
        assert world.outcomes(market) == [("open", 0)]
        begun = world.gaps(market)[0].from_time
        world.later(20)
        connection.close()
        await world.settle()
        assert [(gap.from_time, gap.to_time, gap.state) for gap in world.gaps(market)] == [(begun, None, "open")]
        world.happen(market, 11)
        world.later(20)
        connection = FakeConnection(world, market)
        connection.subscribe()
        await world.settle()
        world.happen(market, 12)
        connection.deliver(market, 12)
        await world.pass_by(5)
        assert sorted(world.ids(market)) == [11, 12]
        assert [(gap.from_time, gap.state) for gap in world.gaps(market)] == [(begun, "repaired")]

    play(scenario, {market: trades(market, 10)})


@pytest.mark.parametrize("market", [SPOT, SHARED])
def test_a_feed_that_goes_down_while_an_older_gap_is_open_has_two(market):
    async def scenario(world):
        world.happen(market, 11)
        world.rest.failure = RestError("HTTP 403", None)
        connection = FakeConnection(world, market)
        connection.subscribe()
        world.later(0.1)
        world.happen(market, 12)
        connection.deliver(market, 12)
        await world.pass_by(HOLD_S + 1)
        world.later(20)
        connection.close()
        world.happen(market, 13)
        await world.settle()
        assert [(gap.state, gap.to_time is None) for gap in world.gaps(market)] == [("open", False), ("open", True)]
        world.later(20)
        connection = FakeConnection(world, market)
        connection.subscribe()
        world.happen(market, 14)
        connection.deliver(market, 14)
        world.rest.failure = None
        await world.settle()
        await world.pass_by(70)
        assert sorted(world.ids(market)) == [11, 12, 13, 14]
        assert world.outcomes(market) == [("repaired", 1), ("repaired", 1)]

    play(scenario, {market: trades(market, 10)})


def test_what_a_repair_fails_of_by_a_mistake_of_ours_ends_the_worker():
    async def scenario(world):
        world.rest.failure = ZeroDivisionError()
        FakeConnection(world, SPOT).subscribe()
        await world.settle()
        with pytest.raises(ZeroDivisionError):
            world.look()

    play(scenario, {SPOT: trades(SPOT, 10)})

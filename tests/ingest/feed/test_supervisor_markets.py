"""Feeds of markets that the venue defers, refuses, halts, and that come and go at run time."""

from __future__ import annotations

import pytest
from supervised_feeds import SHARED, SPOT, FakeConnection, at, live_connection, play, status_of, trades

from ashi_ingest.errors import Reason

pytestmark = pytest.mark.usefixtures("believed_at_once")

# Markets that the venue does not accept for now.


def test_a_deferred_market_is_down_says_why_and_the_others_go_on():
    async def scenario(world):
        connection = FakeConnection(world, SPOT, SHARED)
        connection.subscribe(SPOT)
        world.feeds.on_deferred(connection, SHARED, "no answer in 10 s to subscribing")
        await world.settle()
        assert (world.state(SPOT), world.state(SHARED)) == ("connected", "down")
        assert world.topics.statuses[SHARED].reason == "no answer in 10 s to subscribing"
        assert [gap.state for gap in world.gaps(SHARED)] == ["open"]
        assert connection.traded == []
        world.happen(SHARED, 11)
        connection.deliver(SHARED, 11)
        assert connection.traded == [SHARED], "the connection is told that it trades all the same"
        connection.deliver(SPOT, 11)
        assert connection.traded == [SHARED]
        connection.subscribe(SHARED)
        await world.settle()
        assert world.state(SHARED) == "connected"
        assert world.outcomes(SHARED) == [("repaired", 0)]

    play(scenario, {SPOT: trades(SPOT, 10), SHARED: trades(SHARED, 10)})


def test_what_is_down_says_why_no_connection_can_be_made_and_its_gap_why_it_began():
    async def scenario(world):
        old = await live_connection(world, SPOT)
        other = await live_connection(world, SHARED)
        old.close()
        world.feeds.on_cannot_connect([SPOT, SHARED], Reason.REJECTED, "HTTP 403 Forbidden")
        await world.settle()
        assert (world.state(SPOT), world.state(SHARED)) == ("down", "connected")
        assert world.topics.statuses[SPOT].reason == "rejected: HTTP 403 Forbidden"
        await live_connection(world, SPOT)
        assert world.gaps(SPOT)[-1].reason == "lost: it broke off"
        assert other.open

    play(scenario, {SPOT: trades(SPOT, 10), SHARED: trades(SHARED, 10)})


def test_a_market_that_is_deferred_after_it_seemed_accepted_is_down_since_then():
    async def scenario(world):
        connection = await live_connection(world, SPOT, SHARED)
        world.later(10)
        world.feeds.on_deferred(connection, SHARED, "GMO Coin answered ERR-5003")
        await world.settle()
        assert (world.state(SPOT), world.state(SHARED)) == ("connected", "down")
        (_, gap) = world.gaps(SHARED)
        assert (gap.state, gap.from_time) == ("open", at(999))
        assert "ERR-5003" in gap.reason
        connection.subscribe(SHARED)
        await world.settle()
        assert world.outcomes(SHARED)[-1] == ("repaired", 0)

    play(scenario, {SPOT: trades(SPOT, 10), SHARED: trades(SHARED, 10)})


def test_a_market_that_is_deferred_at_a_renewal_goes_on_until_the_old_connection_ends():
    async def scenario(world):
        old = await live_connection(world, SPOT, SHARED)
        new = FakeConnection(world, SPOT, SHARED)
        new.subscribe(SPOT)
        world.feeds.on_deferred(new, SHARED, "no answer in 10 s to subscribing")
        await world.settle()
        assert (world.state(SPOT), world.state(SHARED)) == ("connected", "connected")
        old.close(Reason.LOST, replaced=True)
        await world.settle()
        assert (world.state(SPOT), world.state(SHARED)) == ("connected", "down")
        assert [gap.state for gap in world.gaps(SPOT)] == ["repaired"]
        assert [gap.state for gap in world.gaps(SHARED)] == ["repaired", "open"]

    play(scenario, {SPOT: trades(SPOT, 10), SHARED: trades(SHARED, 10)})


# Refused markets.


def test_a_refused_market_is_down_says_why_and_the_others_go_on():
    async def scenario(world):
        connection = FakeConnection(world, SPOT, SHARED)
        connection.markets = (SPOT,)
        world.feeds.on_refused(SHARED, "no such market")
        connection.subscribe(SPOT)
        await world.settle()
        assert (world.state(SPOT), world.state(SHARED)) == ("connected", "down")
        await world.feeds.stop("the worker has been stopped")
        await world.settle()
        assert world.topics.statuses[SHARED].reason == "no such market"
        assert [gap.state for gap in world.gaps(SHARED)] == ["open"]

    play(scenario, {SPOT: trades(SPOT, 10), SHARED: trades(SHARED, 10)})


def test_a_market_refused_after_its_subscription_has_a_gap_and_its_frames_take_no_room():
    async def scenario(world):
        connection = await live_connection(world, SPOT, SHARED)
        world.later()
        connection.markets = (SPOT,)
        world.feeds.on_refused(SHARED, "no such market")
        for number in range(11, 50):
            connection.deliver(SHARED, number)
        await world.settle()
        assert world.feeds.held == 0
        assert world.ids(SHARED) == []
        assert world.state(SHARED) == "down"
        assert [gap.state for gap in world.gaps(SHARED)] == ["repaired", "open"]
        world.look()
        assert connection.dropped is None

    play(scenario, {SPOT: trades(SPOT, 10), SHARED: trades(SHARED, 10)}, buffer=20)


# Markets that come and go.


def test_a_market_is_added_at_run_time_and_goes_on_from_where_it_was_left():
    async def scenario(world):
        connection = await live_connection(world, SPOT)
        world.rest.happened[SHARED] = [10, 11]
        assert not world.feeds.knows(SHARED)
        world.feeds.add(SHARED, trades(SHARED, 10), status_of(SHARED, last=10))
        await world.settle()
        assert world.state(SHARED) == "down"
        assert world.feeds.symbols == [f"toy:{SPOT}", f"toy:{SHARED}"]
        connection.markets = (SPOT, SHARED)
        connection.subscribe(SHARED)
        await world.settle()
        assert world.ids(SHARED) == [11]
        assert world.state(SHARED) == "connected"
        assert world.outcomes(SHARED) == [("repaired", 1)]

    play(scenario, {SPOT: trades(SPOT, 10)})


def test_a_market_that_is_removed_is_down_and_can_come_back():
    async def scenario(world):
        connection = await live_connection(world, SPOT, SHARED)
        world.feeds.remove(SHARED, "delisted")
        connection.markets = (SPOT,)
        connection.deliver(SHARED, 11)
        await world.settle()
        assert world.ids(SHARED) == []
        assert (world.state(SHARED), world.topics.statuses[SHARED].reason) == ("down", "delisted")
        assert world.feeds.symbols == [f"toy:{SPOT}"]
        assert connection.traded == []
        world.happen(SHARED, 11)
        world.feeds.add(SHARED, (), None)
        connection.markets = (SPOT, SHARED)
        connection.subscribe(SHARED)
        await world.settle()
        assert world.ids(SHARED) == [11]
        assert world.outcomes(SHARED)[-1] == ("repaired", 1)
        connection.deliver(SHARED, 12)
        assert world.ids(SHARED) == [11, 12]

    play(scenario, {SPOT: trades(SPOT, 10), SHARED: trades(SHARED, 10)})


def test_a_halted_market_says_so_until_the_venue_or_a_trade_says_otherwise():
    async def scenario(world):
        connection = await live_connection(world, SPOT)
        world.feeds.set_halted(SPOT, True)
        await world.settle()
        status = world.topics.statuses[SPOT]
        assert (status.state, status.reason) == ("silent", "halted: the venue does not trade it now")
        assert {gap.state for gap in world.gaps(SPOT)} == {"repaired"}, "no trade is missing"
        world.feeds.set_halted(SPOT, False)
        await world.settle()
        assert world.state() == "connected"
        world.feeds.set_halted(SPOT, True)
        await world.settle()
        connection.deliver(SPOT, 11)
        await world.settle()
        assert (world.state(), world.topics.statuses[SPOT].reason) == ("connected", None)

    play(scenario, {SPOT: trades(SPOT, 10)})

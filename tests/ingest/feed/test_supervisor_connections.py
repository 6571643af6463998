"""Feeds when connections end, are renewed, or fall silent: what is fetched, and what is said."""

from __future__ import annotations

import pytest
from supervised_feeds import NEW, SHARED, SPOT, FakeConnection, at, live_connection, play, trades

from ashi_ingest.errors import Reason

pytestmark = pytest.mark.usefixtures("believed_at_once")

# Connections that end.


def test_trades_of_a_reconnection_are_fetched_and_the_gap_begins_with_the_last_frame():
    async def scenario(world):
        connection = await live_connection(world, SPOT)
        connection.deliver(SPOT, 11)
        world.later(5)
        connection.close()
        world.happen(SPOT, 11, 12)
        await world.settle()
        assert world.state() == "down"
        assert world.outcomes()[-1] == ("open", 0)
        world.later(5)
        await live_connection(world, SPOT)
        assert world.ids() == [11, 12]
        gap = world.gaps()[-1]
        assert (gap.state, gap.from_time, gap.to_time, gap.trades_recovered) == ("repaired", at(11), at(1011), 1)

    play(scenario, {SPOT: trades(SPOT, 10)})


def test_a_repaired_gap_ends_with_the_first_live_trade_and_not_with_those_that_may_be_on_their_way():
    async def scenario(world):
        connection = await live_connection(world, SPOT)
        connection.deliver(SPOT, 11)
        connection.close()
        world.happen(SPOT, 11, 12)
        await world.settle()
        world.rest.gate.clear()
        connection = FakeConnection(world, SPOT)
        connection.subscribe()
        world.happen(SPOT, 13)
        connection.deliver(SPOT, 13)
        await world.settle()
        world.rest.gate.set()
        await world.settle()
        assert world.ids() == [11, 12, 13]
        gap = world.gaps()[-1]
        assert (gap.state, gap.to_time, gap.trades_recovered) == ("repaired", at(13), 1)

    play(scenario, {SPOT: trades(SPOT, 10)})


def test_what_came_before_the_acknowledgment_of_a_new_market_is_fetched_when_the_connection_ends():
    """Nothing is published of it yet, so a repair begins with the time of the start."""

    async def scenario(world):
        connection = FakeConnection(world, NEW)
        connection.deliver(NEW, 1007)
        connection.close()
        world.happen(NEW, 1007, 1008)
        await live_connection(world, NEW)
        assert world.ids(NEW) == [1007, 1008]
        assert world.outcomes(NEW) == [("lost", 0), ("repaired", 2)]

    play(scenario, {NEW: []})


def test_a_market_without_any_trade_that_was_away_is_asked_for_by_time():
    async def scenario(world):
        connection = await live_connection(world, NEW)
        world.later()
        connection.close()
        await world.settle()
        world.happen(NEW, 1003)
        assert world.outcomes(NEW) == [("lost", 0), ("open", 0)]
        world.later(10)
        await live_connection(world, NEW)
        assert world.ids(NEW) == [1003]
        assert world.outcomes(NEW) == [("lost", 0), ("repaired", 1)]

    play(scenario, {NEW: []})


def test_a_connection_that_ends_during_its_repair_leaves_one_gap_to_the_next():
    async def scenario(world):
        world.happen(SPOT, 11)
        world.rest.gate.clear()
        connection = FakeConnection(world, SPOT)
        connection.subscribe()
        await world.settle()
        connection.deliver(SPOT, 12)
        connection.close()
        world.happen(SPOT, 12, 13)
        world.rest.gate.set()
        await world.settle()
        assert world.ids() == []
        assert [gap.state for gap in world.gaps()] == ["open"]
        await live_connection(world, SPOT)
        assert world.ids() == [11, 12, 13]
        assert world.outcomes() == [("repaired", 3)]

    play(scenario, {SPOT: trades(SPOT, 10)})


def test_at_a_renewal_both_connections_deliver_and_nothing_is_repaired():
    async def scenario(world):
        old = await live_connection(world, SPOT)
        asked = len(world.rest.asked)
        new = FakeConnection(world, SPOT)
        new.deliver(SPOT, 11)
        new.subscribe()
        old.deliver(SPOT, 11, 12)
        new.deliver(SPOT, 12, 13)
        old.close(Reason.RENEWED, replaced=True)
        new.deliver(SPOT, 14)
        await world.settle()
        assert world.ids() == [11, 12, 13, 14]
        assert len(world.rest.asked) == asked
        assert [gap.state for gap in world.gaps()] == ["repaired"]
        assert world.state() == "connected"

    play(scenario, {SPOT: trades(SPOT, 10)})


def test_a_connection_that_ends_before_the_next_has_all_markets_is_made_good_by_what_the_next_one_has():
    """The next one does not say again that a market is subscribed."""

    async def scenario(world):
        old = await live_connection(world, SPOT, SHARED)
        new = FakeConnection(world, SPOT, SHARED)
        new.subscribe(SPOT)
        world.happen(SPOT, 11)
        old.close()
        await world.settle()
        assert world.ids() == [11]
        assert (world.state(SPOT), world.state(SHARED)) == ("connected", "down")
        new.deliver(SPOT, 12)
        assert world.ids() == [11, 12]
        new.subscribe(SHARED)
        await world.settle()
        assert world.state(SHARED) == "connected"
        assert {gap.state for gap in world.gaps(SPOT) + world.gaps(SHARED)} == {"repaired"}

    play(scenario, {SPOT: trades(SPOT, 10), SHARED: trades(SHARED, 10)})


def test_a_market_whose_acceptance_was_taken_back_for_a_while_is_repaired():
    """GMO does not acknowledge: a refusal may come when the subscription seems accepted already."""

    async def scenario(world):
        connection = await live_connection(world, SHARED)
        connection.deliver(SHARED, 11)
        world.later()
        world.happen(SHARED, 11, 13)
        connection.subscribe(SHARED)
        await world.settle()
        assert world.ids(SHARED) == [11, 13]
        assert world.outcomes(SHARED)[-1] == ("repaired", 1)
        assert world.gaps(SHARED)[-1].from_time == at(999)

    play(scenario, {SHARED: trades(SHARED, 10)})


# Silence.


def test_silence_is_said_and_taken_back():
    async def scenario(world):
        connection = await live_connection(world, SPOT)
        connection.silent()
        await world.settle()
        assert world.state() == "silent"
        connection.silent(False)
        await world.settle()
        assert world.state() == "connected"

    play(scenario, {SPOT: trades(SPOT, 10)})


def test_a_silent_connection_that_is_replaced_leaves_no_silence_behind():
    async def scenario(world):
        old = await live_connection(world, SPOT)
        old.silent()
        new = FakeConnection(world, SPOT)
        new.subscribe()
        await world.settle()
        assert world.state() == "connected"
        old.close(Reason.RENEWED, replaced=True)
        await world.settle()
        assert world.state() == "connected"

    play(scenario, {SPOT: trades(SPOT, 10)})


def test_a_connection_that_takes_over_and_is_silent_makes_the_feed_silent():
    async def scenario(world):
        old = await live_connection(world, SPOT)
        new = FakeConnection(world, SPOT)
        new.subscribe()
        new.silent()
        await world.settle()
        assert world.state() == "connected"
        old.close(Reason.RENEWED, replaced=True)
        await world.settle()
        assert world.state() == "silent"

    play(scenario, {SPOT: trades(SPOT, 10)})


def test_a_repair_that_ends_in_silence_does_not_call_the_feed_connected():
    async def scenario(world):
        world.rest.gate.clear()
        connection = FakeConnection(world, SPOT)
        connection.subscribe()
        await world.settle()
        connection.silent()
        world.rest.gate.set()
        await world.settle()
        assert world.state() == "silent"

    play(scenario, {SPOT: trades(SPOT, 10)})

"""Feeds when too much waits, when Kafka is away, when trades cannot be published; and how they stop."""

from __future__ import annotations

import asyncio

import pytest
from supervised_feeds import HOLD_S, SHARED, SPOT, FakeConnection, at, hole, live_connection, look_after, play, trades

from ashi_ingest.errors import Reason
from ashi_ingest.publish.publisher import Appended
from ashi_ingest.rest.client import RestError

pytestmark = pytest.mark.usefixtures("believed_at_once")

OTHER = "OTHER"  # of another worker


# Too much.


@pytest.mark.parametrize("market", [SPOT, SHARED])
def test_too_much_behind_a_long_repair_is_discarded_and_fetched_while_the_others_go_on(market):
    other = SHARED if market == SPOT else SPOT

    async def scenario(world):
        connection = FakeConnection(world, market, other)
        connection.subscribe(other)
        await world.settle()
        world.rest.gate.clear()
        connection.subscribe(market)
        await world.settle()
        for number in range(11, 111):
            world.happen(market, number)
            connection.deliver(market, number)
            world.look()
            assert world.feeds.held <= 20
        connection.deliver(other, 11)
        assert world.ids(other) == [11]
        world.rest.gate.set()
        await world.settle()
        assert world.ids(market) == list(range(11, 111))
        assert connection.dropped is None
        assert [gap.state for gap in world.gaps(market)] == ["repaired"]

    play(scenario, {market: trades(market, 10), other: trades(other, 10)}, buffer=20)


def test_too_much_behind_the_repair_of_a_hole_is_discarded_and_fetched():
    async def scenario(world):
        connection = await live_connection(world, SPOT)
        world.rest.gate.clear()
        world.happen(SPOT, *range(11, 61))
        await hole(world, connection, 12)
        for number in range(13, 61):
            connection.deliver(SPOT, number)
            world.look()
            assert world.feeds.held <= 20
        world.rest.gate.set()
        await world.settle()
        assert world.ids() == list(range(11, 61))
        assert connection.dropped is None

    play(scenario, {SPOT: trades(SPOT, 10)}, buffer=20)


def test_what_is_discarded_after_the_answer_that_fills_a_hole_is_asked_for():
    async def scenario(world):
        connection = await live_connection(world, SPOT)
        world.happen(SPOT, 11, 12)
        world.publish_buffer.slow(15)
        await hole(world, connection, 12)
        assert world.ids() == [11, 12]
        world.happen(SPOT, *range(13, 26))
        connection.deliver(SPOT, *range(13, 25))
        world.look()
        connection.deliver(SPOT, 25)
        world.publish_buffer.back()
        await world.settle()
        assert world.ids() == list(range(11, 26))

    play(scenario, {SPOT: trades(SPOT, 10)}, buffer=20)


def test_what_was_discarded_and_cannot_be_fetched_is_within_the_gap():
    async def scenario(world):
        world.rest.gate.clear()
        connection = FakeConnection(world, SHARED)
        connection.subscribe()
        await world.settle()
        connection.deliver(SHARED, *range(11, 15))
        await world.settle()  # it is asked for up to 11
        world.later(6)
        connection.deliver(SHARED, *range(15, 40))
        world.look()
        connection.deliver(SHARED, 40)
        world.rest.failure = RestError("HTTP 404", None)
        world.rest.gate.set()
        await world.pass_by(HOLD_S)
        assert world.ids(SHARED) == [40]
        (gap,) = world.gaps(SHARED)
        assert (gap.state, gap.to_time) == ("open", at(1007))
        world.happen(SHARED, *range(11, 41))
        world.rest.failure = None
        await world.pass_by(60)
        assert sorted(world.ids(SHARED)) == list(range(11, 41)), "also what came before the first repair failed"
        assert world.outcomes(SHARED) == [("repaired", 29)]

    play(scenario, {SHARED: trades(SHARED, 10)}, buffer=20)


def test_what_is_held_after_a_repair_has_failed_is_not_discarded():
    """Nothing would bring it again. What is too much closes the connections."""

    async def scenario(world):
        world.topics.gate.clear()  # the gap has to be told first
        world.rest.failure = RestError("HTTP 404", None)
        connection = FakeConnection(world, SHARED)
        connection.subscribe()
        connection.deliver(SHARED, *range(11, 40))
        for _ in range(40):
            await asyncio.sleep(0)
        world.later(HOLD_S)
        for _ in range(150):
            await asyncio.sleep(0)
        world.look()
        assert connection.dropped is Reason.BUFFER_FULL
        world.topics.gate.set()
        await world.settle()
        assert world.ids(SHARED) == list(range(11, 40))

    play(scenario, {SHARED: trades(SHARED, 10)}, buffer=20)


def test_when_kafka_is_away_connections_are_closed_and_opened_when_there_is_room():
    async def scenario(world):
        connection = await live_connection(world, SPOT)
        world.publish_buffer.away = True
        connection.deliver(SPOT, *range(11, 32))
        world.look()
        assert connection.dropped is Reason.BUFFER_FULL
        connection.close(Reason.BUFFER_FULL)
        world.happen(SPOT, *range(11, 40))
        waiting = asyncio.create_task(world.feeds.may_connect())
        await world.settle()
        assert not waiting.done()
        assert world.state() == "down"
        world.publish_buffer.back()
        await waiting
        await live_connection(world, SPOT)
        assert world.ids() == list(range(11, 40))

    play(scenario, {SPOT: trades(SPOT, 10)}, buffer=20)


def test_a_repair_waits_while_kafka_is_away_and_does_not_fill_the_memory():
    async def scenario(world):
        world.happen(SHARED, *range(11, 31))
        world.publish_buffer.away = True
        FakeConnection(world, SHARED).subscribe()
        await world.settle()
        assert world.state(SHARED) == "repairing"
        assert world.feeds.live == 0
        world.publish_buffer.back()
        await world.settle()
        assert world.state(SHARED) == "connected"

    play(scenario, {SHARED: trades(SHARED, 10)}, buffer=20)


def test_a_trade_that_cannot_be_published_is_a_lost_gap_with_the_reason_and_the_next_ones_are_part_of_it():
    async def scenario(world):
        connection = await live_connection(world, SPOT, SHARED)
        world.topics.gaps.clear()
        world.now_us = first_us = at(2000)
        connection.say(f"bad {SHARED}")
        await world.reporter.flush()
        [gap] = world.topics.gaps.values()
        assert (gap.symbol, gap.state, gap.from_time) == ("toy:SHARED", "lost", first_us - 1_000_000)
        assert gap.to_time == first_us + 1_000_000
        assert gap.reason == "a trade could not be published and went to trades.dead: price is missing"
        world.now_us = at(2005)
        connection.say(f"bad {SHARED} 80000000")
        await world.reporter.flush()
        [gap] = world.topics.gaps.values()
        assert (gap.from_time, gap.to_time) == (first_us - 1_000_000, at(2086))
        assert gap.reason == "2 trades could not be published and went to trades.dead: price is missing"
        world.now_us = at(3000)
        connection.say(f"bad {SHARED}")
        await world.reporter.flush()
        assert [gap.from_time for gap in world.topics.gaps.values()] == [first_us - 1_000_000, at(2999)]

    play(scenario, {SPOT: trades(SPOT, 1, 2), SHARED: trades(SHARED, 7)})


def test_a_trade_that_cannot_be_published_is_no_gap_of_its_own_where_ids_show_it_or_while_one_is_open():
    async def scenario(world):
        connection = await live_connection(world, SPOT, SHARED)
        world.topics.gaps.clear()
        connection.say(f"bad {SPOT}")
        connection.say("bad NOWHERE")
        connection.say("garbage in")
        await world.reporter.flush()
        assert not world.topics.gaps
        world.reporter.open_gap("toy:SHARED", world.now_us - 60_000_000, "it has gone mute")
        connection.say(f"bad {SHARED}")
        await world.reporter.flush()
        assert [gap.reason for gap in world.topics.gaps.values()] == ["it has gone mute"]

    play(scenario, {SPOT: trades(SPOT, 1, 2), SHARED: trades(SHARED, 7)})


def test_a_clock_that_is_off_is_the_reason_in_the_status_of_every_symbol_until_it_is_right_again():
    async def scenario(world):
        connection = await live_connection(world, SPOT, SHARED)
        connection.say(f"bad {SHARED} 80000000")
        world.publish_buffer.appended = Appended(world.now_us, world.now_us)
        await look_after(world, 2)
        ahead = "the clock of toy is 80 s ahead of Kafka's and this machine's"
        assert [world.topics.statuses[market].reason for market in (SPOT, SHARED)] == [ahead, ahead]
        assert [world.topics.statuses[market].state for market in (SPOT, SHARED)] == ["connected", "connected"]
        for _ in range(8):
            await look_after(world, 10)
        assert [world.topics.statuses[market].reason for market in (SPOT, SHARED)] == [None, None]

    play(scenario, {SPOT: trades(SPOT, 1, 2), SHARED: trades(SHARED, 7)})


def test_garbage_goes_to_the_dead_letters_and_trades_of_others_nowhere():
    async def scenario(world):
        connection = await live_connection(world, SPOT)
        assert connection.say("garbage in")
        assert not connection.say("ack")
        assert connection.deliver(OTHER, 5)
        assert [letter.value for letter in world.publish_buffer.dead] == [b"garbage in"]
        assert world.publish_buffer.published == []
        assert world.feeds.held == 0

    play(scenario, {SPOT: trades(SPOT, 10)})


# Stopping.


def test_a_stop_in_the_midst_of_repairs_ends_them_and_leaves_the_gaps_open():
    async def scenario(world):
        world.rest.gate.clear()
        connection = FakeConnection(world, SPOT, SHARED)
        connection.subscribe()
        connection.deliver(SPOT, 12)
        await world.settle()
        connection.close(Reason.STOPPED)
        await world.feeds.stop("the worker has been stopped")
        await world.settle()
        assert world.ids() == []
        assert (world.state(SPOT), world.state(SHARED)) == ("down", "down")
        assert world.topics.statuses[SPOT].reason == "the worker has been stopped"
        assert {gap.state for gap in world.gaps(SPOT) + world.gaps(SHARED)} == {"open"}
        assert len(asyncio.all_tasks()) == 1

    play(scenario, {SPOT: trades(SPOT, 10), SHARED: trades(SHARED, 10)})


def test_a_stop_before_a_repair_has_begun_ends_it():
    async def scenario(world):
        FakeConnection(world, SPOT).subscribe()
        await world.feeds.stop("the worker has been stopped")
        await world.settle()
        assert world.rest.asked == []
        assert world.state() == "down"

    play(scenario, {SPOT: trades(SPOT, 10)})

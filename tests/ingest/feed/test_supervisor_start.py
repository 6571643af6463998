"""What the feeds of a process do at its start, by what Kafka holds and by what was said before it."""

from __future__ import annotations

import pytest
from supervised_feeds import (
    NEW,
    SPOT,
    FakeConnection,
    World,
    at,
    live_connection,
    look_after,
    play,
    status_of,
    trades,
)

from ashi.contracts.feed import FeedGap
from ashi.contracts.trade import EARLIEST_US
from ashi.runtime.metrics import ingest as metrics
from ashi_ingest.feed.reporting.reported import ReportedFeed

pytestmark = pytest.mark.usefixtures("believed_at_once")

# Starting.


def test_a_hole_that_is_lost_is_served_as_none_before_there_is_one_so_that_the_first_is_seen():
    metrics.feed_holes.clear()
    World({"A": []})
    outcomes = {sample.labels["outcome"]: sample.value for sample in served_of(metrics.feed_holes)}
    assert outcomes == dict.fromkeys(("found", "repaired", "absent", "lost"), 0.0)


def served_of(counted):
    return [sample for metric in counted.collect() for sample in metric.samples if sample.name.endswith("_total")]


def test_of_a_first_start_what_was_before_is_missing_and_what_happens_from_then_on_is_asked_for_by_time():
    async def scenario(world):
        world.happen(NEW, 998, 1001)
        connection = FakeConnection(world, NEW)
        connection.deliver(NEW, 1002)
        world.happen(NEW, 1002)
        assert world.ids(NEW) == []
        world.later(3)
        connection.subscribe()
        await world.settle()
        connection.deliver(NEW, 1003)
        assert world.ids(NEW) == [1001, 1002, 1003]
        assert len(world.rest.asked) == 1
        before, opening = world.gaps(NEW)
        assert (before.state, before.from_time, before.to_time) == ("lost", EARLIEST_US, at(1000))
        assert (opening.state, opening.from_time, opening.trades_recovered) == ("repaired", at(1000), 1)
        assert world.state(NEW) == "connected"

    play(scenario, {NEW: []})


def test_what_an_earlier_process_that_had_published_nothing_was_to_read_is_asked_for_from_its_start_on():
    async def scenario(world):
        world.happen(NEW, 12, 15, 18)
        await live_connection(world, NEW)
        assert world.ids(NEW) == [15, 18]
        assert world.outcomes(NEW) == [("repaired", 2)], "it has told what was before as lost"

    reported = ReportedFeed(status_of(NEW, "connected", updated_at=at(16)), (open_gap(NEW, at(14)),))
    play(scenario, {NEW: []}, {NEW: reported})


def test_a_listing_is_asked_for_from_when_the_venue_did_not_list_it_yet():
    async def scenario(world):
        world.rest.happened["LISTED"] = [701, 702]
        world.feeds.add("LISTED", (), None, at(700))
        await live_connection(world, "LISTED")
        assert world.ids("LISTED") == [701, 702]
        before, since = world.gaps("LISTED")
        assert (before.state, before.from_time, before.to_time) == ("lost", EARLIEST_US, at(700))
        assert (since.state, since.from_time, since.trades_recovered) == ("repaired", at(700), 2)

    play(scenario, {NEW: []})


def test_ids_prove_nothing_before_the_first_that_came_so_that_is_asked_for_behind_it():
    async def scenario(world):
        connection = await live_connection(world, SPOT)
        await look_after(world, 3)
        await world.settle()
        assert world.outcomes() == [("lost", 0), ("repaired", 0)]
        world.happen(SPOT, 1028, 1029, 1030, 1031)
        connection.deliver(SPOT, 1030)
        connection.deliver(SPOT, 1031)
        await world.reporter.flush()
        assert world.outcomes()[-1] == ("open", 0)
        assert world.ids() == [1030, 1031]
        await look_after(world, 40)
        await world.settle()
        await look_after(world, 10)
        assert world.ids() == [1030, 1031, 1028, 1029]
        assert [trade.sequence for trade in world.publish_buffer.late] == [1028, 1029]
        assert world.outcomes()[-1] == ("repaired", 2)
        disorder_us = round(world.venue.limits.disorder_s * 1e6)
        assert world.topics.statuses[SPOT].complete_until == at(1031) - disorder_us

    play(scenario, {SPOT: []})


def test_after_a_restart_what_was_missed_comes_before_what_came_live_each_once():
    async def scenario(world):
        world.happen(SPOT, 11, 12, 13)
        connection = FakeConnection(world, SPOT)
        connection.deliver(SPOT, 14)
        world.rest.gate.clear()
        connection.subscribe()
        await world.settle()
        assert world.state() == "repairing"
        world.happen(SPOT, 14, 15)
        connection.deliver(SPOT, 15)
        assert world.ids() == []
        world.rest.gate.set()
        await world.settle()
        assert world.ids() == [11, 12, 13, 14, 15]
        assert world.outcomes() == [("repaired", 3)]
        assert world.state() == "connected"
        assert world.feeds.live == 1

    play(scenario, {SPOT: trades(SPOT, 9, 10)})


@pytest.mark.parametrize(
    ("status", "since"),
    [
        (None, at(10)),
        (status_of(SPOT, last=10, updated_at=at(20)), at(19)),
        (status_of(SPOT, "down", last=10, since=at(15)), at(14)),
        (status_of(SPOT, "down", last=10, since=at(10) + 1), at(10)),
        (status_of(SPOT, "repairing", last=10, since=at(15)), at(10)),
        (status_of(SPOT, "silent", last=10, since=at(15)), at(10)),
        (status_of(SPOT, last=12, updated_at=at(20)), at(10)),
        (status_of(SPOT, last=10, updated_at=at(5000)), at(1000)),
        (status_of(SPOT, "silent", last=10, since=at(15), complete_until=at(13)), at(13)),
        (status_of(SPOT, "repairing", last=10, since=at(15), complete_until=at(13)), at(13)),
        (status_of(SPOT, last=12, updated_at=at(20), complete_until=at(12)), at(12)),
        (status_of(SPOT, last=12, updated_at=at(20), complete_until=at(13)), at(10)),
        (status_of(SPOT, "down", last=12, since=at(15), complete_until=at(13)), at(10)),
        (status_of(SPOT, last=10, updated_at=at(20), complete_until=at(13)), at(19)),
        (status_of(SPOT, last=10, updated_at=at(20), complete_until=at(5000)), at(1000)),
    ],
    ids=[
        "nobody said",
        "connected",
        "down",
        "down at once",
        "in a repair",
        "silent",
        "said more than Kafka has",
        "a clock set back",
        "silent, known until later",
        "in a repair, known until later",
        "said more than Kafka has, known until later",
        "Kafka had more than it has",
        "Kafka had more than it has, and the worker had been stopped",
        "connected since what is known",
        "known until later than now, as a clock was set back",
    ],
)
def test_the_gap_of_a_restart_begins_where_kafka_may_lack_trades(status, since):
    async def scenario(world):
        await world.reporter.flush()
        (gap,) = world.gaps()
        assert (gap.state, gap.from_time, gap.to_time) == ("open", since, None)
        assert world.topics.statuses[SPOT].last_trade_id == "10"

    play(scenario, {SPOT: trades(SPOT, 9, 10)}, {SPOT: ReportedFeed(status, ())})


def test_a_start_says_when_kafka_has_lost_what_it_had(caplog):
    async def scenario(world):
        assert "is not in topic trades: it was cut or made anew" in caplog.text
        assert caplog.text.count("acknowledged") == 1

    reported = {
        SPOT: ReportedFeed(status_of(SPOT, last=12, complete_until=at(13)), ()),
        NEW: ReportedFeed(status_of(NEW, last=12, complete_until=at(12)), ()),  # perhaps it never had
    }
    play(scenario, {SPOT: trades(SPOT, 9, 10), NEW: trades(NEW, 9, 10)}, reported)


def open_gap(market, from_time):
    return FeedGap(f"toy:{market}", from_time, None, "open", 0, "it broke off", from_time)


def test_a_restart_with_several_open_gaps_ends_all_of_them():
    async def scenario(world):
        world.happen(SPOT, 11)
        await live_connection(world, SPOT)
        assert world.outcomes() == [("repaired", 1), ("repaired", 0)]

    reported = ReportedFeed(
        status_of(SPOT, "down", last=10, since=at(16)), (open_gap(SPOT, at(14)), open_gap(SPOT, at(15)))
    )
    play(scenario, {SPOT: trades(SPOT, 10)}, {SPOT: reported})


def test_an_open_gap_of_a_symbol_whose_trades_have_expired_is_asked_for_from_its_beginning_on():
    async def scenario(world):
        world.happen(NEW, 12, 15, 18)
        await live_connection(world, NEW)
        assert world.ids(NEW) == [15, 18]
        assert world.outcomes(NEW) == [("repaired", 2)]

    reported = ReportedFeed(status_of(NEW, "down", last=10, since=at(16)), (open_gap(NEW, at(14)),))
    play(scenario, {NEW: []}, {NEW: reported})

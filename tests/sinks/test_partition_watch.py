from __future__ import annotations

import asyncio

import pytest

from ashi.contracts.errors import BrokerError
from ashi.runtime.kafka.consuming.groups import GroupView
from ashi.runtime.service import Service
from ashi.runtime.settings import Settings
from ashi_sinks import partition_watch
from ashi_sinks.delays import SinkLag
from ashi_sinks.partition_watch import LOOK_S, STALLED_S, PartitionWatch

ALL = frozenset({("candles", 0), ("candles", 1), ("feed.gaps", 0)})
STORING = "storing candles"
SESSION_S = 6.0


class Bench:
    """A sink's watch over a group and topics that a test makes up; time passes by `look`."""

    def __init__(self, monkeypatch, **environment):
        self.now = 0.0
        self.counts = {"candles": 2, "feed.gaps": 1}
        self.group = GroupView(1, ALL)
        self.held = dict.fromkeys(ALL, (7, 7))
        self.polls = True
        self.polled_s = 0.0
        self.broker_error = None
        self.committed_before = {}
        self.stored = {}
        self.is_going_back = False
        self.service = Service("sink-test", Settings.from_environment({"ASHI_SESSION_TIMEOUT": "6s"} | environment))
        self.service.health.set_ready(True, STORING)
        self.watch = PartitionWatch(
            self.service, "a-group", ["candles", "feed.gaps"], self, lag=SinkLag("test"), clock=lambda: self.now
        )

        async def counts(_settings):
            if self.broker_error:
                raise self.broker_error
            return self.counts

        async def view(_settings, _group):
            return self.group

        monkeypatch.setattr(partition_watch, "partition_counts", counts)
        monkeypatch.setattr(partition_watch, "view_group", view)

    async def places(self):
        return self.held

    def look(self, for_s=LOOK_S):
        """Look for so long, and give what `/ready` says then."""
        end = self.now + for_s
        while self.now < end:
            self.now += LOOK_S
            if self.polls:
                self.polled_s = self.now
            asyncio.run(self.watch.look())
        return self.service.health.ready()


@pytest.fixture
def bench(monkeypatch):
    return Bench(monkeypatch)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"counts": {"feed.gaps": 1}}, "topic candles is missing: make it with `ashi topics create`"),
        ({"group": GroupView(1, frozenset({("feed.gaps", 0)}))}, "nobody in group a-group reads candles/0, candles/1"),
        ({"group": GroupView(0, frozenset())}, "nobody in group a-group reads candles/0, candles/1, feed.gaps/0"),
        ({"counts": {"candles": 9, "feed.gaps": 1}}, "reads candles/2, candles/3, candles/4 and 4 more"),
        ({"broker_error": BrokerError("cannot reach Kafka")}, "cannot reach Kafka"),
    ],
    ids=["missing", "a-topic-without-readers", "rebalancing", "partitions-added", "no-broker"],
)
def test_what_nobody_reads_for_longer_than_a_rebalance_takes_is_said_until_it_is_over(bench, change, reason):
    assert bench.look() == (True, STORING)
    before = {name: getattr(bench, name) for name in change}
    for name, value in change.items():
        setattr(bench, name, value)
    assert bench.look(SESSION_S) == (True, STORING)  # a rebalance may take so long
    ready, said = bench.look(2 * LOOK_S)
    assert (ready, reason in said) == (False, True), said
    for name, value in before.items():
        setattr(bench, name, value)
    assert bench.look() == (True, STORING)


def test_topics_and_the_group_are_called_as_in_kafka(monkeypatch):
    bench = Bench(monkeypatch, ASHI_TOPIC_PREFIX="staging.")
    bench.group = GroupView(1, frozenset())
    assert "nobody in group staging.a-group reads candles/0" in bench.look(3 * SESSION_S)[1]
    bench.counts = {"candles": 2}
    assert "topic staging.feed.gaps is missing: make it" in bench.look(3 * SESSION_S)[1]


def test_a_surplus_member_of_a_group_whose_partitions_are_all_read_is_ready_and_says_so(bench):
    bench.group, bench.held = GroupView(4, ALL), {}
    said = "storing candles; without a partition: group a-group has 4 members for 3 of them"
    assert bench.look(10 * SESSION_S) == (True, said)


def test_a_partition_that_does_not_move_though_it_has_unread_messages_is_said_when_it_was_polled(bench):
    bench.held[("candles", 1)] = (7, 8)
    assert bench.look(STALLED_S) == (True, STORING)
    ready, said = bench.look(2 * SESSION_S)
    assert (ready, said) == (False, "candles/1 has unread messages and nothing is read")
    bench.held[("candles", 1)] = (8, 9)  # moves again, though it never comes to the end
    assert bench.look() == (True, STORING)


def test_while_the_store_is_away_nothing_is_polled_and_nothing_is_said_of_partitions(bench):
    bench.held[("candles", 1)] = (7, 8)
    bench.polls = False
    assert bench.look(10 * STALLED_S) == (True, STORING)


def test_an_obstacle_does_not_make_ready_who_says_that_it_is_not(bench):
    bench.service.health.set_ready(False, "waiting for the store: away")
    bench.counts = {}
    assert bench.look(10 * SESSION_S) == (False, "waiting for the store: away")


def test_rows_that_are_stored_again_are_an_obstacle_until_all_of_a_partition_that_is_held_are(bench):
    bench.committed_before = {("candles", 0): 5, ("candles", 7): 5}  # the last one is held by another by now
    assert bench.look() == (False, "rows that were lost are stored again: candles/0 not done yet")
    bench.committed_before, bench.is_going_back = {}, True
    assert not bench.look()[0]
    bench.committed_before, bench.is_going_back = {("candles", 7): 5}, False
    assert bench.look() == (True, STORING)

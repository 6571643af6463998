"""Whatever happens to the feeds of a process, each trade is published once; and frames that are read at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from supervised_feeds import (
    NEW,
    PATIENCE_S,
    SHARED,
    SPOT,
    TIMES,
    FakeConnection,
    Topics,
    World,
    live_connection,
    play,
    trades,
)

from ashi_ingest.errors import Reason
from ashi_ingest.feed.reporting.reported import ReportedFeed
from ashi_ingest.rest.client import RestError

pytestmark = pytest.mark.usefixtures("believed_at_once")

# All of it at once.


class History:
    """A venue that trades, connections that come and go, a worker that restarts: drawn by Hypothesis."""

    def __init__(self, data, *, fails):
        self.data = data
        self.fails = fails
        TIMES.clear()
        self.next = {SPOT: 11, SHARED: 11}
        self.published = {market: trades(market, 10) for market in self.next}
        self.late: dict[str, set[int]] = {market: set() for market in self.next}
        self.topics = Topics()
        self.connections: list[FakeConnection] = []
        self.world: Any = None

    def start(self):
        reported = {
            market: ReportedFeed(
                self.topics.statuses.get(market),
                tuple(gap for (name, _), gap in self.topics.gaps.items() if name == market and gap.state == "open"),
                tuple(gap for (name, _), gap in self.topics.gaps.items() if name == market and gap.state == "lost"),
            )
            for market in self.published
        }
        happened = self.world.rest.happened if self.world else None
        now_us = self.world.now_us if self.world else None
        self.world = World(
            {market: list(published[-200:]) for market, published in self.published.items()},
            reported,
            buffer=12,
            published=self.published_ids,
        )
        self.world.topics.statuses, self.world.topics.gaps = self.topics.statuses, self.topics.gaps
        if happened is not None:
            self.world.rest.happened, self.world.now_us = happened, now_us

    async def published_ids(self, symbol, from_us, until_us):
        self.collect()
        return {trade.trade_id for trade in self.published[symbol.partition(":")[2]]}

    def collect(self):
        for market, published in self.published.items():
            published += [trade for trade in self.world.publish_buffer.published if trade.symbol == f"toy:{market}"]
            self.late[market] |= {
                each.sequence for each in self.world.publish_buffer.late if each.symbol == f"toy:{market}"
            }
        self.world.publish_buffer.published = []

    def subscribed(self, market):
        return [connection for connection in self.connections if market in connection.subscribed]

    def connect(self):
        connection = FakeConnection(self.world, SPOT, SHARED)
        connection.subscribed = set()
        self.connections.append(connection)

    def acknowledge(self):
        for connection in self.connections:
            for market in connection.markets:
                if market not in connection.subscribed and self.data.draw(st.booleans(), label=f"ack {market}"):
                    connection.subscribed.add(market)
                    connection.subscribe(market)

    def happen(self):
        market = self.data.draw(st.sampled_from([SPOT, SHARED]))
        count = self.data.draw(st.integers(1, 6))
        step = 1 if market == SPOT else self.data.draw(st.integers(1, 3))
        numbers = [self.next[market] + step * place for place in range(count)]
        self.next[market] = numbers[-1] + 1
        self.world.later(0.1)
        TIMES.update({(market, number): self.world.now_us for number in numbers})
        self.world.happen(market, *numbers)
        skipped = set()
        if market == SPOT and self.data.draw(st.integers(0, 3)) == 0:
            skipped = {self.data.draw(st.sampled_from(numbers), label="skipped")}
        for connection in self.subscribed(market):
            order = self.data.draw(st.permutations(numbers)) if market == SPOT else numbers
            for number in order:
                if number not in skipped:
                    connection.deliver(market, number)

    def end(self):
        if not self.connections:
            return
        connection = self.data.draw(st.sampled_from(self.connections))
        self.connections.remove(connection)
        whole = {SPOT, SHARED}
        connection.close(replaced=any(other.subscribed == whole for other in self.connections))

    def look(self):
        self.world.later(0.6)
        self.world.look()
        for connection in [connection for connection in self.connections if connection.dropped]:
            self.connections.remove(connection)
            connection.close(Reason.BUFFER_FULL)

    def block(self):
        gate = self.world.rest.gate
        gate.clear() if gate.is_set() else gate.set()

    def fail(self):
        self.world.rest.failure = None if self.world.rest.failure else RestError("HTTP 404", None)

    async def restart(self):
        if self.data.draw(st.booleans(), label="killed"):
            lost = self.data.draw(st.integers(0, 4), label="trades that Kafka never had")
            del self.world.publish_buffer.published[len(self.world.publish_buffer.published) - lost :]
            await self.world.feeds._repairs.stop_all()
            await self.world.feeds._lost_times.stop()
        else:
            for connection in list(self.connections):
                connection.close(Reason.STOPPED)
            await self.world.feeds.stop("the worker has been stopped")
            await self.world.reporter.flush()
        self.connections = []
        self.collect()
        self.start()

    def is_told_lost(self, market, traded_at):
        return any(
            gap.from_time <= traded_at < max(gap.to_time or 0, gap.from_time + 1)
            for (name, _), gap in self.topics.gaps.items()
            if name == market and gap.state == "lost"
        )

    def judge(self, state):
        """Each trade is published once, in order but for those that came late, or lies in a gap that says so."""
        self.collect()
        for market, trades_published in self.published.items():
            published = [trade.sequence for trade in trades_published]
            happened = [10, *self.world.rest.happened[market][1:]]
            assert len(set(published)) == len(published)
            missing = sorted(set(happened) - set(published))
            assert self.world.rest.failure or not missing
            for number in missing:
                assert self.is_told_lost(market, TIMES[market, number]), number
            assert set(published) <= set(happened)
            live = [number for number in published if number not in self.late[market]]
            assert live == sorted(live)
            assert self.world.state(market) == "connected"
        states = {gap.state for gap in self.topics.gaps.values()}
        assert states <= {"repaired", state}, self.topics.gaps

    async def run(self):
        self.start()
        for _ in range(self.data.draw(st.integers(5, 30), label="steps")):
            kinds = [
                "connect",
                "acknowledge",
                "happen",
                "happen",
                "happen",
                "end",
                "look",
                "block",
                "settle",
                "restart",
            ]
            kinds += ["fail"] * self.fails
            kind = self.data.draw(st.sampled_from(kinds))
            if kind == "settle":
                await self.world.settle()
            elif kind == "restart":
                await self.restart()
            elif kind != "connect" or len(self.connections) < 2:
                getattr(self, kind)()
            if self.data.draw(st.booleans(), label="go on a little"):
                await asyncio.sleep(0)
        self.world.rest.gate.set()
        if not self.connections:
            self.connect()
        for connection in self.connections:
            for market in {SPOT, SHARED} - connection.subscribed:
                connection.subscribed.add(market)
                connection.subscribe(market)
        for market, number in self.next.items():  # a hole is seen when another trade comes
            self.world.later(0.1)
            TIMES[market, number] = self.world.now_us
            self.world.happen(market, number)
            for connection in self.connections:
                connection.deliver(market, number)
        for seconds in (6, PATIENCE_S, PATIENCE_S):
            await self.world.pass_by(seconds)
            self.look()
            if not self.connections:  # closed, because too much was held
                await self.world.feeds.may_connect()
                self.connect()
                self.connections[0].subscribed = {SPOT, SHARED}
                self.connections[0].subscribe()
        await self.world.pass_by(2 * PATIENCE_S)
        self.judge("lost")
        self.world.rest.failure = None
        await self.world.pass_by(4 * 3600)
        self.judge("repaired")
        await self.world.feeds.stop("the test ends")


@pytest.mark.slow
@settings(max_examples=100)
@given(data=st.data())
def test_whatever_happens_each_trade_is_published_once_and_no_gap_stays_open(data):
    asyncio.run(History(data, fails=False).run())


@pytest.mark.slow
@settings(max_examples=100)
@given(data=st.data())
def test_what_rest_does_not_give_lies_in_a_gap_that_is_lost_until_it_does(data):
    asyncio.run(History(data, fails=True).run())


# Frames that are read at once.


def test_frames_of_one_read_are_what_they_would_be_one_by_one():
    texts = [
        "SPOT 11",
        "NEW 5",
        "SPOT 13",
        "NEW 5",
        "SPOT 12 14",
        "garbage",
        "bad SPOT",
        "SPOT 15",
        "SPOT 17",
        "NEW 6 7",
    ]
    seen = []

    def say_each(connection):
        assert all(connection.say(text) for text in texts)

    def say_at_once(connection):
        assert connection.say_all(*texts) == len(texts)

    for say in (say_each, say_at_once):

        async def scenario(world, say=say):
            connection = await live_connection(world, SPOT, NEW)
            world.happen(SPOT, 11, 12, 13, 14, 15, 16, 17)
            say(connection)
            world.look()
            await world.pass_by(2)
            frames = dict(world.feeds._sources[connection.number].frames)
            dead = [(each.value, each.reason) for each in world.publish_buffer.dead]
            gaps = [(gap.from_time, gap.to_time, gap.state) for market in (SPOT, NEW) for gap in world.gaps(market)]
            seen.append(
                (world.ids(SPOT), world.ids(NEW), dead, gaps, frames, sum(f.duplicates for f in feeds_of(world)))
            )

        play(scenario, {SPOT: trades(SPOT, 10), NEW: trades(NEW, 4)})
    assert seen[0] == seen[1]
    assert seen[0][0] == [11, 12, 13, 14, 15, 16, 17]
    assert seen[0][1] == [5, 6, 7]


def feeds_of(world):
    return world.feeds._feeds.values()


def test_what_is_not_about_trades_ends_what_is_taken_of_a_read():
    async def scenario(world):
        connection = await live_connection(world, SPOT)
        assert connection.say_all("SPOT 11", "SPOT 12", "ack", "SPOT 13") == 2
        assert world.ids() == [11, 12]
        assert connection.say_all("ack") == 0
        assert connection.say_all("SPOT 13") == 1
        assert world.ids() == [11, 12, 13]

    play(scenario, {SPOT: trades(SPOT, 10)})


def test_the_place_of_a_frame_that_cannot_be_read_is_its_own():
    async def scenario(world):
        places = []
        world.publish_buffer.reject = lambda rejected, source: places.append(source)
        connection = await live_connection(world, SPOT)
        connection.say_all("garbage", "SPOT 11", "garbage")
        name, number, first_ns = places[0].rsplit("/", 2)
        assert (name, int(number), int(first_ns)) == ("feed:toy", connection.number, connection.last_ns)
        assert places[1] == f"feed:toy/{connection.number}/{connection.last_ns + 2}"

    play(scenario, {SPOT: trades(SPOT, 10)})

"""All feeds of a process, against a made-up venue: what connections, REST, Kafka and the shard may do to them."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_venue import LIMITS

from ashi.contracts.feed import FeedGap, FeedStatus, decode_feed_gap, decode_feed_status
from ashi.contracts.trade import EARLIEST_US, Trade
from ashi.runtime.metrics import ingest as metrics
from ashi_ingest.errors import Reason
from ashi_ingest.feed.evidence.completeness import lag_allowance_us
from ashi_ingest.feed.repair import comparison as comparison_module
from ashi_ingest.feed.repair import repairs as repairs_module
from ashi_ingest.feed.repair.lost_times import nothing_published
from ashi_ingest.feed.reporting.reported import ReportedFeed
from ashi_ingest.feed.reporting.status import FeedReporter
from ashi_ingest.feed.supervisor import FeedSupervisor
from ashi_ingest.feed.symbol.opening import CLOCK_TOLERANCE_US
from ashi_ingest.feed.symbol.symbol_feed import HOLE_PATIENCE_S
from ashi_ingest.publish.backpressure import Backpressure
from ashi_ingest.publish.publisher import Appended
from ashi_ingest.rest.budget import FIRST
from ashi_ingest.rest.client import RestError
from ashi_ingest.venues.base import Answer, RepairEnd, Request
from ashi_ingest.venues.parsing import Parsed, Rejected

T = 1_700_000_000_000_000
SPOT, SHARED, NEW = "SPOT", "SHARED", "NEW"  # contiguous ids; ids shared with other markets; nothing published yet
OTHER = "OTHER"  # of another worker


@pytest.fixture(autouse=True, scope="module")
def no_settling():
    """Repairs do not wait for a REST interface that lags, and believe what it shows; where not, a test says so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repairs_module, "SETTLE_S", 0.0)
        patch.setattr(repairs_module, "FIRST_S", 0.0)
        patch.setattr(repairs_module, "REST_AGE_S", 0.0)
        patch.setattr(comparison_module, "lag_allowance_us", lambda worst_us: 3 * worst_us - CLOCK_TOLERANCE_US)
        yield


HOLD_S, PATIENCE_S = repairs_module.HOLD_S, 300.0


def at(number: int) -> int:
    return T + number * 1_000_000


TIMES: dict[tuple[str, int], int] = {}
"""Of trades that happened at another time than `at` says."""


def trade(market: str, number: int) -> Trade:
    us = TIMES.get((market, number), at(number))
    return Trade(f"toy:{market}", str(number), Decimal(1), Decimal(1), "buy", us, us, number)


def trades(market: str, *numbers: int) -> list[Trade]:
    return [trade(market, number) for number in numbers]


class Parser:
    """Frames are `SPOT 1 2 3`, `ack`, or garbage: of an unknown market, or `bad SPOT`, which may say how far ahead."""

    def parse(self, frame, received_at):
        market, *numbers = frame.decode().split()
        if market == "ack":
            return Parsed()
        if market == "garbage":
            return Parsed(rejected=[Rejected(frame, "not a frame")])
        if market == "bad":
            ahead_us = int(numbers[1]) if len(numbers) > 1 else None
            return Parsed(rejected=[Rejected(frame, "price is missing", f"toy:{numbers[0]}", ahead_us)])
        return Parsed(trades=trades(market, *map(int, numbers)))


class Venue:
    """The plan of a repair asks for all after the greatest reported id, until it has the one that came live."""

    name = "toy"
    limits = LIMITS
    ordered_ids = True
    statement = None

    def __init__(self):
        self.same_millisecond = False

    def parser(self):
        return Parser()

    def contiguous(self, market):
        return market == SPOT

    def repair(self, market, since, until):
        after = max(trade.sequence for trade in since)
        shown_until = max(trade.traded_at for trade in since)
        for _ in range(3):
            answer = yield Request(market, {"after": str(after)})
            found = trades(market, *json.loads(answer.body))
            if found:
                yield found
                after = found[-1].sequence
                shown_until = max(shown_until, found[-1].traded_at)
            if until is None or after >= until.sequence - (market == SPOT):
                return RepairEnd(shown_until=shown_until)
        return RepairEnd("REST does not list it")

    def history(self, market, since_us, until_us):
        after = 0 if TIMES else (since_us - T - 1) // 1_000_000
        answer = yield Request(market, {"after": str(after)})
        found = [trade for trade in trades(market, *json.loads(answer.body)) if trade.traded_at >= since_us]
        if found:
            yield found
        return RepairEnd(shown_until=found[-1].traded_at if found else None)


class RestClient:
    """Knows the ids that happened in each market, but for those it is told to hide, and `lag` ids at the end."""

    def __init__(self):
        self.happened: dict[str, list[int]] = {SPOT: [], SHARED: [], NEW: []}
        self.hidden = set()
        self.lag = 0
        self.asked = []
        self.failure = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.on_answer = lambda: None

    async def get(self, request, urgency=FIRST):
        self.asked.append((request.path, int(request.parameters["after"])))
        await self.gate.wait()
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        numbers = self.happened[request.path]
        numbers = numbers[: len(numbers) - self.lag]
        after = int(request.parameters["after"])
        body = json.dumps([number for number in numbers if number > after and number not in self.hidden])
        self.on_answer()
        return Answer(body.encode(), T)


class KafkaBuffer:
    """What is put here is published at once, unless Kafka is away: then it is held."""

    def __init__(self):
        self.published = []
        self.late = []
        self.dead = []
        self.appended = None
        self.away = False
        self._held = 0

    @property
    def held(self):
        return self._held

    def put(self, trades, *, streamed, late=False):
        self.published += trades
        self.late += trades if late else []
        self._held += len(trades) if self.away else 0

    def reject(self, rejected, source):
        self.dead += rejected

    def slow(self, held):
        """So much is held already."""
        self._held = held

    def back(self):
        self.away, self._held = False, 0

    async def room(self, most):
        while self._held > most:  # noqa: ASYNC110
            await asyncio.sleep(0)


class Topics:
    """Remembers what is said in `feed.status` and `feed.gaps`."""

    def __init__(self):
        self.statuses: dict[str, FeedStatus] = {}
        self.gaps: dict[tuple[str, int], FeedGap] = {}
        self.gate = asyncio.Event()
        self.gate.set()

    mark = 0

    def is_acknowledged(self, symbol, mark):
        return True

    async def announce(self, topic, key, value, schema, on_acknowledged=lambda: None):
        await self.gate.wait()
        on_acknowledged()
        if topic == "feed.status":
            status = decode_feed_status(value)
            self.statuses[status.symbol.partition(":")[2]] = status
        else:
            gap = decode_feed_gap(value)
            self.gaps[gap.symbol.partition(":")[2], gap.from_time] = gap


class FakeConnection:
    """A connection, as far as feeds see it."""

    number = 0

    def __init__(self, world, *markets):
        FakeConnection.number += 1
        self.number = FakeConnection.number
        self.markets = markets
        self.world = world
        self.open = True
        self.dropped = None
        self.traded = []
        self.last_ns = None
        self.subscribed: set[str]
        world.feeds.on_open(self)

    def drop(self, reason):
        self.dropped = reason

    def has_traded(self, market):
        self.traded.append(market)

    def subscribe(self, *markets):
        self.world.feeds.on_subscribed(self, markets or self.markets)

    def say(self, text):
        self.last_ns = self.world.now_us * 1000
        return self.world.feeds.on_frames(self, [text.encode()], self.last_ns) == 1

    def say_all(self, *texts):
        """In one read. Gives how many from the first on were about trades."""
        self.last_ns = self.world.now_us * 1000
        return self.world.feeds.on_frames(self, [text.encode() for text in texts], self.last_ns)

    def deliver(self, market, *numbers):
        return self.say(" ".join([market, *map(str, numbers)]))

    def silent(self, silent=True):
        self.world.feeds.on_silent(self, silent)

    def close(self, reason=Reason.LOST, *, replaced=False):
        self.open = False
        self.world.feeds.on_closed(self, reason, "it broke off", self.last_ns, replaced=replaced)


def stand_in(fake: Any) -> Any:
    """For a class of Ashi, of which it has what is used here."""
    return fake


class World:
    """Feeds with everything around them."""

    def __init__(self, resume_points, reported=None, buffer=1000, published=nothing_published):
        self.now_us = at(1000)
        self.now_s = 0.0
        self.sleepers: list[tuple[float, asyncio.Future[None]]] = []
        self.venue = stand_in(Venue())
        self.rest = stand_in(RestClient())
        self.publish_buffer = stand_in(KafkaBuffer())
        self.topics = stand_in(Topics())
        for market, resume_point in resume_points.items():
            self.rest.happened[market] = [trade.sequence for trade in resume_point]
        reported = {f"toy:{market}": (reported or {}).get(market, ReportedFeed(None, ())) for market in resume_points}
        self.reporter = FeedReporter(self.topics, "toy", reported, now_us=lambda: self.now_us)
        self.feeds = FeedSupervisor(
            self.venue,
            resume_points,
            publish_buffer=self.publish_buffer,
            reporter=self.reporter,
            rest=self.rest,
            recorder=None,
            backpressure=Backpressure(self.publish_buffer, buffer),
            patience_s=PATIENCE_S,
            published=published,
            now_us=lambda: self.now_us,
            monotonic_s=lambda: self.now_s,
            sleep=self.sleep,
        )
        for symbol, (status, *_) in reported.items():
            self.feeds.begin(symbol, status)

    def happen(self, market, *numbers):
        """Trades that no connection delivers."""
        self.rest.happened[market] += numbers

    def later(self, seconds=1.0):
        self.now_us += round(seconds * 1_000_000)
        self.now_s += seconds
        for due_s, sleeper in self.sleepers:
            if due_s <= self.now_s and not sleeper.done():
                sleeper.set_result(None)
        self.sleepers = [(due_s, sleeper) for due_s, sleeper in self.sleepers if not sleeper.done()]

    async def sleep(self, seconds):
        """Until `later` has moved the clock that far."""
        sleeper = asyncio.get_running_loop().create_future()
        self.sleepers.append((self.now_s + max(seconds, 1e-3), sleeper))
        await sleeper

    async def pass_by(self, seconds):
        """Let time go by in steps, and all go on as it does."""
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.later(min(max(1.0, seconds / 50), until_s - self.now_s))
            self.look()
            await self.settle()

    async def settle(self):
        """Let repairs go on as far as they can, and say what there is to say."""
        ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
        for _ in range(150):
            await asyncio.sleep(0)
            if not ready:  # nobody goes on but whoever waits here
                break
        await self.reporter.flush()

    def look(self):
        self.feeds.look()

    def ids(self, market=SPOT):
        return [trade.sequence for trade in self.publish_buffer.published if trade.symbol == f"toy:{market}"]

    def gaps(self, market=SPOT):
        return [gap for (name, _), gap in sorted(self.topics.gaps.items()) if name == market]

    def outcomes(self, market=SPOT):
        return [(gap.state, gap.trades_recovered) for gap in self.gaps(market)]

    def state(self, market=SPOT):
        return self.topics.statuses[market].state


def status_of(market, state="connected", *, last=None, since=None, updated_at=None, complete_until=None):
    last_us = None if last is None else at(last)
    name = None if last is None else str(last)
    return FeedStatus(
        f"toy:{market}", state, since or at(10), None, name, last_us, updated_at or at(20), complete_until
    )


def play(scenario, *args, **kwargs):
    """Run a scenario with a world made within the loop."""
    TIMES.clear()

    async def main():
        world = World(*args, **kwargs)
        try:
            await scenario(world)
        finally:
            await world.feeds.stop("the test ends")

    asyncio.run(main())


async def live_connection(world, *markets):
    """A connection whose markets are live."""
    connection = FakeConnection(world, *markets)
    connection.subscribe()
    await world.settle()
    assert all(world.state(market) == "connected" for market in markets)
    return connection


async def look_after(world, seconds):
    """Look once, after so long."""
    world.later(seconds)
    world.look()
    await world.reporter.flush()


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


# Holes.


async def hole(world, connection, *beyond):
    """Trades beyond a hole come, and the hole is waited for in vain."""
    connection.deliver(SPOT, *beyond)
    world.look()
    await world.settle()
    assert world.state() == "connected"
    world.later(HOLE_PATIENCE_S + 0.1)
    world.look()
    await world.settle()


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
    monkeypatch.setattr("test_supervisor.at", lambda number: T)

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

"""All feeds of a process, and a made-up venue whose connections, REST, clocks and Kafka do as a test says."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

from toy_venue import LIMITS

from ashi.contracts.feed import FeedGap, FeedStatus, decode_feed_gap, decode_feed_status
from ashi.contracts.trade import Trade
from ashi_ingest.errors import Reason
from ashi_ingest.feed.repair import repairs as repairs_module
from ashi_ingest.feed.repair.lost_times import nothing_published
from ashi_ingest.feed.reporting.reported import ReportedFeed
from ashi_ingest.feed.reporting.status import FeedReporter
from ashi_ingest.feed.supervisor import FeedSupervisor
from ashi_ingest.feed.symbol.symbol_feed import HOLE_PATIENCE_S
from ashi_ingest.publish.backpressure import Backpressure
from ashi_ingest.rest.budget import FIRST
from ashi_ingest.venues.base import Answer, RepairEnd, Request
from ashi_ingest.venues.parsing import Parsed, Rejected

T = 1_700_000_000_000_000


SPOT, SHARED, NEW = "SPOT", "SHARED", "NEW"  # contiguous ids; ids shared with other markets; nothing published yet


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


async def hole(world, connection, *beyond):
    """Trades beyond a hole come, and the hole is waited for in vain."""
    connection.deliver(SPOT, *beyond)
    world.look()
    await world.settle()
    assert world.state() == "connected"
    world.later(HOLE_PATIENCE_S + 0.1)
    world.look()
    await world.settle()

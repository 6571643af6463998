"""Following the venue's list of markets: what it says becomes what is read and what is published."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import pytest

from ashi.contracts.instrument import Instrument, decode_instrument
from ashi_ingest import market_follower
from ashi_ingest.instruments import InstrumentReporter
from ashi_ingest.market_follower import MarketFollower
from ashi_ingest.markets import Choice, Markets, read_market_list
from ashi_ingest.rest.client import RestError
from ashi_ingest.shard import Shard, shard_of
from ashi_ingest.venues.base import Answer, ListedMarket

GONE = "delisted: toy does not list it any more"


def listed(**states: Any) -> dict[str, ListedMarket]:
    return {market: ListedMarket(market, market, "JPY", Decimal(1), None, state) for market, state in states.items()}


class Publisher:
    """Reads what is published."""

    def __init__(self) -> None:
        self.sent: list[Instrument] = []

    async def announce(self, topic: str, key: str, value: bytes, schema: str) -> None:
        instrument = decode_instrument(value)
        assert (topic, key, schema) == ("instruments", instrument.symbol, "ashi.instrument.v1")
        self.sent.append(instrument)

    def take(self) -> dict[str, str]:
        sent: dict[str, str] = {instrument.symbol.partition(":")[2]: instrument.state for instrument in self.sent}
        assert len(sent) == len(self.sent), "one message a market"
        self.sent.clear()
        return sent


class Feeds:
    """Writes down what becomes of markets."""

    def __init__(self, markets: Iterable[str]) -> None:
        self.subscribed = list(markets)
        self.events: list[Any] = []
        self.halted: dict[str, bool] = {}
        self.unlisted_us: dict[str, int] = {}

    async def begin(self, markets: Sequence[str], unlisted_us: Mapping[str, int]) -> None:
        self.subscribed += markets
        self.unlisted_us.update(unlisted_us)
        self.events.append(("begin", *markets))

    def end(self, market: str, reason: str) -> None:
        self.subscribed.remove(market)
        self.events.append(("end", market, reason))

    def set_halted(self, market: str, halted: bool) -> None:
        self.halted[market] = halted

    async def leave(self, market: str, reason: str) -> None:
        self.events.append(("leave", market, reason))

    def take(self) -> list[Any]:
        events, self.events = self.events, []
        return events


class Venue:
    """Lists what it is told to."""

    name = "toy"

    def markets_request(self) -> None:
        pass

    def read_markets(self, body: Any) -> list[ListedMarket]:
        return list(body.values())


class RestClient:
    """Gives the answers it was told to, one after the other; an exception is raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    async def get(self, request: None) -> Answer:
        if not self.answers:
            await asyncio.Event().wait()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Answer(answer, 0)


class World:
    """A follower with everything around it made up."""

    def __init__(
        self,
        first: Mapping[str, ListedMarket] | None,
        *named: str,
        shard: Shard | None = None,
        known: Mapping[str, Instrument] | None = None,
        answers: Sequence[Any] = (),
        asked_us: int = 0,
    ) -> None:
        choice = Choice(named, shard)
        present = choice.read("toy", first) if first is not None else list(named)
        self.feeds = Feeds(present)
        self.publisher = Publisher()
        self.now_us = 10**15
        publisher: Any = self.publisher
        self.instruments = InstrumentReporter(publisher, "toy", known or {}, now_us=lambda: self.now_us)
        venue: Any = Venue()
        rest: Any = RestClient(*answers)
        self.rest = rest
        self.follower = MarketFollower(
            venue, rest, choice, Markets(present, [], first, asked_us), feeds=self.feeds, instruments=self.instruments
        )

    async def run(self) -> None:
        """Until all answers have been dealt with."""
        following = asyncio.create_task(self.follower.run(0.001))
        async with asyncio.timeout(60):
            while self.rest.answers:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.01)
        following.cancel()

    async def follow(self, *lists: Mapping[str, ListedMarket]) -> list[Any]:
        for each in lists:
            await self.follower.follow(each)
        return self.feeds.take()


def test_all_markets_that_trade_are_read_and_a_listing_and_the_end_of_a_halt_bring_one_more() -> None:
    async def scenario() -> None:
        world = World(listed(A="trading", B="halted"))
        assert world.follower.reading == ["A"]
        assert await world.follow(listed(A="trading", B="halted", C="trading")) == [("begin", "C")]
        assert await world.follow(listed(A="trading", B="trading", C="trading")) == [("begin", "B")]
        assert await world.follow(listed(A="trading", B="trading", C="trading")) == []
        assert sorted(world.follower.reading) == ["A", "B", "C"]

    asyncio.run(scenario())


def test_a_listing_is_told_when_the_venue_did_not_trade_it_yet_by_the_list_before_that_was_followed() -> None:
    """Binance lists a market some time before it trades; the list of the start counts like any other."""

    async def scenario() -> None:
        second = listed(A="trading", B="trading", C="halted", D="trading", E="trading")
        third = listed(A="trading", B="trading", C="trading", D="trading", E="trading")
        before_us = time.time_ns() // 1000
        lists = [listed(A="trading", D="trading", E="trading"), second, third, third]
        world = World(listed(A="trading", D="halted"), answers=lists, asked_us=77)
        await world.run()
        assert world.feeds.take()[:3] == [("begin", "D", "E"), ("begin", "B"), ("begin", "C")]
        unlisted_us = world.feeds.unlisted_us
        assert (unlisted_us.pop("D"), unlisted_us.pop("E")) == (77, 77)
        assert unlisted_us.keys() == {"B", "C"}
        assert before_us <= unlisted_us["B"] < unlisted_us["C"] <= time.time_ns() // 1000

    asyncio.run(scenario())


def test_a_named_market_in_a_halt_is_read_and_said_to_be_halted_until_it_trades() -> None:
    async def scenario() -> None:
        world = World(listed(A="halted", B="trading"), "A", answers=[listed(A="halted", B="trading")])
        await world.run()
        assert world.follower.reading == ["A"]
        assert world.feeds.halted == {"A": True}
        assert await world.follow(listed(A="trading", B="trading")) == []
        assert world.feeds.halted == {"A": False}
        assert await world.follow(listed(A="halted", B="trading")) == [], "it stays subscribed"
        assert world.feeds.halted == {"A": True}

    asyncio.run(scenario())


def test_what_the_worker_has_begun_with_is_told_at_once() -> None:
    async def scenario() -> None:
        world = World(listed(A="halted", B="trading"), "A", "B")
        await world.run()
        assert world.feeds.halted == {"A": True, "B": False}
        assert world.publisher.take() == {"A": "halted", "B": "trading"}
        assert world.feeds.take() == [], "nothing begins that the session has begun"

    asyncio.run(scenario())


def test_a_market_is_delisted_when_two_lists_lack_it_or_one_says_so() -> None:
    async def scenario() -> None:
        world = World(listed(A="trading", B="trading"))
        assert await world.follow(listed(B="trading"), listed(A="trading", B="trading"), listed(B="trading")) == []
        assert await world.follow(listed(B="trading")) == [("end", "A", GONE)]
        assert await world.follow(listed(B="trading"), listed(B="trading")) == []
        assert world.follower.reading == ["B"]
        assert await world.follow(listed(A="trading", B="delisted")) == [("end", "B", GONE), ("begin", "A")]

    asyncio.run(scenario())


def test_a_named_market_that_is_listed_later_is_read() -> None:
    async def scenario() -> None:
        world = World(listed(A="trading"), "A", "B")
        assert await world.follow(listed(A="trading", B="halted", C="trading")) == [("begin", "B")]

    asyncio.run(scenario())


def test_a_market_that_the_venue_refused_and_lists_is_subscribed_to_again() -> None:
    async def scenario() -> None:
        world = World(listed(A="trading", B="trading"), "A", "B")
        world.feeds.subscribed.remove("B")
        assert await world.follow(listed(A="trading", B="trading")) == [("begin", "B")]

    asyncio.run(scenario())


def test_a_new_market_is_read_by_exactly_one_of_the_workers_that_share_a_venue() -> None:
    async def scenario() -> None:
        names = [f"M{number}" for number in range(40)]
        old = listed(**dict.fromkeys(names[:20], "trading"))
        new = listed(**dict.fromkeys(names, "trading"))
        worlds = [World(old, shard=Shard(number, 3)) for number in range(3)]
        for world in worlds:
            await world.follow(new)
        assert sorted(market for world in worlds for market in world.feeds.subscribed) == sorted(names)
        sent = [world.publisher.take() for world in worlds]
        assert sorted(market for each in sent for market in each) == sorted(names)
        for number, world in enumerate(worlds):
            assert {shard_of(f"toy:{market}", 3) for market in world.feeds.subscribed} == {number}

    asyncio.run(scenario())


def test_instruments_are_published_when_they_differ_from_what_was_published_last() -> None:
    async def scenario() -> None:
        same = Instrument("toy:A", "A", "JPY", Decimal(1), None, "trading", 5 * 10**14)
        other = Instrument("toy:B", "B", "JPY", Decimal(2), None, "trading", 5 * 10**14)
        first = listed(A="trading", B="trading", C="halted")
        world = World(first, known={"A": same, "B": other}, answers=[first, first])
        await world.run()
        assert world.publisher.take() == {"B": "trading", "C": "halted"}
        await world.follow(listed(A="halted", B="trading", C="halted"))
        assert world.publisher.take() == {"A": "halted"}
        world.now_us += 5
        await world.follow(*[listed(B="trading", C="halted")] * 3)
        (gone,) = world.publisher.sent
        assert gone == Instrument("toy:A", "A", "JPY", Decimal(1), None, "delisted", 10**15 + 5)

    asyncio.run(scenario())


def test_of_named_markets_only_those_are_published() -> None:
    async def scenario() -> None:
        world = World(listed(A="trading", B="trading"), "A")
        await world.follow(listed(A="trading", B="trading"))
        assert world.publisher.take() == {"A": "trading"}

    asyncio.run(scenario())


def test_what_was_delisted_while_no_worker_ran_is_said_once() -> None:
    async def scenario() -> None:
        old = Instrument("toy:OLD", None, None, None, None, "trading", 5 * 10**14)
        older = Instrument("toy:OLDER", None, None, None, None, "delisted", 5 * 10**14)
        lists = [listed(A="trading")] * 4
        world = World(lists[0], known={"OLD": old, "OLDER": older}, answers=lists)
        await world.run()
        assert world.feeds.take() == [("leave", "OLD", GONE)]
        assert world.publisher.take() == {"A": "trading", "OLD": "delisted"}

    asyncio.run(scenario())


def test_lists_that_do_not_come_or_are_empty_change_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        answers = [
            RestError("HTTP 451", None),
            {},
            RestError("HTTP 503", 0.0),
            {},
            {},
            listed(A="trading", B="trading"),
        ]
        world = World(listed(A="trading"), answers=answers)
        await world.run()
        assert world.feeds.take() == [("begin", "B")]

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())
    assert sum("asking again later" in record.getMessage() for record in caplog.records) == 5


def test_a_name_that_cannot_be_a_symbol_is_left_out_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        venue: Any = Venue()
        rest: Any = RestClient(*[listed(**{"A": "trading", "B C": "trading"})] * 2)
        for _ in range(2):
            assert list(await read_market_list(rest, venue)) == ["A"]

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())
    assert sum("'B C'" in record.getMessage() for record in caplog.records) == 1


def test_workers_do_not_ask_at_the_same_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 50:
            raise asyncio.CancelledError

    async def scenario() -> None:
        world = World(None, answers=[RestError("no", 0.0)] * 100)
        monkeypatch.setattr(market_follower.asyncio, "sleep", sleep)
        with pytest.raises(asyncio.CancelledError):
            await world.follower.run(300.0)

    asyncio.run(scenario())
    assert 270 <= min(waits) < 290 < 310 < max(waits) <= 330

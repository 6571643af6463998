"""Answers of REST that are well-formed and say less than what is known already: they have shown nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from checked_world import VENUES, World, all_once, each_market, run, trade_for
from venue_samples import FIRST_MS, Execution, Listed

from ashi.contracts.feed import FeedGap, FeedStatus

BASE_MS = FIRST_MS - 600_000
LOST = set(range(51, 60))


def nothing(_listed: list[Listed]) -> list[Listed]:
    return []


def an_old_page(listed: list[Listed]) -> list[Listed]:
    """That of a cache which was filled when trade 40 had happened."""
    return [each for each in listed if each.execution.number <= 40]


Shows = Callable[[list[Listed]], list[Listed]]
each_answer = pytest.mark.parametrize("shows", [nothing, an_old_page])


def execution(number: int, at_ms: int) -> Execution:
    return Execution(number, at_ms, str(5_860_000 + number % 7), taker=("buy", "sell")[number % 2])  # type: ignore[arg-type]


def lost_before(venue: str, market: str) -> Callable[[], World]:
    """A world in which nine trades were lost by an earlier process, in the midst of 300."""
    symbol = f"{venue}:{market}"
    lost_us, last_us = (BASE_MS + 50_000) * 1000, (BASE_MS + 300_000) * 1000
    gap = FeedGap(symbol, lost_us - 1_000_000, lost_us + 12_000_000, "lost", 0, "REST was in maintenance", lost_us)
    status = FeedStatus(symbol, "connected", lost_us, None, "300", last_us, last_us + 5_000_000, last_us - 6_000_000)
    published = [execution(number, BASE_MS + number * 1000) for number in range(1, 301)]
    return lambda: World(VENUES[venue](), market=market, published=published, lost=LOST, status=status, gaps=[gap])


@each_market
@each_answer
def test_what_was_lost_is_not_called_repaired_by_an_answer_that_lacks_what_is_known(
    venue: str, market: str, shows: Shows
) -> None:
    async def play(world: World) -> None:
        world.rest.shows = shows
        await world.pass_time(150)
        world.check()
        world.rest.shows = lambda listed: listed
        await trade_for(world, 1200, 5)
        assert not world.missing()

    assert all_once(run(lost_before(venue, market), play))


@each_market
@each_answer
def test_a_quiet_market_is_not_known_by_an_answer_that_lacks_what_is_known(
    venue: str, market: str, shows: Shows
) -> None:
    """A mute market, and a REST interface that answers: neither says anything about the time."""

    async def play(world: World) -> None:
        await trade_for(world, 60)
        await world.pass_time(90)
        world.rest.shows = shows
        world.rest.states = False
        world.socket.mute = True
        await trade_for(world, 240, 6)
        world.rest.shows = lambda listed: listed
        world.rest.states = True
        await trade_for(world, 600, 3)
        assert not world.missing()
        assert world.complete_until is not None
        assert world.complete_until > world.truth[-1].traded_at - 120_000_000

    assert all_once(run(lambda: World(VENUES[venue](), market=market), play))


@each_market
@each_answer
def test_an_interruption_is_not_repaired_by_an_answer_that_lacks_what_is_known(
    venue: str, market: str, shows: Shows
) -> None:
    async def play(world: World) -> None:
        await trade_for(world, 60)
        world.break_off()
        world.rest.shows = shows
        world.rest.states = False
        for _ in range(5):
            world.trade("lost")
            await world.pass_time(1)
        world.reconnect()
        await world.pass_time(200)  # nothing comes
        world.rest.shows = lambda listed: listed
        await world.pass_time(1800)
        assert not world.missing()

    assert all_once(run(lambda: World(VENUES[venue](), market=market), play))


def test_what_is_stated_is_not_taken_for_no_trade_by_an_answer_that_lacks_what_is_known() -> None:
    async def play(world: World) -> None:
        await trade_for(world, 60)
        world.rest.shows = nothing
        world.socket.mute = True
        await trade_for(world, 240, 6)
        world.rest.shows = lambda listed: listed
        await trade_for(world, 300, 3)
        assert not world.missing()

    for venue in ("binance", "binance-usdm"):
        assert all_once(run(lambda venue=venue: World(VENUES[venue](), market="BTCUSDT"), play))  # type: ignore[misc]


@each_market
def test_rows_of_another_market_are_not_published(venue: str, market: str) -> None:
    async def play(world: World) -> None:
        def others(listed: list[Listed]) -> list[Listed]:
            rows = []
            for each in listed:
                other = replace(each.execution, number=each.execution.number + 7, price="77", size="0.5")
                rows.append(Listed(other, world.samples.rows(other)))
            return rows

        await trade_for(world, 60)
        world.rest.shows = others
        world.rest.states = False
        await trade_for(world, 60, 3)
        world.break_off()
        for _ in range(5):
            world.trade("lost")
            await world.pass_time(1)
        world.reconnect()
        await trade_for(world, 60)
        await trade_for(world, 300, 30)
        world.rest.shows = lambda listed: listed
        await trade_for(world, 1200, 5)
        assert not world.missing()

    assert all_once(run(lambda: World(VENUES[venue](), market=market), play))

"""Comparison with REST, for each venue: what no connection shows is found, and nothing is claimed that is not known."""

from __future__ import annotations

import asyncio

import pytest
from checked_world import MARKETS, VENUES, World, all_once, each_market, run, trade_for
from venue_samples import FIRST_MS, Execution

from ashi.contracts.feed import FeedGap, FeedStatus
from ashi.contracts.trade import EARLIEST_US
from ashi_ingest.feed.evidence.rhythm import LEAST_S
from ashi_ingest.feed.repair.comparison import Times
from ashi_ingest.feed.symbol import checked as checked_module
from ashi_ingest.rest.budget import FIRST, Urgency
from ashi_ingest.rest.client import RestError
from ashi_ingest.venues.base import Answer, Request
from ashi_ingest.venues.bitflyer import repair as bitflyer_repair

pytestmark = pytest.mark.usefixtures("no_settling")


def world_of(venue: str, market: str, **arguments):
    return lambda: World(VENUES[venue](), market=market, **arguments)


@each_market
def test_a_market_that_goes_mute_is_found_within_sixty_seconds_subscribed_anew_alone_and_whole(venue, market):
    async def play(world: World) -> None:
        await trade_for(world, 30)
        world.socket.mute = True
        mute_s = world.now_s()
        for _ in range(60):
            world.trade()
            await world.pass_time(1.0)
            if world.socket.resubscribed:
                break
        (found_s,) = world.socket.resubscribed
        assert found_s - mute_s <= 60
        await trade_for(world, 30)
        assert len(world.socket.resubscribed) == 1
        assert all_once(world)
        (gap,) = [gap for gap in world.topics.gaps.values() if "REST lists" in gap.reason]
        assert gap.state == "repaired"
        assert gap.from_time <= mute_s * 1e6 + world.truth[0].traded_at
        assert gap.trades_recovered >= found_s - mute_s - 1

    run(world_of(venue, market), play)


@pytest.mark.parametrize("venue", ["binance", "binance-usdm"])
def test_a_market_that_the_statement_does_not_list_is_compared_by_itself(venue):
    async def play(world: World) -> None:
        world.rest.leaves_out = True
        await trade_for(world, 30)
        world.socket.mute = True
        await trade_for(world, 60)
        assert len(world.socket.resubscribed) == 1
        await trade_for(world, 20)
        assert all_once(world)

    run(world_of(venue, "BTCUSDT"), play)


@pytest.mark.slow
@each_market
def test_nothing_is_found_and_nothing_is_subscribed_anew_in_a_faultless_time(venue, market):
    """Also of a market that trades once in some minutes, while REST lags by up to ten seconds."""

    async def play(world: World) -> None:
        await trade_for(world, 60)
        gaps = dict(world.topics.gaps)
        for turn in range(18):
            world.rest.lag_s = turn * 3 % 11
            await trade_for(world, 5, every_s=0.2)
            await world.pass_time(4 + turn * 8)
        assert world.now_s() > 1300
        assert world.topics.gaps == gaps
        assert world.socket.resubscribed == []
        assert all_once(world)

    run(world_of(venue, market), play)


@each_market
def test_what_is_known_follows_a_quiet_market_by_no_more_than_the_allowance_and_one_round(venue, market):
    async def play(world: World) -> None:
        await trade_for(world, 30)
        for _ in range(10):
            await world.pass_time(60)
            assert world.complete_until is not None
            assert world.now_us() - world.complete_until <= 100_000_000

    run(world_of(venue, market), play)


@pytest.mark.parametrize(("venue", "market"), [("bitflyer", "BTC_JPY"), ("gmo", "BTC_JPY")])
def test_one_lost_frame_of_a_market_without_contiguous_ids_is_found_and_its_gap_is_exact(venue, market):
    async def play(world: World) -> None:
        await trade_for(world, 60)
        world.trade("lost")
        lost = world.truth[-1]
        await world.pass_time(1)
        await trade_for(world, 60)
        assert all_once(world)
        (gap,) = [gap for gap in world.topics.gaps.values() if gap.trades_recovered]
        assert gap.state == "repaired"
        assert gap.from_time == lost.traded_at - 1_000_000
        assert gap.to_time is not None
        assert lost.traded_at < gap.to_time <= lost.traded_at + 1_000_000, "up to what REST listed after it"
        assert len(world.socket.resubscribed) == 1

    run(world_of(venue, market), play)


@each_market
def test_a_trade_that_rest_lists_before_it_comes_is_not_missing(venue, market):
    async def play(world: World) -> None:
        await trade_for(world, 60)
        gaps, asked = dict(world.topics.gaps), len(world.rest.requests)
        for _ in range(40):
            world.trade("late", late_s=0.9 if venue == "gmo" else 4.0)
            await world.pass_time(1.3)
        await world.pass_time(10)
        if world.samples.venue.statement is not None:
            later = world.rest.requests[asked:]
            assert all("ticker" in request.path for request in later), "what is stated had come by then"
        assert world.topics.gaps == gaps
        assert world.socket.resubscribed == []
        assert all_once(world)

    run(world_of(venue, market), play)


NEVER = 1e9


@each_market
def test_a_market_is_suspected_by_its_own_rhythm_when_nobody_asks_in_turn(venue, market):
    """One trade in 20 s: after eight of these intervals it is asked after, or when the venue states more."""

    async def play(world: World) -> None:
        await trade_for(world, 400, every_s=20)
        asked = len(world.rest.requests)
        world.socket.mute = True
        mute_s = world.now_s()
        while not world.socket.resubscribed:
            world.trade()
            await world.pass_time(20)
        assert world.socket.resubscribed[0] - mute_s <= 10 * 20
        assert len(world.rest.requests) - asked <= 16
        await trade_for(world, 60, every_s=20)
        assert all_once(world)

    run(world_of(venue, market, times=Times(interval_s=NEVER, quiet_s=NEVER)), play)


without_statement = pytest.mark.parametrize(("venue", "market"), MARKETS[:3])


@without_statement
def test_a_market_that_is_quiet_is_not_asked_after_more_often_than_it_is_suspected(venue, market):
    async def play(world: World) -> None:
        await trade_for(world, 60)
        asked = len(world.rest.requests)
        await world.pass_time(600)
        assert 600 // 60 <= len(world.rest.requests) - asked <= 600 / LEAST_S + 1

    run(world_of(venue, market, times=Times(interval_s=NEVER, quiet_s=NEVER)), play)


@each_market
def test_of_a_venue_that_lags_long_no_more_is_known_than_three_times_that_before(venue, market):
    async def play(world: World) -> None:
        await trade_for(world, 30)
        world.rest.lag_s = 40
        await trade_for(world, 60)
        last_us = world.truth[-1].traded_at
        while world.now_us() < last_us + 115_000_000:
            await world.pass_time(1)
            assert world.complete_until is not None
            assert world.complete_until <= max(last_us, world.now_us() - 115_000_000)
        await world.pass_time(60)
        assert (world.complete_until or 0) > last_us, "and then it is"

    run(world_of(venue, market), play)


@pytest.mark.parametrize(("venue", "market"), [("binance", "BTCUSDT"), ("binance-usdm", "BTCUSDT")])
def test_what_a_venue_states_is_enough_to_suspect_a_market(venue, market):
    async def play(world: World) -> None:
        await trade_for(world, 30)
        world.socket.mute = True
        world.trade()
        await world.pass_time(40)
        assert all_once(world)
        assert len(world.socket.resubscribed) == 1

    run(world_of(venue, market, times=Times(interval_s=NEVER, quiet_s=NEVER, suspicion_s=NEVER)), play)


@pytest.mark.parametrize(("venue", "market"), [("binance", "BTCUSDT"), ("binance-usdm", "BTCUSDT")])
def test_an_id_that_is_stated_and_of_no_trade_is_asked_for_until_rest_must_know_it(venue, market):
    """The insurance fund's trades of USD-M have ids and are none of the market."""

    async def play(world: World) -> None:
        await trade_for(world, 30)
        asked = len(world.rest.requests)
        world.rest.stated_beyond = 2
        await world.pass_time(80)
        by_id = [request for request in world.rest.requests[asked:] if "ticker" not in request.path]
        assert 1 <= len(by_id) <= 5, "after each statement, until a minute has passed: an answer may lag"
        asked = len(world.rest.requests)
        await world.pass_time(200)
        assert all("ticker" in request.path for request in world.rest.requests[asked:])
        assert world.socket.resubscribed == []
        assert world.now_us() - (world.complete_until or 0) < 100_000_000

    run(world_of(venue, market), play)


def test_a_comparison_that_is_broken_off_says_nothing_of_how_far_rest_lags(monkeypatch):
    """It lists the oldest first of what it asked for."""
    monkeypatch.setattr(bitflyer_repair, "COUNT", 6)
    monkeypatch.setattr(bitflyer_repair, "RECENT_US", 0)  # so it is read forwards

    async def play(world: World) -> None:
        await trade_for(world, 30)
        get, asked = world.rest.get, len(world.rest.requests)
        allowance_us = world.feeds._comparison.allowance_us

        async def fail_at_the_second_window(request: Request, urgency: Urgency = FIRST) -> Answer:
            if int(request.parameters.get("before", 0)) > 20:
                raise RestError("REST does not answer", 0.0)
            return await get(request, urgency)

        world.rest.get = fail_at_the_second_window  # type: ignore[method-assign]
        await world.pass_time(120)
        assert len(world.rest.requests) > asked + 4
        assert world.feeds._comparison.allowance_us == allowance_us

    run(world_of("bitflyer", "BTC_JPY"), play)


def test_while_a_venue_states_nothing_its_markets_are_compared_one_by_one():
    async def play(world: World) -> None:
        await trade_for(world, 30)
        world.rest.states = False
        world.socket.mute = True
        world.trade()
        await world.pass_time(150)
        assert all_once(world)

    run(world_of("binance", "BTCUSDT"), play)


without_ids = pytest.mark.parametrize(("venue", "market"), [("bitflyer", "BTC_JPY"), ("gmo", "BTC_JPY")])


def history(count: int, every_ms: int = 1000) -> list[Execution]:
    """Executions of before the worker began."""
    first_ms = FIRST_MS - count * every_ms
    return [
        Execution(1 + n, first_ms + n * every_ms, str(5_860_000 + n % 7), taker="buy" if n % 2 else "sell")
        for n in range(count)
    ]


def status_of(venue: str, market: str, complete_until: int | None) -> FeedStatus:
    now_us = FIRST_MS * 1000
    return FeedStatus(f"{venue}:{market}", "down", now_us, "stopped", "1", now_us, now_us, complete_until)


@without_ids
def test_what_an_earlier_process_had_not_compared_is_compared_after_a_restart(venue, market):
    """A frame was lost 20 s before it ended, and nobody had found it yet."""
    before = history(100)
    lost = before[80]

    async def play(world: World) -> None:
        assert len(world.missing()) == 1
        await world.pass_time(30)
        assert world.missing() == []
        await world.pass_time(60)  # nothing trades, so REST may lag as far as anybody can tell
        assert all(gap.state == "repaired" for gap in world.topics.gaps.values()), world.topics.gaps

    known_until = before[70].at_ms * 1000
    run(
        world_of(venue, market, published=before, lost={lost.number}, status=status_of(venue, market, known_until)),
        play,
    )


@without_ids
def test_of_a_busy_market_more_is_compared_after_a_restart_than_a_repair_needs(venue, market):
    before = history(1200, every_ms=20)

    async def play(world: World) -> None:
        await world.pass_time(200)  # GMO has pages of 50 executions, of which one is asked for in 2 s
        assert world.missing() == []
        await world.pass_time(80)  # nothing trades, so REST may lag as far as anybody can tell
        assert all(gap.state == "repaired" for gap in world.topics.gaps.values()), world.topics.gaps

    status = status_of(venue, market, before[300].at_ms * 1000)
    run(world_of(venue, market, published=before, lost={500, 1100}, read=1000, status=status), play)


@without_ids
def test_what_it_had_not_compared_and_is_too_long_ago_to_be_is_told_as_lost(venue, market):
    before = history(500)
    known_until = before[100].at_ms * 1000

    async def play(world: World) -> None:
        await trade_for(world, 30)
        lost = [gap for gap in world.topics.gaps.values() if gap.state == "lost"]
        assert [(gap.from_time, gap.to_time) for gap in lost] == [(known_until, before[300].at_ms * 1000)]
        assert (world.complete_until or 0) > before[-1].at_ms * 1000

    status = status_of(venue, market, known_until)
    run(world_of(venue, market, published=before, lost={150}, status=status), play)


@without_ids
def test_what_cannot_be_compared_for_too_long_is_told_as_lost_and_then_it_goes_on(venue, market, monkeypatch):
    monkeypatch.setattr(checked_module, "MAX_UNCOMPARED", 4500)

    async def play(world: World) -> None:
        await trade_for(world, 20)
        until = world.complete_until
        assert until is not None
        world.rest.fails = True
        world.trade("lost")
        for _ in range(60):
            for _ in range(80):
                world.trade()
                await asyncio.sleep(0.012)
            await world.pass_time(0.1)
        (lost,) = [gap for gap in world.topics.gaps.values() if "came before" in gap.reason]
        assert lost.state == "lost"
        assert lost.from_time <= world.missing()[0].traded_at < (lost.to_time or 0)
        assert world.complete_until == until, "while nothing can be compared"
        world.rest.fails = False
        await world.pass_time(60)
        assert (world.complete_until or 0) > (lost.to_time or 0)
        assert world.socket.resubscribed == []

    run(world_of(venue, market), play)


@without_ids
def test_of_a_market_that_is_new_all_that_was_published_is_compared_and_nothing_is_lost(venue, market):
    before = history(20)
    known_until = before[0].at_ms * 1000 - 30_000_000

    async def play(world: World) -> None:
        await world.pass_time(100)
        assert world.missing() == []
        assert all(gap.state == "repaired" for gap in world.topics.gaps.values())

    status = status_of(venue, market, known_until)
    run(world_of(venue, market, published=before, lost={10}, status=status), play)


@each_market
def test_at_the_first_start_a_market_is_found_mute_though_no_trade_of_it_has_come(venue, market):
    async def play(world: World) -> None:
        world.socket.mute = True
        await world.pass_time(70)
        assert world.complete_until is not None, "REST lists nothing, and so tells what is known"
        begun_us = world.complete_until
        await trade_for(world, 120, every_s=20)
        await world.pass_time(20)
        assert world.missing() == []
        assert len(world.socket.resubscribed) == 1
        await trade_for(world, 30)
        assert all_once(world)
        assert world.complete_until > begun_us
        (unrepaired,) = [gap for gap in world.topics.gaps.values() if gap.state != "repaired"]
        assert (unrepaired.from_time, unrepaired.to_time) == (EARLIEST_US, FIRST_MS * 1000)

    run(world_of(venue, market), play)


def test_ids_that_have_been_compared_are_forgotten(monkeypatch):
    monkeypatch.setattr("ashi_ingest.feed.symbol.sequencer.REMEMBERED_IDS", 200)

    async def play(world: World) -> None:
        await trade_for(world, 150, every_s=0.1)
        (feed,) = world.feeds._feeds.values()
        assert len(world.kafka.trades) == 1500
        assert feed._sequencer.remembered < 700

    run(world_of("bitflyer", "BTC_JPY"), play)


@each_market
def test_a_gap_that_nobody_would_end_is_asked_for_by_time(venue, market):
    """The predecessor had it on its way when it was killed, and it was not there when its successor read the topic."""

    async def play(world: World) -> None:
        await trade_for(world, 10)
        symbol, begun = f"{venue}:{market}", FIRST_MS * 1000 - 2_000_000
        left = FeedGap(symbol, begun, None, "open", 0, "it broke off", FIRST_MS * 1000)
        world.topics.gaps[begun] = left
        world.reporter.take_gap(left)
        world.reporter.settle(world.reporter.to_settle())
        await world.pass_time(1)
        assert world.topics.gaps[begun].state == "lost"
        assert world.topics.gaps[begun].to_time is not None
        await trade_for(world, 300, every_s=5)
        assert world.topics.gaps[begun].state == "repaired"

    run(world_of(venue, market), play)

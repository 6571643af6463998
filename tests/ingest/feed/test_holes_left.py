"""Where ids are contiguous, a hole that an answer leaves is never stepped over without a word, whatever breaks off."""

from __future__ import annotations

import asyncio

import pytest
from checked_world import KEYLESS, World, run, trade_fast, trade_for, venue_of
from venue_samples import FIRST_MS, Execution

from ashi.contracts.feed import FeedGap, FeedStatus
from ashi.contracts.trade import EARLIEST_US

pytestmark = pytest.mark.usefixtures("no_settling")

CONTIGUOUS = [
    ("bitflyer", "FX_BTC_JPY"),
    ("binance", "BTCUSDT"),
    ("binance-usdm", "BTCUSDT"),
    (KEYLESS, "BTCUSDT"),
]
each_contiguous = pytest.mark.parametrize(("venue", "market"), CONTIGUOUS)


def play(venue: str, market: str, script) -> World:
    return run(lambda: World(venue_of(venue), market=market), script)


def doubtful(world: World) -> list[FeedGap]:
    """The gaps that are not repaired, but that of the time before it was first read."""
    gaps = sorted(world.topics.gaps.values(), key=lambda gap: gap.from_time)
    return [gap for gap in gaps if gap.state != "repaired" and gap.from_time > EARLIEST_US]


def assert_all_is_known(world: World) -> None:
    world.check()
    assert (world.complete_until or 0) > world.truth[-1].traded_at - 15_000_000
    assert not [gap for gap in doubtful(world) if gap.state == "open"]


def test_a_mute_market_of_which_the_venue_lists_only_the_latest_trades_tells_what_is_lost():
    async def script(world: World) -> None:
        await trade_for(world, 30)
        world.socket.mute = True
        await trade_fast(world, 27, rate=60)
        await world.pass_time(60)
        await trade_for(world, 40)
        assert_all_is_known(world)
        assert world.missing(), "the venue does not list them any more"
        (gap,) = doubtful(world)
        assert gap.state == "lost"
        assert gap.to_time is not None
        assert gap.to_time <= world.missing()[-1].traded_at + 2_000_000, "what it lists is not in the gap"

    play(KEYLESS, "BTCUSDT", script)


async def break_a_row(world: World) -> None:
    """Five trades are missed, and the venue lists the one in the middle by a row that is none."""
    for _ in range(5):
        world.trade()
        await world.pass_time(0.5)
    world.rest.bad = {world.happened[-3].number}


async def until_it_can_be_read(world: World) -> None:
    await trade_for(world, 60)
    assert_all_is_known(world)
    (missing,) = world.missing()
    (gap,) = doubtful(world)
    assert gap.state == "lost"
    assert not gap.final
    world.rest.bad.clear()
    await trade_for(world, 150)
    assert not world.missing()
    assert not doubtful(world), f"{missing.trade_id} has come"


@each_contiguous
def test_a_row_that_cannot_be_read_of_a_mute_market_is_a_gap_until_it_can(venue, market):
    async def script(world: World) -> None:
        await trade_for(world, 30)
        world.socket.mute = True
        await break_a_row(world)
        await world.pass_time(80)
        await until_it_can_be_read(world)

    play(venue, market, script)


@each_contiguous
def test_a_row_that_cannot_be_read_is_a_gap_also_when_the_connection_breaks_off_twice(venue, market):
    async def script(world: World) -> None:
        await trade_for(world, 30)
        world.break_off()
        await break_a_row(world)
        world.reconnect()
        await world.pass_time(7)
        world.break_off()
        await world.pass_time(1)
        world.reconnect()
        await world.pass_time(20)
        await until_it_can_be_read(world)

    play(venue, market, script)


@each_contiguous
def test_a_row_that_cannot_be_read_is_a_gap_also_when_the_worker_is_killed(venue, market):
    """Whatever it had said until then: at each of the moments after the answer."""

    async def script(world: World) -> None:
        for after_s in (0.6, 3.0):
            await trade_for(world, 20)
            world.break_off()
            await break_a_row(world)
            world.reconnect()
            await world.pass_time(after_s)
            await world.kill()
            await asyncio.sleep(1)
            world.start_again()
            await trade_for(world, 60)
            assert_all_is_known(world)
            assert len(world.missing()) == 1
            world.rest.bad.clear()
            await trade_for(world, 200, every_s=2)
            assert not world.missing()

    play(venue, market, script)


def test_an_id_that_spot_does_not_list_is_lost_for_good_also_of_a_mute_market():
    async def script(world: World) -> None:
        await trade_for(world, 30)
        world.socket.mute = True
        await break_a_row(world)
        world.rest.absent, world.rest.bad = world.rest.bad, set()
        await world.pass_time(80)
        await trade_for(world, 60)
        assert_all_is_known(world)
        (gap,) = doubtful(world)
        assert (gap.state, gap.final) == ("lost", True)
        assert len(world.missing()) == 1

    play("binance", "BTCUSDT", script)


@pytest.mark.parametrize("venue", ["bitflyer", "binance-usdm", KEYLESS])
def test_an_id_that_another_venue_does_not_list_is_of_no_trade(venue):
    async def script(world: World) -> None:
        await trade_for(world, 30)
        world.socket.mute = True
        await break_a_row(world)
        world.rest.absent, world.rest.bad = world.rest.bad, set()
        await world.pass_time(80)
        await trade_for(world, 60)
        assert (world.complete_until or 0) > world.truth[-1].traded_at - 15_000_000
        assert not doubtful(world)

    def unchecked() -> World:
        world = World(venue_of(venue), market="FX_BTC_JPY" if venue == "bitflyer" else "BTCUSDT")
        world.check = lambda: None  # type: ignore[method-assign]  # the truth has a trade that the venue denies
        return world

    run(unchecked, script)


@pytest.mark.parametrize("mute_s", [0, 6])
def test_a_market_that_was_mute_before_it_broke_off_is_not_called_complete_up_to_then(mute_s):
    """After the reconnection nothing comes for a while: the repair has seen the far side before any trade has."""

    async def script(world: World) -> None:
        await trade_for(world, 30)
        world.socket.mute = True
        await trade_fast(world, 18)
        world.break_off()
        await world.pass_time(0.2)
        world.reconnect()
        world.socket.mute = mute_s > 0
        await trade_fast(world, mute_s)
        world.socket.mute = False
        await trade_fast(world, 1)
        await trade_for(world, 60)
        assert_all_is_known(world)
        assert world.missing()

    play(KEYLESS, "BTCUSDT", script)


def test_what_rest_did_not_list_yet_when_the_connection_broke_off_again_comes():
    async def script(world: World) -> None:
        await trade_for(world, 30)
        world.break_off()
        await trade_fast(world, 20)
        world.rest.lag_s = 4
        world.reconnect()
        await trade_fast(world, 2.5)
        world.break_off()
        await trade_fast(world, 1)
        world.reconnect()
        await trade_fast(world, 1)
        world.rest.lag_s = 0
        await trade_for(world, 60)
        assert_all_is_known(world)
        (gap,) = doubtful(world)
        assert gap.state == "lost"
        assert world.missing()
        newest = world.missing()[-1]
        assert newest.traded_at < world.truth[30].traded_at + 15_000_000, "but for what it never lists"

    play(KEYLESS, "BTCUSDT", script)


@each_contiguous
def test_ids_that_are_missing_in_what_was_published_after_the_last_status_are_lost_until_they_come(venue, market):
    """Whoever was killed before it could tell, or never told."""
    begun_ms = FIRST_MS - 600_000
    published = [Execution(n, begun_ms + n * 1000, "5860000", taker="buy") for n in range(1, 251)]
    traded_us = (begun_ms + 100_000) * 1000
    symbol = f"{venue_of(venue).name}:{market}"
    status = FeedStatus(
        symbol, "connected", traded_us - 10**7, None, "100", traded_us, traded_us, traded_us - 10**6, ()
    )

    async def script(world: World) -> None:
        await trade_for(world, 10)
        (gap,) = doubtful(world)
        assert gap.state == "lost"
        await trade_for(world, 120)
        assert_all_is_known(world)
        assert not world.missing()
        assert not doubtful(world)

    def world() -> World:
        return World(venue_of(venue), market=market, published=published, lost=range(101, 120), status=status)

    run(world, script)

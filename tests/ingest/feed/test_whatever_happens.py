"""Scripts of what happens to a market, drawn and found: readers are never told that a time is complete which is not.

What was found wrong by them stands here by itself, with what it was.
"""

from __future__ import annotations

import asyncio
import os

import pytest
from checked_world import (
    KEYLESS,
    MARKETS,
    VENUES,
    World,
    all_once,
    ids,
    run,
    trade_fast,
    trade_for,
    venue_of,
)
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.usefixtures("no_settling")

contiguous = pytest.mark.parametrize(
    ("venue", "market"), [("bitflyer", "FX_BTC_JPY"), ("binance", "BTCUSDT"), ("binance-usdm", "BTCUSDT")]
)

each_market = pytest.mark.parametrize(("venue", "market"), [*MARKETS, (KEYLESS, "BTCUSDT")])

EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "8"))
"""Of each market; each takes about a quarter of a second. These are the same in each run, so that a test fails for who
has changed something; `TEST_EXAMPLES=200` draws others, and looks for longer."""

MANY = {KEYLESS: 150}
"""Where so many trades a second are missed, the venue does not list all of them any more."""

Script = list[tuple[tuple[str, float], float]]
"""What happens, with a number, and the time that passes after it, seconds."""


steps = st.one_of(
    st.tuples(st.just("comes"), st.integers(0, 3000)),
    st.tuples(st.just("comes"), st.integers(0, 3000)),
    st.tuples(st.sampled_from(["late", "lost"]), st.integers(0, 3000)),
    st.tuples(st.just("quiet"), st.sampled_from([1, 5, 30, 90])),
    st.tuples(st.just("lag"), st.sampled_from([0, 1, 7, 19, 55])),
    st.tuples(st.just("lags evenly"), st.booleans()),
    st.tuples(st.just("break"), st.sampled_from([0, 2, 40])),
    st.tuples(st.just("mute"), st.just(0)),
    st.tuples(st.just("rest fails"), st.booleans()),
    st.tuples(st.just("states"), st.booleans()),
    st.tuples(st.just("too much is held"), st.just(0)),
    st.tuples(st.just("clock is ahead"), st.sampled_from([0, 0, 5, 40])),
    st.tuples(st.just("a row is bad"), st.integers(0, 4)),
    st.tuples(st.just("rows are good"), st.just(0)),
    st.tuples(st.just("many"), st.sampled_from([2, 8])),
    st.tuples(st.just("killed"), st.sampled_from([0, 5])),
)


def play_and_check(venue: str, market: str, script: Script) -> None:
    """`World.check` looks ten times a second. In the end all is there, and is known to be."""

    async def play(world: World) -> None:
        disorder_ms = 0 if venue == "gmo" else round(world.samples.venue.limits.disorder_s * 1000)
        await trade_for(world, 3)
        for (what, number), pause_s in script:
            match what:
                case "comes" | "late" | "lost":
                    world.trade(what, early_ms=min(int(number), disorder_ms), late_s=0.9)  # type: ignore[arg-type]
                case "quiet":
                    await world.pass_time(number)
                case "lag":
                    world.rest.lag_s = number
                case "lags evenly":
                    world.rest.lags_evenly = bool(number)
                case "break":
                    world.break_off()
                    await world.pass_time(number)
                    world.reconnect()
                case "mute":
                    world.socket.mute = True
                case "rest fails":
                    world.rest.fails = bool(number)
                case "states":
                    world.rest.states = bool(number)
                case "too much is held":
                    world.discard_held()
                case "clock is ahead":
                    world.clock_ahead_ms = int(number * 1000)
                case "a row is bad":  # one of the last, which has happened already, or will
                    world.rest.bad.add(world.happened[-1].number + 2 - int(number))
                case "rows are good":
                    world.rest.bad.clear()
                case "killed":
                    await world.kill()
                    await asyncio.sleep(number)
                    world.start_again()
                case "many" if venue in MANY:  # the latest thousand are of some seconds
                    await trade_fast(world, number, rate=MANY[venue])
                case "many":
                    world.trade()
                case _:
                    raise ValueError(what)
            await world.pass_time(pause_s)
        clock_was_ahead = any(what == "clock is ahead" for (what, _), _ in script)
        world.rest.fails, world.rest.states, world.rest.lag_s, world.clock_ahead_ms = False, True, 0, 0
        world.rest.bad.clear()
        await world.pass_time(150)
        await trade_for(world, 3)
        if clock_was_ahead:  # for so long it may have been ahead of late
            await world.pass_time(300)
            await trade_for(world, 3)
            await world.pass_time(300)
            await trade_for(world, 3)
        await world.pass_time(3 * 55 + 60)  # three times the worst lag, and a round
        assert (world.complete_until or 0) > world.truth[-1].traded_at, "and `check` tells what of that is lost"
        assert len(set(ids(world))) == len(ids(world)), "each once"
        if not world.samples.venue.contiguous(market):
            assert all_once(world)

    run(lambda: World(venue_of(venue), market=market), play)


LOST_BEFORE_A_BREAK: Script = [
    (("comes", 49), 0.0),
    (("lost", 2196), 0.2),
    (("comes", 1009), 0.2),
    (("break", 2), 0.0),
    (("rest fails", True), 0.0),
    (("break", 0), 3.0),
    (("quiet", 30), 0.0),
    (("comes", 656), 3.0),
    (("rest fails", True), 3.0),
    (("rest fails", False), 0.0),
    (("lag", 7), 0.0),
    (("lag", 55), 3.0),
    (("mute", 0), 0.0),
    (("mute", 0), 0.0),
    (("comes", 185), 0.0),
    (("quiet", 1), 3.0),
    (("lag", 1), 0.0),
]
"""The lost trade says that it happened before the one after it, and that one before the one that came first."""


MUTE_AND_BROKEN_OFF: dict[str, Script] = {
    "binance-usdm": [
        (("mute", 0), 0.0),
        (("late", 100), 3.0),
        (("rest fails", False), 3.0),
        (("break", 2), 3.0),
        (("lag", 19), 0.0),
        (("quiet", 5), 0.0),
        (("break", 0), 3.0),
    ],
    "binance": [
        (("mute", 0), 0.0),
        (("lost", 117), 3.0),
        (("break", 0), 3.0),
        (("quiet", 90), 0.2),
        (("mute", 0), 3.0),
        (("lost", 0), 0.2),
        (("lag", 1), 0.0),
        (("comes", 528), 0.0),
        (("rest fails", True), 3.0),
        (("break", 40), 3.0),
        (("rest fails", True), 0.2),
        (("comes", 157), 0.2),
        (("quiet", 90), 0.2),
    ],
}
"""A market is mute, trades, and its connection breaks off, more than once.

With USD-M the venue had stated the id of the missing trade, and the answer that was to list it lagged more than the
statement: that there was no such trade was believed. With spot the market had been mute for longer than the gap said,
and the ids of the trades that followed were taken to show that all before the gap was there.
"""


@pytest.mark.parametrize("venue", MUTE_AND_BROKEN_OFF)
def test_what_a_mute_market_traded_before_it_was_broken_off_is_not_called_complete(venue):
    play_and_check(venue, "BTCUSDT", MUTE_AND_BROKEN_OFF[venue])


@pytest.mark.slow
@each_market
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    derandomize=EXAMPLES <= 10,
    suppress_health_check=[HealthCheck.too_slow],  # on a busy machine it is
)
@example(script=LOST_BEFORE_A_BREAK)
@given(script=st.lists(st.tuples(steps, st.sampled_from([0.0, 0.2, 3.0])), min_size=5, max_size=40))
def test_nothing_is_missing_from_what_readers_find_complete_whatever_happens(venue, market, script):
    play_and_check(venue, market, script)


@contiguous
def test_what_was_stamped_ahead_and_is_missing_lies_in_the_gap_that_tells_of_it(venue, market):
    """The clock is right again when the ids show that a trade is missing, and forgotten to have been ahead later."""

    async def play(world: World) -> None:
        await trade_for(world, 5)
        world.clock_ahead_ms = 40_000
        world.trade()
        await world.pass_time(1)
        world.trade("lost")
        await world.pass_time(1)
        world.clock_ahead_ms, world.rest.fails = 0, True
        await trade_for(world, 800, every_s=10)
        assert len(world.missing()) == 1
        assert (world.complete_until or 0) > world.missing()[0].traded_at
        assert [gap.state for gap in world.topics.gaps.values() if gap.from_time > world.truth[0].traded_at] == ["lost"]

    run(lambda: World(VENUES[venue](), market=market), play)


@contiguous
def test_a_trade_that_comes_while_the_gap_before_it_is_being_told_is_known_to_follow_a_hole(venue, market):
    async def play(world: World) -> None:
        flush = world.reporter.flush
        await trade_for(world, 3)
        world.break_off()
        world.reconnect()
        await world.pass_time(90)
        world.socket.mute, world.rest.fails = True, True
        world.trade("lost")
        await world.pass_time(15)
        world.break_off()
        await world.pass_time(1)

        async def flush_slowly() -> None:
            await asyncio.sleep(1)
            await flush()

        world.reconnect()
        await world.pass_time(0.9)
        world.reporter.flush = flush_slowly  # type: ignore[method-assign]
        await asyncio.sleep(0.5)
        world.trade()
        await asyncio.sleep(2)
        world.reporter.flush = flush  # type: ignore[method-assign]
        await trade_for(world, 60)
        assert len(world.missing()) == 1
        assert (world.complete_until or 0) > world.missing()[0].traded_at

    run(lambda: World(VENUES[venue](), market=market), play)


@pytest.mark.parametrize(("venue", "market"), [("bitflyer", "BTC_JPY"), ("gmo", "BTC_JPY")])
def test_what_was_discarded_while_the_venue_was_asked_is_not_taken_to_be_in_its_answer(venue, market):
    async def play(world: World) -> None:
        await trade_for(world, 20)
        world.break_off()
        world.trade()
        await world.pass_time(2)
        world.rest.lag_s = 4
        world.reconnect()
        await trade_for(world, 4, every_s=0.1)
        asked = len(world.rest.requests)
        while len(world.rest.requests) == asked:
            await world.pass_time(0.01)
        world.discard_held()
        await world.pass_time(0.1)  # its answer lists the first trade that came, and not yet those after it
        world.rest.lag_s = 0
        await trade_for(world, 60)
        assert all_once(world)
        assert world.socket.resubscribed == [], "no comparison had to find it"

    run(lambda: World(VENUES[venue](), market=market), play)

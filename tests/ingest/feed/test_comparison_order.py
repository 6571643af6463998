"""Which market is compared next, when there are many; and what a comparison does that cannot be made."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from checked_world import World, run
from venue_certification import certified

from ashi_ingest.feed.repair import comparison as module
from ashi_ingest.feed.repair.comparison import Comparison, Times
from ashi_ingest.venues.registry import VENUES as DESCRIPTIONS

VENUES = certified()
NOW_S = 10_000.0
S = 1_000_000


class Checked:
    """What is chosen by: when a market was compared, how long it has been quiet, and at what intervals it trades."""

    def __init__(
        self, compared_s: float, quiet_s: float, interval_s: float, *, contiguous: bool = False, comparable: bool = True
    ) -> None:
        self.compared_s = NOW_S - compared_s
        self.contiguous = contiguous
        self.is_comparable = comparable
        self.recent = [SimpleNamespace(traded_at=round(n * interval_s * S)) for n in range(20)]
        self._quiet_s = quiet_s

    def quiet_s(self, now_s: float) -> float:
        return self._quiet_s


def comparison_of(**markets: Checked) -> Any:
    feeds: Any = {
        market: SimpleNamespace(market=market, checked=checked, is_asked_for=False)
        for market, checked in markets.items()
    }
    nobody: Any = None
    return Comparison(
        DESCRIPTIONS["gmo"].live(has_key=False),
        feeds,
        rest=nobody,
        clock=nobody,
        on_missing=lambda feed, missing: None,
        now_us=lambda: 0,
        monotonic_s=lambda: NOW_S,
        times=Times(),
    )


def name_of(feed: Any) -> str | None:
    return None if feed is None else feed.market


def test_in_turn_the_market_is_next_that_was_compared_longest_ago():
    comparison = comparison_of(a=Checked(30, 1, 1), b=Checked(50, 1, 1), c=Checked(40, 20, 1))
    assert name_of(comparison._next_in_turn()) == "b"
    comparison._busy.add("b")
    assert name_of(comparison._next_in_turn()) == "c"


def test_of_those_compared_equally_long_ago_the_quietest_is_next():
    comparison = comparison_of(a=Checked(30, 1, 1), b=Checked(30, 9, 1), c=Checked(30, 5, 1))
    assert name_of(comparison._next_in_turn()) == "b"


def test_none_is_next_that_was_compared_just_now_or_cannot_be():
    comparison = comparison_of(a=Checked(9, 1, 1), b=Checked(50, 1, 1, comparable=False))
    assert comparison._next_in_turn() is None


def test_a_market_with_contiguous_ids_has_its_turn_only_while_it_is_quiet():
    comparison = comparison_of(a=Checked(50, 9, 1, contiguous=True), b=Checked(40, 11, 1, contiguous=True))
    assert name_of(comparison._next_in_turn()) == "b"


def test_suspected_is_what_is_quiet_for_its_own_rhythm_the_most_suspicious_first():
    """After 200 s: one that trades each second, each 10 s (after 80 s), each 30 s (after 240 s)."""
    comparison = comparison_of(
        a=Checked(200, 200, 10), b=Checked(200, 200, 1), c=Checked(200, 200, 30), d=Checked(200, 44, 1)
    )
    assert name_of(comparison._next_suspect()) == "b"
    comparison._busy.add("b")
    assert name_of(comparison._next_suspect()) == "a"
    comparison._busy.add("a")
    assert comparison._next_suspect() is None


def test_whoever_was_asked_after_is_suspected_again_only_after_its_deadline():
    comparison = comparison_of(a=Checked(44, 200, 1), b=Checked(79, 200, 10))
    assert comparison._next_suspect() is None


def test_a_market_of_which_more_is_stated_than_has_come_goes_first():
    comparison = comparison_of(a=Checked(200, 200, 1), b=Checked(5, 1, 1), c=Checked(5, 1, 1, comparable=False))
    comparison._stated |= {"c": 9, "gone": 9, "b": 9}
    assert name_of(comparison._next_suspect()) == "b"
    assert comparison._stated == {"b": 9}


def test_a_mistake_of_ours_ends_the_comparisons_with_its_error(monkeypatch):
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr(module, "find_missing", fail)

    async def play(world: World) -> None:
        for _ in range(30):
            world.trade()
            await world.pass_time(1)
        world.trade("lost")
        comparing = asyncio.create_task(world.feeds.compare())
        with pytest.raises(ZeroDivisionError):
            async with asyncio.timeout(100):
                await comparing

    run(lambda: World(VENUES["gmo"](), market="BTC_JPY"), play)


def test_what_rest_does_not_go_back_to_is_told_as_lost_and_the_rest_is_known(monkeypatch):
    """Two pages of GMO do not go back to where it was compared before REST failed for long."""
    monkeypatch.setattr("ashi_ingest.venues.gmo.repair.MAX_PAGES", 2)

    async def play(world: World) -> None:
        for _ in range(20):
            world.trade()
            await world.pass_time(1)
        until = world.complete_until
        world.rest.fails = True
        for _ in range(200):
            world.trade()
            await world.pass_time(0.5)
        world.rest.fails = False
        await world.pass_time(30)
        (lost,) = [gap for gap in world.topics.gaps.values() if "pages" in gap.reason]
        assert lost.state == "lost"
        assert until is not None
        assert until <= lost.from_time + S < (lost.to_time or 0)
        assert (world.complete_until or 0) >= world.truth[-1].traded_at - S
        assert world.socket.resubscribed == []

    run(lambda: World(VENUES["gmo"](), market="BTC_JPY"), play)


@pytest.mark.parametrize(("venue", "market"), [("bitflyer", "BTC_JPY"), ("gmo", "BTC_JPY")])
def test_a_row_that_can_never_be_read_does_not_hold_up_what_is_known_for_ever(venue, market):
    async def play(world: World) -> None:
        for _ in range(20):
            world.trade()
            await world.pass_time(1)
        until = world.complete_until
        assert until is not None
        world.rest.bad.add(world.happened[-1].number + 1)
        for _ in range(40):
            world.trade()
            await world.pass_time(1)
        assert world.complete_until == until, "nobody knows what that row is"
        for _ in range(120):
            world.trade()
            await world.pass_time(1)
        (lost,) = [gap for gap in world.topics.gaps.values() if '{"bad":' in gap.reason]
        assert lost.state == "lost"
        assert lost.from_time <= world.truth[20].traded_at < (lost.to_time or 0)
        assert world.complete_until > (lost.to_time or 0)

    run(lambda: World(VENUES[venue](), market=market), play)


@pytest.mark.parametrize(("venue", "market"), [("bitflyer", "BTC_JPY"), ("gmo", "BTC_JPY"), ("binance", "BTCUSDT")])
def test_a_market_that_is_suspected_and_cannot_be_asked_for_is_not_called_connected(venue, market):
    async def play(world: World) -> None:
        for _ in range(30):
            world.trade()
            await world.pass_time(1)
        world.rest.fails = True
        await world.pass_time(40)
        assert world.state == ("connected", None)
        await world.pass_time(60)
        state, reason = world.state
        assert state == "silent"
        assert "could not be asked about it" in (reason or "")
        world.trade()
        await world.pass_time(3)
        assert world.state == ("connected", None)
        await world.pass_time(100)
        assert world.state[0] == "silent"
        world.rest.fails = False
        await world.pass_time(80)
        assert world.state == ("connected", None), "it is a quiet market"

    run(lambda: World(VENUES[venue](), market=market), play)


@pytest.mark.parametrize(("venue", "market"), [("bitflyer", "FX_BTC_JPY"), ("binance", "BTCUSDT")])
@pytest.mark.parametrize("lost_early", [False, True])
def test_what_is_missing_in_a_hole_may_have_happened_before_or_after_what_came_beside_it(venue, market, lost_early):
    """Times do not quite grow with the ids, so a gap that is lost is wider than the hole by as much."""

    async def play(world: World) -> None:
        disorder_ms = round(world.samples.venue.limits.disorder_s * 1000)
        for _ in range(10):
            world.trade()
            await world.pass_time(1)
        world.rest.fails = True
        world.trade("lost", early_ms=disorder_ms if lost_early else 0)
        for _ in range(60):
            world.trade(early_ms=0 if lost_early else disorder_ms)
            await world.pass_time(1)
        assert world.missing() == [world.truth[10]]
        assert (world.complete_until or 0) < world.truth[10].traded_at + 60 * S, "and `check` looks all the time"
        world.rest.fails = False
        await world.pass_time(120)
        assert world.missing() == []

    run(lambda: World(VENUES[venue](), market=market), play)

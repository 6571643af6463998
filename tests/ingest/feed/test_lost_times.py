"""Lost gaps that are known by time only: what is asked for, what of it is published, and when that is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from ashi.contracts import Trade
from ashi.contracts.errors import BrokerError
from ashi.contracts.feed import FeedGap
from ashi_ingest.feed.evidence.completeness import VenueClock
from ashi_ingest.feed.repair.lost_times import SLICE_US, STEP_US, LostTimes
from ashi_ingest.venues.base import Answer, RepairEnd, Request

T = 1_700_000_000_000_000
S = 1_000_000
SYMBOL = "toy:A"
ALLOWANCE_S = 60


def trade(second: float) -> Trade:
    us = T + round(second * S)
    return Trade(SYMBOL, f"{second:g}", Decimal(1), Decimal(1), "buy", us, us, int(second))


def stand_in(fake: Any) -> Any:
    """For a class of Ashi, of which it has what is used here."""
    return fake


@dataclass
class World:
    """A feed, its lost gaps, a venue that lists `happened`, and a topic. Only sleeping moves the time."""

    happened: list[Trade] = field(default_factory=list)
    in_topic: set[str] = field(default_factory=set)
    in_memory: set[str] = field(default_factory=set)
    newest: float = 1e9
    gaps: dict[int, FeedGap] = field(default_factory=dict)
    asked: list[tuple[float, float]] = field(default_factory=list)
    published: list[str] = field(default_factory=list)
    log_read: list[tuple[float, float]] = field(default_factory=list)
    now_s: float = 10_000.0
    symbol = SYMBOL
    market = "A"
    name = "toy"
    end: Callable[[World], RepairEnd] = lambda world: RepairEnd()
    end_of: dict[float, RepairEnd] = field(default_factory=dict)  # of the plan for the slice that begins then, s
    kafka_fails: bool = False
    while_asked: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.clock = VenueClock()
        self.lost_times = LostTimes(
            stand_in(self),
            rest=stand_in(self),
            clock=self.clock,
            reporter=stand_in(self),
            backpressure=stand_in(self),
            published=self.published_ids,
            allowance_us=lambda: ALLOWANCE_S * S,
            now_us=lambda: T + round(self.now_s * S),
            monotonic_s=lambda: self.now_s,
            sleep=self.sleep,
        )

    def lose(self, since_s: float, until_s: float, **how: Any) -> None:
        self.end_gap(SYMBOL, T + round(until_s * S), "lost", 0, "a clock", from_time=T + round(since_s * S))
        self.lost_times.add(stand_in(self), T + round(since_s * S), **how)

    async def pass_by(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while len(self.lost_times) and self.now_s < until_s:  # noqa: ASYNC110 - sleeping moves the time
            await asyncio.sleep(0)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.now_s += seconds

    # The venue and its REST interface.

    def history(self, market: str, since_us: int, until_us: int) -> Any:
        self.asked.append(((since_us - T) / S, (until_us - T) / S))
        yield Request("/trades", {})
        self.while_asked()
        listed = [each for each in self.happened if since_us <= each.traded_at < until_us]
        for each in listed:
            yield [each]
        return self.end_of.get((since_us + STEP_US - T) / S) or self.end_of.get((since_us - T) / S) or self.end(self)

    async def get(self, *_: Any) -> Answer:
        return Answer(b"[]", T)

    # What the feed knows, and what topic `trades` has.

    @property
    def checked(self) -> Any:
        return self

    def says_less(self, shown_until: int | None, asked_us: int) -> str | None:
        return None

    def remembers(self, trade: Trade) -> bool:
        return trade.trade_id in self.in_memory

    def publish_found(self, trades: Iterable[Trade]) -> list[Trade]:
        late = [each for each in trades if each.sequence <= self.newest]
        self.published += [each.trade_id for each in late]
        self.in_memory |= {each.trade_id for each in late}
        self.in_topic |= {each.trade_id for each in late}
        return late

    async def published_ids(self, symbol: str, from_us: int, until_us: int) -> set[str]:
        if self.kafka_fails:
            raise BrokerError("away")
        await asyncio.sleep(0)
        self.log_read.append(((from_us - T) / S, (until_us - T) / S))
        return {each for each in self.in_topic if from_us <= T + float(each) * S < until_us}

    async def room_to_repair(self) -> None:
        pass

    # The reporter.

    def lost_gap(self, symbol: str, from_us: int) -> FeedGap | None:
        gap = self.gaps.get(from_us)
        return None if gap is None or gap.state != "lost" or gap.final else gap

    def has_gap(self, symbol: str, from_us: int) -> bool:
        return from_us in self.gaps

    def end_gap(
        self, symbol: str, to_time: int, state: Any, recovered: int, reason: str, *, from_time: int, final: bool = False
    ) -> None:
        self.gaps[from_time] = FeedGap(symbol, from_time, to_time, state, recovered, reason, 0, final)

    def pieces(self, unit_s: float) -> list[tuple[float, float, str, bool]]:
        return [
            ((gap.from_time - T) / S / unit_s, ((gap.to_time or 0) - T) / S / unit_s, gap.state, gap.final)
            for _, gap in sorted(self.gaps.items())
        ]

    @property
    def states(self) -> list[tuple[str, int]]:
        return [(gap.state, gap.trades_recovered) for _, gap in sorted(self.gaps.items())]


def play(world: World, act: Callable[[World], Any]) -> World:
    async def run() -> None:
        await act(world)
        world.lost_times.check()
        await world.lost_times.stop()

    asyncio.run(run())
    return world


def test_what_happened_in_a_lost_time_and_is_in_no_topic_is_published_and_the_gap_is_repaired() -> None:
    happened = [trade(each) for each in (5, 10, 11, 12, 13, 19.5, 20, 30)]
    world = World(happened, in_topic={"11"}, in_memory={"12"})

    async def act(world: World) -> None:
        world.lose(10, 20)
        world.lose(10, 20)
        await world.pass_by(100)

    play(world, act)
    assert world.published == ["10", "13", "19.5"]
    assert world.states == [("repaired", 3)]
    assert world.asked == [(10 - STEP_US / S, 20 + STEP_US / S)], "the clock of the venue may have stepped"
    assert world.log_read == [(10 - STEP_US / S, 20 + STEP_US / S)]


def test_the_log_is_not_read_where_memory_knows_all_unless_topic_trades_has_lost_it() -> None:
    for is_cut in (False, True):
        world = World([trade(11), trade(12)], in_topic={"12"}, in_memory={"11", "12"})

        async def act(world: World, is_cut: bool = is_cut) -> None:
            world.lose(10, 20, is_cut=is_cut)
            await world.pass_by(100)

        play(world, act)
        assert (world.published, len(world.log_read)) == ((["11"], 1) if is_cut else ([], 0))
        assert world.states == [("repaired", int(is_cut))]


@pytest.mark.parametrize("shown_s", [None, 10_079.0])
def test_it_is_asked_for_until_rest_has_shown_its_time(shown_s: float | None) -> None:
    """Trades are stamped 80 s ahead: they are lost until then."""
    world = World(
        end=lambda world: RepairEnd(None, None if shown_s is None else T + round(min(shown_s, world.now_s) * S))
    )

    async def act(world: World) -> None:
        world.lose(10_000, 10_080)
        await world.pass_by(10_080 + ALLOWANCE_S - 10_000)
        assert world.states == [("lost", 0)]
        await world.pass_by(1000)

    play(world, act)
    assert world.states == [("repaired", 0)]


def test_what_was_stamped_while_the_clock_was_ahead_is_no_evidence_of_the_time_since() -> None:
    world = World(end=lambda world: RepairEnd(None, T + 9_995 * S))
    world.clock.on_trade(T + 9_950 * S, T + 9_900 * S)

    async def act(world: World) -> None:
        world.lose(9_980, 9_990)
        await world.pass_by(20)
        assert world.states == [("lost", 0)], "50 s less than it seems"

    play(world, act)


@pytest.mark.parametrize(("final", "beyond_reach"), [(True, False), (False, True)])
def test_the_venues_word_ends_the_asking(final: bool, beyond_reach: bool) -> None:
    end = RepairEnd("there are none that old", None, final, beyond_reach)
    world = World([trade(11)], end=lambda _: end)

    async def act(world: World) -> None:
        world.lose(10, 20)
        await world.pass_by(10_000)

    play(world, act)
    (gap,) = world.gaps.values()
    assert (gap.state, gap.trades_recovered, gap.final, gap.reason) == ("lost", 1, final, "there are none that old")
    assert world.published == ["11"]
    assert [since_s for since_s, _ in world.asked] == ([-50.0, 10.0] if beyond_reach else [-50.0]), (
        "what was before it need not be there"
    )


def test_weather_does_not() -> None:
    reasons = iter(["HTTP 503", "a row is bad", None])
    world = World(end=lambda _: RepairEnd(next(reasons)))

    async def act(world: World) -> None:
        world.kafka_fails = True
        world.happened = [trade(11)]
        world.lose(10, 20)
        await world.pass_by(60)
        assert world.published == [], "nobody knows whether it is there"
        world.kafka_fails = False
        await world.pass_by(10_000)

    play(world, act)
    assert world.published == ["11"]
    assert world.states == [("repaired", 1)]


def test_a_gap_that_grows_while_it_is_asked_for_is_asked_for_again() -> None:
    world = World([trade(11), trade(25)])

    async def act(world: World) -> None:
        grown = iter([True])
        world.while_asked = lambda: world.lose(10, 30) if next(grown, False) else None
        world.lose(10, 20)
        await world.pass_by(1000)

    play(world, act)
    assert world.published == ["11", "25"]
    assert [(gap.state, gap.to_time) for gap in world.gaps.values()] == [("repaired", T + 30 * S)]


def test_what_another_worker_has_published_is_not_asked_for() -> None:
    world = World()

    async def act(world: World) -> None:
        world.lose(10, 20)
        world.end_gap(SYMBOL, T + 20 * S, "repaired", 0, "by another", from_time=T + 10 * S)
        await world.pass_by(1000)

    play(world, act)
    assert (world.asked, len(world.lost_times)) == ([], 0)


def test_what_is_newer_than_all_that_was_published_is_left_to_the_repair_of_its_feed() -> None:
    world = World([trade(11), trade(15)], newest=12)

    async def act(world: World) -> None:
        world.lose(10, 20)
        await world.pass_by(100)
        assert world.published == ["11"]
        assert world.states == [("lost", 0)]
        world.in_memory.add("15")
        await world.pass_by(1000)

    play(world, act)
    assert world.states == [("repaired", 1)]


def test_a_long_time_is_asked_for_in_slices_so_that_its_ids_fit_into_memory() -> None:
    hour = SLICE_US // S
    world = World([trade(each) for each in (100, hour + 100, 2 * hour + 100)], now_s=5.0 * hour)

    async def act(world: World) -> None:
        world.lose(0, 2.5 * hour)
        await world.pass_by(1000)

    play(world, act)
    assert [(a + 60, b - 60) for a, b in world.log_read] == [(0, hour), (hour, 2 * hour), (2 * hour, 2.5 * hour)]
    assert len(world.published) == 3
    assert world.states == [("repaired", 3)]


def test_a_trade_that_rest_lists_before_its_time_tells_of_the_clock() -> None:
    world = World([msgspec.structs.replace(trade(15), received_at=T)])

    async def act(world: World) -> None:
        world.lose(10, 20)
        await world.pass_by(1000)

    play(world, act)
    assert world.clock.ahead_us == 15 * S


HOUR = SLICE_US // S
FOUR = [trade(each * HOUR + 100) for each in range(4)]


def of_four_hours(**how: Any) -> World:
    return World(FOUR, now_s=10.0 * HOUR, **how)


async def lose_four_hours(world: World) -> None:
    world.lose(0, 4 * HOUR)
    await world.pass_by(4000)


@pytest.mark.parametrize("end", [RepairEnd("no such", final=True), RepairEnd("too old", beyond_reach=True)])
def test_the_venues_word_of_a_slice_is_about_no_other(end: RepairEnd) -> None:
    world = play(of_four_hours(end_of={1.0 * HOUR: end}), lose_four_hours)
    assert len(world.published) == 4
    assert len(world.lost_times) == 0, "nothing is left to ask for"
    assert world.pieces(HOUR) == [(0, 4, "repaired", False), (1, 2, "lost", end.final)]
    assert world.gaps[T + HOUR * S].reason == end.reason
    assert world.gaps[T].trades_recovered == 4


def test_what_the_venue_has_only_the_end_of_keeps_its_name_and_loses_no_more_than_that() -> None:
    end = RepairEnd("too old", beyond_reach=True)
    world = play(of_four_hours(end_of={0.0: end, 1.0 * HOUR: end}), lose_four_hours)
    (first, second) = world.pieces(HOUR)
    assert second == (0, 4, "repaired", False)
    assert first == (pytest.approx(0, abs=1e-9), 2, "lost", False)
    assert first[0] < 0, "its name tells what was published, which waits for Kafka"


def test_the_venues_word_of_a_whole_gap_stays_with_its_name() -> None:
    world = play(of_four_hours(end=lambda _: RepairEnd("no such", final=True)), lose_four_hours)
    assert world.pieces(HOUR) == [(0, 4, "lost", True)]


def test_a_slice_that_cannot_be_read_keeps_none_of_the_later_ones_back() -> None:
    world = of_four_hours(end_of={1.0 * HOUR: RepairEnd("a row is bad", T + 9 * HOUR * S)})

    async def act(world: World) -> None:
        await lose_four_hours(world)
        assert world.pieces(HOUR) == [(0, 4, "repaired", False), (1, 2, "lost", False)]
        asked = len(world.asked)
        world.end_of.clear()
        await world.pass_by(4000)
        assert [since_s for since_s, _ in world.asked[asked:]] == [HOUR - 60], "only what is left"

    play(world, act)
    assert world.pieces(HOUR) == [(0, 4, "repaired", False), (1, 2, "repaired", False)]


def test_weather_is_not_asked_slice_by_slice_and_each_slice_has_its_turn() -> None:
    world = of_four_hours(end=lambda _: RepairEnd("HTTP 503"))

    async def act(world: World) -> None:
        world.lose(0, 4 * HOUR)
        await world.pass_by(60)
        assert [round(since_s / HOUR) for since_s, _ in world.asked] == [0, 1]
        await world.pass_by(120)
        assert [round(since_s / HOUR) for since_s, _ in world.asked] == [0, 1, 2, 3]
        world.end = lambda _: RepairEnd()
        await world.pass_by(4000)

    play(world, act)
    assert world.pieces(HOUR) == [(0, 4, "repaired", False)]


@pytest.mark.parametrize("end", [RepairEnd("no such", final=True), RepairEnd("too old", beyond_reach=True)])
def test_a_gap_that_grows_while_the_venue_says_its_word_of_it_is_not_cut_short(end: RepairEnd) -> None:
    world = World([trade(11), trade(25)], end_of={10.0: end})

    async def act(world: World) -> None:
        grown = iter([True])
        world.while_asked = lambda: world.lose(10, 30) if next(grown, False) else None
        world.lose(10, 20)
        await world.pass_by(1000)

    play(world, act)
    assert (world.published, len(world.lost_times)) == (["11", "25"], 0)
    assert world.pieces(1) == [(10 - 1e-6, 20, "lost", end.final), (10, 30, "repaired", False)]


def test_the_word_of_the_venue_is_not_its_last_before_rest_has_shown_the_time() -> None:
    """Trades are stamped ahead, and ids before them are missing."""
    world = World(end=lambda world: RepairEnd("no such", T + round(min(world.now_s, 10_079) * S), final=True))

    async def act(world: World) -> None:
        world.lose(10_000, 10_080)
        await world.pass_by(10_080 + ALLOWANCE_S - 10_000)
        assert world.pieces(1) == [(10_000, 10_080, "lost", False)]
        await world.pass_by(1000)

    play(world, act)
    assert world.pieces(1) == [(10_000, 10_080, "lost", True)]


def test_of_what_topic_trades_has_lost_the_second_plan_publishes_nothing_again() -> None:
    ends = iter([RepairEnd("the market is not that old", beyond_reach=True), RepairEnd()])
    world = World([trade(11), trade(12)], in_memory={"11", "12"}, end=lambda _: next(ends))

    async def act(world: World) -> None:
        world.lose(10, 20, is_cut=True)
        await world.pass_by(100)

    play(world, act)
    assert world.published == ["11", "12"]
    assert world.states == [("repaired", 2)]


def test_what_was_published_for_a_gap_and_is_cut_then_is_asked_for_again() -> None:
    world = of_four_hours(end_of={1.0 * HOUR: RepairEnd("HTTP 503")})

    async def act(world: World) -> None:
        cuts = iter([True])

        def cut() -> None:
            if len(world.asked) == 2 and next(cuts, False):
                world.in_topic.clear()
                world.lose(0, 2 * HOUR, is_cut=True)

        world.lose(0, 2 * HOUR)
        world.while_asked = cut
        await world.pass_by(100)
        world.end_of.clear()
        await world.pass_by(4000)

    play(world, act)
    assert world.published == ["100", "100", "3700"], "the first had been published, and was cut"
    assert {state for state, _ in world.states} == {"repaired"}
    assert len(world.lost_times) == 0


def test_what_lists_nothing_of_the_known_trades_of_that_time_is_of_another_market_and_is_not_published() -> None:
    world = World([trade(11)], in_topic={"12"})

    async def act(world: World) -> None:
        world.lose(10, 20)
        await world.pass_by(100)
        assert (world.published, world.states) == ([], [("lost", 0)])
        world.happened.append(trade(12))
        await world.pass_by(1000)

    play(world, act)
    assert world.published == ["11"]
    assert world.states == [("repaired", 1)]

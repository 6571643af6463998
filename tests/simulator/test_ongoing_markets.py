"""Markets that never close: what they trade is a function of the time, told alike before and after a restart."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from itertools import pairwise
from operator import attrgetter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import EVERY_VENUE, MARKETS, by_ashi, client, get, run, simulator, until

from ashi.contracts.errors import UsageError
from ashi_simulator import Step
from ashi_simulator.executions import PER_S, Execution, place_of
from ashi_simulator.markets import ongoing
from ashi_simulator.markets.ongoing import HOUR, MINUTE, OPENED, PUSHED_S, OngoingMarkets
from ashi_simulator.rules import contiguous

AUTUMN = 1_793_000_000 * PER_S
"""Some time in 2026."""


def markets(venue: str, seed: int = 0, rate: float = 0.5) -> OngoingMarkets:
    return OngoingMarkets(venue, MARKETS[venue], seed=seed, rate=rate)


def known(venue: str, until: int, **options: Any) -> Any:
    return markets(venue, **options).history(MARKETS[venue][0]).known(until)


@EVERY_VENUE
@given(at=st.integers(OPENED, AUTUMN), later=st.integers(0, 3 * HOUR))
def test_the_past_is_the_same_at_every_start_and_only_grows(venue: str, at: int, later: int) -> None:
    before, after = known(venue, at), known(venue, at + later)
    assert len(before) <= len(after)
    begin = max(0, len(before) - 50)
    assert before[begin:] == after[begin : len(before)]
    new = after[len(before) : len(before) + 50]
    assert all(at < each.at <= at + later for each in new)
    assert all(each.at <= at for each in before[begin:])


@EVERY_VENUE
def test_executions_follow_each_other_in_numbers_and_times_over_hours(venue: str) -> None:
    market = MARKETS[venue][0]
    executions = known(venue, AUTUMN)
    newest: list[Execution] = executions[-5000:]
    assert newest[-1].at - newest[0].at > HOUR
    step = 1 if contiguous(venue, market) or venue == "gmo" else 3
    assert all(after.number - before.number == step and before.at <= after.at for before, after in pairwise(newest))
    for number in (newest[7].number, newest[7].number - 1, newest[7].number - 2, newest[-1].number + 1, 0):
        assert place_of(executions, number) == bisect_left(executions, number, key=attrgetter("number"))
    assert executions[0].number == next(iter(executions[:1])).number
    assert executions[0].at >= OPENED
    assert executions[-1] == executions[len(executions) - 1] == newest[-1]
    with pytest.raises(IndexError):
        executions[len(executions)]


def test_prices_walk_and_minutes_are_not_alike() -> None:
    executions: list[Execution] = known("binance", AUTUMN, rate=2.0)[-20_000:]
    prices = [float(each.price) for each in executions]
    assert max(abs(after / before - 1) for before, after in pairwise(prices)) < 0.003
    assert max(prices) / min(prices) > 1.002
    assert len(set(Counter(each.at // MINUTE for each in executions).values())) > 20
    assert {each.taker for each in executions} == {"BUY", "SELL"}
    assert min(float(each.size) for each in executions) > 0


def test_other_seeds_and_other_markets_trade_otherwise() -> None:
    mine = known("binance", AUTUMN)[-10:]
    assert mine != known("binance", AUTUMN, seed=1)[-10:]
    assert mine != markets("binance").history("ETHUSDT").known(AUTUMN)[-10:]
    alone = OngoingMarkets("binance", ["BTCUSDT"], seed=0, rate=0.5)
    assert mine == alone.history("BTCUSDT").known(AUTUMN)[-10:], "what else is simulated changes nothing"


def test_what_is_due_is_what_rest_knows_and_what_is_old_by_then_is_left_to_rest() -> None:
    source = markets("bitflyer", rate=20.0)
    source.start(AUTUMN)
    pushed: list[Execution] = []
    moments = [AUTUMN + PER_S, AUTUMN + 3 * PER_S, AUTUMN + 2 * PER_S, AUTUMN + 300 * PER_S]
    for now in moments:
        for batch in source.due(now):
            if batch.market == "BTC_JPY":
                assert 0 < len(batch.executions) <= 17
                pushed += batch.executions
    rest = [each for each in known("bitflyer", moments[-1], rate=20.0)[-20_000:] if each.at > AUTUMN]
    slept = moments[-1] - PUSHED_S * PER_S
    assert pushed == [each for each in rest if each.at <= AUTUMN + 3 * PER_S or each.at > slept]
    assert len(pushed) > 30


def test_the_next_minute_is_made_in_the_course_of_this_one_so_that_nobody_waits_when_it_begins() -> None:
    source = markets("binance", rate=20.0)
    begin = AUTUMN - (AUTUMN - OPENED) % MINUTE
    source.start(begin)
    made = [source._walk(market)._minute.cache_info for market in MARKETS["binance"]]
    for part, prepared in ((1, 0), (2, 1), (3, 2)):
        list(source.due(begin + part * MINUTE // 4))
        # This minute, and the next one of some.
        assert sum(each().currsize for each in made) == len(made) + prepared
    before = [each().misses for each in made]
    list(source.due(begin + MINUTE + 1))
    assert [each().misses for each in made] == before


def test_a_busy_market_keeps_few_minutes_and_tells_those_it_has_forgotten_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ongoing, "MOST_EXECUTIONS", 5_000)
    busy = known("binance", AUTUMN, rate=20.0)
    first = busy[-40_000:-39_990]
    assert [busy[place].number for place in range(-40_000, 0, 500)]
    assert busy._walk._minute.cache_info().currsize <= 5
    made = busy._walk._minute.cache_info().misses
    assert place_of(busy, first[3].number) == len(busy) - 40_000 + 3
    assert busy._walk._minute.cache_info().misses == made, "a place is known by its number"
    assert busy[-40_000:-39_990] == first


@EVERY_VENUE
def test_what_is_pushed_and_what_rest_tells_is_the_truth_also_after_a_restart(venue: str) -> None:
    async def test() -> None:
        market = MARKETS[venue][0]
        options: dict[str, Any] = {"ongoing": True, "rate": 200, "markets": [market]}
        async with simulator(venue, **options) as first, client(first, market) as reader:
            first.start_market()
            reading = first.truth_reader(market)
            assert list(reading.new()) == []
            await until(lambda: first.trades >= 100)
            await first.stop_market()
            await reader.settle()
            pushed = by_ashi(venue, reader.frames)
            assert Counter(trade for trade, _ in reading.new()) <= pushed
        begun = min(trade.traded_at for trade in pushed)
        async with simulator(venue, **options) as second:
            second.start_market()
            await until(lambda: second.trades >= 10)
            await second.stop_market()
            truth = Counter(second.truth(since_us=begun))
            assert pushed <= truth
            assert len(truth) < 200 * 30
        again = Counter(trade for trade in second.truth(since_us=begun) if trade in pushed)
        assert again == pushed

    run(test())


def test_a_client_pages_through_the_past_by_id_as_at_the_venue() -> None:
    async def test() -> None:
        async with simulator("binance", ongoing=True, rate=5, markets=["BTCUSDT"]) as sim:
            last = (await get(sim, "/api/v3/ticker/24hr", symbol="BTCUSDT"))["lastId"]
            rows = await get(sim, "/api/v3/historicalTrades", symbol="BTCUSDT", fromId=last - 5000, limit=1000)
            assert [row["id"] for row in rows] == list(range(last - 5000, last - 4000))
            newest = await get(sim, "/api/v3/trades", symbol="BTCUSDT", limit=3)
            assert newest[-1]["id"] >= last

    run(test())


@pytest.mark.parametrize("fault", ["halt", "delist_market", "list_market", "clock"])
def test_faults_that_a_function_of_the_time_cannot_have_are_refused(fault: str) -> None:
    async def test() -> None:
        async with simulator("binance", ongoing=True) as sim:
            with pytest.raises(UsageError, match=f"has no fault '{fault}': leave out --ongoing"):
                sim.fault(fault)
            sim.fault("drop")
            assert sim.faults_done

    run(test())
    with pytest.raises(UsageError, match="leave out --ongoing"):
        simulator("binance", ongoing=True, script=[Step(fault, at_s=1.0)])

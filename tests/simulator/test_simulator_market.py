"""What the simulated venues push, against clients that know nothing of Ashi but its parsers."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import (
    EVERY_VENUE,
    MARKETS,
    by_ashi,
    by_hand,
    client,
    executions_of,
    historical,
    ms_of,
    rows_of,
    run,
    simulator,
    trade,
)

from ashi_simulator.executions import PER_MS
from ashi_simulator.markets.synthetic import SyntheticMarket
from ashi_simulator.notation import pushed_date, rest_date, scientific

# What is pushed


@EVERY_VENUE
def test_what_a_venue_pushes_is_the_truth_to_a_plain_reader_and_to_ashis_parser(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim, *sim.markets) as reader:
            await trade(sim, 2000)
            await reader.settle()
            truth = sim.truth()
            assert len(truth) >= 1900
            assert by_hand(venue, reader.frames) == rows_of(truth)
            assert by_ashi(venue, reader.frames) == Counter(truth)
            assert {each.symbol for each in truth} == {f"{venue}:{market}" for market in sim.markets}

    run(test())


@EVERY_VENUE
def test_the_market_is_still_until_it_is_started(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue, rate=10_000) as sim, client(sim, *sim.markets) as reader:
            await asyncio.sleep(0.05)
            assert sim.trades == 0
            assert sim.truth() == []
            await trade(sim, 100)
            happened = sim.trades
            await asyncio.sleep(0.05)
            assert sim.trades == happened
            await reader.settle()
            assert by_ashi(venue, reader.frames) == Counter(sim.truth())

    run(test())


@EVERY_VENUE
def test_only_what_is_subscribed_to_is_pushed(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim, sim.markets[0]) as reader:
            await trade(sim, 300)
            await reader.settle()
            assert by_ashi(venue, reader.frames) == Counter(sim.truth(markets=[sim.markets[0]]))
            assert sim.truth(markets=[sim.markets[1]])

    run(test())


@EVERY_VENUE
def test_the_same_seed_trades_the_same(venue: str) -> None:
    def trades(seed: int) -> list[Any]:
        market = SyntheticMarket(venue, MARKETS[venue], seed=seed, rate=5000, bursts=True)
        market.start(10**16)
        return [batch for step in range(1, 200) for batch in market.due(10**16 + step * 40_000)]

    assert trades(3) == trades(3)
    assert trades(3) != trades(4)


def test_the_truth_since_a_time_leaves_out_what_was_before() -> None:
    async def test() -> None:
        async with simulator("gmo") as sim:
            await trade(sim, 500)
            truth = sim.truth()
            middle = sorted(each.traded_at for each in truth)[len(truth) // 2]
            assert sim.truth(middle) == [each for each in truth if each.traded_at >= middle]

    run(test())


def test_a_constant_rate_is_kept() -> None:
    market = SyntheticMarket("binance", ["BTCUSDT"], seed=1, rate=20_000, bursts=False)
    market.start(10**16)
    for step in range(1, 101):
        amount = sum(len(batch.executions) for batch in market.due(10**16 + step * 100_000))
        assert amount == pytest.approx(200, abs=1)


def test_bursts_are_five_times_the_rate() -> None:
    market = SyntheticMarket("binance", ["BTCUSDT"], seed=1, rate=10_000, bursts=True)
    market.start(10**16)
    amounts = Counter(
        round(sum(len(batch.executions) for batch in market.due(10**16 + step * 100_000)), -1)
        for step in range(1, 3001)
    )
    assert set(amounts) == {100, 500}
    assert amounts[100] > amounts[500]


# What is subtle about each


@EVERY_VENUE
def test_real_trades_agree_in_every_field_and_sizes_are_as_small_as_can_be(venue: str) -> None:
    seen: Counter[tuple[Any, ...]] = Counter()
    smallest = Decimal(1)
    for market, executions in executions_of(venue, MARKETS[venue], 20_000):
        for execution in executions:
            smallest = min(smallest, Decimal(execution.size) or smallest)
            seen[market, execution.at // PER_MS, execution.price, execution.size, execution.taker] += 1
    assert max(seen.values()) >= 3
    assert smallest == Decimal("0.00000001")


def test_spot_markets_of_bitflyer_share_one_sequence_and_its_fx_market_jumps_by_thousands() -> None:
    numbers: dict[str, list[int]] = {}
    for market, executions in executions_of("bitflyer", MARKETS["bitflyer"], 60_000):
        assert len(executions) <= 17
        numbers.setdefault("FX" if market == "FX_BTC_JPY" else "spot", []).extend(each.number for each in executions)
        numbers.setdefault(market, []).extend(each.number for each in executions)
    for sequence in numbers.values():
        assert all(before < after for before, after in pairwise(sequence))
    assert not set(numbers["BTC_JPY"]) & set(numbers["ETH_JPY"])
    steps = Counter(after - before for before, after in pairwise(numbers["FX"]))
    jumps = [step for step in steps if step != 1]
    assert jumps
    assert all(1000 <= jump <= 10_001 for jump in jumps)
    assert len(jumps) < 0.001 * len(numbers["FX"])


def test_bitflyers_times_are_not_in_the_order_of_ids_and_auctions_have_no_taker() -> None:
    inversions = 0
    largest = 0
    auctions = 0
    previous = 0
    for market, executions in executions_of("bitflyer", ("FX_BTC_JPY",), 20_000):
        assert market == "FX_BTC_JPY"
        largest = max(largest, len(executions))
        for execution in executions:
            inversions += execution.at // PER_MS < previous
            previous = execution.at // PER_MS
            auctions += execution.taker == ""
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6,7}Z", pushed_date(execution.at))
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?", rest_date(execution.at))
            assert ms_of(pushed_date(execution.at)) == ms_of(rest_date(execution.at)) == execution.at // PER_MS
    assert inversions > 50
    assert auctions > 10
    assert largest == 17


def test_both_six_and_seven_digits_and_none_to_three_digits_come() -> None:
    ats = [each.at for _, batch in executions_of("bitflyer", ("BTC_JPY",), 20_000) for each in batch]
    assert {len(pushed_date(at).partition(".")[2]) - 1 for at in ats} == {6, 7}
    assert {len(rest_date(at).partition(".")[2]) for at in ats} == {0, 1, 2, 3}


@given(st.integers(0, 10**12), st.integers(0, 18))
def test_scientific_notation_is_the_same_number(digits: int, places: int) -> None:
    plain = format(Decimal(digits).scaleb(-places), "f")
    assert Decimal(scientific(plain)) == Decimal(plain)


def test_the_smallest_size_is_written_as_bitflyer_does() -> None:
    assert scientific("0.00000001") == "1e-08"
    assert scientific("0.00001234") == "1.234e-05"
    assert scientific("0.01") == "0.01"


def test_without_taker_only_gmo_sends_both_rows_of_every_execution() -> None:
    async def test() -> None:
        async with simulator("gmo", markets=["BTC"]) as sim, client(sim) as reader:
            await reader.ws.send(json.dumps({"command": "subscribe", "channel": "trades", "symbol": "BTC"}))
            await sim.wait_subscribed()
            await trade(sim, 300)
            await reader.settle()
            messages = reader.messages
            truth = sim.truth()
            assert len(messages) == 2 * len(truth)
            for taker, other in zip(messages[::2], messages[1::2], strict=True):
                assert {taker.pop("side"), other.pop("side")} == {"BUY", "SELL"}
                assert taker == other
            assert [message["side"].lower() for message in json_rows(reader.frames[::2])] == [
                each.side for each in truth
            ]

    run(test())


def json_rows(frames: list[bytes]) -> list[Any]:
    return [json.loads(frame) for frame in frames]


def test_trades_outside_the_order_book_are_pushed_and_have_ids_and_exist_nowhere_else() -> None:
    async def test() -> None:
        async with simulator("binance-usdm", markets=["BTCUSDT"]) as sim, client(sim, "BTCUSDT") as reader:
            await trade(sim, 2500)
            await reader.settle()
            events = [message["data"] for message in reader.messages if "data" in message]
            kinds = Counter(event["X"] for event in events)
            assert kinds["NA"]
            assert kinds["INSURANCE_FUND"]
            numbers = [event["t"] for event in events]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            market = [event["t"] for event in events if event["X"] == "MARKET"]
            assert [each.sequence for each in sim.truth()] == market
            rows: list[Any] = []
            while len(batch := await historical(sim, "BTCUSDT", rows[-1]["id"] + 1 if rows else 0)):
                rows += batch
            assert [row["id"] for row in rows] == market
            assert "isBestMatch" not in rows[0]

    run(test())


def test_an_uneven_market_has_busy_markets_and_quiet_ones() -> None:
    names = [f"M{number}" for number in range(10)]
    market = SyntheticMarket("gmo", names, seed=1, rate=10_000, bursts=False, uneven=True)
    market.start(0)
    counts = Counter(batch.market for batch in market.due(10_000_000) for _ in batch.executions)
    assert counts["M0"] > 20 * counts["M9"] > 0

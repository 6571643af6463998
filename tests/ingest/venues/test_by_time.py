"""Finding a time among ids: nothing that is wanted lies before the place that is found, and it takes few requests."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Generator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashi.contracts.trade import Trade
from ashi_ingest.venues.base import Answer, Request
from ashi_ingest.venues.by_time import Begin, Probe, find_begin

BEGIN_US = 1_700_000_000_000_000


def trade(number: int, at: int) -> Trade:
    return Trade("s:M", str(number), Decimal(1), Decimal(1), None, BEGIN_US + at, BEGIN_US + at, number)


def find(trades: list[Trade], wanted_us: int, near: int, *, after: bool, refused_below: int = 0) -> tuple[Begin, int]:
    """`after`: the venue gives the first trade from an id on, else the last one up to it. Gives the requests, too."""
    numbers = [each.sequence for each in trades]
    asked = 0

    def ask(number: int) -> Generator[Request, Answer | None, Probe]:
        nonlocal asked
        asked += 1
        assert 0 <= number < trades[-1].sequence
        yield Request("/x", {})
        if number < refused_below:
            return Probe(number, None, refused=True)
        place = bisect_left(numbers, number) if after else bisect_right(numbers, number) - 1
        return Probe(trades[place].sequence, trades[place].traded_at) if place >= 0 else Probe(number, None)

    search: Any = find_begin(ask, trades[-3:], wanted_us, near)
    try:
        next(search)
        while True:
            search.send(None)
    except StopIteration as stop:
        found: Begin = stop.value
    return found, asked


@pytest.mark.parametrize("after", [True, False])
@given(
    steps=st.lists(
        st.tuples(st.sampled_from([1, 1, 2, 9, 500]), st.sampled_from([0, 1, 5, 1000, 10**7])), min_size=3, max_size=60
    ),
    place=st.integers(0, 59),
    near=st.sampled_from([0, 1, 4, 100]),
)
def test_nothing_that_is_wanted_lies_before_the_place_and_hardly_anything_else_after_it(
    after: bool, steps: list[tuple[int, int]], place: int, near: int
) -> None:
    trades, number, at = [], 10, 0
    for step, gap in steps:
        number, at = number + step, at + gap
        trades.append(trade(number, at))
    wanted_us = trades[min(place, len(trades) - 3)].traded_at
    found, asked = find(trades, wanted_us, near, after=after)
    wanted = [each.sequence for each in trades if each.traded_at >= wanted_us]
    assert found.after < wanted[0]
    assert not found.refused
    older = [each.sequence for each in trades if each.traded_at < wanted_us and each.sequence > found.after]
    assert len(older) <= near
    assert asked <= 60


def test_what_is_refused_is_found_to_the_id() -> None:
    trades = [trade(number, number) for number in range(1, 5000)]
    found, asked = find(trades, BEGIN_US - 1, 1000, after=True, refused_below=777)
    assert found == Begin(776, refused=True)
    assert asked <= 40


def test_a_market_of_steady_trade_takes_a_few_requests_for_any_time() -> None:
    trades = [trade(number, number * 1000) for number in range(1, 200_000)]
    for place in (10, 50_000, 150_000, 199_000):
        _, asked = find(trades, trades[place].traded_at, 1000, after=True)
        assert asked <= 12, place

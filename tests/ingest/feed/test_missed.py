"""What a feed has missed: what of an answer is new, and when it is whole."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashi.contracts import Trade
from ashi_ingest.feed.symbol.missed import MissedTrades
from ashi_ingest.venues.base import RepairEnd

T = 1_700_000_000_000_000
S = 1_000_000


def trade(number: int) -> Trade:
    at = T + number * S
    return Trade("toy:A", str(number), Decimal(1), Decimal(1), "buy", at, at, number)


def missed_after(*numbers: int, contiguous: bool = True, ordered_ids: bool = True) -> MissedTrades:
    since = [trade(number) for number in numbers]
    return MissedTrades(since, T + 100 * S, "it broke off", ordered_ids=ordered_ids, contiguous=contiguous)


@given(
    numbers=st.lists(st.integers(11, 40), unique=True, min_size=1),
    published=st.sets(st.integers(11, 40)),
    until=st.integers(11, 40),
    ordered_ids=st.booleans(),
)
def test_of_an_answer_only_what_was_missed_and_not_published_is_new(
    numbers: list[int], published: set[int], until: int, ordered_ids: bool
) -> None:
    missed = missed_after(9, 10, contiguous=False, ordered_ids=ordered_ids)
    missed.reach(trade(until))
    missed.is_behind = True
    missed.note([trade(number) for number in sorted(published | {until})], live=True)
    new = missed.new([trade(number) for number in [9, 10, *numbers]])
    place = numbers.index(until) if until in numbers and not ordered_ids else 0
    known = {number for number in published | {until} if number <= until}
    missing = [n for at, n in enumerate(numbers) if n not in known and (n < until or at < place)]
    assert [each.sequence for each in new] == missing, "without ids, what is listed before it was missed, whenever"


@given(st.permutations(range(11, 16)), st.integers(0, 5))
def test_ids_prove_that_nothing_is_missing_when_all_before_the_first_live_trade_are_known(
    numbers: list[int], count: int
) -> None:
    missed = missed_after(10)
    missed.reach(trade(16))
    missed.is_behind = True
    missed.note([trade(number) for number in numbers[:count]], live=False)
    assert missed.is_closed_by_ids == (count == 5)
    missed.note([trade(17)], live=True)
    assert missed.is_closed_by_ids == (count == 5)


def test_where_ids_are_not_contiguous_they_prove_nothing() -> None:
    missed = missed_after(10, contiguous=False)
    missed.reach(trade(11))
    assert not missed.is_closed_by_ids


def test_the_first_trade_that_comes_live_is_the_end_and_one_that_comes_late_is_not() -> None:
    woken: list[int] = []
    missed = missed_after(9, 10)
    missed.wake = lambda: woken.append(1)
    missed.note([trade(11)], live=True)
    assert missed.until is None, "while live trades are held the feed tells which is the first"
    missed.is_behind = True
    missed.note([trade(8)], live=True)
    missed.note([trade(12)], live=False)
    assert (missed.until, woken) == (None, [])
    missed.note([trade(200), trade(13)], live=True)
    assert missed.until == trade(200)
    assert missed.end_us == T + 200 * S + 1
    assert woken == [1]
    assert missed.is_settled_by_itself


def test_before_a_live_trade_has_come_nothing_can_be_told_from_what_will_come() -> None:
    with pytest.raises(RuntimeError):
        missed_after(10).new([trade(11)])


@pytest.mark.parametrize(
    ("end", "asked_s", "whole"),
    [
        (RepairEnd(), 100, False),
        (RepairEnd(), 160, True),
        (RepairEnd(), 159, False),
        (RepairEnd(shown_until=T + 100 * S), 100, True),
        (RepairEnd(shown_until=T + 100 * S - 1), 100, False),
        (RepairEnd("a row is bad", shown_until=T + 200 * S), 200, False),
    ],
)
def test_without_a_live_trade_it_is_whole_when_rest_has_shown_the_time_after_it(
    end: RepairEnd, asked_s: int, whole: bool
) -> None:
    missed = missed_after(10)
    assert missed.is_whole(end, None, T + asked_s * S, 60 * S) is whole


def test_it_is_whole_when_rest_has_shown_the_first_live_trade_and_not_another_one() -> None:
    missed = missed_after(10)
    first = trade(15)
    missed.reach(first)
    assert missed.is_whole(RepairEnd(), first, T, 0)
    assert not missed.is_whole(RepairEnd("it lags"), first, T, 0)
    missed.reach(trade(20))  # what was held until then was let go of, because it was too much
    assert not missed.is_whole(RepairEnd(), first, T, 0)


def test_what_is_published_up_to_somewhere_need_not_be_asked_for_again() -> None:
    missed = missed_after(10)
    missed.advance([trade(14), trade(15)])
    assert [each.sequence for each in missed.since] == [14, 15]
    assert missed.since_us == T + 10 * S, "its gap begins where it began"
    missed.reach(trade(16))
    assert missed.is_closed_by_ids

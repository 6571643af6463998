"""Whose turn it is to ask a venue's REST interface, and how much of its limit is used."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashi_ingest.rest.budget import (
    FIRST,
    KEPT_FOR_REPAIRS,
    KEPT_FROM_REPAIRS,
    Budget,
    Priority,
    RequestTurns,
    Urgency,
)

INTERVAL_S, WINDOW_S = 0.1, 20.0
ALLOWANCE = WINDOW_S / INTERVAL_S


def ask(budget: Budget, weight: float, now_s: float, *, repair: bool) -> float:
    """Ask as soon as it is allowed, and give when that is."""
    now_s += budget.wait_s(weight, now_s, repair=repair)
    assert budget.wait_s(weight, now_s, repair=repair) <= 1e-9
    budget.take(weight, now_s, repair=repair)
    return now_s


def most_in_a_window(taken: list[tuple[float, int]]) -> float:
    return max(
        sum(weight for at_s, weight in taken if begin_s <= at_s < begin_s + WINDOW_S - 1e-6) for begin_s, _ in taken
    )


@given(
    st.lists(st.tuples(st.floats(0, 5), st.integers(1, 25), st.booleans()), min_size=1, max_size=80),
    st.sampled_from([None, 2 * ALLOWANCE]),
)
def test_no_window_of_time_has_more_than_is_allowed_and_each_side_leaves_the_other_its_share(
    asked: list[tuple[float, int, bool]], address_weight: float | None
) -> None:
    budget = Budget(INTERVAL_S, WINDOW_S, 0.0, address_weight=address_weight)
    now_s, taken = 0.0, []
    for pause_s, weight, repair in asked:
        now_s = ask(budget, weight, now_s + pause_s, repair=repair)
        taken.append((now_s, weight, repair))
    assert most_in_a_window([(at_s, weight) for at_s, weight, _ in taken]) <= ALLOWANCE + 1e-6
    for kind, share in ((True, 1 - KEPT_FROM_REPAIRS), (False, 1 - KEPT_FOR_REPAIRS)):
        of_it = [(at_s, weight) for at_s, weight, repair in taken if repair is kind]
        if of_it:
            heaviest = max(weight for _, weight in of_it)
            assert most_in_a_window(of_it) <= share * ALLOWANCE + (0 if kind else heaviest) + 1e-6


def test_repairs_take_at_once_what_is_left_and_all_else_keeps_an_even_pace() -> None:
    budget = Budget(1.0, 60.0, 0.0, address_weight=120)
    others = [ask(budget, 4, 0.0, repair=False) for _ in range(3)]
    assert others == pytest.approx([0.0, 6.0, 12.0])
    repairs = [ask(budget, 4, 12.0, repair=True) for _ in range(13)]
    assert repairs[:12] == pytest.approx([12.0] * 12), "48 of what is left, 60 - 12"
    assert repairs[12] == pytest.approx(60.0), "when the first of the others is a minute old"
    assert ask(budget, 5, 60.0, repair=True) == pytest.approx(72.0), "seven eighths are theirs, 52 of them taken"


def test_without_a_window_everything_keeps_the_pace() -> None:
    budget = Budget(1.0, 0.0, 100.0)
    assert [ask(budget, 1, 100.0, repair=repair) for repair in (True, False, True)] == [100.0, 101.0, 102.0]
    budget.on_used(1e9, 103.0)
    assert ask(Budget(0.0, 0.0, 5.0), 100, 5.0, repair=True) == 5.0


def test_what_a_process_before_may_have_used_counts_where_the_venue_does_not_tell() -> None:
    budget = Budget(1.0, 60.0, 100.0)
    assert [ask(budget, 1, 100.0, repair=True) for _ in range(3)] == [100.0, 101.0, 102.0]
    later = [ask(budget, 1, 170.0, repair=True) for _ in range(40)]
    assert later == [170.0] * 40


def test_what_others_of_the_address_have_used_counts_where_the_venue_tells() -> None:
    budget = Budget(1.0, 60.0, 0.0, address_weight=120)
    budget.take(20, 0.0, repair=True)
    budget.on_used(20 + 90, 1.0)
    budget.on_used(20 + 90, 2.0)
    assert budget.wait_s(1, 2.0, repair=True) == 58.0, "0.9 * 120 are used, 20 of them will be over by then"
    budget.on_used(5, 3.0)
    assert budget.wait_s(18, 60.5, repair=True) == 0.0
    assert budget.wait_s(19, 60.5, repair=True) == 0.5
    assert budget.wait_s(19, 61.5, repair=True) == 0.0


def turns_of(wanted: list[Urgency], *, cancelled: frozenset[int] = frozenset()) -> list[Urgency]:
    """In which order those get their turns that wait at once, behind a first one."""

    async def run() -> list[Urgency]:
        turns = RequestTurns(0.005, 0)
        async with turns.turn(2):
            pass
        given_to: list[Urgency] = []

        async def wait(urgency: Urgency) -> None:
            async with turns.turn(1, urgency):
                given_to.append(urgency)

        waiting = [asyncio.create_task(wait(urgency)) for urgency in wanted]
        await asyncio.sleep(0)
        assert turns.waiting == len(wanted)
        for place in cancelled:
            waiting[place].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert turns.waiting == 0
        return given_to

    return asyncio.run(run())


def test_the_most_urgent_comes_first_then_the_smallest_then_the_earliest() -> None:
    lost, big, small, suspicion = (
        Urgency(Priority.LOST, 0.0),
        Urgency(Priority.REPAIR, 60.0),
        Urgency(Priority.REPAIR, 2.0),
        Urgency(Priority.SUSPICION),
    )
    assert turns_of([lost, big, suspicion, small]) == [small, big, suspicion, lost]


def test_whoever_is_cancelled_uses_up_no_turn() -> None:
    wanted = [Urgency(size=float(size)) for size in range(4)]
    began_s = time.monotonic()
    assert turns_of(wanted, cancelled=frozenset({0, 2})) == [wanted[1], wanted[3]]
    assert time.monotonic() - began_s >= 0.014


def test_one_who_comes_later_and_is_more_urgent_is_given_the_next_turn() -> None:
    async def run() -> list[str]:
        turns = RequestTurns(0.02, 0)
        given_to = []

        async def wait(name: str, urgency: Urgency) -> None:
            async with turns.turn(1, urgency):
                given_to.append(name)

        async with turns.turn(1):
            pass
        later = asyncio.create_task(wait("lost", Urgency(Priority.LOST)))
        await asyncio.sleep(0.005)
        first = asyncio.create_task(wait("repair", Urgency(Priority.REPAIR)))
        await asyncio.gather(later, first)
        return given_to

    assert asyncio.run(run()) == ["repair", "lost"]


def test_no_more_are_on_their_way_at_once_than_may_be_and_whoever_ends_lets_the_next_go() -> None:
    async def run() -> tuple[int, int]:
        turns = RequestTurns(0.001, 60.0, in_flight=3, address_weight=1e9)
        on_their_way, most, ended = 0, 0, 0

        async def wait(number: int) -> None:
            nonlocal on_their_way, most, ended
            async with turns.turn(1):
                on_their_way += 1
                most = max(most, on_their_way)
                try:
                    await asyncio.sleep(0)
                    if number % 3 == 0:
                        raise ValueError("a request may fail")
                finally:
                    on_their_way -= 1
                    ended += 1

        waiting = [asyncio.create_task(wait(number)) for number in range(20)]
        await asyncio.sleep(0)
        waiting[0].cancel()  # on its way
        waiting[19].cancel()  # waiting
        await asyncio.gather(*waiting, return_exceptions=True)
        return most, ended

    assert asyncio.run(run()) == (3, 19)


def test_comparisons_are_asked_for_while_many_repairs_wait() -> None:
    async def run() -> int:
        turns = RequestTurns(0.002, 0.2, address_weight=1e9)
        given, waited = [], 0

        async def wait(urgency: Urgency) -> None:
            async with turns.turn(1, urgency):
                given.append(urgency.priority)

        waiting = [asyncio.create_task(wait(FIRST)) for _ in range(200)]
        await asyncio.sleep(0.01)
        async with turns.turn(1, Urgency(Priority.SUSPICION)):
            waited = len(given)
        await asyncio.gather(*waiting)
        return waited

    assert asyncio.run(run()) < 100

"""Whose turn it is to ask a venue's REST interface, and how much of its limit is used."""

from __future__ import annotations

import asyncio
import time

from hypothesis import given
from hypothesis import strategies as st

from ashi_ingest.rest.budget import Budget, Priority, RequestTurns, Urgency


@given(
    st.lists(st.tuples(st.floats(0, 5), st.integers(1, 25)), min_size=1, max_size=60),
    st.sampled_from([0.0, 10.0, 50.0]),
    st.floats(0.5, 30.0),
)
def test_no_window_of_time_has_more_than_the_burst_and_the_pace_allow(
    asked: list[tuple[float, int]], burst: float, window_s: float
) -> None:
    budget = Budget(0.1, burst, 0.0)
    now_s, taken = 0.0, []
    for pause_s, weight in asked:
        now_s += pause_s
        now_s += budget.wait_s(now_s)
        assert budget.wait_s(now_s) <= 1e-9
        budget.take(weight, now_s)
        taken.append((now_s, weight))
    for begin_s, _ in taken:
        within = [weight for at_s, weight in taken if begin_s <= at_s < begin_s + window_s]
        assert sum(within[:-1]) <= burst + window_s / 0.1 + 1e-6, "and one request, which may be heavy"


def test_what_was_saved_may_be_asked_at_once_and_then_at_the_pace() -> None:
    budget = Budget(1.0, 5, 100.0)
    for _ in range(6):
        assert budget.wait_s(100.0) == 0
        budget.take(1, 100.0)
    assert budget.wait_s(100.0) == 1.0
    assert budget.wait_s(101.0) == 0
    assert Budget(1.0, 0, 100.0).wait_s(100.0) == 0


def turns_of(wanted: list[Urgency], *, cancelled: frozenset[int] = frozenset()) -> list[Urgency]:
    """In which order those get their turns that wait at once, behind a first one."""

    async def run() -> list[Urgency]:
        turns = RequestTurns(0.005, 0)
        await turns.turn(2)
        given_to: list[Urgency] = []

        async def wait(urgency: Urgency) -> None:
            await turns.turn(1, urgency)
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
            await turns.turn(1, urgency)
            given_to.append(name)

        await turns.turn(1)
        later = asyncio.create_task(wait("lost", Urgency(Priority.LOST)))
        await asyncio.sleep(0.005)
        first = asyncio.create_task(wait("repair", Urgency(Priority.REPAIR)))
        await asyncio.gather(later, first)
        return given_to

    assert asyncio.run(run()) == ["repair", "lost"]

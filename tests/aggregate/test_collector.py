"""The collector of cycles at our own times: what is let go is found, whenever that was."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from ashi_aggregate import collector
from ashi_aggregate.collector import ALL_EVERY_S, MOST_PUT_OFF_S, YOUNG_EVERY_S, Collector


class Ring:
    """Holds itself, as a connection and its tasks do each other."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def as_before() -> Iterator[None]:
    """Afterwards Python collects by itself again."""
    yield
    gc.enable()


@pytest.mark.usefixtures("as_before")
def test_what_was_in_use_at_one_collection_is_found_by_a_later_one_when_it_has_been_let_go() -> None:
    ours = Collector()
    ours.take_over(0.0)
    assert not gc.isenabled()
    ring = Ring()
    let_go = weakref.ref(ring)
    for number in (1, 2):
        ours.look(number * YOUNG_EVERY_S, is_busy=False)
    del ring
    ours.look(ALL_EVERY_S, is_busy=False)
    assert let_go() is None


def test_the_young_are_collected_often_and_all_now_and_then_when_there_is_nothing_better_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str | int] = []
    monkeypatch.setattr(
        collector,
        "gc",
        SimpleNamespace(
            collect=lambda generation=2: done.append(generation),
            freeze=lambda: done.append("freeze"),
            disable=lambda: done.append("disable"),
        ),
    )

    def look(now_s: float, *, is_busy: bool) -> list[str | int]:
        done.clear()
        ours.look(now_s, is_busy=is_busy)
        return done.copy()

    ours = Collector()
    ours.take_over(1_000.0)
    assert done == [2, "freeze", "disable"]
    due_s = 1_000.0 + ALL_EVERY_S
    assert look(1_000.0 + YOUNG_EVERY_S - 0.1, is_busy=False) == []
    assert look(1_000.0 + YOUNG_EVERY_S, is_busy=True) == [1]
    assert look(1_000.0 + YOUNG_EVERY_S + 0.1, is_busy=False) == []
    assert look(due_s - 1.0, is_busy=False) == [1]
    assert look(due_s, is_busy=True) == []
    assert look(due_s + 0.5, is_busy=False) == [2]
    assert look(due_s + ALL_EVERY_S, is_busy=False) == [1]  # not 10 min since the last one
    assert look(due_s + 0.5 + ALL_EVERY_S + MOST_PUT_OFF_S, is_busy=True) == [2]

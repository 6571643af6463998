"""What is told of processes that grow, and of those that only are restless."""

from __future__ import annotations

import os
import random
import time

import pytest

from rig.steadiness import LEAST_LOOKS, LOOK_S, Look, Steadiness, Trend, _trend, median_of


def looks(*parts: float, files: int = 20, noise: float = 0.0, hourly: float = 0.0, after: str = "") -> list[Look]:
    """Six calm parts an hour, of a process that takes so many MB at the beginning of each."""
    rng = random.Random(1)
    return [
        Look(
            at_s, number, int((memory + hourly * LOOK_S * at / 3_600 + rng.uniform(-noise, noise)) * 1e6), files, after
        )
        for number, memory in enumerate(parts)
        for at in range(60)
        for at_s in [number * 600.0 + LOOK_S * at]
    ]


def test_the_median_of_slopes_has_the_interval_of_the_sign_test() -> None:
    # Of nine values the second and the second but last: 1 - 2 (1 + 9) / 2^9 is 96 %, and one further in 82 %.
    assert median_of([9.0, 1, 8, 2, 7, 3, 6, 4, -500]) == (4.0, 1.0, 8.0)
    assert median_of([1.0, 2, 3, 4, 5, 6]) == (3.5, 1.0, 6.0)


def test_what_grows_while_it_is_calm_is_wrong() -> None:
    parts = looks(*[100.0 + 3 * part for part in range(12)], hourly=18.0, noise=0.05)
    grows = _trend("sink", [each._replace(after=f"fault {each.part}") for each in parts])
    assert grows is not None
    assert grows.slope is not None
    assert grows.slope[0] == pytest.approx(18, abs=2)
    assert grows.wrong == ["sink grows by {:.1f} MB an hour ({:.1f} to {:.1f})".format(*grows.slope)]


def test_steps_to_the_height_of_each_fault_are_told_and_are_no_growth() -> None:
    steps = _trend("sink", looks(20, 70, 100, 100, 130, 130, 131, 160, 160, 160, noise=0.05))
    assert steps is not None
    assert steps.slope is not None
    assert steps.slope[1] <= 0 <= steps.slope[2]
    assert steps.steps_mb == pytest.approx(140, abs=1)
    assert steps.again_mb is not None  # all of these come after the same: nothing
    assert steps.wrong == []


def test_a_step_each_time_that_a_fault_comes_again_is_wrong() -> None:
    parts = [
        each._replace(after=f"fault {each.part % 2}")
        for each in looks(*[100 + 4.0 * part for part in range(8)], noise=0.05)
    ]
    leaks = _trend("sink", parts)
    assert leaks is not None
    assert leaks.again_mb == pytest.approx(4, abs=0.5)
    assert leaks.wrong == [f"sink grows by {leaks.again_mb:.1f} MB each time that a fault comes again"]


def test_of_few_parts_nothing_is_said_but_of_files_that_stay_open() -> None:
    assert _trend("sink", looks(100)[: LEAST_LOOKS - 1]) is None
    found = _trend("sink", [*looks(100), *(each._replace(part=1, files=60, after="b") for each in looks(500))])
    assert found == Trend("sink", 2, 500.0, None, (20, 60), 400.0, None)
    assert found.wrong == ["sink has 60 files open, and had 20"]


def test_a_process_that_was_started_again_is_told_from_its_last_start_and_only_what_is_calm_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 1_000.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    steadiness = Steadiness()
    steadiness.look({"self": os.getpid()})
    assert steadiness.trends() == []
    for pid in (os.getppid(), os.getpid()):
        steadiness.begin_calm()
        for _ in range(LEAST_LOOKS):
            now_s += LOOK_S
            steadiness.look({"self": pid, "gone": 2**22 + 1})
        steadiness.is_calm = False
    (trend,) = steadiness.trends()
    assert trend.parts == 1
    assert trend.files[0] == trend.files[1] > 2

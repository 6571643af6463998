"""What is told of processes that grow, and of those that only are restless."""

from __future__ import annotations

import os
import random
import time

import pytest

from rig.steadiness import LEAST_LOOKS, LOOK_S, Look, Steadiness, Trend, _trend, slope_of


def looks(*parts: float, files: int = 20, noise: float = 0.0) -> list[Look]:
    """Six calm parts an hour, of a process that takes so many MB in each."""
    rng = random.Random(1)
    return [
        Look(number * 600.0 + LOOK_S * at, number, int((memory + rng.uniform(-noise, noise)) * 1e6), files)
        for number, memory in enumerate(parts)
        for at in range(LEAST_LOOKS)
    ]


def test_the_slope_is_that_of_least_squares_and_its_interval_that_of_student() -> None:
    # By hand: slope 2.1, residuals 0.1 -0.2 0.1, so the error is 0.0122 * … and t of one degree of freedom is 12.71.
    slope, low, high = slope_of([0.0, 1.0, 2.0], [1.0, 2.8, 5.2])
    assert slope == pytest.approx(2.1)
    residual = 0.1**2 + 0.2**2 + 0.1**2
    assert high - slope == slope - low == pytest.approx(12.71 * (residual / 1 / 2) ** 0.5)


def test_what_surely_grows_is_wrong_and_what_goes_up_and_down_is_not() -> None:
    grows = _trend("sink", looks(20, 70, 106, 109, 112, 115, 118, noise=1.0))
    assert grows is not None
    assert grows.slope is not None
    assert grows.slope[0] == pytest.approx(18, abs=4)
    assert grows.wrong == ["sink grows by {:.1f} MB an hour ({:.1f} to {:.1f})".format(*grows.slope)]
    restless = _trend("sink", looks(20, 70, 100, 130, 90, 125, 95, 120))
    assert restless is not None
    assert restless.wrong == []


def test_of_few_parts_nothing_is_said_but_of_files_that_stay_open() -> None:
    assert _trend("sink", looks(100)[: LEAST_LOOKS - 1]) is None
    found = _trend("sink", [*looks(100), *(each._replace(part=1, files=60) for each in looks(500))])
    assert found == Trend("sink", 2, 500.0, None, (20, 60))
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

"""Clocks that step: the broker's as append times tell it, this machine's, and what is said of the two."""

from __future__ import annotations

from typing import Any

import pytest

from ashi.runtime.metrics import aggregate as metrics
from ashi_aggregate import clocks
from ashi_aggregate.clocks import BrokerClock, ClockReport, SteadyClock

SECOND = 1_000_000


def test_a_brokers_clock_is_not_known_before_it_was_seen_and_then_goes_on_by_itself():
    clock = BrokerClock()
    assert clock.now_us(5) is None
    clock.saw(1_000 * SECOND, 5 * SECOND)
    assert clock.now_us(65 * SECOND) == 1_060 * SECOND


def test_a_record_that_came_late_does_not_set_a_brokers_clock_back():
    clock = BrokerClock()
    clock.saw(1_000 * SECOND, 5 * SECOND)
    clock.saw(990 * SECOND, 15 * SECOND)
    assert clock.now_us(15 * SECOND) == 1_010 * SECOND


def test_a_brokers_clock_that_was_set_back_is_followed_within_two_minutes():
    clock = BrokerClock()
    for second in range(0, 300, 10):
        ahead = 3_600 if second < 100 else 0
        clock.saw((1_000 + second + ahead) * SECOND, second * SECOND)
        if second < 100 or second >= 100 + 120:
            assert clock.now_us(second * SECOND) == (1_000 + second + ahead) * SECOND


class Machine:
    def __init__(self) -> None:
        self.wall, self.boot = 1_000.0, 10.0
        self.clock = SteadyClock(lambda: int(self.wall * SECOND), lambda: self.boot)

    def passes(self, seconds: float, step: float = 0) -> float:
        self.boot += seconds
        self.wall += seconds + step
        return self.clock.now_us() / SECOND


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    lines: list[tuple[str, Any]] = []

    class Log:
        def warning(self, text: str, **more: Any) -> None:
            lines.append((text, more.get("step_s", more.get("ahead_s"))))

        info = warning

    monkeypatch.setattr(clocks, "_log", Log())
    return lines


def test_the_machines_clock_steps_ahead_but_not_back_and_each_step_is_said_once(said):
    machine = Machine()
    assert machine.passes(1) == 1_001
    assert machine.passes(1, step=3_600) == 4_602
    assert machine.passes(1) == 4_603
    assert machine.passes(1, step=-3_600) == 4_604
    assert machine.passes(1, step=-0.5) == 4_605
    assert [step for _, step in said] == [3_600, -3_600]


def test_the_distance_of_two_clocks_is_shown_and_said_once_for_each_step_whatever_the_partitions(said):
    metrics.clock_offset_seconds.clear()  # of pipelines that other tests have left in this process
    report = ClockReport()
    for offset in (0.1, 3_600, 3_600.2, 0.2, 0.1):
        for partition in range(3):
            report.report(partition, int(offset * SECOND))
    assert [ahead for _, ahead in said] == [3_600, None]
    (family,) = metrics.clock_offset_seconds.collect()
    assert {sample.labels["partition"]: sample.value for sample in family.samples} == dict.fromkeys("012", 0.1)
    metrics.clock_offset_seconds.clear()

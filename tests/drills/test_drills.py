"""Some of the drills of `make drills`, in which Prometheus and Alertmanager watch a real pipeline that is broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from drills.__main__ import run, severities
from drills.breaking import DRILLS, Drill, aggregate_killed, store_locked
from rig.watchers import faster, faster_rules, needs_watchers

NEVER_DRILLED = {"Watchdog"}
"""It fires always, which each run waits for."""


def test_there_is_a_drill_for_every_alert() -> None:
    assert {alert for drill in DRILLS for alert in drill.alerts} == set(severities()) - NEVER_DRILLED


def test_times_in_rules_are_made_shorter_and_nothing_else_is() -> None:
    expression = 'max(x{le="5.0"}) > 2 * 60 and ashi:late:ratio5m > 6 * 0.001 and rate(x[5m] offset 15m)'
    assert faster(expression, 30) == (
        'max(x{le="5.0"}) > 4 and ashi:late:ratio5m > 6 * 0.001 and rate(x[10000ms] offset 30000ms)'
    )
    assert faster("30s", 10_000) == "100ms", "no time is shorter"
    assert next(group["name"] for group in faster_rules(30)["groups"]) == "ashi-recorded"


@pytest.mark.kafka
@pytest.mark.processes
@pytest.mark.outside
@pytest.mark.timeout(300)
@needs_watchers
def test_what_is_broken_pages_once_and_is_over_when_it_is_mended(tmp_path: Path) -> None:
    chosen: list[Drill] = [drill for drill in DRILLS if drill.broken in {store_locked, aggregate_killed}]
    outcomes, failures = run(tmp_path, chosen)
    assert failures == []
    assert [outcome.alert for outcome in outcomes] == ["StoreDown (page)", "WorkersAbsent (page)"]

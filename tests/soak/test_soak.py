"""A soak of a minute, on real everything; and how alerts are held against causes. `make soak` is the whole one."""

from __future__ import annotations

import secrets
from contextlib import nullcontext
from pathlib import Path

import pytest

from drills.__main__ import severities
from rig.watchers import Notification, needs_watchers
from soak.faults import FAULTS, Fault
from soak.harness import Told, hold_alerts, run

AWAY = Fault("the store is away", lambda _: nullcontext(), ("StoreDown",), frozenset({"LagGrowing"}))
KILLED = Fault("a worker is killed", lambda _: nullcontext())
TOLD = [Told(AWAY, 100.0, 130.0, 200.0), Told(KILLED, 200.0, 210.0, 300.0)]
WATCHDOG = Notification(5.0, "watchdog", "Watchdog", fires=True)


def sent(*each: tuple[float, str, bool]) -> list[Notification]:
    return [WATCHDOG, *(Notification(at_s, "pages", alert, fires) for at_s, alert, fires in each)]


def test_alerts_that_have_a_cause_are_a_row_and_nothing_is_wrong() -> None:
    rows, stray, wrong = hold_alerts(
        TOLD,
        sent(
            (112.0, "StoreDown", True),
            (115.0, "LagGrowing", True),
            (141.0, "StoreDown", False),
            (205.0, "LagGrowing", True),  # it goes on, and somebody is reminded
            (206.0, "LagGrowing", False),
        ),
        0.0,
    )
    assert stray + wrong == []
    assert [(row.lasted_s, row.told_s, row.over_s, row.beside) for row in rows] == [
        (30.0, [12.0], [11.0], ["LagGrowing"]),
        (10.0, [], [], []),
    ]


def test_whatever_has_no_cause_and_whatever_is_not_told_is_wrong() -> None:
    for told, complaint in (
        ((), "the store is away: nobody was told by StoreDown"),
        (((112.0, "StoreDown", True),), "the store is away: StoreDown did not resolve"),
        (
            ((112.0, "StoreDown", True), (141.0, "StoreDown", False), (210.0, "LagGrowing", True)),
            "a worker is killed: ['LagGrowing'] were told of as well, and do not follow of it",
        ),
        (
            ((50.0, "FeedDown", True), (112.0, "StoreDown", True), (141.0, "StoreDown", False)),
            "['FeedDown'] were told of before anything was broken",
        ),
        (
            ((201.0, "StoreDown", True), (220.0, "StoreDown", False)),  # too late: the next fault is there
            "the store is away: nobody was told by StoreDown",
        ),
    ):
        _, stray, wrong = hold_alerts(TOLD, sent(*told), 0.0)
        assert complaint in stray + wrong
    assert hold_alerts([], [], 0.0)[2] == ["the watchdog was not heard"]


def test_the_table_of_faults_names_alerts_that_there_are_and_every_fault_once() -> None:
    assert {alert for fault in FAULTS for alert in (*fault.alerts, *fault.may)} <= set(severities())
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


@pytest.mark.kafka
@pytest.mark.processes
@pytest.mark.outside
@pytest.mark.timeout(300)
@needs_watchers
def test_in_a_minute_of_everything_each_fault_is_told_and_every_row_is_the_oracles(tmp_path: Path) -> None:
    chosen = [fault for fault in FAULTS if fault.name in {"PostgreSQL is killed and stays away", "Kafka restarts"}]
    lines: list[str] = []
    result = run(tmp_path, secrets.randbelow(10**6), minutes=0.7, rate=200, chosen=chosen, say=lines.append)
    # With times thirty times shorter, seconds of standing still are told of, also at the start, that a deployment's
    # rules let pass: alerts without a cause are a matter of `make soak`.
    assert result.wrong == [], "\n".join([*lines, *result.wrong])
    assert [row.fault.name for row in result.rows] == ["Kafka restarts", "PostgreSQL is killed and stays away"]
    assert result.numbers.trades > 0
    assert min(result.numbers.rows.values()) > 0
    assert {trend.name for trend in result.trends} >= {"ingest", "aggregate-0", "postgres-0", "chart", "strategy"}

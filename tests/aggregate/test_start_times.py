"""What a start and a hand-over take, by parts, in the metrics and in the log."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

import ashi_aggregate.faust.membership as membership_module
import ashi_aggregate.faust.restoring as restoring_module
import ashi_aggregate.worker as worker_module
from ashi.contracts.errors import BrokerUnreachableError, StateError
from ashi.runtime import process_age as process_age_module
from ashi.runtime import waiting
from ashi.runtime.metrics.aggregate import handover_seconds, restore_seconds, restored_records
from ashi.runtime.process_age import process_age_s
from ashi.runtime.retry import Backoff
from ashi.runtime.service import Service
from ashi.runtime.settings import Settings


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (membership_module, restoring_module, worker_module):
        monkeypatch.setattr(module, "time", clock)
    return clock


def took(kind: str) -> float:
    value: float = handover_seconds.labels(kind)._value.get()
    return value


def test_waiting_for_kafka_is_no_check(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka is away for a minute, and goes away again before the worker has begun."""
    away = [True, False, True, False]

    async def require_access(*_: object) -> None:
        clock.now_s += 0.25
        if away.pop(0):
            clock.now_s += 60.0
            raise BrokerUnreachableError("no broker answers")

    async def prepare(_: object) -> tuple[Any, int]:
        clock.now_s += 0.5
        if len(away) == 2:
            raise BrokerUnreachableError("no broker answers any more")
        return SimpleNamespace(epoch=0, timeframes=["1m"]), 4

    def make_app(*_: object) -> Any:
        raise StateError("far enough")

    monkeypatch.setattr(waiting, "require_access", require_access)
    monkeypatch.setattr(waiting, "Backoff", lambda **_: Backoff(0.001, 0.002))
    monkeypatch.setattr(worker_module, "_prepare", prepare)
    monkeypatch.setattr(worker_module, "make_app", make_app)
    service = Service("aggregate-test", Settings.from_environment({"ASHI_INSTANCE_ID": "worker-1"}))
    with capture_logs() as lines, pytest.raises(StateError, match="far enough"):
        asyncio.run(worker_module.aggregate(service))
    assert not away
    assert took("checks") == pytest.approx(0.75)
    assert 0 < took("process") < 86_400
    [joining] = [line for line in lines if line["event"] == "joining the group"]
    assert (joining["instance_id"], joining["checks_s"]) == ("worker-1", 0.75)


def test_a_start_and_each_rebalance_are_told_once(clock: Clock) -> None:
    with capture_logs() as lines:
        times = membership_module.HandoverTimes()
        times.end([1])  # nothing is taken up before the group has decided
        clock.now_s += 2.0
        times.join(has_none=False)
        clock.now_s += 0.5
        times.end({3, 1})
        times.end({3, 1})
        assert (took("join"), took("state")) == (2.0, 0.5)
        clock.now_s += 3600.0
        times.begin()
        clock.now_s += 0.25
        times.join(has_none=False)
        times.end([1])
    assert (took("join"), took("state")) == (0.25, 0.0)
    told = [(line["event"], line["partitions"], line["join_s"], line["state_s"]) for line in lines]
    assert told == [("taken up", [1, 3], 2.0, 0.5), ("taken up", [1], 0.25, 0.0)]


def test_a_rebalance_goes_on_until_what_it_gave_is_taken_up_or_it_gave_nothing(clock: Clock) -> None:
    times = membership_module.HandoverTimes()
    assert times.ongoing, "a start is one too"
    times.join(has_none=False)
    assert times.ongoing
    times.end([1])
    assert not times.ongoing
    times.begin()
    times.end([1])
    assert times.ongoing, "what is taken up late was of the one before"
    times.join(has_none=True)
    assert not times.ongoing
    times.begin()
    assert times.ongoing


def test_a_rebalance_that_does_not_end_is_complained_of_unless_it_restores(clock: Clock) -> None:
    watch = membership_module.TakeUpWatch(300.0, clock=lambda: clock.now_s)

    def complains(after_s: float, restored: int, *, taken_up: bool = False) -> bool:
        clock.now_s += after_s
        return watch.complaint(taken_up=taken_up, restored=restored) is not None

    assert not complains(0.0, 0)
    assert not complains(299.0, 0)
    assert complains(1.0, 0), "nobody has given anything"
    assert not complains(0.0, 5), "it restores, however long that takes"
    assert not complains(299.0, 6)
    assert not complains(299.0, 7)
    assert complains(300.0, 7)
    assert not complains(1.0, 7, taken_up=True)
    assert not complains(3600.0, 7, taken_up=True)
    assert not complains(3600.0, 7), "the next one begins now"
    assert not complains(299.0, 7)
    assert complains(1.0, 7)


def test_a_restore_counts_from_the_last_assignment(clock: Clock) -> None:
    before = restored_records._value.get()
    with capture_logs() as lines:
        restoring = restoring_module.Restoring()
        restoring.ended()  # nothing has begun
        restoring.began()
        restoring.add(7)
        clock.now_s += 5.0
        restoring.began()  # a rebalance in the middle
        restoring.add(300)
        restoring.add(200)
        clock.now_s += 2.0
        restoring.ended()
        restoring.ended()
    assert restored_records._value.get() - before == 507
    assert restore_seconds._value.get() == 2.0
    assert lines == [
        {"event": "restored", "log_level": "info", "records": 500, "seconds": 2.0, "records_per_s": 250},
    ]


def test_a_process_knows_its_age(monkeypatch: pytest.MonkeyPatch) -> None:
    age_s = process_age_s()
    assert age_s is not None
    time.sleep(0.05)
    later_s = process_age_s()
    assert later_s is not None
    assert later_s - age_s >= 0.04


@pytest.mark.processes
def test_the_age_of_a_process_is_from_its_own_start_on() -> None:
    code = "import time; time.sleep(0.3); from ashi.runtime.process_age import process_age_s; print(process_age_s())"
    began_s = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0.29 <= float(done.stdout) <= time.monotonic() - began_s + 0.02


@pytest.mark.parametrize("stat", ["", "1 (python) S 1 2 3", "no parenthesis"])
def test_where_nobody_tells_the_age_it_is_not_known(stat: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stat:
        def __init__(self, _: str) -> None:
            return None

        def read_text(self) -> str:
            return stat

    monkeypatch.setattr(process_age_module, "Path", Stat)
    assert process_age_s() is None


def test_without_an_age_the_metric_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(*_: object) -> None:
        return None

    monkeypatch.setattr(worker_module, "start_when_kafka_is_there", start)
    age: Callable[[], float | None] = lambda: None  # noqa: E731
    monkeypatch.setattr(worker_module, "process_age_s", age)
    asyncio.run(worker_module.aggregate(Service("aggregate-test", Settings.from_environment({}))))
    assert math.isnan(took("process"))

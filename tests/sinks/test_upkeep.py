"""What a worker does for its store beside writing: when, whatever fails, and until when."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from ashi.contracts.errors import StorageError
from ashi_sinks import upkeep
from ashi_sinks.upkeep import SPREAD, Chore, run_chore

if TYPE_CHECKING:
    from collections.abc import Callable

HOUR_S = 3600.0
NOON_S = 1_795_867_200.0


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited for the next time; nothing is."""
    slept: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await real(0.001)

    monkeypatch.setattr(upkeep.asyncio, "sleep", sleep)
    return slept


def run(chore: Chore, enough: Callable[[], object], **clocks: Any) -> None:
    async def scenario() -> None:
        running = asyncio.create_task(run_chore(chore, "lake", **clocks))
        deadline = time.monotonic() + 20
        while not enough():
            assert time.monotonic() < deadline
            await asyncio.wait([running], timeout=0.001)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())


def test_a_chore_is_done_at_the_multiples_of_its_interval_so_a_restart_does_not_put_it_off(sleeps: list[float]) -> None:
    chore = Chore("compact", HOUR_S, lambda _: [])
    times = iter([NOON_S + 600, NOON_S + HOUR_S + 3000, NOON_S + 3 * HOUR_S])
    spreads = iter([0.0, 1.0, 0.5])
    run(chore, lambda: len(sleeps) == 3, now_s=lambda: next(times), spread=lambda: next(spreads))
    assert sleeps == pytest.approx([3000, 600 + SPREAD * HOUR_S, HOUR_S * (1 + SPREAD / 2)])


def test_what_fails_is_told_and_done_at_the_next_time(sleeps: list[float], caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []
    caplog.set_level("INFO")

    def do(_: threading.Event) -> list[str]:
        calls.append(1)
        if len(calls) == 1:
            raise StorageError("the disk is full")
        return ["candles: 9 files are 1 now"]

    run(Chore("compact", HOUR_S, do), lambda: len(sleeps) > 2)
    told = [str(record.msg) for record in caplog.records]
    assert "the disk is full" in told[0]
    assert "compact failed, it is tried again at its next time" in told[0]
    assert "compact: candles: 9 files are 1 now" in told[1]


def test_a_mistake_of_ours_is_not_hidden(sleeps: list[float]) -> None:
    def do(_: threading.Event) -> list[str]:
        raise ZeroDivisionError

    async def scenario() -> None:
        async with asyncio.timeout(20):
            await run_chore(Chore("compact", HOUR_S, do), "lake")

    with pytest.raises(ZeroDivisionError):
        asyncio.run(scenario())


def test_a_chore_at_work_is_told_when_the_worker_ends(sleeps: list[float]) -> None:
    began, ended = threading.Event(), threading.Event()

    def do(stopping: threading.Event) -> list[str]:
        began.set()
        if stopping.wait(20):
            ended.set()
        return []

    run(Chore("compact", HOUR_S, do), began.is_set)
    assert ended.wait(60)


def test_a_chore_that_does_not_end_does_not_keep_the_worker_from_ending(
    sleeps: list[float], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "GRACE_S", 0.05)
    began, end = threading.Event(), threading.Event()

    def do(_: threading.Event) -> list[str]:
        began.set()
        end.wait(20)
        return []

    begun_s = time.monotonic()
    run(Chore("vacuum", HOUR_S, do), began.is_set)
    took_s = time.monotonic() - begun_s
    end.set()
    assert took_s < 10
    assert "vacuum is cut short by the stop" in caplog.text


def test_a_chore_that_ends_soon_after_the_stop_is_waited_for(
    sleeps: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    began, ended = threading.Event(), threading.Event()

    def do(stopping: threading.Event) -> list[str]:
        began.set()
        stopping.wait(20)
        time.sleep(0.1)
        ended.set()
        raise StorageError("what nobody waits for any more")

    run(Chore("vacuum", HOUR_S, do), began.is_set)
    assert ended.is_set()
    assert not caplog.records


@pytest.mark.processes
@pytest.mark.parametrize(("works_s", "status", "said"), [(120, 3, "begun\n"), (0, 0, "begun\nended as always\n")])
def test_a_process_with_a_chore_that_was_cut_short_ends_without_the_interpreters_end(
    works_s: int, status: int, said: str
) -> None:
    program = f"""
import asyncio, time
from ashi_sinks import upkeep

upkeep.GRACE_S = {0.05 if works_s else 10.0}

async def main():
    chore = upkeep.Chore("vacuum", 0.01, lambda _: time.sleep({works_s}) or [])
    running = asyncio.create_task(upkeep.run_chore(chore, "lake"))
    await asyncio.sleep(0.5)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    print("begun")

asyncio.run(main())
upkeep.exit_past_chores(3)
print("ended as always")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (status, said)

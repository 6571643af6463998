"""The thread that a strategy runs in."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from ashi_strategies.live.memory import resident_bytes
from ashi_strategies.live.watched_thread import WatchedThread


def test_it_gives_what_a_call_gives_or_raises_and_says_since_when_one_runs_and_where() -> None:
    let_go = threading.Event()

    def wait_for_the_test() -> str:
        let_go.wait(30)
        return "done"

    async def main() -> None:
        thread = WatchedThread("tested", last_resort_s=60)
        try:
            assert await thread.call(lambda: 7) == 7
            with pytest.raises(SystemExit):
                await thread.call(lambda: sys.exit(3))
            assert thread.running_s == 0
            waiting = asyncio.create_task(thread.call(wait_for_the_test))
            while "wait_for_the_test" not in thread.where():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            before_s = thread.running_s
            while thread.running_s <= before_s:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            let_go.set()
            assert await waiting == "done"
            assert thread.running_s == 0
        finally:
            thread.close()

    asyncio.run(main())


def test_a_part_that_is_done_is_not_counted() -> None:
    seen: list[float] = []

    async def main() -> None:
        thread = WatchedThread("tested", last_resort_s=60)

        def two_parts() -> None:
            time.sleep(0.05)
            seen.append(thread.running_s)
            thread.go_on()
            seen.append(thread.running_s)

        await thread.call(two_parts)
        thread.close()

    asyncio.run(main())
    assert seen[0] >= 0.05 > seen[1]


@pytest.mark.processes
def test_a_call_that_keeps_pythons_lock_ends_the_process_and_says_where_it_stood() -> None:
    """A regular expression that looks for ever does not let any other thread run."""
    program = """
import asyncio, re
from ashi_strategies.live.watched_thread import WatchedThread
def looks_for_ever():
    re.fullmatch("(a+)+", "a" * 60 + "b")
asyncio.run(WatchedThread("strategy", last_resort_s=0.3).call(looks_for_ever))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "looks_for_ever" in ended.stderr


def test_what_is_taken_is_in_the_memory_of_the_process() -> None:
    before = resident_bytes()
    taken = bytearray(b"x") * 50_000_000
    assert resident_bytes() - before > 0.8 * len(taken)

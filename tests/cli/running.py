"""What tests of commands that run for long share: a command as a user starts it, and what became of its processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

import psutil

from kafka_topics.fresh_topics import PARTITIONS

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

WAIT_S: Final = 90.0


class Running:
    """`ashi …` as a process of its own, as a context manager; neither it nor a child of it outlives the block."""

    def __init__(self, log: Path, *arguments: str, **env: str) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "ashi_cli.main", *arguments],
                env={**os.environ, "ASHI_PARTITIONS": str(PARTITIONS), "ASHI_SESSION_TIMEOUT": "6s", **env},
                stdout=output,
                stderr=output,
            )

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()

    def said(self) -> str:
        return self.log.read_text()

    def wait_for(self, text: str, count: int = 1) -> None:
        """Wait until it has said so, so many times."""
        deadline = time.monotonic() + WAIT_S
        while self.said().count(text) < count:
            assert self.process.poll() is None, f"it ended without saying {text!r}: {self.said()[-3000:]}"
            assert time.monotonic() < deadline, f"no {text!r} in {self.said()[-3000:]}"
            time.sleep(0.1)

    def end(self, number: signal.Signals, within_s: float) -> int:
        """Send it a signal; its exit status, which must come so soon."""
        self.process.send_signal(number)
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it runs {within_s} s after {number.name}: {self.said()[-3000:]}") from None

    def children(self) -> list[psutil.Process]:
        found: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
        return found

    def child(self, *words: str) -> psutil.Process:
        """The one that has all of these among its arguments."""
        (found,) = [child for child in self.children() if set(words) <= set(arguments(child))]
        return found


def arguments(process: psutil.Process) -> list[str]:
    try:
        found: list[str] = process.cmdline()
    except psutil.Error:
        return []
    return found


def assert_gone(processes: list[psutil.Process]) -> None:
    """All of them end soon. A container's init may never reap an orphan: a zombie is as gone as it gets."""
    deadline = time.monotonic() + WAIT_S
    while alive := [each for each in processes if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]:
        assert time.monotonic() < deadline, f"left running: {[arguments(process) for process in alive]}"
        time.sleep(0.02)

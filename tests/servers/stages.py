"""Processes of the product that tests start, a stage of the flow and a simulated venue, and what they answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from servers import forked_stages

if TYPE_CHECKING:
    import signal
    from pathlib import Path

    from ashi.runtime.settings import Settings


class Stage:
    """A stage of the flow as a process of its own, with a user's command line: `ashi aggregate`, `ashi sink sqlite`."""

    def __init__(self, settings: Settings, log: Path, arguments: tuple[str, ...], env: Mapping[str, str]) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = forked_stages.start(
                [sys.executable, "-m", "ashi_cli.main", *arguments],
                env=os.environ
                | {
                    "ASHI_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
                    "ASHI_PARTITIONS": str(settings.partitions),
                    "ASHI_SESSION_TIMEOUT": "6s",
                    "ASHI_QUIET_CLOSE": "off",
                    "ASHI_METRICS_PORT": "0",
                }
                | dict(env),
                stdout=output,
                stderr=output,
            )

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)

    def wait_for(self, text: str, timeout_s: float = 90) -> None:
        """Wait until the log says so."""
        deadline = time.monotonic() + timeout_s
        while text not in self.log.read_text():
            assert self.process.poll() is None or text in self.log.read_text(), self.log.read_text()[-3000:]
            assert time.monotonic() < deadline, f"no {text!r} in {self.log.read_text()[-3000:]}"
            time.sleep(0.05)

    @property
    def address(self) -> str:
        """`http://127.0.0.1:41235`, where it serves health and metrics, once its log says so."""
        self.wait_for('"metrics":"http')
        return served_at(self.log.read_text())


def served_at(log: str) -> str:
    """Where a process serves health and metrics, by what it has logged as JSON."""
    line = next(line for line in log.splitlines() if '"metrics":"http' in line)
    found: str = json.loads(line)["metrics"]
    return found.removesuffix("/metrics")


def get(url: str) -> tuple[int, str]:
    """The status and the text of an answer, also of one that refuses."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@contextmanager
def simulated_venue(*arguments: str) -> Iterator[dict[str, str]]:
    """`ashi venue-sim` as a process; gives the variables that it prints, by which an ingest worker finds it."""
    argv = [sys.executable, "-P", "-m", "ashi_cli.main", "venue-sim", *arguments]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        exports: dict[str, str] = {}
        while len(exports) < 2:
            line = process.stdout.readline()
            assert line, "the simulator ended"
            if line.startswith("export "):
                name, _, value = line.removeprefix("export ").strip().partition("=")
                exports[name] = value
        yield exports
    finally:
        process.terminate()
        process.communicate(timeout=60)

"""The workers, as an orchestrator keeps them: each that ends is started again, and every end must have a reason."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servers import forked_stages

HERE = "127.0.0.1"
EXIT_SESSION_LOST = 75
SESSION_S = 6.0
BROKER_GRACE_S = 20.0
"""A worker may fail because of the broker while it is away and until so long afterwards."""
END_BOUND_S = 30.0
"""In which a worker that was told to stop must have ended, and a zombie that runs again must have noticed."""
TICK_S = 0.05


class PromiseError(AssertionError):
    """The promise is broken; the text says how."""


class Timeline:
    """What happened when: printed and kept in a file, so that a failure can be told and repeated."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self._began = time.monotonic()
        self._path = path
        self._say = say

    @property
    def now(self) -> float:
        return time.monotonic() - self._began

    def __call__(self, text: str) -> None:
        line = f"{self.now:7.1f} s  {text}"
        self._say(line)
        with self._path.open("a") as file:
            file.write(line + "\n")


@dataclass(eq=False)
class Worker:
    """A place in the fleet: one process at a time, a log for each."""

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    """What it alone has besides the fleet's."""
    port: int | None = None
    """Where it serves its metrics, each time it runs; None: anywhere."""
    address: str = HERE
    """The host's that it runs on."""
    begin_with: tuple[str, ...] = ()
    """What its command line begins with, as where it runs on another host."""
    wanted: bool = True
    process: subprocess.Popen[bytes] | None = None
    log: Path = field(default_factory=Path)
    starts: int = 0
    start_at: float = 0.0
    expected: frozenset[int] = frozenset()
    why: str = ""
    end_by: float | None = None
    frozen_at: float = 0.0
    thaw_at: float | None = None
    cut_off: bool = False
    """Whether nothing reaches it."""
    reached_again_at: float = -1e9

    @property
    def role(self) -> str:
        """`aggregate`, `sink postgres`."""
        return " ".join(self.arguments[: 2 if self.arguments[0] == "sink" else 1])

    @property
    def aggregates(self) -> bool:
        return self.arguments[0] == "aggregate"

    @property
    def free(self) -> bool:
        """Whether it runs and nothing has been done to it yet."""
        return self.process is not None and self.thaw_at is None and not self.why

    @property
    def ready(self) -> bool:
        if not self.free:
            return False
        if self.port is not None:
            return is_ready(self.address, self.port)
        said = self.log.read_text(errors="replace")
        return '"event":"ready"' in said if self.aggregates else '"event":"storing candles"' in said

    @property
    def blames_broker(self) -> bool:
        """Whether it may have ended for want of a broker, and not of its store: that a sink must wait for."""
        said = self.last_words()
        if "failed unexpectedly" in said:
            return False
        return self.aggregates or '"error":"BrokerError"' in said

    def said(self, *events: str) -> Iterator[dict[str, Any]]:
        """What it has logged of these since it was started last."""
        wanted = [f'"event":"{event}"' for event in events]
        for line in self.log.read_text(errors="replace").splitlines():
            if any(text in line for text in wanted):
                yield json.loads(line)

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-6_000:] or "(it said nothing)"


def is_ready(address: str, port: int) -> bool:
    """Whether the worker that serves there says that it is."""
    try:
        with urllib.request.urlopen(f"http://{address}:{port}/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _port_of(worker: Worker) -> dict[str, str]:
    return {} if worker.port is None else {"ASHI_METRICS_HOST": worker.address, "ASHI_METRICS_PORT": str(worker.port)}


class Fleet:
    """All workers, the environment they are started with, and the count of their ends."""

    def __init__(self, directory: Path, environment: dict[str, str], timeline: Timeline) -> None:
        self.workers: list[Worker] = []
        self.environment = environment
        self.ends: Counter[str] = Counter()
        self.unexplained: list[str] = []
        self.chores: list[Callable[[], None]] = []
        """What else is to be done whenever the workers are looked after."""
        self.broker_away = False
        self.timeline = timeline
        self._broker_back_at = -1e9
        self._directory = directory

    def add(
        self,
        name: str,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        port: int | None = None,
        address: str = HERE,
        begin_with: tuple[str, ...] = (),
    ) -> Worker:
        worker = Worker(name, arguments, environment or {}, port, address, begin_with)
        self.workers.append(worker)
        self._start(worker)
        return worker

    def broker_is_away(self, away: bool) -> None:
        self.broker_away = away
        self._broker_back_at = time.monotonic()

    @contextmanager
    def cut_off(self, worker: Worker) -> Iterator[None]:
        """During the block, and for a while after it, it may end for want of a broker."""
        worker.cut_off = True
        try:
            yield
        finally:
            worker.cut_off, worker.reached_again_at = False, time.monotonic()

    def _start(self, worker: Worker) -> None:
        worker.starts += 1
        worker.log = self._directory / f"{worker.name}.{worker.starts}.log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ASHI_")}
        with worker.log.open("ab") as output:
            worker.process = forked_stages.start(
                [*worker.begin_with, sys.executable, "-m", "ashi_cli.main", *worker.arguments],
                env={**environment, **self.environment, **worker.environment, **_port_of(worker)},
                stdout=output,
                stderr=output,
            )
        self.timeline(f"{worker.name} starts (pid {worker.process.pid}, {worker.log.name})")

    def kill(self, worker: Worker, again_in_s: float) -> None:
        self._end(worker, signal.SIGKILL, frozenset({-signal.SIGKILL}), again_in_s)

    def terminate(self, worker: Worker, again_in_s: float) -> None:
        # Before its handlers are there, and while it is ending for want of a broker, SIGTERM ends it as it does any.
        defenceless = self.broker_away or '"event":"started"' not in worker.log.read_text(errors="replace")
        self._end(worker, signal.SIGTERM, frozenset({0, -signal.SIGTERM} if defenceless else {0}), again_in_s)

    def _end(self, worker: Worker, number: signal.Signals, expected: frozenset[int], again_in_s: float) -> None:
        assert worker.process is not None
        self.timeline(f"{worker.name} gets {number.name}")
        worker.expected, worker.why = expected, number.name
        now = time.monotonic()
        worker.end_by = now + END_BOUND_S
        worker.start_at = now + again_in_s
        worker.process.send_signal(number)

    def freeze(self, worker: Worker, seconds: float) -> None:
        assert worker.process is not None
        self.timeline(f"{worker.name} gets SIGSTOP for {seconds:.1f} s")
        worker.process.send_signal(signal.SIGSTOP)
        worker.frozen_at = time.monotonic()
        worker.thaw_at = worker.frozen_at + seconds

    def _thaw(self, worker: Worker) -> None:
        assert worker.process is not None
        away_s = time.monotonic() - worker.frozen_at
        self.timeline(f"{worker.name} gets SIGCONT after {away_s:.1f} s")
        worker.thaw_at = None
        if worker.aggregates and away_s > SESSION_S:
            worker.expected, worker.why = frozenset({EXIT_SESSION_LOST}), "zombie"
            worker.end_by = time.monotonic() + END_BOUND_S
            worker.start_at = time.monotonic() + 0.5
        worker.process.send_signal(signal.SIGCONT)

    def tick(self) -> None:
        """Do the chores, and look after each worker once. Raises PromiseError when one does not end in time."""
        for chore in self.chores:
            chore()
        for worker in self.workers:
            now = time.monotonic()
            if worker.process is None:
                if worker.wanted and now >= worker.start_at:
                    self._start(worker)
                continue
            status = worker.process.poll()
            if status is not None:
                self._judge(worker, status)
            elif worker.thaw_at is not None and now >= worker.thaw_at:
                self._thaw(worker)
            elif worker.end_by is not None and now > worker.end_by:
                raise PromiseError(f"{worker.name} has not ended {END_BOUND_S:.0f} s after {worker.why}")

    def _judge(self, worker: Worker, status: int) -> None:
        if status in worker.expected:
            kind = f"{status} after {worker.why}"
        elif status > 0 and self._lacks_broker(worker) and worker.blames_broker:
            kind = f"{status} while the broker was away"
        else:
            kind = f"{status} UNEXPLAINED" + (f" after {worker.why}" if worker.why else "")
            self.unexplained.append(f"{worker.name} ({worker.log.name}) ended with {kind}:\n{worker.last_words()}")
        self.timeline(f"{worker.name} ended with {kind}")
        self.ends[f"{worker.role}: {kind}"] += 1
        if not worker.why:
            worker.start_at = time.monotonic() + 1.0
        worker.process, worker.thaw_at, worker.end_by = None, None, None
        worker.expected, worker.why = frozenset(), ""

    def _lacks_broker(self, worker: Worker) -> bool:
        back_at = max(self._broker_back_at, worker.reached_again_at)
        return self.broker_away or worker.cut_off or time.monotonic() < back_at + BROKER_GRACE_S

    def wait(self, seconds: float) -> None:
        """Let time pass, as the schedule of faults has it."""
        self.wait_until(lambda: False, seconds)

    def wait_until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until the condition holds, looking after the workers; whether it did in time."""
        deadline = time.monotonic() + timeout_s
        while True:
            self.tick()
            if condition():
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(TICK_S)

    def must(self, condition: Callable[[], bool], timeout_s: float, complaint: str) -> None:
        """Wait until the condition holds. Raises PromiseError when it does not in time."""
        if not self.wait_until(condition, timeout_s):
            raise PromiseError(f"{complaint} within {timeout_s:.0f} s")

    def wait_for_frozen(self, workers: list[Worker]) -> None:
        """Let the pauses end as they were meant to."""
        self.wait_until(lambda: all(worker.thaw_at is None for worker in workers), END_BOUND_S)

    def stop(self, workers: list[Worker]) -> None:
        """SIGTERM them, and wait until they have ended; they are not started again until they are wanted."""
        for worker in workers:
            worker.wanted = False
        self.wait_for_frozen(workers)
        for worker in workers:
            if worker.free:
                self.terminate(worker, 0)
        if not self.wait_until(lambda: all(worker.process is None for worker in workers), 2 * END_BOUND_S):
            raise PromiseError("workers do not end")

    def destroy(self) -> None:
        """Leave nothing behind."""
        for worker in self.workers:
            if worker.process is not None and worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait(10)

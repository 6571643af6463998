"""Keeps stages running: one that has ended is started again, later each time, and whoever watches is told."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import InstanceTakenError, UsageError
from ashi_cli.onemachine.stack import died, how_it_ended, last_lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from ashi_cli.onemachine.stack import Stack, Stage

STEADY_S: Final = 60.0
"""A stage that ran for so long had begun well: what ends it then is counted anew."""
MOST_FAILURES: Final = 5
"""Of one stage in a row, after which it is not started again: then it is no accident."""
WAITS_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0)
FEED_WAIT_S: Final = 300.0
"""Feeds are weather: one that fails again and again is tried as seldom as this, while the others go on."""

_HOPELESS: Final = frozenset({UsageError.exit_status, InstanceTakenError.exit_status})
"""Exit statuses of a stage that would end the same way again."""


@dataclass(slots=True)
class Job:
    """A stage that is to run all the time.

    Attributes:
        name: of the stage.
        arguments: what follows `ashi`.
        environment: what it gets besides that of all.
        is_feed: it reads a venue; others may do without it.

    """

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    is_feed: bool = False
    stage: Stage | None = None
    began: float = 0.0
    due: float = 0.0
    failures: int = 0


class Supervisor:
    """Starts jobs, and starts them again. Call all of it from the main thread."""

    def __init__(self, stack: Stack, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.jobs: list[Job] = []
        self._stack = stack
        self._say = say
        self._clock = clock

    def start(self, job: Job) -> None:
        """Run it from now on. Raises StageError when it cannot be started at all."""
        self.jobs.append(job)
        self._begin(job)

    def stage(self, name: str) -> Stage | None:
        """The running stage of a job; None while it waits to be started again."""
        return next(job.stage for job in self.jobs if job.name == name)

    def look(self) -> None:
        """Start again what has ended and waited long enough.

        Raises StageError, with its last words, for a stage that ended in a way that does not pass by itself, or too
        often in a row; of feeds only when that is true of all of them.
        """
        for job in self.jobs:
            if job.stage is None:
                if self._clock() >= job.due:
                    self._begin(job)
            elif job.stage.process.poll() is not None:
                self._ended(job, job.stage)

    def forgive(self) -> None:
        """Failures so far had a reason that is over, such as a broker that was away."""
        for job in self.jobs:
            job.failures = 0
            job.due = min(job.due, self._clock())

    def _begin(self, job: Job) -> None:
        job.stage = self._stack.start(job.name, job.arguments, job.environment)
        job.began = self._clock()

    def _ended(self, job: Job, stage: Stage) -> None:
        now = self._clock()
        if now - job.began >= STEADY_S:
            job.failures = 0
        job.failures += 1
        self._stack.retire(stage)
        job.stage = None
        if stage.process.returncode in _HOPELESS or self._is_given_up(job):
            again = f"{job.failures} times in a row" if job.failures > 1 else "and would do so again"
            raise died(stage, again)
        slow = job.failures >= MOST_FAILURES
        wait_s = FEED_WAIT_S if slow else WAITS_S[min(job.failures, len(WAITS_S)) - 1]
        job.due = now + wait_s
        self._say(
            f"stage {job.name} {how_it_ended(stage.process)}; it is started again in {wait_s:.0f} s. Its log "
            f"{stage.log} ends with: {_telling(last_lines(stage.log))}"
        )

    def _is_given_up(self, job: Job) -> bool:
        if job.failures < MOST_FAILURES:
            return False
        return not job.is_feed or all(
            other.stage is None and other.failures >= MOST_FAILURES for other in self.jobs if other.is_feed
        )


def _telling(lines: Sequence[str]) -> str:
    """The last line that is an error, else the last."""
    errors = [line for line in lines if "[error" in line or line.startswith("ashi: ")]
    return (errors or lines or ["nothing"])[-1].strip()

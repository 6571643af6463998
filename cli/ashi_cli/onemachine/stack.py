"""The stages of the one-machine stack: child processes with a log each, watched and stopped together."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import AshiError, UsageError
from ashi_cli.onemachine.children import locked, spawn, stop_all

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

STOP_TIMEOUT_S: Final = 25.0
"""A stage ends by itself after 20 s, whatever hangs in it; usually it takes half a second."""

LOG_LINES: Final = 12
LOG_BYTES: Final = 16 << 20
"""Beyond that a log begins anew; so it and the one before take twice as much."""
_FULL_BYTES: Final = 1 << 20

# Of the user's environment, what is about another Kafka than the one that is started here. `ASHI_STORAGE_FILE` is
# read by us, and the stages get its content.
_NOT_PASSED_ON: Final = ("ASHI_REPLICATION", "ASHI_STORAGE_FILE", "ASHI_METRICS_PORT")


class StageError(AshiError):
    """A stage died or stands still; the message names it, its last words and its log."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A running stage and the file that its output goes to."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path


def stage_environment(
    environ: Mapping[str, str], *, bootstrap: str, storage: str, timeframes: str | None, live: bool = False
) -> dict[str, str]:
    """The environment of every stage: all settings of `environ` but those about another Kafka, and ours on top.

    Unless trades come `live`, windows close by the trades' own times: what recordings give must not depend on when.
    """
    passed = {
        name: value
        for name, value in environ.items()
        if not name.startswith("ASHI_KAFKA_") and name not in _NOT_PASSED_ON
    }
    ours = {
        "ASHI_KAFKA_BOOTSTRAP": bootstrap,
        "ASHI_METRICS_PORT": "0",  # several processes on one machine: each takes a free one
        "ASHI_STORAGE": storage,
    }
    if not live:
        ours["ASHI_QUIET_CLOSE"] = "off"
    if timeframes is not None:
        ours["ASHI_TIMEFRAMES"] = timeframes
    if not passed.get("ASHI_LOG_FORMAT"):
        ours["ASHI_LOG_FORMAT"] = "console"  # people read these logs
    return passed | ours


class Stack:
    """The stages of one run. `check` tells of those that died."""

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        """Logs of an earlier run in `logs` are deleted, all but those of the last one (`.old`). Raises OSError."""
        logs.mkdir(parents=True, exist_ok=True)
        for log in logs.glob("*.log"):
            log.replace(log.with_suffix(".log.old"))
        self.stages: list[Stage] = []
        self._logs = logs
        self._environment = environment

    def start(self, name: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Stage:
        """Run `ashi <arguments>` as a child that dies with this process. Raises StageError when it cannot be started.

        `environment`: what it gets besides that of all. Its log is gone on with. Call it from the main thread.
        """
        log = self._logs / f"{name}.log"
        # -P: a folder called `ingest` where the user happens to be must not come before ours.
        argv = [sys.executable, "-P", "-m", "ashi_cli.main", *arguments]
        try:
            with log.open("ab") as output:
                environ = {**self._environment, **(environment or {})}
                process = spawn(argv, env=environ, stdout=output, stderr=output)
        except OSError as error:
            raise StageError(f"stage {name} cannot be started: {error}; free memory or disk space") from error
        stage = Stage(name, process, log)
        self.stages.append(stage)
        return stage

    def check(self, expected_to_end: Stage | None = None) -> None:
        """Raise StageError for the first stage that has ended, all but `expected_to_end`."""
        for stage in self.stages:
            if stage is not expected_to_end and stage.process.poll() is not None:
                raise died(stage)

    def retire(self, stage: Stage) -> None:
        """No longer watch a stage that has ended as it should."""
        self.stages.remove(stage)

    def stop(self) -> None:
        """Stop all stages, within STOP_TIMEOUT_S. Raises nothing."""
        stop_all([stage.process for stage in self.stages], STOP_TIMEOUT_S)
        self.stages.clear()


def died(stage: Stage, when: str = "before the work was done") -> StageError:
    """The error for a stage that ended though it was still needed."""
    return StageError(f"stage {stage.name} {how_it_ended(stage.process)} {when}{_last_words(stage)}")


def how_it_ended(process: subprocess.Popen[bytes]) -> str:
    """`ended with status 1` or `was killed by SIGKILL`, of a process that has ended."""
    status = process.returncode
    return f"ended with status {status}" if status >= 0 else f"was killed by {signal.Signals(-status).name}"


def stands_still(stage: Stage, seconds: float) -> StageError:
    """The error for a stage that has work and did none of it for so long."""
    return StageError(f"stage {stage.name} has made no progress for {seconds:.0f} s{_last_words(stage)}")


def _last_words(stage: Stage) -> str:
    remedy = "; the disk is full: free space there" if disk_is_full(stage.log.parent) else ""
    lines = last_lines(stage.log)
    if not lines:
        return f"{remedy}. Its log {stage.log} is empty"
    return f"{remedy}. Its log {stage.log} ends with:\n" + "\n".join(f"  {line}" for line in lines)


def bound_log(log: Path) -> None:
    """Keep a log that somebody goes on appending to short: what is in it becomes its `.old`. Raises nothing."""
    with contextlib.suppress(OSError):
        if log.stat().st_size > LOG_BYTES:
            shutil.copyfile(log, log.with_suffix(".log.old"))
            os.truncate(log, 0)


def disk_is_full(directory: Path) -> bool:
    """Whether less than 1 MiB is free there; then logs break off before they say so."""
    return shutil.disk_usage(directory).free < _FULL_BYTES


def last_lines(log: Path) -> list[str]:
    """The last lines of a log, each cut to a readable length. Raises nothing."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        return [f"(it cannot be read: {error})"]
    return [line[:400] for line in lines if line.strip()][-LOG_LINES:]


@contextlib.contextmanager
def work_directory(path: Path, command: str) -> Iterator[None]:
    """Make the work directory and keep other commands of ours out of it while the block of `command` runs.

    Raises UsageError when another one is in it, or when it cannot be made or written.
    """
    holder = path / "command.lock"

    def refuse() -> None:
        other = command
        with contextlib.suppress(OSError):
            other = holder.read_text() or command
        raise UsageError(f"another `{other}` is running in {path}: wait for its end, or choose another --workdir")

    with contextlib.ExitStack() as held:
        try:
            path.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(holder, refuse))
            holder.write_text(command)
        except OSError as error:
            raise UsageError(f"work directory {path} cannot be used: {error.strerror}; {_remedy(error)}") from error
        yield


def _remedy(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free space on that disk, or choose another with --workdir"
    return "choose one that you may write to with --workdir"

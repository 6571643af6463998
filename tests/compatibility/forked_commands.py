"""Run many command lines of the installed `ashi`, each in a fork of one process that has the libraries loaded.

To start Python and import them takes ten times as long as what these commands do. Reads from stdin, as JSON, a list of
argv, environment, folder, and writes each one's exit status, with its output in the folder's `stdout` and `stderr`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, NoReturn

TIMEOUT_S = 60
# What our own code imports when it is needed. Not our own code itself: a command must find what it needs.
LIBRARIES = ("aiohttp", "aiokafka", "asyncpg", "deltalake", "faust", "prometheus_client", "rich.console", "structlog")


def become(main: Any, argv: list[str], env: dict[str, str], folder: str) -> NoReturn:
    """End this process as the command ends."""
    signal.alarm(TIMEOUT_S)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["ashi", *argv]
    status = 1
    try:
        sys.exit(main())
    except SystemExit as done:
        status = done.code if isinstance(done.code, int) else 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def run_all() -> None:
    """As many at once as there are cores."""
    (script,) = entry_points(group="console_scripts", name="ashi")
    main = script.load()
    for library in LIBRARIES:
        with suppress(ImportError):
            import_module(library)
    jobs = json.load(sys.stdin)
    statuses: dict[int, int] = {}
    running: dict[int, int] = {}
    while len(statuses) < len(jobs):
        if len(running) < (os.cpu_count() or 1) and len(running) + len(statuses) < len(jobs):
            number = len(running) + len(statuses)
            pid = os.fork()
            if not pid:
                become(main, *jobs[number])
            running[pid] = number
        else:
            pid, status = os.wait()
            statuses[running.pop(pid)] = os.waitstatus_to_exitcode(status)
    json.dump([statuses[number] for number in range(len(jobs))], sys.stdout)


if __name__ == "__main__":
    run_all()

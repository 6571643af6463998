"""Stages of the flow as forks of a process that has the libraries loaded, for the tests, which start some hundreds.

To import them takes a worker half a second of a core. Only libraries are loaded and none of our own code: a stage
imports what it needs, reads its environment, runs and ends as one that was started anew. Those are started anew after
all that get something which Python or the loader reads at a start, and all of them where the system is not Linux.
`ashi demo` and the commands that tests wait for are always started as users start them.

The process takes, over a socket for each stage, what to run, and tells its pid and its exit status there. It dies with
the tests, and the stages with it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import types
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any

LIBRARIES = (
    "aiohttp.web",
    "aiokafka",
    "asyncpg",
    "deltalake",
    "faust.app.base",
    "msgspec",
    "prometheus_client",
    "rich.console",
    "structlog",
    "websockets.asyncio.client",
)
READ_AT_A_START = ("PYTHON", "LD_", "LC_", "LANG", "TZ", "MALLOC_")
"""What the names of variables begin with that have their effect only then."""
MOST_BYTES = 1 << 18
_PR_SET_PDEATHSIG = 1
_server: tuple[subprocess.Popen[bytes], str, dict[str, str]] | None = None


class ForkedStage(subprocess.Popen[bytes]):
    """A stage that is another process's child, as far as tests ask anything of it."""

    def __init__(self, argv: Sequence[str], pid: int, connection: socket.socket) -> None:
        self.args = argv
        self.pid = pid
        self.returncode: Any = None
        self._connection = connection

    def __del__(self, *_: Any) -> None:
        self._connection.close()

    def poll(self) -> int | None:
        return self._status(0.0)

    def wait(self, timeout: float | None = None) -> int:
        status = self._status(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return status

    def _status(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._connection], [], [], timeout)[0]:
            self.returncode = int(self._connection.recv(MOST_BYTES) or -signal.SIGKILL)  # nothing: all have been ended
        status: int | None = self.returncode
        return status


def start(
    argv: Sequence[str], *, env: Mapping[str, str], stdout: IO[bytes], stderr: IO[bytes], cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start `python -m MODULE …` or `python -c CODE …` so that it dies with this process."""
    from ashi_cli.onemachine.children import spawn

    if sys.platform != "linux" or argv[0] != sys.executable or argv[1] not in {"-m", "-c"}:
        return spawn(argv, env=env, stdout=stdout, stderr=stderr, cwd=cwd)
    path, environment = _running_server()
    if _at_a_start(env) != _at_a_start(environment):
        return spawn(argv, env=env, stdout=stdout, stderr=stderr, cwd=cwd)
    sys.audit("subprocess.Popen", argv[0], argv, cwd, env)  # it is one to whoever counts them
    job = {
        "argv": argv[1:],
        "env": dict(env),
        "cwd": str(cwd or Path.cwd()),
        "files": resource.getrlimit(resource.RLIMIT_NOFILE),
    }
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(path)
    socket.send_fds(connection, [json.dumps(job).encode()], [stdout.fileno(), stderr.fileno()])
    return ForkedStage(argv, int(connection.recv(MOST_BYTES)), connection)


def _running_server() -> tuple[str, dict[str, str]]:
    global _server  # noqa: PLW0603 - one for each process that runs tests
    if _server is None or _server[0].poll() is not None:
        path = f"\0ashi-forked-stages-{os.getpid()}-{os.urandom(4).hex()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(path)
            listener.listen()
            argv = [sys.executable, __file__, str(os.getpid())]
            process = subprocess.Popen(argv, stdin=listener.fileno(), stdout=subprocess.DEVNULL, start_new_session=True)
        _server = process, path, dict(os.environ)
    return _server[1:]


def _at_a_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(READ_AT_A_START)}


# In the process that forks.


def _serve(parent: int) -> dict[str, Any]:
    """Fork for whoever asks, for ever; returns in the forks, with what each is to run."""
    _die_with(parent)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # the first test that asks may be one of few descriptors
    for library in LIBRARIES:
        with suppress(ImportError):  # of an extra that is not installed
            import_module(library)
    gc.collect()
    gc.freeze()
    listener = socket.socket(fileno=0)
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([listener.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, MOST_BYTES)
            _tell_who_has_ended(running)
        if listener.fileno() not in ready:
            continue
        connection, _ = listener.accept()
        request, files, _, _ = socket.recv_fds(connection, MOST_BYTES, 2)
        server = os.getpid()
        if pid := os.fork():
            running[pid] = connection
            connection.send(str(pid).encode())
            for file in files:
                os.close(file)
            continue
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        _die_with(server)
        inherited = [os.open(os.devnull, os.O_RDONLY), *files]
        for number, file in enumerate(inherited):
            os.dup2(file, number)
        listener.detach()  # its number is that of the null device now
        for file in (*inherited, woken, wake, *(each.detach() for each in (connection, *running.values()))):
            os.close(file)
        job: dict[str, Any] = json.loads(request)
        return job


def _die_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _tell_who_has_ended(running: dict[int, socket.socket]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with running.pop(pid) as connection, suppress(OSError):  # nobody may want to know
            connection.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become(job: dict[str, Any]) -> None:
    """Run as `python` with these arguments does."""
    resource.setrlimit(resource.RLIMIT_NOFILE, tuple(job["files"]))
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["env"])
    kind, what, *arguments = job["argv"]
    sys.path[0] = job["cwd"]
    sys.argv = [kind if kind == "-c" else what, *arguments]
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(what, vars(main))


if __name__ == "__main__":
    _become(_serve(int(sys.argv[1])))

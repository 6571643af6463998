"""What commands share on one machine: children that die with their parent, locks between commands, free ports."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import IO, TYPE_CHECKING, Any

import psutil  # type: ignore[import-untyped]

from ashi.contracts.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    Output = int | IO[Any] | None

_PR_SET_PDEATHSIG = 1
_KILL_TIMEOUT_S = 10.0
_POLL_S = 0.05
# Loaded here, in the parent: between fork and exec only the call itself may happen.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdout: Output = None,
    stderr: Output = None,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child that does not outlive this process, not even when this process is SIGKILLed.

    The child gets a session of its own, so that Ctrl-C reaches the parent alone and the parent chooses the order in
    which children stop; stdin is /dev/null. On Linux the kernel SIGKILLs the child as soon as the parent is gone. On
    other systems an atexit hook does so, which covers errors and exits but not a SIGKILL of the parent.

    Raises RuntimeError outside the main thread: Linux would kill the child when the *thread* that started it ends.
    Raises OSError when the program cannot be started.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("spawn() must be called from the main thread: the child dies with the thread that starts it")
    child = subprocess.Popen(
        argv,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        cwd=cwd,
        start_new_session=True,
        preexec_fn=_death_pact(os.getpid()),  # noqa: PLW1509 - two system calls, no lock that a thread could hold
    )
    if _LIBC is None:
        atexit.register(_kill, child)
    return child


def _death_pact(parent: int) -> Callable[[], None] | None:
    """What a child of `parent` does before exec so that it dies with `parent`; None where no kernel offers that."""
    libc = _LIBC
    if libc is None:
        return None

    def sign() -> None:
        # SIGKILL, not SIGTERM: nobody is left to insist when a child hangs in its own shutdown.
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died between fork and prctl, so no signal would ever come
            os._exit(1)

    return sign


def _kill(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.kill()


def stop_all(children: Sequence[subprocess.Popen[bytes]], timeout: float) -> list[subprocess.Popen[bytes]]:
    """SIGTERM all children at once, wait up to `timeout` seconds in total, SIGKILL the rest and reap them.

    Returns those that had to be SIGKILLed; children that had ended before are fine. Raises nothing.
    """
    for child in children:
        if child.poll() is None:
            child.terminate()
    deadline = time.monotonic() + timeout
    killed = []
    for child in children:
        try:
            child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            killed.append(child)
    return killed


def is_running(pid: int, mark: str) -> bool:
    """Whether process `pid` is alive and has `mark` among its arguments, so is not a later owner of the same pid."""
    try:
        return mark in psutil.Process(pid).cmdline()  # of a zombie, which is over, this is empty or raises
    except (psutil.Error, ValueError, OverflowError):
        return False


def end(pid: int, mark: str, timeout: float) -> bool:
    """SIGTERM the process that `is_running(pid, mark)`, after `timeout` seconds SIGKILL it; whether it is gone.

    Works on processes that are no children of this one, and never signals one without the mark. Raises nothing.
    """
    for signal_number, patience in ((signal.SIGTERM, timeout), (signal.SIGKILL, _KILL_TIMEOUT_S)):
        # psutil compares creation times before it signals, so that not even a pid reused just now is hit.
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if is_running(pid, mark):
                process.send_signal(signal_number)
        deadline = time.monotonic() + patience
        while is_running(pid, mark) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
    return not is_running(pid, mark)


@contextlib.contextmanager
def locked(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `path` against other processes; call `on_wait` once when another one holds it.

    The kernel releases the lock when its holder ends in any way, so a left-over file locks nothing. Waits without
    bound. Raises OSError when the file cannot be opened.
    """
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def pick_ports(host: str, port: int | None) -> tuple[int, int]:
    """A free port for the broker (`port` if given) and another one for the controller. Raises BrokerError."""
    with socket.socket() as broker, socket.socket() as controller:
        # As Kafka does: a port in TIME_WAIT, left by a broker that has just stopped, counts as free.
        broker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            broker.bind((host, port or 0))
        except (OSError, OverflowError) as error:
            if port is None:
                raise
            if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
                reason = f"port {port} is taken on {host}; choose another with --port or stop what listens there"
            else:
                reason = f"port {port} cannot be used on {host} ({error}); choose another with --port"
            raise BrokerError(reason) from error
        controller.bind((host, 0))
        return broker.getsockname()[1], controller.getsockname()[1]

"""A part of this machine that is a run's own: its network, its mounts, its processes. They all end at once, with it.

So nothing of a run is seen outside: no address, no name of a network, no mount, and no process that is left over, also
where the run is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Final, NoReturn

NOT_ALLOWED: Final = 77
"""The exit status where nothing could be rehearsed: by convention that of a test that was skipped."""
PROGRAMS: Final = {"ip": "iproute2", "nft": "nftables", "nsenter": "util-linux", "mount": "mount"}
"""What is needed, and Debian's package of it."""
_NEW_MOUNTS, _NEW_PROCESSES, _NEW_NETWORK = 0x00020000, 0x20000000, 0x40000000
_PR_SET_PDEATHSIG = 1
_TOLD_TO_STOP = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
_SHELL_ADDS = 128


class NotAllowedError(Exception):
    """This machine does not let us have hosts of our own; the text says what is in the way."""


def isolated(play: Callable[[], int]) -> int:
    """Run it in a part of the machine of its own; its exit status, NOT_ALLOWED where there can be none, or it says so.

    To be called once, by a process without threads: the process itself changes its network, and `play` runs in a child.
    """
    try:
        libc = _leave()
    except NotAllowedError as error:
        return _told(error)
    ours_ends, ours = os.pipe()
    child = os.fork()
    if not child:
        os.close(ours)
        _first_process(libc, ours_ends, play)
    for number in _TOLD_TO_STOP:
        # Ctrl-C reaches the child by itself, as it is of the same terminal; what is sent to us alone does not.
        signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else lambda told, _: _pass_on(child, told))
    _, status = os.waitpid(child, 0)
    ended = os.waitstatus_to_exitcode(status)
    return _SHELL_ADDS - ended if ended < 0 else ended


def _told(error: NotAllowedError) -> int:
    sys.stdout.write(f"NOTHING IS REHEARSED: {error}\n")
    return NOT_ALLOWED


def _leave() -> ctypes.CDLL:
    """Let what this process starts from here on be apart. Raises NotAllowedError."""
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    if sys.platform != "linux":
        raise NotAllowedError("hosts of our own are network namespaces, which only Linux has")
    if missing := {name: package for name, package in PROGRAMS.items() if shutil.which(name) is None}:
        packages = " ".join(sorted(set(missing.values())))
        raise NotAllowedError(f"{', '.join(missing)} not found; on Debian: apt-get install {packages}")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_MOUNTS | _NEW_PROCESSES | _NEW_NETWORK):
        reason = os.strerror(ctypes.get_errno())
        raise NotAllowedError(
            f"no network namespace can be made here ({reason}): that takes root's CAP_SYS_ADMIN and CAP_NET_ADMIN"
        )
    return libc


def _pass_on(child: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)


def _first_process(libc: ctypes.CDLL, parent_ends: int, play: Callable[[], int]) -> NoReturn:
    """Be the first of the new processes, with which all others end. `parent_ends`: a pipe that ends with the parent."""
    status = 1
    try:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        for number in _TOLD_TO_STOP:  # the first process gets no signal that it does not ask for
            signal.signal(number, lambda told, _: sys.exit(_SHELL_ADDS + told))
        if select.select([parent_ends], [], [], 0)[0]:  # before the kernel knew that we end with it
            os._exit(1)
        _mount()
        status = play()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except NotAllowedError as error:
        status = _told(error)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _mount() -> None:
    """Have mounts of our own. Raises NotAllowedError."""
    try:
        run("mount", "--make-rprivate", "/")
        run("mount", "-t", "proc", "proc", "/proc")
        run("mount", "-t", "tmpfs", "tmpfs", "/run")  # the names of the hosts are files there
    except CommandError as error:
        raise NotAllowedError(f"this machine lets nobody have mounts of his own: {error}") from error


class CommandError(Exception):
    """A command has failed; the text has what it said."""


def run(*command: str, given: str | None = None) -> str:
    """Run a command; what it printed. Raises CommandError when it fails."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandError(f"`{' '.join(command)}`: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout

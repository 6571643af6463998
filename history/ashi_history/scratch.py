"""A directory for as long as a command runs, beside what it makes; what a killed one has left is removed."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import time
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

from ashi.contracts.errors import UsageError

PREFIX: Final = ".ashi-parted-"
LEFT_S: Final = 86_400
"""What another host made is taken for left when nothing has come into it for so long: its locks may not be seen here,
as those on a directory of NFS are not."""


class ScratchDirectory:
    """Whoever uses one holds a lock on it, so that others know that it is in use.

    Attributes:
        path: where it is.

    """

    def __init__(self, parent: Path) -> None:
        """In `parent`, which is made where there is none. Raises UsageError where it cannot be written to."""
        try:
            parent.mkdir(parents=True, exist_ok=True)
            for left in parent.glob(f"{PREFIX}*"):
                _remove_if_left(left)
            self.path, self._lock = _make(parent)
        except OSError as error:
            raise UsageError(f"{parent} cannot be written to: {error.strerror}. Name another directory") from error

    def remove(self) -> None:
        """Away with it, and all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _prefix() -> str:
    """How the names of this host's begin."""
    return f"{PREFIX}{socket.gethostname()}@"


def _make(parent: Path) -> tuple[Path, int]:
    while True:
        path = Path(mkdtemp(prefix=_prefix(), dir=parent))
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue  # another command took it for one that was left
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return path, lock
        os.close(lock)


def _remove_if_left(path: Path) -> None:
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return  # it has just been removed, or is none
    try:
        is_own = path.name.startswith(_prefix())
        if not is_own and time.time() - os.fstat(lock).st_mtime < LEFT_S:
            return
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    except BlockingIOError:
        pass  # in use
    finally:
        os.close(lock)

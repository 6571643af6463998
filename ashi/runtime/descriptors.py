"""Too few file descriptors: the cause of errors that blame the address, the file or the name that was to be opened."""

from __future__ import annotations

import errno
import os
import resource
from contextlib import suppress
from pathlib import Path
from typing import Final

from ashi.contracts.errors import BrokerError, ResourceError, StorageError, VenueError

FEWEST_AT_START: Final = 48
"""A worker needs some 15, and two or three more for each broker beyond the first and each feed; a start some files."""
FEWEST: Final = 8
"""With fewer than that left for good a worker stops: its libraries do not survive a connection they cannot open."""
ENOUGH: Final = 65_536
"""Up to so many the limit is raised, if we may: who sets a low one for a shell has not thought of us."""

_REMEDY: Final = "raise that to 1024 or more, then start again"
_LACKING: Final = (errno.EMFILE, errno.ENFILE)
_ENOUGH: Final = 8
"""A connection needs a socket and, for the name, some files; an error may have freed one or two meanwhile."""


def lack_of_descriptors(error: BaseException | None = None) -> str | None:
    """What to say if this process cannot open anything more, else None.

    `error`: what failed, perhaps for that reason. Many libraries hide the reason (an address that "does not answer", a
    name that "cannot be resolved", a file that is "unable to open"), so it is also tried whether a few are left.
    """
    number = _number_of(error)
    if number is None:
        number = _try()
    if number is None:
        return None
    if number == errno.ENFILE:
        return "this machine has no file descriptors left: raise `sysctl fs.file-max`, or end what holds so many"
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return f"{_few(most)} and none is left to open it with; {_REMEDY}"


def prepare_descriptors() -> None:
    """Raise this process's limit as far as it may. Raises ResourceError when that is still too low for a worker."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # macOS has a further limit that it does not tell
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    require_descriptors(FEWEST_AT_START)


def require_descriptors(number: int) -> None:
    """Raise ResourceError unless this process may open so many more."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return
    try:
        # Counted, not tried: while we hold what is left, another thread's connection would fail.
        left = most - sum(int(opened.name) < most for opened in Path("/dev/fd").iterdir())
    except OSError as error:
        if error.errno != errno.EMFILE:
            return  # the machine has none left, and who holds what it needs works on; or nobody tells the number
        left = 0
    if left < number:
        raise ResourceError(f"{_few(most)}, of which {max(left, 0)} are left, and needs {number} more; {_REMEDY}")


def _few(most: int) -> str:
    return f"too few file descriptors: this process may have {most} (`ulimit -n`)"


def descriptors_behind(error: BaseException) -> str | None:
    """The sentence for an error that ends a command, if too few descriptors are behind it, with what it says itself."""
    number = _number_of(error)
    about_opening = isinstance(error, (BrokerError, StorageError, VenueError, OSError))
    sentence = lack_of_descriptors(error) if number is not None or about_opening else None
    if sentence is None or sentence in str(error):
        return None
    return f"{sentence} (seen as: {error})"


def _number_of(error: BaseException | None) -> int | None:
    """The errno of the error, or of one that it came from, if it is one of these."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in _LACKING:
            return error.errno
        error = error.__cause__ or error.__context__
    return None


def _try() -> int | None:
    opened: list[int] = []
    try:
        while len(opened) < _ENOUGH:
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno if error.errno in _LACKING else None
    finally:
        for number in opened:
            os.close(number)
    return None

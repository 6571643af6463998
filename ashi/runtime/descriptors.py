"""Too few file descriptors: the cause of errors that blame the address, the file or the name that was to be opened."""

from __future__ import annotations

import errno
import os
import resource
from typing import Final

from ashi.contracts.errors import BrokerError, StorageError, VenueError

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
    return (
        f"too few file descriptors: this process may have {most} (`ulimit -n`) and none is left to open it with; "
        "raise that to 1024 or more, then start again"
    )


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

"""What a store tells of itself, for `ashi doctor`. Nothing is changed or made."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path


class Examination(NamedTuple):
    """A store that is there, with tables that this version of Ashi knows.

    Attributes:
        where: as it may be shown, without a password.
        version: of its tables.
        latest: that of the tables which this version makes.
        lacking: the rights that a worker needs and this user has not, in words.
        free_bytes: how much room is left where it is; None where that cannot be asked.
        total_bytes: how much there is in all; None likewise.

    """

    where: str
    version: int
    latest: int
    lacking: tuple[str, ...]
    free_bytes: int | None
    total_bytes: int | None


def room_at(path: Path) -> tuple[int, int]:
    """How many bytes are free, to this user, on the file system of a path that is there, and how many it has."""
    usage = shutil.disk_usage(path)
    return usage.free, usage.total


def unwritable(*paths: Path) -> tuple[str, ...]:
    """Those of some paths that this user may not write."""
    return tuple(f"write to {path}" for path in paths if not os.access(path, os.W_OK))

"""Whether a file is another one than before."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def stamp_of(path: Path) -> tuple[int, int, int]:
    """What differs once a file was replaced or written to. Raises OSError where there is none."""
    stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns, stat.st_size

"""Many rows of bytes at once, of columns and of what stands in every row: the quickest way that Python has."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def interleave(parts: Sequence[bytes | Sequence[bytes]], count: int) -> bytes:
    """`count` rows, one behind the other. `parts`: of a row, in order; bytes stand in each, a column has its own each.

    Raises ValueError where a column has more or fewer than `count`.
    """
    if any(not isinstance(part, bytes) and len(part) != count for part in parts):
        raise ValueError(f"every column must have {count} cells")
    width = len(parts)
    pieces: list[bytes] = [part if isinstance(part, bytes) else b"" for part in parts] * count
    for place, part in enumerate(parts):
        if not isinstance(part, bytes):
            pieces[place::width] = part
    return b"".join(pieces)

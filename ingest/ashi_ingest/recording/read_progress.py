"""How far files have been read, and how long the rest will take. Pure: whoever asks tells the time."""

from __future__ import annotations

from typing import Final

ESTIMATED_AFTER_S: Final = 1.0
"""Before that nothing is said about the rest."""


class ReadProgress:
    """The reading of files of so many bytes, as they are on disk, from a time (s) on."""

    def __init__(self, total: int, began_s: float) -> None:
        self._total = total
        self._began_s = began_s
        self._read = 0

    def add(self, count: int) -> None:
        """So many more bytes have been read. One thread at a time may say so."""
        self._read += count

    def left_s(self, now_s: float) -> float | None:
        """How long the rest will take if it is like what was read, s; None: it is too early to say."""
        passed_s = now_s - self._began_s
        if not self._read or passed_s < ESTIMATED_AFTER_S:
            return None
        return passed_s * max(self._total - self._read, 0) / self._read

    def told(self, now_s: float) -> dict[str, int]:
        """For a line of a log: `percent` and, when it can be said, `left_s`."""
        told = {"percent": min(100 * self._read // max(self._total, 1), 100)}
        left_s = self.left_s(now_s)
        return told if left_s is None else told | {"left_s": round(left_s)}

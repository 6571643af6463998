"""When each of many symbols says that it lives: at a moment of its own, so that they do not all do so at once."""

from __future__ import annotations

import zlib
from bisect import bisect_right, insort
from typing import Final

from ashi.contracts.feed import HEARTBEAT_US

BEAT_US: Final = HEARTBEAT_US * 9 // 10
"""So often a status is sent while nothing changes, µs: sooner than it is promised, as sending takes its time."""


def phase_of(symbol: str) -> int:
    """By how much earlier (µs) than a multiple of `BEAT_US` the moments of a symbol come."""
    return zlib.crc32(symbol.encode()) % BEAT_US


def is_past(phase_us: int, before_us: int, now_us: int) -> bool:
    """Whether a moment of that phase lies between two times, µs, also when the clock was set back in between."""
    return (now_us + phase_us) // BEAT_US != (before_us + phase_us) // BEAT_US


class Heartbeats:
    """Finds those whose moment has come without looking at the others."""

    def __init__(self) -> None:
        self._moments: list[tuple[int, str]] = []
        self._looked_us: int | None = None

    def add(self, symbol: str) -> None:
        """A symbol that was not there yet."""
        insort(self._moments, (-phase_of(symbol) % BEAT_US, symbol))

    def passed(self, now_us: int) -> list[str]:
        """The symbols whose moment has come since the last call; all at first, and after a jump of the clock."""
        before_us, self._looked_us = self._looked_us, now_us
        if before_us is None or not 0 <= now_us - before_us < BEAT_US:
            return [symbol for _, symbol in self._moments]
        begin, end = (bisect_right(self._moments, (time % BEAT_US + 1,)) for time in (before_us, now_us))
        turned = now_us % BEAT_US < before_us % BEAT_US
        found = [*self._moments[begin:], *self._moments[:end]] if turned else self._moments[begin:end]
        return [symbol for _, symbol in found]

"""How far behind a topic its reader is, in time. Pure."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_SAMPLES: Final = 1_000
"""Beyond, every second one is forgotten."""


class TopicLag:
    """Where the ends of the partitions were at some times, and whether the reader has come there since."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, Mapping[int, int]]] = deque()

    def note(self, now_s: float, ends: Mapping[int, int]) -> None:
        """The ends of the partitions as they were told at a time, by any clock that does not go back."""
        self._samples.append((now_s, ends))
        if len(self._samples) > MOST_SAMPLES:
            self._samples = deque(list(self._samples)[::2])

    def seconds(self, now_s: float, reached: Mapping[int, int]) -> float:
        """How long ago it was that all stood in the topic which has been read by now; 0 where nothing is left."""
        while self._samples:
            since_s, ends = self._samples[0]
            if any(reached.get(number, 0) < end for number, end in ends.items()):
                return now_s - since_s
            self._samples.popleft()
        return 0.0

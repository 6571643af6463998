"""Python's collector of cycles, at times of our own.

Chunks are thousands of objects without cycles, and scanning them for some costs as much as folding them. So it is told
what to do: the young ones often, and everything now and then. What was in use at a collection of the young ones counts
as old from then on, and no collection of those finds it again: connections, tasks and errors that were let go later
would stay for ever.
"""

from __future__ import annotations

import gc
import math
from typing import Final

YOUNG_EVERY_S: Final = 30.0
ALL_EVERY_S: Final = 600.0
"""Everything takes 2 µs a symbol and timeframe, 20 ms with ten thousand symbols: no more than a checkpoint."""
MOST_PUT_OFF_S: Final = 60.0
"""For so long at most everything is put off while there are better things to do."""


class Collector:
    """Of the whole process: there must not be two."""

    def __init__(self) -> None:
        self._young_at_s = self._all_at_s = -math.inf

    def take_over(self, now_s: float) -> None:
        """From now on (monotonic, s) nothing is collected but by `look`, and nothing ever of what there is now."""
        gc.collect()
        gc.freeze()
        gc.disable()
        self._young_at_s = self._all_at_s = now_s

    def look(self, now_s: float, *, is_busy: bool) -> None:
        """Collect what is due (monotonic, s); `is_busy`: a short stop would be felt now more than at other times."""
        all_due_s = self._all_at_s + ALL_EVERY_S
        if now_s >= all_due_s and (not is_busy or now_s >= all_due_s + MOST_PUT_OFF_S):
            gc.collect()
            self._young_at_s = self._all_at_s = now_s
        elif now_s >= self._young_at_s + YOUNG_EVERY_S:
            gc.collect(1)
            self._young_at_s = now_s

"""Lines about how far a long command has come, and how long the rest will take."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from ashi_ingest.history.progress import in_minutes
from ashi_ingest.recording.read_progress import ReadProgress

if TYPE_CHECKING:
    from collections.abc import Callable

TELL_EVERY_S: Final = 10.0


class Told:
    """Work of a known size that is told of now and then: `reading topic trades: 40 %, 2 min are left`."""

    def __init__(
        self,
        what: str,
        total: int,
        tell: Callable[[str], None],
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`total`: how much there is of what `add` counts, whatever that is."""
        self._what = what
        self._tell = tell
        self._monotonic_s = monotonic_s
        self._told_s = monotonic_s()
        self._progress = ReadProgress(total, self._told_s)

    def add(self, count: int) -> None:
        """So much more is done."""
        self._progress.add(count)
        now_s = self._monotonic_s()
        if now_s - self._told_s < TELL_EVERY_S:
            return
        self._told_s = now_s
        left_s = self._progress.left_s(now_s)
        left = "" if left_s is None else f", {in_minutes(left_s)} are left"
        self._tell(f"{self._what}: {self._progress.told(now_s)['percent']} %{left}")

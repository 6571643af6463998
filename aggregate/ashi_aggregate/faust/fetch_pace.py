"""How long a broker holds a fetch until it is worth its while: the busier the worker, the longer.

Of thousands of markets something comes every few milliseconds, and a fetch costs as much as dozens of the trades that
it brings: with 10,000 symbols and 2,000 trades/s half of what a worker did was to fetch six trades at a time. A fetch
may ask for a least number of bytes (`fetch.min.bytes`). It is what comes within the time that something may be held,
and that is a part of what the worker takes of a core: next to nothing for a few markets, where what counts is to be
soon, and more the less time is left to waste.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from ashi_aggregate.cpu_share import CpuMeter
from ashi_aggregate.faust.fetches import see_fetches

HELD_OF_A_CORE_S: Final = 0.1
"""What a worker that takes a whole core lets a fetch be held; one that takes a tenth of it, a tenth of that."""
MOST_BYTES: Final = 64 * 1024
"""Far less than a fetch may bring of one partition: so none is held for what it cannot bring."""


class FetchPace:
    """Sees what the fetches of a client bring, and says how much the next ones are to wait for."""

    def __init__(
        self,
        *,
        process_s: Callable[[], float] = time.process_time,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """The CPU time of this process, and the time, s."""
        self.min_bytes = 1
        self._meter = CpuMeter(process_s=process_s, clock_s=clock_s)
        self._bytes = 0
        self._nodes: set[int] = set()

    def watch(self, consumer: Any) -> None:
        """Pace what the client fetches from now on."""

        def look(node: int, _: Any, response: Any) -> None:
            self.saw(node, sum(len(each[-1] or b"") for _, of in response.topics for each in of))
            consumer._fetcher._fetch_min_bytes = self.min_bytes

        see_fetches(consumer, look)

    def saw(self, node: int, size: int) -> None:
        """A broker has answered with so many bytes of records."""
        self._bytes += size
        self._nodes.add(node)
        seconds = self._meter.look()
        if not seconds:
            return
        of_each = self._bytes / len(self._nodes) / seconds
        self.min_bytes = min(max(int(of_each * self._meter.core * HELD_OF_A_CORE_S), 1), MOST_BYTES)
        self._bytes = 0
        self._nodes.clear()

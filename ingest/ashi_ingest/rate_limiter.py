"""How often a venue may be asked: for connections, for messages over them and for requests alike."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class RateLimiter:
    """At most one turn in an interval, in the order of asking. A turn of weight n makes the next wait n intervals."""

    def __init__(
        self,
        interval_s: float,
        *,
        clock_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._interval_s = interval_s
        self._clock_s = clock_s
        self._sleep = sleep
        self._next_s = clock_s()
        self._queue = asyncio.Lock()  # wakes in order; whoever is cancelled while waiting uses up no turn

    async def turn(self, weight: int = 1) -> None:
        """Wait for a turn. What it is for must follow without another wait, or the venue sees another pace."""
        async with self._queue:
            while (wait_s := self._next_s - self._clock_s()) > 0:
                await self._sleep(wait_s)
            self._next_s = self._clock_s() + self._interval_s * weight

    def pause(self, seconds: float) -> None:
        """Give no turn for so long: the venue has asked for it."""
        self._next_s = max(self._next_s, self._clock_s() + seconds)

"""Whose turn it is to ask: the budget of a venue's REST interface, and who of those that wait is the most urgent.

A venue allows a weight of requests within some time. What is left of it may be used at once (`burst`), so that the
markets of one connection are repaired together; then one request follows another at an even pace.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from enum import IntEnum
from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class Priority(IntEnum):
    """What a request is for, the most urgent first."""

    REPAIR = 0
    """An interruption, or a hole in the ids: trades are missing, and live ones may wait for them."""
    SUSPICION = 1
    """A comparison of a market that may have gone mute."""
    ROTATION = 2
    """A comparison of a market because it is its turn."""
    LOST = 3
    """What was given up, and the past on command: with what the others leave."""


class Urgency(NamedTuple):
    """How urgent a request is: of the same priority, that of the least `size` comes first, then the earliest.

    `size`: how much is to be fetched, in trades or seconds, as far as that is known.
    """

    priority: Priority = Priority.REPAIR
    size: float = 0.0


FIRST: Final = Urgency()


class Budget:
    """How much may be asked now. Pure: whoever asks tells the time.

    The generic cell rate algorithm (ITU-T I.371): a weight of `burst` at once, and `interval_s` for each unit of it.
    """

    def __init__(self, interval_s: float, burst: float, now_s: float) -> None:
        self._interval_s = interval_s
        self._tolerance_s = burst * interval_s
        self._due_s = now_s  # when all that was asked so far would have been asked at an even pace

    def wait_s(self, now_s: float) -> float:
        """How long nothing may be asked, seconds."""
        return max(self._due_s - self._tolerance_s - now_s, 0.0)

    def take(self, weight: float, now_s: float) -> None:
        """A request of this weight is made now."""
        self._due_s = max(self._due_s, now_s) + self._interval_s * weight


class RequestTurns:
    """Gives turns to requests: each when the budget allows it, the most urgent of those that wait first."""

    def __init__(self, interval_s: float, burst: float, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        """`burst`: a weight that may be asked at once when nothing was asked for long, beside that of one request."""
        self._clock_s = clock_s
        self._budget = Budget(interval_s, burst, clock_s())
        self._numbers = count()
        self._waiting: list[tuple[Urgency, int, int, asyncio.Future[None]]] = []
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return sum(not turn.done() for *_, turn in self._waiting)

    async def turn(self, weight: int, urgency: Urgency = FIRST) -> None:
        """Wait for a turn. What it is for must follow without another wait, or the venue sees another pace."""
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (urgency, next(self._numbers), weight, turn))
        self._give()
        await turn

    def _give(self) -> None:
        """Give turns as far as the budget goes; the next one when it allows more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            *_, weight, turn = self._waiting[0]
            if turn.done():  # whoever waited was cancelled
                heapq.heappop(self._waiting)
                continue
            now_s = self._clock_s()
            wait_s = self._budget.wait_s(now_s)
            if wait_s > 0:
                self._timer = asyncio.get_running_loop().call_later(wait_s, self._give)
                return
            heapq.heappop(self._waiting)
            self._budget.take(weight, now_s)
            turn.set_result(None)

"""Whose turn it is to ask: the budget of a venue's REST interface, and who of those that wait is the most urgent.

A venue allows a weight of requests within some time, its window. Of what we allow ourselves in a window, repairs may
take whatever is left at once, so that all markets of a connection that broke off are whole again in moments. All else
is asked for at an even pace and leaves a share to them, as they leave one to it.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections import deque
from contextlib import asynccontextmanager
from enum import IntEnum
from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

KEPT_FOR_REPAIRS: Final = 1 / 3
"""Of the allowance of a window: nothing but repairs takes it."""
KEPT_FROM_REPAIRS: Final = 1 / 8
"""Of the allowance of a window: repairs leave it. Mute markets are found while a thousand others are repaired."""
ADDRESS_SHARE: Final = 0.9
"""Of what the venue allows an address, all its processes together, where it tells how much they have used."""
IN_FLIGHT: Final = 32
"""So many requests at once are on their way. An answer takes some tenths of a second and is read in milliseconds, so
more would be no faster."""


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


class _Window:
    """The weights taken within the last `window_s`. Exact: nothing is forgotten sooner."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._taken: deque[tuple[float, float]] = deque()
        self._sum = 0.0

    def take(self, weight: float, now_s: float) -> None:
        self._taken.append((now_s, weight))
        self._sum += weight

    def sum(self, now_s: float) -> float:
        """What was taken, without what is older than the window."""
        while self._taken and self._taken[0][0] <= now_s - self._window_s:
            self._sum -= self._taken.popleft()[1]
        if not self._taken:
            self._sum = 0.0  # and not what floats have left of it
        return self._sum

    def wait_s(self, most: float, now_s: float) -> float:
        """In how many seconds no more than `most` will have been taken, or nothing, if nothing more is."""
        over, until_s = self.sum(now_s) - max(most, 0.0), now_s
        for taken_s, weight in self._taken:
            if over <= 1e-9:
                break
            over -= weight
            until_s = taken_s + self._window_s
        return until_s - now_s


class Budget:
    """How much may be asked now. Pure: whoever asks tells the time.

    In any `window_s` a weight of `window_s / interval_s` at most; repairs at once, all else at an even pace. Without a
    window everything keeps the even pace: a weight of 1 in `interval_s`.
    """

    def __init__(
        self, interval_s: float, window_s: float, now_s: float, *, address_weight: float | None = None
    ) -> None:
        """`address_weight`: what the venue allows an address in a window, if it tells how much of it was used.

        None: it does not tell, so a process before this one may just have used all that it may.
        """
        self._window_s = window_s if interval_s > 0 else 0.0
        self._allowance = self._window_s / interval_s if interval_s > 0 else 0.0
        self._address_most = math.inf if address_weight is None else address_weight * ADDRESS_SHARE
        self._pace_s = interval_s / (1 - KEPT_FOR_REPAIRS) if self._window_s else interval_s
        self._due_s = now_s  # when what was asked for at an even pace has had its time
        self._ours, self._repairs, self._address = (_Window(self._window_s) for _ in range(3))
        if self._window_s and address_weight is None:
            for second in range(round(self._window_s)):
                self._ours.take(1 / interval_s, now_s - self._window_s + second)

    def wait_s(self, weight: float, now_s: float, *, repair: bool) -> float:
        """How long a request of this weight has to wait, seconds."""
        if not self._window_s:
            return max(self._due_s - now_s, 0.0)
        for_repairs = self._allowance * (1 - KEPT_FROM_REPAIRS)
        return max(
            self._ours.wait_s(self._allowance - weight, now_s),
            self._address.wait_s(self._address_most - weight, now_s),
            self._repairs.wait_s(for_repairs - weight, now_s) if repair else self._due_s - now_s,
        )

    def take(self, weight: float, now_s: float, *, repair: bool) -> None:
        """A request of this weight is made now."""
        if self._window_s:
            self._ours.take(weight, now_s)
            self._address.take(weight, now_s)
        if repair and self._window_s:
            self._repairs.take(weight, now_s)
        else:
            self._due_s = max(self._due_s, now_s) + self._pace_s * weight

    def on_used(self, used: float, now_s: float) -> None:
        """The venue tells what this address has used of its limit: what is not ours is of other processes."""
        more = used - self._address.sum(now_s)
        if self._window_s and more > 0:
            self._address.take(more, now_s)


class RequestTurns:
    """Gives turns to requests: each when the budget allows it, the most urgent of those that wait first."""

    def __init__(
        self,
        interval_s: float,
        window_s: float,
        *,
        address_weight: float | None = None,
        in_flight: int = IN_FLIGHT,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """See `Budget`. `in_flight`: so many have their turn at once at most."""
        self._clock_s = clock_s
        self._budget = Budget(interval_s, window_s, clock_s(), address_weight=address_weight)
        self._free = in_flight
        self._numbers = count()
        self._repairs: list[_Waiting] = []
        self._others: list[_Waiting] = []
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return sum(not each.turn.done() for each in (*self._repairs, *self._others))

    @asynccontextmanager
    async def turn(self, weight: int, urgency: Urgency = FIRST) -> AsyncIterator[None]:
        """Wait for a turn, which lasts as long as the context.

        What it is for must follow without another wait, or the venue sees another pace.
        """
        turn = asyncio.get_running_loop().create_future()
        queue = self._repairs if urgency.priority is Priority.REPAIR else self._others
        heapq.heappush(queue, _Waiting(urgency, next(self._numbers), weight, turn))
        self._give()
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self._free += 1
                self._give()

    def on_used(self, used: float) -> None:
        """The venue tells what this address has used of its limit."""
        self._budget.on_used(used, self._clock_s())

    def _give(self) -> None:
        """Give turns as far as the budget goes; the next one when it allows more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waits_s = [wait_s for queue in (self._repairs, self._others) if (wait_s := self._give_to(queue)) is not None]
        if waits_s:
            self._timer = asyncio.get_running_loop().call_later(min(waits_s), self._give)

    def _give_to(self, queue: list[_Waiting]) -> float | None:
        """Give turns to those of a queue. Gives when the next one may have its; None: none waits for a time."""
        while queue:
            first = queue[0]
            if first.turn.done():  # whoever waited was cancelled
                heapq.heappop(queue)
                continue
            if self._free == 0:
                return None
            now_s, repair = self._clock_s(), queue is self._repairs
            wait_s = self._budget.wait_s(first.weight, now_s, repair=repair)
            if wait_s > 0:
                return wait_s
            heapq.heappop(queue)
            self._free -= 1
            self._budget.take(first.weight, now_s, repair=repair)
            first.turn.set_result(None)
        return None


class _Waiting(NamedTuple):
    """One that waits for its turn; of the same urgency, the one with the least number came first."""

    urgency: Urgency
    number: int
    weight: int
    turn: asyncio.Future[None]

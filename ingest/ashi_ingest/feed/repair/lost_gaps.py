"""What was given up and may still be had: asked for again and again, with what the budget of requests leaves.

A gap is `lost` when the venue has not given what is missing within the patience. Hours later it may: a maintenance or
a ban is over. So each is asked for at growing distances, one at a time, until the venue gives it, or says that it does
not exist, or does not go back so far any more.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from ashi.runtime.first_of import first_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

WAIT_S: Final = (60.0, 3600.0)
"""The distance between two attempts for the same gap grows from the first to the second."""


_Lost = TypeVar("_Lost")


class LostGaps(Generic[_Lost]):
    """The queue of one process and venue."""

    def __init__(
        self,
        ask: Callable[[_Lost], Coroutine[None, None, bool]],
        *,
        now_s: Callable[[], float],
        sleep: Callable[[float], Coroutine[None, None, None]],
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """`ask`: ask for one of them once; True when that one is over."""
        self._ask = ask
        self._now_s = now_s
        self._sleep = sleep
        self._uniform = uniform
        self._waiting: dict[_Lost, tuple[float, float]] = {}
        self._filled = asyncio.Event()
        self._asking: tuple[_Lost, asyncio.Task[bool]] | None = None
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, lost: _Lost) -> None:
        """Ask for it from now on: it has been given up."""
        self._wait(lost, WAIT_S[0])
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    def drop(self, belongs: Callable[[_Lost], bool]) -> None:
        """Forget some of them: the next repair of their feed brings them."""
        for lost in [lost for lost in self._waiting if belongs(lost)]:
            del self._waiting[lost]
            if self._asking is not None and self._asking[0] is lost:
                self._asking[1].cancel()

    async def stop(self) -> None:
        """No more."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def failure(self) -> BaseException | None:
        """What asking has failed of by a mistake of ours."""
        if self._task is None or not self._task.done() or self._task.cancelled():
            return None
        return self._task.exception()

    def _wait(self, lost: _Lost, wait_s: float) -> None:
        self._waiting[lost] = (self._now_s() + self._uniform(wait_s / 2, wait_s), wait_s)
        self._filled.set()

    async def _run(self) -> None:
        while True:
            self._filled.clear()
            if not self._waiting:
                await self._filled.wait()
                continue
            lost = min(self._waiting, key=lambda each: self._waiting[each][0])
            due_s, wait_s = self._waiting[lost]
            left_s = due_s - self._now_s()
            if left_s > 0:
                await first_of(self._sleep(left_s), self._filled.wait())
                continue
            is_over = await self._ask_for(lost)
            if lost not in self._waiting:  # the next repair of its feed has taken it over
                continue
            del self._waiting[lost]
            if not is_over:
                self._wait(lost, min(wait_s * 2, WAIT_S[1]))

    async def _ask_for(self, lost: _Lost) -> bool:
        asking = asyncio.ensure_future(self._ask(lost))
        self._asking = lost, asking
        try:
            await asyncio.wait([asking])
        finally:
            self._asking = None
            asking.cancel()
        return not asking.cancelled() and asking.result()

"""Writing a batch whatever the store does: waiting for one that is away, finding the row it refuses."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from ashi.runtime.logs import get_logger
from ashi.runtime.metrics import sink as metrics
from ashi_sinks.protocol import RefusedError, RetryableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ashi.runtime.health import Health
    from ashi_sinks.streams import Contents

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0

_T = TypeVar("_T")

_log = get_logger(__name__)


class StoppedError(Exception):
    """The worker was told to stop while the store was away. Nothing is lost: the messages are still in their topics."""


class Refused(NamedTuple):
    """A message that the store refuses: its place in the batch, and the store's words."""

    place: int
    reason: str


class Writer:
    """Hands messages to a store until they are stored; tells health, logs and metrics when it is away."""

    def __init__(self, contents: Contents, health: Health, stopping: asyncio.Event) -> None:
        self._contents = contents
        self._name = contents.name
        self._health = health
        self._stopping = stopping

    async def open(self) -> None:
        """Open the store. Raises StorageError, and StoppedError as `write`."""
        await self._until_there(self._contents.open)

    async def write(
        self, messages: Sequence[_T], store: Callable[[Sequence[_T]], Awaitable[None]], start: int = 0
    ) -> list[Refused]:
        """Store all messages but those that the store refuses, which are returned, counted from `start`.

        Waits for as long as the store is away. Raises StoppedError when told to stop meanwhile, and StorageError
        when waiting would not help; the part that was stored by then may be stored again.
        """
        if not messages:
            return []
        began = time.perf_counter()
        try:
            await self._until_there(lambda: store(messages))
        except RefusedError as error:
            metrics.write_failures.labels(self._name).inc()
            if len(messages) == 1:
                return [Refused(start, str(error))]
            # By halves of all messages, not of the newest: an older version of a refused one may well be stored.
            middle = len(messages) // 2
            first = await self.write(messages[:middle], store, start)
            return first + await self.write(messages[middle:], store, start + middle)
        metrics.write_seconds.labels(self._name).observe(time.perf_counter() - began)
        return []

    async def _until_there(self, attempt: Callable[[], Awaitable[None]]) -> None:
        pause_s = FIRST_PAUSE_S
        away = False
        while True:
            try:
                await attempt()
            except RetryableError as error:
                metrics.write_failures.labels(self._name).inc()
                if self._stopping.is_set():
                    raise StoppedError from error
                _log.error("the store is away, trying again", sink=self._name, reason=str(error), in_s=pause_s)
                self._health.set_ready(False, f"waiting for the store: {error}")
                away = True
            else:
                if away:
                    _log.info("the store is back", sink=self._name)
                    self._health.set_ready(not self._stopping.is_set(), f"storing {self._contents.what}")
                return
            await self._pause(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _pause(self, pause_s: float) -> None:
        self._health.beat()
        try:
            async with asyncio.timeout(pause_s):
                await self._stopping.wait()
        except TimeoutError:
            return

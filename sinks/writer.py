"""Writing a batch whatever the store does: waiting for one that is away, finding the row it refuses."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from ashi.runtime import metrics
from ashi.runtime.logs import get_logger
from sinks.protocol import RefusedError, RetryableError, newest, newest_gaps

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ashi.contracts.candle import Candle
    from ashi.contracts.feed import FeedGap
    from ashi.runtime.health import Health
    from sinks.protocol import Sink

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
    """Hands batches to a sink until they are stored."""

    def __init__(self, sink: Sink, health: Health, stopping: asyncio.Event) -> None:
        self._sink = sink
        self._until_there = Patience(sink.name, health, stopping).until_there

    async def open(self) -> bool:
        """Open the sink; True when it is empty. Raises StorageError, and StoppedError as `write`."""
        return await self._until_there(self._sink.open)

    async def write(self, candles: Sequence[Candle]) -> list[Refused]:
        """Store all candles but those that the store refuses, which are returned.

        Waits for as long as the store is away. Raises StoppedError when told to stop meanwhile, and StorageError
        when waiting would not help; the part that was stored by then may be stored again.
        """
        return await self._write(candles, 0, self._store_candles)

    async def write_gaps(self, gaps: Sequence[FeedGap]) -> list[Refused]:
        """Store all feed gaps but those that the store refuses, as `write` does with candles."""
        return await self._write(gaps, 0, self._store_gaps)

    async def _store_candles(self, candles: Sequence[Candle]) -> None:
        batch = newest(candles)
        await self._until_there(lambda: self._sink.write(batch))
        metrics.batch_rows.labels(self._sink.name).observe(len(batch))
        metrics.candles_written.labels(self._sink.name).inc(len(batch))

    async def _store_gaps(self, gaps: Sequence[FeedGap]) -> None:
        batch = newest_gaps(gaps)
        await self._until_there(lambda: self._sink.write_gaps(batch))

    async def _write(
        self, messages: Sequence[_T], start: int, store: Callable[[Sequence[_T]], Awaitable[None]]
    ) -> list[Refused]:
        if not messages:
            return []
        began = time.perf_counter()
        try:
            await store(messages)
        except RefusedError as error:
            metrics.write_failures.labels(self._sink.name).inc()
            if len(messages) == 1:
                return [Refused(start, str(error))]
            # By halves of all messages, not of the newest: an older version of a refused one may well be stored.
            middle = len(messages) // 2
            first = await self._write(messages[:middle], start, store)
            return first + await self._write(messages[middle:], start + middle, store)
        metrics.write_seconds.labels(self._sink.name).observe(time.perf_counter() - began)
        return []


class Patience:
    """Tries a store until it is there; says so to health, logs and metrics."""

    def __init__(self, name: str, health: Health, stopping: asyncio.Event) -> None:
        self._name = name
        self._health = health
        self._stopping = stopping

    async def until_there(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """What `attempt` gives once it raises no RetryableError. Raises StoppedError, and what else it raises."""
        pause_s = FIRST_PAUSE_S
        away = False
        while True:
            try:
                result = await attempt()
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
                    self._health.set_ready(not self._stopping.is_set(), "storing candles")
                return result
            await self._pause(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _pause(self, pause_s: float) -> None:
        self._health.beat()
        try:
            async with asyncio.timeout(pause_s):
                await self._stopping.wait()
        except TimeoutError:
            return

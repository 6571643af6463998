"""Writing a batch whatever the store does: waiting for one that is away, finding the row it refuses."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from ashi.runtime.metrics import sink as metrics
from ashi.runtime.retry import Backoff, retry
from ashi.runtime.waiting import Absence
from ashi_sinks.protocol import RefusedError, RetryableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ashi.runtime.service import Service

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0

_Message = TypeVar("_Message")


class RefusedMessage(NamedTuple):
    """A message that the store refuses: its place in the batch, and the store's words."""

    place: int
    reason: str


class Writer:
    """Tries until messages are stored; tells health, logs and metrics when the store is away."""

    def __init__(self, service: Service, sink: str, what: str) -> None:
        """`sink` is the metrics' label, `what` is stored, for people."""
        self._service = service
        self._sink = sink
        self._what = what

    async def open(self, open_store: Callable[[], Awaitable[None]]) -> None:
        """Open the store. Raises StorageError, and StoppedError as `write`."""
        await self._until_available(open_store)

    async def look(self, look: Callable[[], Awaitable[None]]) -> None:
        """See whether the store is still what was written to. Raises as `write`, and RowsLostError."""
        await self._until_available(look)

    async def write(
        self, messages: Sequence[_Message], write: Callable[[Sequence[_Message]], Awaitable[None]], start: int = 0
    ) -> list[RefusedMessage]:
        """Write all messages but those that the store refuses, which are returned, counted from `start`.

        Waits for as long as the store is away. Raises StoppedError when told to stop meanwhile, and StorageError
        when waiting would not help; the part that was stored by then may be stored again.
        """
        if not messages:
            return []
        began = time.perf_counter()
        try:
            await self._until_available(lambda: write(messages))
        except RefusedError as error:
            metrics.write_failures.labels(self._sink).inc()
            if len(messages) == 1:
                return [RefusedMessage(start, str(error))]
            # By halves of all messages, not of the newest: an older version of a refused one may well be stored.
            middle = len(messages) // 2
            first = await self.write(messages[:middle], write, start)
            return first + await self.write(messages[middle:], write, start + middle)
        metrics.write_seconds.labels(self._sink).observe(time.perf_counter() - began)
        metrics.store_write_timestamp_seconds.labels(self._sink).set_to_current_time()
        return []

    async def _until_available(self, attempt: Callable[[], Awaitable[None]]) -> None:
        """Make an attempt again for as long as the store is away."""
        service = self._service
        absence = Absence(service, "the store")

        def on_wait(error: Exception, _: float) -> None:
            metrics.write_failures.labels(self._sink).inc()
            metrics.store_up.labels(self._sink).set(0)
            absence.note(error, sink=self._sink)

        await retry(
            attempt,
            least_wait_s=lambda error: 0.0 if isinstance(error, RetryableError) else None,
            backoff=Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S),
            on_wait=on_wait,
            sleep=service.pause,
        )
        metrics.store_up.labels(self._sink).set(1)
        if absence.end(sink=self._sink):
            service.health.set_ready(not service.stopping.is_set(), f"storing {self._what}")

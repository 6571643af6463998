"""What a worker does when Kafka takes less than the venue sends: one bound of what it holds, and the marks below it.

Trades wait in two places: behind repairs, in their feeds, and on their way to Kafka, in the publish buffer.

    over the limit           feeds discard what waits for a repair, which fetches it again, the most first, until
                             half of the limit is left; if that is not enough, all connections are closed
    over half of it          repairs wait before they fetch more
    over a quarter of it     nobody connects

The first is about all that is held and is looked at ten times a second; the others are about what is on its way to
Kafka, because only that gets less by itself, and are awaited: each acknowledgment wakes whoever waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ashi_ingest.publish.buffer import PublishBuffer


class Backpressure:
    """The bound of what a worker holds in memory, and who has to wait for it. Dead letters count by their size."""

    def __init__(self, publish_buffer: PublishBuffer, limit: int) -> None:
        """`limit`: the most trades held, setting ASHI_FEED_BUFFER."""
        self._publish_buffer = publish_buffer
        self._limit = limit

    def is_exceeded(self, held: int) -> bool:
        """Whether so many trades are too much."""
        return held > self._limit

    def is_relieved(self, held: int) -> bool:
        """Whether, once it was too much, no more need be discarded."""
        return held <= self._limit // 2

    async def room_to_repair(self) -> None:
        """Wait until a repair may fetch more: one of hours must not fill the memory."""
        await self._publish_buffer.room(self._limit // 2)

    async def room_to_connect(self) -> None:
        """Wait until there is room for what a connection will bring."""
        await self._publish_buffer.room(self._limit // 4)

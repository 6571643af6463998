"""What a publisher keeps of each partition of `trades`: its batches, in order."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from ashi_ingest.publish.acknowledged import AcknowledgedOffsets

if TYPE_CHECKING:
    import asyncio

    from ashi.contracts.trade import Trade


class ProducerBatch:
    """Trades of one partition in the producer's `builder`, and the times of the oldest of them, µs.

    `received_at` counts only trades that came over a connection, not those that were fetched. `first`: so many trades,
    of all partitions, had been put into batches before; none of those is in here.
    """

    __slots__ = ("builder", "first", "received_at", "traded_at")

    def __init__(self, builder: Any, first: int) -> None:
        self.builder = builder
        self.first = first
        self.received_at: int | None = None
        self.traded_at: int | None = None

    def note(self, trade: Trade, streamed: bool) -> None:
        """Remember the times of a trade that was put in. `streamed`: it came over a connection."""
        if self.traded_at is None or trade.traded_at < self.traded_at:
            self.traded_at = trade.traded_at
        if streamed and (self.received_at is None or trade.received_at < self.received_at):
            self.received_at = trade.received_at


class PartitionBatches:
    """The batches of one partition: the one being filled, and those that wait for the producer, in order.

    `acknowledged` is where those before stand; `unacknowledged` are all that Kafka has yet to acknowledge, the oldest
    first; `sending` is the task that hands them over; `hurry`: what is being filled shall go out as soon as nothing
    waits.
    """

    __slots__ = ("acknowledged", "filling", "hurry", "partition", "sending", "unacknowledged", "waiting")

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.acknowledged = AcknowledgedOffsets(partition)
        self.filling: ProducerBatch | None = None
        self.waiting: deque[ProducerBatch] = deque()
        self.unacknowledged: deque[ProducerBatch] = deque()
        self.hurry = False
        self.sending: asyncio.Task[None] | None = None

    def begin(self, batch: ProducerBatch) -> None:
        """Fill this batch from now on."""
        self.filling = batch
        self.unacknowledged.append(batch)

    def seal(self) -> None:
        """End the batch that is being filled; it is the next to wait."""
        self.hurry = False
        if self.filling is not None:
            self.filling.builder.close()  # else the producer lingers for more
            self.waiting.append(self.filling)
            self.filling = None

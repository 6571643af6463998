"""Records of which the latest is as good as all: sent once, in batches, each partition's when the one before is taken.

Nothing is queued here. Whoever has more for a partition that is on its way waits, and then sends what is true by then.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from ashi.contracts.errors import BrokerError
from ashi.runtime.kafka.connections.clients import make_producer
from ashi.runtime.kafka.connections.errors import not_taken

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ashi.runtime.kafka.producing.record_batches import OutgoingRecord
    from ashi.runtime.settings import Settings

REQUEST_TIMEOUT_MS: Final = 5_000
"""What Kafka has not taken by then is given up: something newer is sent."""
BATCH_BYTES: Final = 512 * 1024
"""Uncompressed. What is posted at once is mostly less, and so one batch."""
CLOSE_BOUND_S: Final = 1.0


class LatestBatches:
    """A producer by itself for one topic, so that nothing else waits for what it sends, nor fails with it.

    Not idempotent: a batch that was given up would leave a hole in the numbers by which the broker knows a producer's
    batches, and it would refuse all after it.
    """

    def __init__(self, settings: Settings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        self._producer: Any = None
        self._sending: set[asyncio.Task[None]] = set()

    @property
    def is_connected(self) -> bool:
        """Whether records may be posted. Not any more once the library's task that sends has ended."""
        return self._producer is not None and not self._producer._sender.sender_task.done()

    async def connect(self) -> None:
        """Connect, anew where the task that sends has ended: what was on its way is cancelled.

        Raises BrokerError when Kafka cannot be reached, or has no such topic.
        """
        await self.close()
        producer = make_producer(
            self._settings,
            enable_idempotence=False,
            linger_ms=0,
            max_batch_size=BATCH_BYTES,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
        )
        await producer.start()
        try:
            await producer.partitions_for(self._topic)
        except BaseException as error:
            await producer.stop()
            if isinstance(error, Exception):
                raise not_taken(self._topic, error, self._settings) from error
            raise
        self._producer = producer

    def partitions(self) -> int:
        """How many partitions the topic has, as the producer knows it now. Raises BrokerError where it knows none."""
        found = self._producer.client.cluster.partitions_for_topic(self._topic)
        if not found:
            raise BrokerError(f"topic {self._topic} is not known to Kafka at {self._settings.kafka_bootstrap} any more")
        return len(found)

    def post(self, records: Mapping[int, Sequence[OutgoingRecord]]) -> asyncio.Task[None]:
        """Send records to each of these partitions, all that has been encoded and compressed when this returns.

        The task is done when Kafka has taken all of them. It raises BrokerError when it has not.
        """
        batches = [(partition, batch) for partition, those in records.items() for batch in self._fill(those)]
        task = asyncio.create_task(self._send(batches), name=f"latest of {self._topic}")
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        return task

    async def close(self) -> None:
        """Disconnect; what is on its way may be lost."""
        for task in self._sending.copy():
            task.cancel()
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            # The library first waits until everything is taken.
            await asyncio.wait_for(producer.stop(), CLOSE_BOUND_S)
        except TimeoutError:
            await producer.client.close()

    def _fill(self, records: Sequence[OutgoingRecord]) -> list[Any]:
        """Batches of these records, compressed."""
        batches = [self._producer.create_batch()]
        for key, value, headers in records:
            if batches[-1].append(timestamp=None, key=key, value=value, headers=headers) is None:
                batches.append(self._producer.create_batch())
                batches[-1].append(timestamp=None, key=key, value=value, headers=headers)  # an empty one takes any
        for batch in batches:
            batch._build()  # else it is compressed when it is sent, and whoever measures does not see it
        return batches

    async def _send(self, batches: Sequence[tuple[int, Any]]) -> None:
        try:
            taken = [
                await self._producer.send_batch(batch, self._topic, partition=partition) for partition, batch in batches
            ]
            await asyncio.gather(*taken)
        except Exception as error:
            raise not_taken(self._topic, error, self._settings) from error

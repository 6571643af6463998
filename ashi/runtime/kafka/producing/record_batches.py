"""Many records to Kafka: batches of each partition, handed over in order, and a bound of what is on its way.

The library's `send` takes a record at a time and makes a future for each, which costs more than to fold what is in it.
A batch is filled without either. But the library takes one batch of a partition at a time: whoever gives it the next
waits until the one before has left. So a task for each partition does that, while the next ones are being filled.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ashi.runtime.kafka.connections.errors import not_taken

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ashi.contracts.errors import BrokerError
    from ashi.runtime.kafka.producing.dead_letters import Headers
    from ashi.runtime.settings import Settings

OutgoingRecord = tuple[bytes | None, bytes | None, "Headers"]
"""Key, value and headers."""

MAX_UNACKNOWLEDGED_BYTES: Final = 16 * 1024 * 1024
"""Of what Kafka has yet to acknowledge, uncompressed; whoever sends more waits. Some 30,000 candles."""


class _Batch:
    """Records of one partition in the producer's `builder`; `acknowledged` is the future of all of them."""

    __slots__ = ("acknowledged", "builder", "held")

    def __init__(self, builder: Any, acknowledged: asyncio.Future[Any]) -> None:
        self.builder = builder
        self.acknowledged = acknowledged
        self.held = 0


class _Queue:
    """The batches of one partition that the producer has not been given, oldest first; the last may not be full yet."""

    __slots__ = ("partition", "topic", "waiting", "working")

    def __init__(self, topic: str, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self.waiting: deque[_Batch] = deque()
        self.working: asyncio.Task[None] | None = None


class RecordBatches:
    """Sends records of a partition in the order in which they are given, as batches of the producer's size.

    Nothing lingers: what is sent goes out with the next request to its broker, and with it what is sent until then.
    After a failure nothing more is handed over, for no partition, and all that was not acknowledged fails with it. Of
    the partition that failed the producer may have had one more batch; it is idempotent, so that the broker refuses
    what does not continue what it has.
    """

    def __init__(self, producer: Any, settings: Settings, *, max_bytes: int = MAX_UNACKNOWLEDGED_BYTES) -> None:
        """Through a started aiokafka `producer`, with at most `max_bytes` unacknowledged before `send` waits."""
        self._producer = producer
        self._settings = settings
        self._max_bytes = max_bytes
        self._queues: dict[tuple[str, int], _Queue] = {}
        self._held = 0
        self._less = asyncio.Event()
        self._failure: BrokerError | None = None
        self._is_closed = False

    async def partitions_of(self, topic: str) -> int:
        """How many partitions a topic has, as the producer knows it now."""
        return len(await self._producer.partitions_for(topic))

    async def send(self, topic: str, partition: int, records: Iterable[OutgoingRecord]) -> asyncio.Future[Any]:
        """Hand over records, at least one, and give what completes when Kafka has acknowledged all of them.

        Its result is what the library tells of the last of their batches: the append time is that of the last record.
        A record that is larger than a batch goes alone. Waits while too much is on its way; what one call brings comes
        on top of that.

        Raises:
            BrokerError: Kafka did not take something that was sent before, to whichever partition; or it is closed.

        """
        await asyncio.sleep(0)  # what was sent before goes on its way while more is made
        while self._held > self._max_bytes and self._failure is None and not self._is_closed:
            self._less.clear()
            await self._less.wait()
        if self._failure is not None:
            raise self._failure
        if self._is_closed:
            raise not_taken(topic, asyncio.CancelledError(), self._settings)
        queue = self._queues.get((topic, partition))
        if queue is None:
            queue = self._queues[topic, partition] = _Queue(topic, partition)
        batch = queue.waiting[-1] if queue.waiting else self._begin(queue)
        append = batch.builder.append
        for key, value, headers in records:
            if append(timestamp=None, key=key, value=value, headers=headers) is None:
                self._hold(batch)
                batch = self._begin(queue)
                append = batch.builder.append
                append(timestamp=None, key=key, value=value, headers=headers)  # an empty one takes any
        self._hold(batch)
        if queue.working is None:
            queue.working = asyncio.create_task(self._work(queue), name=f"batches of {topic}/{partition}")
        return batch.acknowledged

    def close(self) -> None:
        """Give up what the producer has not been given yet: whoever waits for it, or for room, gets a BrokerError."""
        for queue in self._queues.values():
            if queue.working is not None:
                self._fail(queue, asyncio.CancelledError())
        self._is_closed = True
        self._less.set()

    def _begin(self, queue: _Queue) -> _Batch:
        batch = _Batch(self._producer.create_batch(), asyncio.get_running_loop().create_future())
        queue.waiting.append(batch)
        return batch

    def _hold(self, batch: _Batch) -> None:
        held = batch.builder.size()
        self._held += held - batch.held
        batch.held = held

    async def _work(self, queue: _Queue) -> None:
        """Hand over the batches of a partition, each when the producer has begun to send the one before."""
        while queue.waiting:
            batch = queue.waiting.popleft()
            batch.builder.close()  # else the producer would send what is put in meanwhile, and not count it
            try:
                sent = await self._producer.send_batch(batch.builder, queue.topic, partition=queue.partition)
            except BaseException as error:
                self._fail(queue, error)
                self._settle(queue, batch, None)
                if not isinstance(error, Exception):
                    raise
            else:
                sent.add_done_callback(partial(self._settle, queue, batch))
        queue.working = None

    def _settle(self, queue: _Queue, batch: _Batch, sent: asyncio.Future[Any] | None) -> None:
        """A batch is acknowledged, or failed, or is not sent any more (None)."""
        self._held -= batch.held
        self._less.set()
        if sent is not None and sent.cancelled():
            self._fail(queue, asyncio.CancelledError())
        elif sent is not None and (error := sent.exception()) is not None:
            self._fail(queue, error)
        if batch.acknowledged.done():
            return  # whoever waited for it was cancelled
        if self._failure is not None:
            batch.acknowledged.set_exception(self._failure)
            batch.acknowledged.exception()  # perhaps nobody looks at this one: one error ends the worker
        else:
            assert sent is not None  # noqa: S101  (given up only after a failure)
            batch.acknowledged.set_result(sent.result())

    def _fail(self, queue: _Queue, error: BaseException) -> None:
        """The first failure ends all: what waits, and what the producer has not taken yet, is not sent any more."""
        if self._failure is not None:
            return
        self._failure = not_taken(queue.topic, error, self._settings)
        self._failure.__cause__ = error
        for each in self._queues.values():
            if each.working is not None:
                each.working.cancel()
            while each.waiting:
                self._settle(each, each.waiting.popleft(), None)

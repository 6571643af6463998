"""The worker of every sink: poll, decode, batch, write, commit.

What it guarantees: the offset of a message is committed only after the store has it, or the topic for dead letters has.
A crash in between repeats the stretch, which changes no row: one only yields to a newer one, and a trade that is there
is left out.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from ashi.contracts.errors import ContractError, UsageError
from ashi.contracts.topics import CANDLES
from ashi.runtime.kafka.dead_letters import DeadLetter, dead_letter
from ashi.runtime.kafka.offsets import committed_offsets
from ashi.runtime.logs import get_logger
from ashi.runtime.metrics.common import dead_letters
from ashi.runtime.service import run_service
from ashi_sinks.consumer import KafkaLog
from ashi_sinks.registry import make_contents, store_name
from ashi_sinks.writer import StoppedError, Writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Sequence

    from ashi.runtime.service import Service
    from ashi.runtime.settings import Settings
    from ashi_sinks.consumer import Record, SinkLog
    from ashi_sinks.streams import Contents, Topic
    from ashi_sinks.writer import Refused

IDLE_WAIT_S: Final = 0.5
"""How long a poll waits at most: what stopping an idle worker takes."""
START_BEAT_S: Final = 1.0

_Message = TypeVar("_Message")

_log = get_logger(__name__)


def sink_group(name: str) -> str:
    """The consumer group of what a worker keeps, if no other is set: `ashi-sink-sqlite`."""
    return f"ashi-sink-{name}"


def run_sink(settings: Settings, store: str, topic: str = CANDLES, *, from_beginning: bool = False) -> int:
    """Keep `topic` in the `store` (such as `sqlite`) of `settings.storage` until SIGTERM; the exit status.

    `from_beginning` takes the group back to the beginning of the topics first, as an empty store does by itself.
    Raises UsageError when the storage URL is wrong or is that of another store, or one that does not keep the topic.
    """
    check_store(settings, store)
    contents = make_contents(settings.storage, topic)

    async def main(service: Service) -> None:
        try:
            async with _open(service, contents, from_beginning=from_beginning) as worker:
                await worker.run()
        except StoppedError:
            _log.warning("stopped while the store was away; what is not stored yet is read again at the next start")

    return run_service(f"sink-{contents.name}", settings, main)


def check_store(settings: Settings, store: str) -> None:
    """Raise UsageError unless `settings.storage` is a URL of `store`."""
    name = store_name(settings.storage)
    if name != store:
        raise UsageError(
            f"the storage is a URL of {name}, and this is the sink {store}: "
            "name its store with --storage or ASHI_STORAGE"
        )


@asynccontextmanager
async def _open(service: Service, contents: Contents, *, from_beginning: bool) -> AsyncIterator[SinkWorker]:
    settings = service.settings
    group = settings.sink_group or sink_group(contents.name)
    writer = Writer(contents, service.health, service.stopping)
    async with AsyncExitStack() as closing:
        closing.push_async_callback(contents.close)
        await writer.open()
        service.health.set_ready(False, "joining the group")
        topics = [topic.name for topic in contents.topics]
        log = KafkaLog(settings, group, topics, contents.dead)
        closing.push_async_callback(log.close)
        await unless_stopped(service, log.start())
        empty = await contents.is_empty(settings)
        if empty and await committed_offsets(settings, group, topics[0]):
            _log.warning(
                "the store is empty and its group has read before: if it fills another store of this kind, each gets "
                "only a part of all; give this one a group of its own by ASHI_SINK_GROUP",
                group=group,
            )
        if empty or from_beginning:
            # A new store under a group that has read the topics before would lack all of that for good.
            await unless_stopped(service, log.rewind())
            why = "the store is empty" if empty else "told to begin anew"
            _log.info(f"{why}, reading topics {' and '.join(topics)} from their beginning", sink=contents.name)
        service.health.set_ready(True, f"storing {contents.what}")
        _log.info(f"storing {contents.what}", sink=contents.name, group=group)
        yield SinkWorker(
            log,
            contents,
            writer,
            service,
            batch_size=settings.sink_batch_size,
            batch_interval_s=settings.sink_batch_interval_us / 1_000_000,
        )


async def unless_stopped(service: Service, step: Awaitable[None]) -> None:
    """Do a step of starting that may take long (joining a group waits for its members), but stop when told to."""
    doing = asyncio.ensure_future(step)
    stopping = asyncio.create_task(service.stopping.wait())
    try:
        while not doing.done():
            if stopping.done():
                raise StoppedError
            await asyncio.wait({doing, stopping}, timeout=START_BEAT_S, return_when=asyncio.FIRST_COMPLETED)
            service.health.beat()
        await doing
    finally:
        for task in (doing, stopping):
            task.cancel()
        await asyncio.gather(doing, stopping, return_exceptions=True)


class _Part(Generic[_Message]):
    """What has been read of one topic: its messages, each with its record."""

    def __init__(self, topic: Topic[_Message]) -> None:
        self._topic = topic
        self._records: list[Record] = []
        self._messages: list[_Message] = []

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, record: Record) -> None:
        """Take a record. Raises ContractError when it holds no message of the topic."""
        self._messages.append(self._topic.decode(record))
        self._records.append(record)

    async def store(self, writer: Writer) -> list[tuple[Record, str]]:
        """Store all messages but those that the store refuses: their records, and its reasons."""
        refused: Sequence[Refused] = await writer.write(self._messages, self._topic.store)
        return [(self._records[place], reason) for place, reason in refused]


class _Batch:
    """What has been read and not yet stored: the part of each topic, dead letters, where to go on from."""

    def __init__(self, contents: Contents) -> None:
        self.parts: dict[str, _Part[Any]] = {topic.name: _Part(topic) for topic in contents.topics}
        self.letters: list[DeadLetter] = []
        self.offsets: dict[Any, int] = {}
        self.began = 0.0

    def __len__(self) -> int:
        return sum(map(len, self.parts.values())) + len(self.letters)


class SinkWorker:
    """Moves messages from the log to the store, batch by batch, until it is told to stop."""

    def __init__(
        self,
        log: SinkLog,
        contents: Contents,
        writer: Writer,
        service: Service,
        *,
        batch_size: int,
        batch_interval_s: float,
    ) -> None:
        self._log = log
        self._contents = contents
        self._writer = writer
        self._service = service
        self._size = batch_size
        self._interval_s = batch_interval_s
        self._batch = _Batch(contents)
        self._uncommitted: dict[Any, int] = {}
        self._storing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Work until the service stops, then store and commit what is in hand.

        Raises StoppedError when the store is away at that moment, StorageError when the store is lost, BrokerError
        when a dead letter cannot be sent.
        """
        try:
            while not self._service.stopping.is_set():
                await self._read()
                if self._is_due():
                    await self._hand_over()
                self._service.health.beat()
            await self._hand_over()
            await self._stored()
        finally:
            if self._storing is not None:
                self._storing.cancel()
                await asyncio.gather(self._storing, return_exceptions=True)

    def _is_due(self) -> bool:
        if self._storing is not None and self._storing.done():
            return True  # with what it raised, perhaps
        if not self._batch:
            return self._storing is None and bool(self._uncommitted)
        return len(self._batch) >= self._size or time.monotonic() >= self._batch.began + self._interval_s

    async def _hand_over(self) -> None:
        """Let the batch be stored while the next one is read: the store works meanwhile, and this process can too.

        One at a time. While the store is slow or away there are two batches in memory and nothing is read.
        """
        await self._stored()
        if self._batch or self._uncommitted:
            batch, self._batch = self._batch, _Batch(self._contents)
            self._storing = asyncio.create_task(self._store(batch))

    async def _stored(self) -> None:
        """Wait for the batch that is being stored. Raises what that raised."""
        if self._storing is not None:
            await self._storing
            self._storing = None

    async def _read(self) -> None:
        batch = self._batch
        wait_s = IDLE_WAIT_S
        if batch:
            wait_s = min(wait_s, max(batch.began + self._interval_s - time.monotonic(), 0.0))
        fetched = await self._log.poll(self._size - len(batch), wait_s)
        if fetched and not batch:
            batch.began = time.monotonic()
        for partition, records in fetched.items():
            for record in records:
                self._decode(record)
                batch.offsets[partition] = record.offset + 1

    def _decode(self, record: Record) -> None:
        try:
            self._batch.parts[record.topic].add(record)
        except ContractError as error:
            self._batch.letters.append(self._letter(record, "invalid", str(error)))

    async def _store(self, batch: _Batch) -> None:
        letters = batch.letters
        for part in batch.parts.values():
            letters += [self._letter(record, "refused", reason) for record, reason in await part.store(self._writer)]
        if letters:
            await self._log.bury(letters)
        self._uncommitted.update(batch.offsets)
        if self._uncommitted and await self._log.commit(self._uncommitted):
            self._uncommitted.clear()

    def _letter(self, record: Record, kind: str, reason: str) -> DeadLetter:
        dead = self._contents.dead
        source = f"{record.topic}/{record.partition}/{record.offset}"
        dead_letters.labels("sink", kind).inc()
        _log.warning(f"message cannot be stored, sent to {dead}", source=source, reason=reason)
        return dead_letter(dead, key=record.key, value=record.value or b"", reason=reason, source=source)

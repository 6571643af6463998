"""The worker of every sink: poll, decode, batch, write, commit.

What it guarantees: the offset of a candle or a feed gap is committed only after the store has it, or `candles.dead` has
the message. A crash in between repeats the stretch, which changes no row, because a row only yields to a newer one.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from ashi.contracts.candle import Candle, decode_candle
from ashi.contracts.errors import ContractError, UsageError
from ashi.contracts.feed import FeedGap, decode_feed_gap
from ashi.contracts.topics import CANDLES_DEAD, FEED_GAPS
from ashi.runtime import metrics
from ashi.runtime.deadletter import DeadLetter, dead_letter
from ashi.runtime.logs import get_logger
from ashi.runtime.service import run_service
from sinks.log import KafkaLog
from sinks.registry import make_sink, store_name
from sinks.writer import Refused, StoppedError, Writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from ashi.runtime.service import Service
    from ashi.runtime.settings import Settings
    from sinks.log import Record, SinkLog
    from sinks.protocol import Sink

IDLE_WAIT_S: Final = 0.5
"""How long a poll waits at most: what stopping an idle worker takes."""
START_BEAT_S: Final = 1.0

_Message = TypeVar("_Message")

_log = get_logger(__name__)


def sink_group(name: str) -> str:
    """The consumer group of a store: `ashi-sink-sqlite`."""
    return f"ashi-sink-{name}"


def run_sink(settings: Settings, store: str, *, from_beginning: bool = False) -> int:
    """Run the worker of `store` (such as `sqlite`) on `settings.storage` until SIGTERM; the exit status.

    `from_beginning` takes the group back to the beginning of the topics first, as an empty store does by itself.
    Raises UsageError when the storage URL is wrong or is that of another store.
    """
    check_store(settings, store)
    sink = make_sink(settings.storage)

    async def main(service: Service) -> None:
        try:
            async with _open(service, sink, from_beginning=from_beginning) as worker:
                await worker.run()
        except StoppedError:
            _log.warning("stopped while the store was away; what is not stored yet is read again at the next start")

    return run_service(f"sink-{store}", settings, main)


def check_store(settings: Settings, store: str) -> None:
    """Raise UsageError unless `settings.storage` is a URL of `store`."""
    name = store_name(settings.storage)
    if name != store:
        raise UsageError(f"ASHI_STORAGE (or --storage) is a URL of {name}, and this is the sink {store}")


@asynccontextmanager
async def _open(service: Service, sink: Sink, *, from_beginning: bool) -> AsyncIterator[SinkWorker]:
    settings = service.settings
    group = sink_group(sink.name)
    writer = Writer(sink, service.health, service.stopping)
    async with AsyncExitStack() as closing:
        closing.push_async_callback(sink.close)
        empty = await writer.open()
        service.health.set_ready(False, "joining the group")
        log = KafkaLog(settings, group)
        closing.push_async_callback(log.close)
        await unless_stopped(service, log.start())
        if empty or from_beginning:
            # A new store under a group that has read the topic before would lack all of that for good.
            await unless_stopped(service, log.rewind())
            why = "the store is empty" if empty else "told to begin anew"
            _log.info(f"{why}, reading topics candles and feed.gaps from their beginning", sink=sink.name)
        service.health.set_ready(True, "storing candles")
        _log.info("storing candles", sink=sink.name, group=group)
        yield SinkWorker(
            log,
            writer,
            service,
            name=sink.name,
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

    def __init__(self, decode: Callable[[bytes], _Message]) -> None:
        self._decode = decode
        self._records: list[Record] = []
        self.messages: list[_Message] = []

    def add(self, record: Record) -> None:
        """Take a record. Raises ContractError when it holds no message of the topic."""
        self.messages.append(self._decode(record.value or b""))  # what has no value is no message either
        self._records.append(record)

    def letters(self, refused: Sequence[Refused]) -> list[DeadLetter]:
        """The records of the messages that the store refuses, as dead letters."""
        return [_letter(self._records[place], "refused", reason) for place, reason in refused]


@dataclass(slots=True)
class _Batch:
    """What has been read and not yet stored: candles, feed gaps, dead letters, where to go on from."""

    candles: _Part[Candle] = field(default_factory=lambda: _Part(decode_candle))
    gaps: _Part[FeedGap] = field(default_factory=lambda: _Part(decode_feed_gap))
    letters: list[DeadLetter] = field(default_factory=list)
    offsets: dict[Any, int] = field(default_factory=dict)
    began: float = 0.0

    def __len__(self) -> int:
        return len(self.candles.messages) + len(self.gaps.messages) + len(self.letters)


class SinkWorker:
    """Moves candles and feed gaps from the log to the store, batch by batch, until it is told to stop."""

    def __init__(
        self, log: SinkLog, writer: Writer, service: Service, *, name: str, batch_size: int, batch_interval_s: float
    ) -> None:
        self._log = log
        self._writer = writer
        self._service = service
        self._name = name
        self._size = batch_size
        self._interval_s = batch_interval_s
        self._batch = _Batch()
        self._uncommitted: dict[Any, int] = {}

    async def run(self) -> None:
        """Work until the service stops, then store and commit what is in hand.

        Raises StoppedError when the store is away at that moment, StorageError when the store is lost, BrokerError
        when a dead letter cannot be sent.
        """
        while not self._service.stopping.is_set():
            await self._read()
            if self._is_due():
                await self._store()
            self._service.health.beat()
        await self._store()

    def _is_due(self) -> bool:
        if not self._batch:
            return bool(self._uncommitted)
        return len(self._batch) >= self._size or time.monotonic() >= self._batch.began + self._interval_s

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
        batch = self._batch
        try:
            if record.topic == FEED_GAPS:
                batch.gaps.add(record)
            else:
                batch.candles.add(record)
                metrics.candles_read.labels(self._name).inc()
        except ContractError as error:
            batch.letters.append(_letter(record, "invalid", str(error)))

    async def _store(self) -> None:
        batch, self._batch = self._batch, _Batch()
        letters = batch.letters
        letters += batch.candles.letters(await self._writer.write(batch.candles.messages))
        letters += batch.gaps.letters(await self._writer.write_gaps(batch.gaps.messages))
        if letters:
            await self._log.bury(letters)
        self._uncommitted.update(batch.offsets)
        if self._uncommitted and await self._log.commit(self._uncommitted):
            self._uncommitted.clear()


def _letter(record: Record, kind: str, reason: str) -> DeadLetter:
    source = f"{record.topic}/{record.partition}/{record.offset}"
    metrics.dead_letters.labels("sink", kind).inc()
    _log.warning("message cannot be stored, sent to candles.dead", source=source, reason=reason)
    return dead_letter(CANDLES_DEAD, key=record.key, value=record.value or b"", reason=reason, source=source)

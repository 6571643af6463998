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

from ashi.contracts.access import sink_access
from ashi.contracts.errors import BrokerError, ContractError, UsageError
from ashi.contracts.topics import CANDLES
from ashi.runtime.kafka.cluster.offsets import committed_offsets
from ashi.runtime.kafka.producing.dead_letters import DeadLetter, dead_letter
from ashi.runtime.logs import get_logger
from ashi.runtime.metrics import common
from ashi.runtime.metrics import sink as metrics
from ashi.runtime.metrics.declare import serve_from_zero
from ashi.runtime.service import StoppedError, run_service, run_until_first_ends
from ashi.runtime.waiting import start_when_kafka_is_there
from ashi_sinks.consumer import KafkaSinkConsumer
from ashi_sinks.delays import RowDelays, SinkLag
from ashi_sinks.partition_watch import LOST_ROWS, PartitionWatch
from ashi_sinks.protocol import RowsLostError
from ashi_sinks.registry import make_streams, store_name, upkeep
from ashi_sinks.upkeep import exit_past_chores, run_chore
from ashi_sinks.writer import Writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ashi.runtime.service import Service
    from ashi.runtime.settings import Settings
    from ashi_sinks.consumer import Record, SinkConsumer
    from ashi_sinks.streams import Stream, Streams

LOOK_S: Final = 5.0
"""How often it is seen whether the store is still what was written to while nothing is written."""
IDLE_WAIT_S: Final = 0.5
"""How long a poll waits at most: what stopping an idle worker takes."""

_Message = TypeVar("_Message")

_log = get_logger(__name__)


def sink_group(name: str) -> str:
    """The consumer group of a worker by the name of its streams, if no other is set: `ashi-sink-sqlite`."""
    return f"ashi-sink-{name}"


def run_sink(settings: Settings, store: str, topic: str = CANDLES, *, from_beginning: bool = False) -> int:
    """Keep `topic` in the `store` (such as `sqlite`) of `settings.storage` until SIGTERM; the exit status.

    `from_beginning` takes the group back to the beginning of the topics first, as an empty store does by itself.
    Raises UsageError when the storage URL is wrong or is that of another store, or one that does not keep the topic.
    """
    check_store(settings, store)
    streams = make_streams(settings.storage, topic)
    chores = upkeep(settings, topic)

    async def main(service: Service) -> None:
        writer = Writer(service, streams.name, streams.what)
        group = settings.sink_group or sink_group(streams.name)
        access = sink_access(_topics(streams), streams.dead_topic, group)

        async def work(on_begun: Callable[[], None]) -> None:
            async with _begin(service, group, streams, writer, from_beginning=from_beginning) as (worker, watch):
                on_begun()
                await run_until_first_ends(
                    worker.run(), watch.run(), *(run_chore(chore, streams.name) for chore in chores)
                )

        try:
            async with AsyncExitStack() as closing:
                closing.push_async_callback(streams.close)
                await writer.open(streams.open)
                await start_when_kafka_is_there(service, access, work)
        except StoppedError:
            _log.warning("stopped while the store was away; what is not stored yet is read again at the next start")

    status = run_service(f"sink-{streams.name}", settings, main)
    exit_past_chores(status)
    return status


def check_store(settings: Settings, store: str) -> None:
    """Raise UsageError unless `settings.storage` is a URL of `store`."""
    name = store_name(settings.storage)
    if name != store:
        raise UsageError(
            f"the storage is a URL of {name}, and this is the sink {store}: "
            "name its store with --storage or ASHI_STORAGE"
        )


def _topics(streams: Streams) -> list[str]:
    return [stream.topic for stream in streams.streams]


@asynccontextmanager
async def _begin(
    service: Service, group: str, streams: Streams, writer: Writer, *, from_beginning: bool
) -> AsyncIterator[tuple[SinkWorker, PartitionWatch]]:
    """A worker for streams that are open, in its group and where it has to begin."""
    settings = service.settings
    service.health.set_ready(False, "joining the group")
    topics = _topics(streams)
    consumer = KafkaSinkConsumer(
        settings,
        group,
        topics,
        streams.dead_topic,
        remedy=streams.remedy,
        on_made_anew=lambda: streams.is_empty(settings),
    )
    try:
        await service.unless_stopped(consumer.start())
        empty = await streams.is_empty(settings)
        has_read = bool(await committed_offsets(settings, group, topics[0]))
        if not empty and not has_read:
            _log.warning(
                "the store has something and its group has read nothing: the group is new, or the topics were made "
                "anew and its offsets went with them. They are read from their beginning, and a row only yields to a "
                "greater version; if trades and ashi.meta were made anew too, versions begin below those stored: look "
                "with `ashi verify`, and see docs/sinks.md",
                group=group,
            )
        if empty and has_read:
            _log.warning(
                "the store is empty and its group has read before: if it fills another store of this kind, each gets "
                "only a part of all; give this one a group of its own by ASHI_SINK_GROUP",
                group=group,
            )
        begins_anew = empty or from_beginning
        if begins_anew:
            # A new store under a group that has read the topics before would lack all of that for good.
            await service.unless_stopped(consumer.rewind())
            why = "the store is empty" if empty else "told to begin anew"
            *others, last = topics
            named = f"topics {', '.join(others)} and {last} from their" if others else f"topic {last} from its"
            _log.info(f"{why}, reading {named} beginning", sink=streams.name)
        service.health.set_ready(True, f"storing {streams.what}")
        _log.info(f"storing {streams.what}", sink=streams.name, group=group)
        worker = SinkWorker(
            consumer,
            streams,
            writer,
            service,
            group=group,
            batch_size=settings.sink_batch_size,
            batch_interval_s=settings.sink_batch_interval_us / 1_000_000,
            delays=RowDelays(streams.name, goes_on=has_read and not begins_anew),
        )
        yield worker, PartitionWatch(service, group, topics, consumer, lag=SinkLag(streams.name))
    finally:
        await consumer.close()


class _StreamBatch(Generic[_Message]):
    """What has been read of one stream: its messages, each with its record."""

    def __init__(self, stream: Stream[_Message]) -> None:
        self.stream = stream
        self.records: list[Record] = []
        self.messages: list[_Message] = []

    def add(self, record: Record) -> None:
        """Take a record. Raises ContractError when it holds no message of the topic."""
        self.messages.append(self.stream.decode(record))
        self.records.append(record)

    def timeframes(self) -> list[str]:
        """Those of the messages, of a stream that has some."""
        timeframe = self.stream.timeframe
        return [] if timeframe is None else list(map(timeframe, self.messages))


class _PendingBatch:
    """What has been read and not yet written: of each stream, dead letters, the offsets to go on from."""

    def __init__(self, streams: Streams) -> None:
        self.by_topic: dict[str, _StreamBatch[Any]] = {stream.topic: _StreamBatch(stream) for stream in streams.streams}
        self.dead_letters: list[DeadLetter] = []
        self.offsets: dict[Any, int] = {}
        self.began_s = 0.0

    def __len__(self) -> int:
        return sum(len(read.messages) for read in self.by_topic.values()) + len(self.dead_letters)


class SinkWorker:
    """Moves messages from topics to the store, batch by batch, until it is told to stop."""

    def __init__(
        self,
        consumer: SinkConsumer,
        streams: Streams,
        writer: Writer,
        service: Service,
        *,
        group: str,
        batch_size: int,
        batch_interval_s: float,
        delays: RowDelays | None = None,
    ) -> None:
        """`group`: that of the consumer. A batch has at most so many messages, and is written after so long.

        `delays`: whose rows are timed; None for those of all that is appended from now on.
        """
        self._consumer = consumer
        self._group = group
        self._streams = streams
        self._writer = writer
        self._service = service
        self._size = batch_size
        self._interval_s = batch_interval_s
        self._delays = delays or RowDelays(streams.name)
        self._pending = _PendingBatch(streams)
        self._uncommitted: dict[Any, int] = {}
        self._writing: asyncio.Task[None] | None = None
        self._looked_s = time.monotonic()
        serve_from_zero(common.dead_letters, ("sink", "invalid"), ("sink", "refused"))

    async def run(self) -> None:
        """Work until the service stops, then write and commit what is in hand.

        Raises StoppedError when the store is away at that moment, StorageError when the store is lost, BrokerError
        when a dead letter cannot be sent.
        """
        try:
            while not self._service.stopping.is_set():
                try:
                    await self._read()
                    if self._writing is not None and self._writing.done():
                        await self._end_writing()  # what it raised is told now; the next one waits for its own time
                    if self._is_due():
                        await self._begin_writing()
                except RowsLostError as error:
                    await self._read_again(error)
                self._service.health.beat()
            try:
                await self._begin_writing()
                await self._end_writing()
            except RowsLostError as error:
                await self._read_again(error)
        finally:
            if self._writing is not None:
                self._writing.cancel()
                await asyncio.gather(self._writing, return_exceptions=True)

    def _is_due(self) -> bool:
        if not self._pending:  # but perhaps it has gone on past what no reader gets
            passed = bool(self._uncommitted or self._pending.offsets)
            return self._writing is None and (passed or self._is_time_to_look())
        return len(self._pending) >= self._size or time.monotonic() >= self._pending.began_s + self._interval_s

    def _is_time_to_look(self) -> bool:
        return time.monotonic() >= self._looked_s + LOOK_S and not self._service.stopping.is_set()

    async def _read_again(self, error: RowsLostError) -> None:
        """Let the topic whose rows are gone be read from its beginning; nothing is being read or written now.

        What is in hand of the other topics is not committed, so it comes again too.
        """
        self._writing = None
        self._pending, self._uncommitted = _PendingBatch(self._streams), {}
        metrics.rows_lost.labels(self._streams.name).inc()
        self._delays.begin_anew()
        self._service.health.set_obstacle(LOST_ROWS, str(error))
        _log.error(
            f"stored rows are gone, reading topic {error.topic} from its beginning to store them again; of what it "
            "does not hold any more `ashi rebuild` makes those candles anew that trades are left of",
            sink=self._streams.name,
            reason=str(error),
        )
        while True:
            try:
                await self._consumer.read_again(error.topic)
            except BrokerError as away:
                if self._service.stopping.is_set():
                    _log.error("stopped before that: start once with --from-beginning", reason=str(away))
                    return
                _log.warning("Kafka is away, trying again", reason=str(away))
                self._service.health.beat()
                await asyncio.sleep(IDLE_WAIT_S)
            else:
                return

    async def _begin_writing(self) -> None:
        """Let the batch be written while the next one is read: the store works meanwhile, and this process can too.

        One at a time. While the store is slow or away there are two batches in memory and nothing is read.
        """
        await self._end_writing()
        if self._pending or self._pending.offsets or self._uncommitted or self._is_time_to_look():
            batch, self._pending = self._pending, _PendingBatch(self._streams)
            self._writing = asyncio.create_task(self._write(batch))

    async def _end_writing(self) -> None:
        """Wait for the batch that is being written. Raises what that raised."""
        if self._writing is not None:
            await self._writing
            self._writing = None

    async def _read(self) -> None:
        batch = self._pending
        wait_s = IDLE_WAIT_S
        if batch:
            wait_s = min(wait_s, max(batch.began_s + self._interval_s - time.monotonic(), 0.0))
        fetched = await self._consumer.poll(self._size - len(batch), wait_s)
        if fetched and not batch:
            batch.began_s = time.monotonic()
        for partition, span in fetched.items():
            for record in span.records:
                self._add(record)
            batch.offsets[partition] = span.end

    def _add(self, record: Record) -> None:
        try:
            self._pending.by_topic[record.topic].add(record)
        except ContractError as error:
            self._pending.dead_letters.append(self._dead_letter(record, "invalid", str(error)))

    async def _write(self, batch: _PendingBatch) -> None:
        """Write what was read, send what cannot be written where it belongs, then commit."""
        dead_letters = batch.dead_letters
        look = self._is_time_to_look()
        if look:
            self._looked_s = time.monotonic()
        for read in batch.by_topic.values():
            try:
                if look and not read.messages:
                    await self._writer.look(read.stream.look)
                for place, reason in await self._writer.write(read.messages, read.stream.write):
                    dead_letters.append(self._dead_letter(read.records[place], "refused", reason))
                self._delays.stored(read.records, read.timeframes())
            except RowsLostError as error:
                error.topic = read.stream.topic
                raise
        if dead_letters:
            await self._consumer.send_dead_letters(dead_letters)
        self._uncommitted.update(batch.offsets)
        if self._uncommitted and await self._consumer.commit(self._uncommitted):
            self._uncommitted.clear()

    def _dead_letter(self, record: Record, kind: str, reason: str) -> DeadLetter:
        topic = self._streams.dead_topic
        source = f"{record.topic}/{record.partition}/{record.offset}"
        common.dead_letters.labels("sink", kind).inc()
        _log.warning(f"message cannot be stored, sent to {topic}", source=source, reason=reason)
        return dead_letter(
            topic, key=record.key, value=record.value, reason=reason, source=source, consumer=self._group
        )

"""The batch transport: Faust's Kafka transport, handing whole fetches of `trades` to the agent.

Registered as `ashi-batch` in the entry points `faust.transports`. Agents, tables, recovery and rebalancing stay
Faust's; what is overridden, and why, is below. The traps this works around are in docs/faust.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final

import faust
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from ashi.contracts.errors import StateError
from ashi.contracts.topics import TRADES
from ashi.runtime.kafka.cluster.ends import written_ends
from ashi.runtime.kafka.cluster.log_identity import Fingerprint, fingerprint_of
from ashi.runtime.kafka.connections.clients import COMMITTED, adapt, murmur2_partitioner, pace_failures
from ashi.runtime.kafka.connections.racks import read_near
from ashi.runtime.kafka.consuming.raw_batches import keep_bytes
from ashi.runtime.kafka.consuming.spans import RecordReader, Span, fetch_spans
from ashi.runtime.kafka.producing.record_batches import RecordBatches
from ashi.runtime.logs import get_logger, get_weather_logger
from ashi.runtime.metrics.aggregate import chunk_holes
from ashi.runtime.metrics.common import rebalances
from ashi_aggregate.chunk import Chunk
from ashi_aggregate.faust.chunk_size import ChunkSize
from ashi_aggregate.faust.elections import ElectionWatch
from ashi_aggregate.faust.fetch_pace import FetchPace
from ashi_aggregate.faust.membership import HandoverTimes, InstanceGuard
from ashi_aggregate.faust.restoring import Restoring
from ashi_aggregate.faust.table import FAUST_LOGGER
from ashi_aggregate.held_back import KnownEnds
from ashi_aggregate.log_check import expired_unread
from ashi_aggregate.native.columns import ScannedRecords, scan
from ashi_aggregate.native.library import load_kernel
from ashi_aggregate.native.newest import NewestRows, read_newest
from ashi_aggregate.partition import PartitionOffsets

_log = get_logger(__name__)
_weather = get_weather_logger(__name__)

ASK_END_TIMEOUT_S: Final = 2.0
"""Longest wait for the end of a log. A checkpoint waits meanwhile; whatever needs the end waits for the next one."""


FETCH_WAIT_MS: Final = 100
"""Longest that a broker holds a fetch which finds nothing. Whatever else is asked on that connection waits behind it,
as the ends of partitions in a rebalance: with Faust's 1,500 ms that was most of what a hand-over took."""


class ChunkSchema(faust.Schema):  # type: ignore[misc]  # Faust is not typed
    """Hands a message's value to the agent as it is: it is a chunk already."""

    def compile(self, app: Any, **_: Any) -> Any:
        """The function by which a topic decodes a message."""

        async def decode(message: Any, *, propagate: bool = False) -> Any:  # noqa: ARG001
            return app.create_event(message.key, message.value, message.headers, message)

        return decode


class Consumer(driver.Consumer):  # type: ignore[misc]  # Faust is not typed
    """A consumer that yields one message per partition and fetch of `trades`, its value a `Chunk`.

    It keeps the offset that must come next for each partition, because around a rebalance a fetch can deliver
    records from beyond the position that was sought. No offset known: the chunk is dropped, it will be fetched
    again. A chunk that begins later: dropped, and the partition is sought anew. One that begins earlier: trimmed.
    Where a chunk begins and ends is where the client stood, not which records it has: offsets that no reader gets, as
    those of transactions' markers, are no hole, and a chunk may hold nothing else.
    """

    logger = FAUST_LOGGER

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.elections = ElectionWatch(TRADES)
        self._times = HandoverTimes()
        self.instance_guard = InstanceGuard(self.app.conf.consumer_group_instance_id or "")
        self._known: dict[TP, Sequence[Fingerprint]] = {}
        self._last: dict[TP, Any] = {}
        self._next: dict[TP, int] = {}
        self._durable: dict[TP, int] = {}
        # Recovery and the fetcher may both seek; of two at once the older could let go what the newer took up.
        self._seeking = asyncio.Lock()
        self._restoring = Restoring()

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:  # noqa: ASYNC109  (Faust's signature)
        """Yield chunks of `trades`, and of a changelog the end of what its table has taken up."""
        records, active = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        if records is None or self.should_stop:
            return
        if not self.flow_active:
            await self._seek_while_stopped(records)
            return
        chunks = {tp: records.pop(tp) for tp in list(records) if tp.topic == TRADES}
        for tp, fetched in chunks.items():
            if not self._may_deliver(tp, active, generation):
                continue
            chunk = await self._continue(TP(tp.topic, tp.partition), fetched)
            if chunk is not None and self._may_deliver(tp, active, generation):
                self._next[TP(tp.topic, tp.partition)] = chunk.end
                if chunk.records:
                    self._last[TP(tp.topic, tp.partition)] = chunk.records[-1]
                yield TP(tp.topic, tp.partition), self._message(tp, chunk.end, chunk)
        for tp, span in records.items():
            if self._may_deliver(tp, active, generation):
                await self._restore(tp, span)
                yield TP(tp.topic, tp.partition), self._message(tp, span.end)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109
        """Fetch from the partitions that are active now.

        Faust hands over the set itself and changes it while the fetch waits. Empty, as it is when a rebalance has
        paused everything, it stands for all partitions.
        """
        active = None if active_partitions is None else frozenset(active_partitions)
        return await super()._getmany(active, timeout)

    async def _seek_while_stopped(self, dropped: Mapping[TP, Span]) -> None:
        """What was fetched is dropped, so go back, in case recovery has sought already, just before this fetch.

        A changelog's records would not come again until others do, and neither would the last ones of `trades` in a
        quiet partition. Where to take the state up is for recovery alone to say: the flow is stopped also while the
        tables are being restored, and what is taken up from half of their rows looks like a state that has lost some.
        """
        try:
            async with self._seeking:
                first = {tp: span.begin for tp, span in dropped.items() if tp.topic != TRADES}
                first |= {tp: self._next[tp] for tp in dropped if tp in self._next}
                if first:
                    await self._thread.call_thread(self._go_back, first)
        except Exception as error:
            _log.warning("partitions were taken away while seeking", error=repr(error))

    async def _go_back(self, first: Mapping[TP, int]) -> None:
        """In the consumer's thread: read from these offsets again what is past them."""
        client = self._thread._ensure_consumer()
        for tp, offset in first.items():
            if tp in client.assignment() and await client.position(tp) > offset:
                client.seek(tp, offset)

    def _may_deliver(self, tp: TP, active: set[TP] | None, generation: int) -> bool:
        return (
            self.flow_active
            and self.app.consumer_generation_id == generation
            and (active is None or tp in active or tp in self._buffered_partitions)
        )

    async def _continue(self, tp: TP, span: Span) -> Chunk | None:
        """The chunk that continues where the last one ended, or None when this span does not."""
        begin = self._next.get(tp)
        if begin is None:
            return None
        # The client has gone to the head of the log because what was asked for is beyond its end; or it was cut, and
        # the records that follow were appended by another leader. Both happen without harm too.
        if span.begin < begin or self.elections.suspects(tp.partition, begin):
            if not await self.app.is_continued(tp.partition, begin, self._known_records(tp, begin)):
                return None
            self.elections.cleared(tp.partition, begin)
        if span.end <= begin:
            return None
        if span.begin > begin:
            await self._read_again(tp, begin)
            return None
        records = span.records
        if records and records[0].offset < begin:
            if isinstance(records, ScannedRecords):
                records = records.since(begin)
            else:
                records = [record for record in records if record.offset >= begin]
        return Chunk(tp.partition, begin, span.end, records)

    def _known_records(self, tp: TP, begin: int) -> Sequence[Fingerprint]:
        """What must stand in the log if the record at `begin` is to be the next: the one before, where it is known.

        Also what the state has read beyond, when a part of the log is read again.
        """
        known, last = self._known.get(tp, ()), self._last.get(tp)
        return known if last is None else [fingerprint_of(last), *(each for each in known if each.offset >= begin)]

    async def _read_again(self, tp: TP, begin: int) -> None:
        """Go back to `begin`, which a fetch has skipped. Raises StateError when what was there has expired unread."""
        earliest = (await self.earliest_offsets(tp))[tp]
        if earliest > begin:
            raise expired_unread(tp.partition, begin, earliest)
        chunk_holes.inc()
        _log.warning("fetch skipped records, reading them again", partition=tp.partition, offset=begin)
        await self.rewind(tp.partition, begin)

    async def _restore(self, tp: TP, span: Span) -> None:
        """Give a table what was fetched of its changelog. An error ends the worker: Faust would only log it."""
        try:
            self.app.changelogs[tp.topic].restore(tp.partition, span.records)
        except StateError as error:
            await self.app.crash(error)
            raise
        self._restoring.add(span.records.read if isinstance(span.records, NewestRows) else len(span.records))

    def _message(self, tp: TP, end: int, chunk: Chunk | None = None) -> Any:
        """What Faust is told of a fetch up to `end`: its offset is the last that has been read, record or not."""
        last = chunk.records[-1] if chunk is not None and chunk.records else None
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            end - 1,
            last.timestamp / 1000.0 if last else 0.0,
            last.timestamp_type if last else 0,
            [],
            None,
            chunk,
            None,
            0,
            0,
            TP(tp.topic, tp.partition),
            generation_id=self.app.consumer_generation_id,
        )

    async def rewind(self, partition: int, offset: int) -> None:
        """Read `trades` of `partition` again from `offset`."""
        tp = TP(TRADES, partition)
        # Before the seek: what is fetched after it can be here before its answer is. Dropped as of an unknown place it
        # would be missed only when the next record comes, and a quiet partition has none.
        self._next[tp] = offset
        try:
            await self._thread.seek_wait({tp: offset})
        except driver.IllegalStateError:  # a rebalance has just taken it away, and seeks when it is over
            self._next.pop(tp, None)
            return
        self._read_offset[tp] = offset or None

    async def perform_seek(self) -> None:
        """Go to where each partition is to be read on from, which the state says, and not only the committed offset."""
        async with self._seeking:
            await self._perform_seek()

    async def _perform_seek(self) -> None:
        # Counted from the moment at which a rebalance takes partitions away; the generation changes when it gives some.
        generation, rebalance = self.app.consumer_generation_id, self.app.rebalancing_count
        self._next.clear()
        await super().perform_seek()
        partitions = self._trades_partitions()
        if not partitions:
            await self.app.release()
            return
        earliest = await self.earliest_offsets(*partitions)
        ends = await self.highwaters(*partitions)
        now = self.app.consumer_generation_id, self.app.rebalancing_count, self._trades_partitions()
        if (generation, rebalance, partitions) != now:
            return  # a rebalance came in between, and seeks for itself
        self._restoring.ended()
        starts = await self.app.resume(
            {
                tp.partition: PartitionOffsets(self._committed_offset.get(tp), earliest[tp], ends[tp])
                for tp in partitions
            }
        )
        for tp in partitions:
            start, committed = starts[tp.partition], self._committed_offset.get(tp)
            self._durable.pop(tp, None)
            if start > (committed or 0):  # what a new state never reads must not look like lag for ever
                self._acked[tp].clear()  # Faust commits only partitions that it has an entry for
                self._durable[tp] = start
            else:
                self._committed_offset[tp] = start or None
            self._last.pop(tp, None)
            self._known[tp] = self.app.known_records(tp.partition)
            self.elections.forget(tp.partition)
            await self.rewind(tp.partition, start)
        self._times.end(starts)

    def _new_consumer_thread(self) -> Any:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def _trades_partitions(self) -> list[TP]:
        return sorted(TP(tp.topic, tp.partition) for tp in self.assignment() if tp.topic == TRADES)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """A rebalance begins: what was fetched so far continues nothing, and the state is let go once it is durable."""
        self._times.begin()
        self._next.clear()
        await super().on_partitions_revoked(revoked)
        await self.app.release()

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """A rebalance ends; the positions come with `perform_seek`."""
        self._times.join(has_none=not assigned)
        rebalances.labels("aggregate").inc()
        self._next.clear()
        self._restoring.began()
        self.app.begin_epoch_check()
        await super().on_partitions_assigned(assigned, generation_id)

    @property
    def client(self) -> Any:
        """The client that its thread has, or None while it has not been made."""
        return self._thread._consumer

    @property
    def takes_up(self) -> bool:
        """Whether a start or a rebalance has not come to its end yet."""
        return self._times.ongoing

    @property
    def restored_records(self) -> int:
        """How many records of changelogs tables have taken up so far."""
        return self._restoring.total

    def close(self) -> None:
        """Leave closing to the consumer's thread, which does it when it ends.

        Faust's way closes the client under the coordinator, in another thread's loop: the coordinator then waits for
        metadata for ever, and the group is never left.
        """

    async def wait_empty(self) -> None:
        """Wait until everything handed out has been acknowledged; a checkpoint now rather than when it is due."""
        await self.app.settle()
        await super().wait_empty()

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Look whether the client still fetches.

        What else Faust looks at are its own commits and streams. It calls it an error when a partition has never had
        a record, and says that it should be reported. Whether this worker gets on, its checkpoints tell.
        """
        self._thread._verify_aiokafka_event_path(now, tp)

    def mark_durable(self, partition: int, end: int) -> None:
        """All effects of `trades` in `partition` up to `end` (exclusive) are acknowledged: that may be committed."""
        self._durable[TP(TRADES, partition)] = end

    def end_of(self, partition: int) -> int | None:
        """The end of `trades` in `partition` as of the last fetch; None when it is not known, or is not ours.

        That of all that is written: records of a transaction that is still open are yet to come.
        """
        try:
            end: int | None = self.highwater(TP(TRADES, partition))
        except AssertionError:  # aiokafka's answer for a partition that a rebalance has just taken away
            return None
        return end

    def known_ends(self) -> dict[int, KnownEnds]:
        """Both ends of each partition of `trades` that is ours, as of the last fetch, where there was one."""
        ends: dict[int, KnownEnds] = {}
        if self.client is None:
            return ends
        for tp in self._trades_partitions():
            try:
                stable, written = self.client.last_stable_offset(tp), self.client.highwater(tp)
            except AssertionError:  # as in `end_of`
                continue
            if stable is not None and written is not None:
                ends[tp.partition] = KnownEnds(stable, written)
        return ends

    async def ask_ends(self, partitions: Iterable[int]) -> dict[int, int]:
        """The ends of `trades` in `partitions`, asked for now; none where Kafka does not tell soon.

        That of the last fetch may be from before this process stood still.
        """
        asked = [TP(TRADES, partition) for partition in partitions]
        try:
            ends = await self._thread.call_thread(self._ask_ends, asked)
        except (driver.KafkaError, TimeoutError) as error:
            _weather.warning("Kafka does not say where topic trades ends, quiet windows wait", error=repr(error))
            return {}
        return {tp.partition: end for tp, end in ends.items()}

    async def _ask_ends(self, asked: Sequence[TP]) -> Mapping[TP, int]:
        """In the consumer's thread, where the bound must be too: it has few workers, which fetch as well."""
        async with asyncio.timeout(ASK_END_TIMEOUT_S):
            return await written_ends(self._thread._ensure_consumer(), asked)

    def _new_offset(self, tp: TP) -> int | None:
        """What to commit: what a checkpoint has made durable.

        Faust's own bookkeeping looks for runs of consecutive numbers, which chunks are not, and counts as
        acknowledged what it has itself thrown away at a rebalance.
        """
        if tp.topic != TRADES:
            offset: int | None = super()._new_offset(tp)
            return offset
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        return self._durable.get(TP(tp.topic, tp.partition))

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Faust would mark the offsets inside a chunk as missing, and its commits would stall."""
        if tp.topic != TRADES:
            await super()._add_gap(tp, offset_from, offset_to)


class _ConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]  # Faust is not typed
    """The thread of the client, whose answers are looked at before they are taken apart."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        kernel = load_kernel() if self.app.settings.native_fold else None
        self._readers: Mapping[str, RecordReader] = {}
        self._chunk_size = ChunkSize()
        if kernel is not None:
            changelogs = dict.fromkeys(self.consumer.app.changelogs, partial(read_newest, kernel))
            self._readers = changelogs | {TRADES: partial(scan, kernel)}

    def _create_consumer(self, loop: asyncio.AbstractEventLoop) -> Any:
        if self._readers:
            keep_bytes()
        client = super()._create_consumer(loop)
        pace_failures(client._client)
        settings = self.consumer.app.settings
        adapt(client._client, settings)
        read_near(client, settings.kafka_rack)
        # Faust lets only a worker that writes transactions leave out what others have aborted.
        client._isolation_level = COMMITTED
        client._fetch_max_wait_ms = FETCH_WAIT_MS
        self.consumer.elections.watch(client)
        FetchPace().watch(client)
        return client

    async def on_start(self) -> None:
        """Start the client; of one with an instance id, see that nobody else has it."""
        await super().on_start()
        if self.app.conf.consumer_group_instance_id is not None:
            self.consumer.instance_guard.watch(self._consumer)

    async def _fetch_records(
        self,
        consumer: Any,
        active_partitions: frozenset[TP],
        timeout: float,  # noqa: ASYNC109 - Faust's signature
        max_records: int,
    ) -> Mapping[TP, Span]:
        """What comes next, from where to where; Faust's own would tell only of the records in between.

        `max_records`: of few symbols, see `ChunkSize`.
        """
        if not self.consumer.flow_active:
            return {}
        spans = await fetch_spans(
            consumer,
            active_partitions,
            wait_s=timeout,
            max_records=self._chunk_size.most(max_records),
            bare=self.consumer.app.changelogs,
            raw=self._readers,
        )
        for span in spans.values():
            if isinstance(span.records, ScannedRecords):
                self._chunk_size.saw(len(span.records), span.records.scanned.symbol_count, max_records)
        return spans


class Producer(driver.Producer):  # type: ignore[misc]  # Faust is not typed
    """Faust makes its producer idempotent only in transactions, Ashi's always is; and it takes many records at once."""

    logger = FAUST_LOGGER
    batches: RecordBatches | None = None
    """Once it is connected."""

    async def on_start(self) -> None:
        """Connect."""
        await super().on_start()
        self.batches = RecordBatches(self._producer, self.app.settings)

    async def on_stop(self) -> None:
        """Disconnect. What was sent and not awaited may be lost."""
        if self.batches is not None:
            self.batches.close()
        await super().on_stop()

    def _new_producer(self, *arguments: Any, **options: Any) -> Any:
        producer = super()._new_producer(*arguments, **options)
        pace_failures(producer.client)
        adapt(producer.client, self.app.settings)
        return producer

    def _settings_extra(self) -> Mapping[str, Any]:
        return {"acks": "all", "enable_idempotence": True, "partitioner": murmur2_partitioner}


class Transport(driver.Transport):  # type: ignore[misc]  # Faust is not typed
    """The transport that the URL scheme `ashi-batch` stands for."""

    Consumer: ClassVar[type] = Consumer
    Producer: ClassVar[type] = Producer

"""Faust's own parts in this process, without a broker: a thread, a producer and a consumer that do as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from aiokafka.producer.message_accumulator import BatchBuilder
from faust.transport.producer import ProducerBuffer
from faust.types import TP
from faust.types.tuples import ConsumerMessage
from faust_apps import (
    TP0,
    record,
)

from ashi.contracts import Trade
from ashi.contracts.topics import TRADES
from ashi.runtime.kafka.consuming.spans import Span
from ashi.runtime.kafka.producing.record_batches import OutgoingRecord
from ashi_aggregate.chunk import Chunk
from ashi_aggregate.faust.app import AggregateApp
from ashi_aggregate.faust.transport import ChunkSchema
from kafka_topics.simulated_log import Worker
from samples.hypothesis_strategies import START


class FakeThread:
    """What a Faust consumer asks of Kafka: partitions' first, committed and end offsets, and a fetch."""

    def __init__(self, *owned: int, tells_spans: bool = True) -> None:
        self.tells_spans = tells_spans  # as Ashi's does, and Faust's own does not
        self.owned = {TP(TRADES, number) for number in owned or (0,)}
        self.committed: dict[TP, int | None] = dict.fromkeys(self.owned, 0)
        self.earliest: dict[TP, int] = dict.fromkeys(self.owned, 0)
        self.end: dict[TP, int] = dict.fromkeys(self.owned, 100)
        self.fetched: dict[TP, Any] = {}
        self.sought: list[tuple[TP, int]] = []
        self.commits: list[dict[TP, int]] = []

    def assignment(self) -> set[TP]:
        return self.owned

    async def seek_to_committed(self) -> dict[TP, int | None]:
        return self.committed

    async def seek_wait(self, partitions: dict[TP, int]) -> None:
        self.sought += partitions.items()

    async def earliest_offsets(self, *partitions: TP) -> dict[TP, int]:
        return {tp: self.earliest[tp] for tp in partitions}

    async def highwaters(self, *partitions: TP) -> dict[TP, int]:
        return {tp: self.end[tp] for tp in partitions}

    def highwater(self, tp: TP) -> int:
        return self.end[tp]

    async def getmany(self, _active: set[TP], _timeout: float) -> Any:
        return spans_of(self.fetched) if self.tells_spans else self.fetched

    async def call_thread(self, function: Any, *arguments: Any) -> Any:
        return await function(*arguments)

    async def commit(self, offsets: dict[TP, int]) -> bool:
        self.commits.append(dict(offsets))
        return True


class FakeProducer:
    """Takes what is sent, and acknowledges it or fails as the test says."""

    def __init__(self, app: Any) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.futures: list[asyncio.Future[Any]] = []
        self.buffer = ProducerBuffer()
        self.buffer.app = app

    async def maybe_start(self) -> None:
        return None

    def send_soon(self, promise: Any) -> None:
        self.buffer.put(promise)

    async def flush(self) -> None:
        return None

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder(128 * 1024, 0)

    async def send_batch(self, batch: BatchBuilder, topic: str, *, partition: int) -> asyncio.Future[Any]:
        return await self.send(topic, value=batch.record_count(), partition=partition)

    async def send(self, topic: str, key: Any = None, value: Any = None, **options: Any) -> asyncio.Future[Any]:
        self.sent.append((topic, {"key": key, "value": value} | options))
        self.futures.append(asyncio.get_running_loop().create_future())
        return self.futures[-1]


def consumer_of(app: Any, *owned: int) -> tuple[Any, Any]:
    """The application's consumer, with all of its bookkeeping, over a fake Kafka."""
    consumer = app.consumer
    thread = consumer._thread = FakeThread(*owned, tells_spans=isinstance(app, AggregateApp))
    consumer._active_partitions = set(thread.owned)
    app._producer = FakeProducer(app)
    return consumer, thread


def records(begin: int, end: int) -> list[Any]:
    return [record(offset) for offset in range(begin, end)]


def span(begin: int, end: int) -> Span:
    return Span(begin, end, records(begin, end))


def spans_of(fetched: Mapping[TP, Any]) -> dict[TP, Span]:
    """Fetches that began at their first record and ended after their last; of changelogs keys and values."""

    def span_of(tp: TP, found: list[Any]) -> Span:
        bare = found if tp.topic == TRADES else [(each.key, each.value) for each in found]
        return Span(found[0].offset, found[-1].offset + 1, bare)

    return {tp: found if isinstance(found, Span) else span_of(tp, found) for tp, found in fetched.items()}


def message(offset: int, *, generation: int = 0, value: Any = b"v", tp: TP = TP0) -> ConsumerMessage:
    return ConsumerMessage(
        tp.topic, tp.partition, offset, 0.0, 1, [], b"k", value, None, tp=tp, generation_id=generation
    )


async def fetched_by(consumer: Any) -> list[tuple[TP, Any]]:
    return [item async for item in consumer.getmany(1.0)]


async def drain(consumer: Any, *messages: Any) -> None:
    """Let Faust's own fetch loop handle these messages, as one fetch, and acknowledge each in order."""
    fetcher = SimpleNamespace(_stopped=asyncio.Event())

    async def getmany(timeout: float) -> AsyncIterator[Any]:  # noqa: ASYNC109
        for each in messages:
            yield each.tp, each
        fetcher._stopped.set()

    async def callback(each: Any) -> None:
        consumer.ack(each)

    consumer.getmany, consumer.callback = getmany, callback
    await consumer._drain_messages(fetcher)
    del consumer.getmany


def stream_of(app: Any, *messages: Any) -> Any:
    """A stream of `trades` in which these messages wait, as the fetch loop delivers them."""
    stream = app.topic(TRADES, schema=ChunkSchema()).stream()
    for each in messages:
        each.incref()
        app.consumer.track_message(each)
        stream.channel.queue.put_nowait(app.create_event(each.key, each.value, each.headers, each))
    return stream


def trade(symbol: str, at: int, number: int = 0) -> Trade:
    return Trade(symbol, str(number), Decimal(5), Decimal(1), "buy", START + at, START + at, number)


class HeldWorker(Worker):
    """A worker whose sends stay unacknowledged until the test says otherwise."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.topics: list[str] = []
        self.places: list[tuple[str, bytes | None, int]] = []
        self.waiting: list[asyncio.Future[Any]] = []
        self.durable: dict[int, int] = {}
        self.acknowledged = 0

    async def send(self, topic: str, partition: int, records: Sequence[OutgoingRecord]) -> Awaitable[Any]:
        self.topics.append(topic)
        self.places += [(topic, key, partition) for key, _, _ in records]
        self.waiting.append(asyncio.get_running_loop().create_future())
        return self.waiting[-1]

    def mark_durable(self, partition: int, end: int) -> None:
        self.durable[partition] = end

    async def read_all(self, partition: int) -> None:
        async def acknowledge() -> None:
            self.acknowledged += 1

        log = self.broker.trades[partition]
        await self.pipeline.on_chunk(Chunk(partition, 0, len(log), log), acknowledge)

    def acknowledge_all(self) -> set[str]:
        """Acknowledge what has been sent so far; gives to which topics that was."""
        waiting, self.waiting = self.waiting, []
        sent, self.topics = self.topics, []
        for each in waiting:
            each.set_result(SimpleNamespace(timestamp=0, timestamp_type=1))
        return set(sent)

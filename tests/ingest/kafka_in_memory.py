"""A Kafka in memory, as far as an ingest worker uses one: records in the order of their acknowledgment.

It takes what the real producer would be given and gives what real consumers would read, so the worker's own publisher
runs on top. How long an acknowledgment takes is up to the test, for each topic, as on a real one whose partitions have
different leaders.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from aiokafka import TopicPartition

from ashi.contracts.topics import TRADES
from ashi.runtime.kafka.cluster import access, ends, writers_time
from ashi.runtime.kafka.connections import clients, reach
from ashi.runtime.kafka.connections.clients import partition_of
from ashi.runtime.kafka.consuming import follow, records

PARTITIONS = {TRADES: 12}
MOST_IN_A_BATCH = 500
ROOMS = ("ashi_ingest.", "ashi.runtime.waiting")
"""The modules of an ingest worker that talk to Kafka."""


@dataclass(frozen=True)
class Record:
    """As aiokafka's."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    timestamp: int


@dataclass
class KafkaInMemory:
    """The log, all topics.

    Attributes:
        log: all records in the order of their acknowledgment.
        on_record: is told of each, just when it is acknowledged.
        acknowledgment_s: how long it takes for a record of a topic.

    """

    log: list[Record] = field(default_factory=list)
    on_record: Callable[[Record], None] = lambda _: None
    acknowledgment_s: Callable[[str], float] = lambda _: 0.005
    partitions: defaultdict[tuple[str, int], list[Record]] = field(default_factory=lambda: defaultdict(list))
    _due: dict[tuple[str, int], float] = field(default_factory=dict)

    def take(self, topic: str, partition: int, messages: list[tuple[Any, ...]]) -> asyncio.Future[Any]:
        """Acknowledge records some time later, those of a partition one after another."""
        loop = asyncio.get_running_loop()
        due = max(loop.time() + self.acknowledgment_s(topic), self._due.get((topic, partition), 0.0) + 1e-6)
        self._due[topic, partition] = due
        acknowledged: asyncio.Future[Any] = loop.create_future()
        loop.call_at(due, self._append, topic, partition, messages, acknowledged)
        return acknowledged

    def _append(
        self, topic: str, partition: int, messages: list[tuple[Any, ...]], acknowledged: asyncio.Future[Any]
    ) -> None:
        at = self.partitions[topic, partition]
        first = len(at)
        for key, value, headers in messages:
            record = Record(topic, partition, len(at), key, value, tuple(headers), time.time_ns() // 10**6)
            at.append(record)
            self.log.append(record)
            self.on_record(record)
        if not acknowledged.done():
            acknowledged.set_result(_Place(topic, partition, first, time.time_ns() // 10**6))

    @contextmanager
    def installed(self) -> Iterator[None]:
        """While it is, the rooms of ingest that would talk to Kafka talk to this one."""

        async def nothing(*_: Any, **__: Any) -> None:
            pass

        async def read_topic(_: Any, topic: str, *__: Any, **___: Any) -> AsyncIterator[Record]:
            for record in [record for record in self.log if record.topic == topic]:
                yield record

        @asynccontextmanager
        async def assigned_consumer(_: Any, topic: str) -> AsyncIterator[tuple[_Consumer, list[TopicPartition]]]:
            places = [TopicPartition(topic, number) for number in range(PARTITIONS.get(topic, 1))]
            yield _Consumer(self, places), places

        replacements: dict[Any, Any] = {
            follow.TopicFollower: partial(_Follower, self),
            access.require_access: nothing,
            writers_time.warn_of_writers_time: nothing,
            reach.tell_whether_kafka_answers: nothing,
            records.read_topic: read_topic,
            clients.assigned_consumer: assigned_consumer,
            clients.make_producer: lambda *_, **__: _Producer(self),
            ends.stable_ends: ends.stable_ends,  # asks the consumer that it is given
            records.fetch_to: records.fetch_to,  # likewise
        }
        with pytest.MonkeyPatch.context() as patch:
            for name, module in list(sys.modules.items()):
                if name.startswith(ROOMS):
                    for attribute, value in list(vars(module).items()):
                        if getattr(value, "__module__", "").startswith("ashi.runtime.kafka") and callable(value):
                            if value in replacements:
                                patch.setattr(module, attribute, replacements[value])
                            elif inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(value):
                                raise AssertionError(f"{name} asks Kafka by {attribute}: give it a replacement here")
            yield


@dataclass(frozen=True)
class _Place:
    topic: str
    partition: int
    offset: int
    timestamp: int
    timestamp_type: int = 1


class BatchBuilder:
    """What a producer of aiokafka gives for a batch, as far as it is used. Takes `most` messages."""

    def __init__(self, most: int = MOST_IN_A_BATCH) -> None:
        self.messages: list[tuple[Any, ...]] = []
        self.closed = False
        self._most = most

    def append(self, *, timestamp: int | None, key: bytes, value: bytes, headers: Any) -> object | None:
        assert timestamp is None
        if self.closed or len(self.messages) >= self._most:
            return None
        self.messages.append((key, value, headers))
        return self

    def record_count(self) -> int:
        return len(self.messages)

    def close(self) -> None:
        self.closed = True


class _Producer:
    def __init__(self, kafka: KafkaInMemory) -> None:
        self._kafka = kafka

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def flush(self) -> None:
        pass

    async def partitions_for(self, topic: str) -> set[int]:
        return set(range(PARTITIONS.get(topic, 1)))

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder()

    async def send_batch(self, batch: BatchBuilder, topic: str, *, partition: int) -> asyncio.Future[Any]:
        return self._kafka.take(topic, partition, batch.messages)

    async def send(
        self, topic: str, value: bytes | None, *, key: bytes, headers: Any = (), **_: Any
    ) -> asyncio.Future[Any]:
        return self._kafka.take(topic, partition_of(key, PARTITIONS.get(topic, 1)), [(key, value, headers)])


class _Consumer:
    def __init__(self, kafka: KafkaInMemory, places: list[TopicPartition]) -> None:
        self._kafka = kafka
        self._positions = dict.fromkeys(places, 0)
        self._paused: set[TopicPartition] = set()

    def _records(self, place: TopicPartition) -> list[Record]:
        return self._kafka.partitions[place.topic, place.partition]

    def pause(self, *places: TopicPartition) -> None:
        self._paused.update(places)

    def resume(self, *places: TopicPartition) -> None:
        self._paused.difference_update(places)

    def seek(self, place: TopicPartition, offset: int) -> None:
        self._positions[place] = offset

    async def position(self, place: TopicPartition) -> int:
        return self._positions[place]

    async def beginning_offsets(self, places: Any) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, 0)

    async def end_offsets(self, places: Any) -> dict[TopicPartition, int]:
        return {place: len(self._records(place)) for place in places}

    async def offsets_for_times(self, times: dict[TopicPartition, int]) -> dict[TopicPartition, Any]:
        found = {}
        for place, ms in times.items():
            later = [record for record in self._records(place) if record.timestamp >= ms]
            found[place] = later[0] if later else None
        return found

    async def getmany(self, *places: TopicPartition, timeout_ms: int = 0, **_: Any) -> dict[TopicPartition, Any]:
        found = {}
        for place in places or self._positions:
            if place not in self._paused and (new := self._records(place)[self._positions[place] :]):
                found[place] = new
                self._positions[place] += len(new)
        if not found:
            await asyncio.sleep(timeout_ms / 1000)
        return found


class _Follower:
    """As `ashi.runtime.kafka.consuming.follow.TopicFollower`."""

    def __init__(self, kafka: KafkaInMemory, _: Any, topic: str, **__: Any) -> None:
        places = [TopicPartition(topic, number) for number in range(PARTITIONS.get(topic, 1))]
        self._consumer = _Consumer(kafka, places)
        self._places = places
        self.positions: dict[int, int] = {}

    async def open(self, start: Any) -> None:
        match start:
            case "beginning":
                offsets = await self._consumer.beginning_offsets(self._places)
            case "end":
                offsets = await self._consumer.end_offsets(self._places)
            case int():
                offsets = await self._consumer.end_offsets(self._places)
                found = await self._consumer.offsets_for_times(dict.fromkeys(self._places, start))
                offsets |= {place: entry.offset for place, entry in found.items() if entry is not None}
            case _:
                raise AssertionError(f"not simulated: {start}")
        for place, offset in offsets.items():
            self._consumer.seek(place, offset)
        await self._note_positions()

    async def ends(self) -> dict[int, int]:
        return {place.partition: end for place, end in (await self._consumer.end_offsets(self._places)).items()}

    async def poll(self, wait_s: float) -> list[Record]:
        found = await self._consumer.getmany(timeout_ms=int(wait_s * 1000))
        await self._note_positions()
        return [record for each in found.values() for record in each]

    async def close(self) -> None:
        pass

    async def _note_positions(self) -> None:
        self.positions = {place.partition: await self._consumer.position(place) for place in self._places}

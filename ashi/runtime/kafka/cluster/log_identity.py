"""Which log a topic holds, not only how long it is: an offset says nothing once a log was cut or a topic made anew.

Whoever remembers an offset also remembers fingerprints of records that it has read, and compares them with what stands
at those places now. The topic's id (KIP-516) and the epochs of its partitions' leaders only say sooner that it is time
to look: records decide, so that a topic which was restored record by record is still the same log.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol
from zlib import crc32

import msgspec
from aiokafka import TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from ashi.contracts.errors import BrokerError
from ashi.runtime.kafka.cluster.ends import stable_ends
from ashi.runtime.kafka.cluster.topic_ids import TopicIdentity, identify
from ashi.runtime.kafka.connections.clients import MAX_BATCH_BYTES, make_consumer
from ashi.runtime.kafka.connections.errors import broker_errors
from ashi.runtime.kafka.connections.naming import kafka_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from aiokafka import AIOKafkaConsumer

    from ashi.runtime.settings import Settings

TIMEOUT_S: Final = 30.0
"""In which a broker must have shown the records asked for."""
_WAIT_MS: Final = 200


class AppendedRecord(Protocol):
    """What is needed of a record; `timestamp` is in ms."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int


class Fingerprint(msgspec.Struct, frozen=True, array_like=True):
    """What tells the record at an offset from another one that took its place. In JSON an array of three numbers.

    Attributes:
        offset: where it stands in its partition.
        append_time_ms: its timestamp, ms: that of the broker where the topic takes append time.
        checksum: CRC-32 over its timestamp, key and value.

    """

    offset: int
    append_time_ms: int
    checksum: int


def fingerprint_of(record: AppendedRecord) -> Fingerprint:
    """The fingerprint of a record as it was fetched."""
    key, value = record.key or b"", record.value or b""
    place = record.timestamp.to_bytes(8, "big", signed=True) + len(key).to_bytes(4, "big")
    return Fingerprint(record.offset, record.timestamp, crc32(value, crc32(key, crc32(place))))


class Standing(NamedTuple):
    """What a partition holds now.

    Attributes:
        begin: offset of the first record it still has.
        end: offset after the last one.
        found: the records at the offsets asked for; one that has expired, or was never written, is left out.

    """

    begin: int
    end: int
    found: Mapping[int, Fingerprint]


class Difference(NamedTuple):
    """A record that was read and does not stand at its place any more; `found` is None where there is none."""

    expected: Fingerprint
    found: Fingerprint | None
    end: int

    def __str__(self) -> str:
        was = f"offset {self.expected.offset} held a record of {self.expected.append_time_ms} ms"
        was += f" with checksum {self.expected.checksum:08x} when it was read"
        if self.found is not None:
            return f"{was}, and now holds one of {self.found.append_time_ms} ms with {self.found.checksum:08x}"
        if self.expected.offset >= self.end:
            return f"{was}, and now the log ends at offset {self.end}"
        return f"{was}, and now holds none"


def difference(known: Iterable[Fingerprint], standing: Standing, *, compacted: bool = False) -> Difference | None:
    """The first of the records known that is not in the log any more; None when all are, or have expired.

    `standing` must have been asked for all their offsets. Of a `compacted` topic a record that is gone says nothing,
    unless the log ends before it.
    """
    for expected in sorted(known, key=lambda each: each.offset):
        found = standing.found.get(expected.offset)
        if expected.offset < standing.begin or found == expected:
            continue
        if found is None and compacted and expected.offset < standing.end:
            continue
        return Difference(expected, found, standing.end)
    return None


class ObservedLog(Protocol):
    """What can be asked of a topic as it stands now. `LogProbe` is the real one."""

    async def identity(self) -> TopicIdentity:
        """Which topic it is, and the epochs of its leaders. Raises BrokerError."""

    async def standing(self, offsets: Mapping[int, Sequence[int]]) -> Mapping[int, Standing]:
        """What stands now at these offsets of partitions. Raises BrokerError."""


async def observe(log: ObservedLog, known: Mapping[int, Sequence[Fingerprint]]) -> Mapping[int, Standing]:
    """What stands now where the records known were read; partitions of which none is known are not asked for.

    Raises BrokerError.
    """
    asked = {partition: [each.offset for each in records] for partition, records in known.items() if records}
    return await log.standing(asked) if asked else {}


def differences(known: Mapping[int, Sequence[Fingerprint]], standings: Mapping[int, Standing]) -> dict[int, Difference]:
    """`difference` of each partition that was observed and has one."""
    found = {partition: difference(known[partition], standing) for partition, standing in standings.items()}
    return {partition: each for partition, each in found.items() if each is not None}


def thin_out(known: Sequence[Fingerprint]) -> list[Fingerprint]:
    """Of the fingerprints known the newest, and older ones at distances that double: some forty at most.

    Called whenever one is added it keeps some of each distance, however far the log goes.
    """
    ordered = sorted(known, key=lambda each: each.offset)
    kept: dict[int, Fingerprint] = {}
    for each in ordered:
        # The oldest of each distance stays until it has come to the next one; so none runs empty for long.
        kept.setdefault((ordered[-1].offset - each.offset).bit_length(), each)
    return sorted(kept.values(), key=lambda each: each.offset)


class LogProbe:
    """Looks at records of one topic, outside any group. It reads at most a fetch for each offset."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        self._consumer: AIOKafkaConsumer | None = None
        self._one_at_a_time = asyncio.Lock()

    async def identity(self) -> TopicIdentity:
        """The topic's id and its leaders' epochs, as far as the broker tells them. Raises BrokerError."""
        async with self._one_at_a_time:
            consumer = await self._connected()
            with broker_errors(self._settings):
                return await identify(consumer._client, self._topic)

    async def standing(self, offsets: Mapping[int, Sequence[int]], timeout_s: float = TIMEOUT_S) -> dict[int, Standing]:
        """What stands at some offsets of partitions. Raises BrokerError when that cannot be told in time."""
        if not offsets:
            return {}
        async with self._one_at_a_time:
            try:
                with broker_errors(self._settings):
                    async with asyncio.timeout(timeout_s):
                        consumer = await self._connected()
                        while True:
                            try:
                                return await self._look(consumer, offsets)
                            except OffsetOutOfRangeError:
                                continue  # the log has moved on, or was cut, since it was asked where it begins
            except BrokerError as error:
                raise BrokerError(
                    f"the records of topic {kafka_name(self._settings, self._topic)} at {dict(offsets)} could "
                    f"not be read within {timeout_s:g} s: {error}"
                ) from error

    async def close(self) -> None:
        """Disconnect. May be called at any time."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()

    async def _connected(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            consumer = make_consumer(
                self._settings,
                group_id=None,
                auto_offset_reset="none",
                rack=None,  # what stands in the log its leader says, wherever else it is read
                # One batch is enough; a larger one comes all the same.
                max_partition_fetch_bytes=MAX_BATCH_BYTES + 16 * 1024,
            )
            await consumer.start()
            self._consumer = consumer
        return self._consumer

    async def _look(self, consumer: AIOKafkaConsumer, offsets: Mapping[int, Sequence[int]]) -> dict[int, Standing]:
        assigned = [TopicPartition(self._topic, partition) for partition in offsets]
        consumer.assign(assigned)
        begins = await consumer.beginning_offsets(assigned)
        ends = await stable_ends(consumer, assigned)
        found: dict[TopicPartition, dict[int, Fingerprint]] = {at: {} for at in assigned}
        left = {}
        for at in assigned:
            asked = sorted({offset for offset in offsets[at.partition] if begins[at] <= offset < ends[at]})
            if asked:
                left[at] = deque(asked)
                consumer.seek(at, asked[0])
            else:
                consumer.pause(at)
        while left:
            for at, records in (await consumer.getmany(*left, timeout_ms=_WAIT_MS)).items():
                for record in records:
                    if left[at] and record.offset == left[at][0]:
                        found[at][record.offset] = fingerprint_of(record)
                    while left[at] and record.offset >= left[at][0]:
                        left[at].popleft()
            for at in list(left):
                # The position tells where there is no record at all: a transaction's marker takes an offset too.
                position = await consumer.position(at)
                while left[at] and position > left[at][0]:
                    left[at].popleft()
                if not left[at]:
                    del left[at]
                    consumer.pause(at)
                elif position < left[at][0]:
                    consumer.seek(at, left[at][0])
        return {at.partition: Standing(begins[at], ends[at], found[at]) for at in assigned}


@asynccontextmanager
async def log_probe(settings: Settings, topic: str) -> AsyncIterator[LogProbe]:
    """A probe that is closed at the end."""
    probe = LogProbe(settings, topic)
    try:
        yield probe
    finally:
        await probe.close()

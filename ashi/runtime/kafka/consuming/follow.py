"""Reading a whole topic on and on, from a place that the caller knows. No group, nothing is committed.

An offset says nothing once a log was cut or a topic made anew, so records that were read are remembered by their
fingerprints (`ashi.runtime.kafka.cluster.log_identity`) and must still stand where they stood.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from ashi.contracts.errors import BrokerError, StateError
from ashi.contracts.topics import COMPACTED
from ashi.runtime.kafka.cluster.ends import stable_ends
from ashi.runtime.kafka.cluster.log_identity import Fingerprint, difference, fingerprint_of, log_probe
from ashi.runtime.kafka.cluster.topic_ids import TopicIdentity, identify
from ashi.runtime.kafka.connections.clients import make_consumer, partitions_of
from ashi.runtime.kafka.connections.errors import broker_errors

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from ashi.runtime.kafka.cluster.log_identity import Standing
    from ashi.runtime.settings import Settings


class ReadTo(NamedTuple):
    """Where somebody was in a topic, and which topic it was.

    Attributes:
        offsets: of the next record of each partition; one without is new and begins at its beginning.
        last_read: the last record that was read of each partition, as far as one was.
        topic_id: None where none is known.

    """

    offsets: Mapping[int, int]
    last_read: Mapping[int, Fingerprint]
    topic_id: str | None


Start: TypeAlias = "Literal['beginning', 'end'] | int | ReadTo"
"""Where to begin: at the first record kept, after the last one, at the first that was written at or after a time (ms
since the epoch), or where somebody was."""

MAX_RECORDS: Final = 500
"""The most records that one poll gives; the client library holds some more that it has fetched ahead."""
LOOK_EVERY_S: Final = 1.0
"""So often, while records come, Kafka is asked for the topic's id and the leaders: one small request. Before records of
a partition that had none for so long it is asked in any case, as an election that is not clean takes longer."""
PAUSE_S: Final = 0.2
REMEMBERED: Final = 8
"""Fingerprints of a partition: of the last record of so many polls, should a broker learn of an election late."""


class TopicFollower:
    """All partitions of a topic, those that are added later too.

    A broker that restarts or hands a partition to another is waited for, however long it is away.

    Attributes:
        positions: the offset of the next record of each partition, as of the last poll.
        last_read: the last record before them, as of the opening.
        topic_id: of the topic; None where the broker knows of none.

    """

    def __init__(self, settings: Settings, topic: str, **options: Any) -> None:
        """`options` are for the client library."""
        self._settings = settings
        self._topic = topic
        self.positions: dict[int, int] = {}
        self.last_read: dict[int, Fingerprint] = {}
        self._identity = TopicIdentity(None, {})
        self._known: dict[int, deque[Fingerprint]] = {}
        self._came_s: dict[int, float] = {}
        self._looked_s = 0.0
        self._held: Sequence[Any] = ()
        # No reset: records that expire before they were read are missing, and nobody would know.
        self._consumer = make_consumer(settings, group_id=None, **{"auto_offset_reset": "none", **options})

    @property
    def topic_id(self) -> str | None:
        """Of the topic that is read; None where the broker knows of none."""
        return self._identity.topic_id

    async def open(self, start: Start) -> None:
        """Connect and go to `start`.

        Raises BrokerError when Kafka cannot be reached or has no such topic, and StateError when it does not have the
        records of an offset in `start` any more, or not yet, or others than those that were read before it.
        """
        partitions = await partitions_of(self._settings, self._topic)
        await self._consumer.start()
        with broker_errors(self._settings):
            self._identity = await identify(self._consumer._client, self._topic)
            first = self._by_number(await self._consumer.beginning_offsets(partitions))
            end = self._by_number(await stable_ends(self._consumer, partitions))
            if start == "beginning":
                positions = first
            elif start == "end":
                positions = end
            elif isinstance(start, int):
                found = await self._consumer.offsets_for_times(dict.fromkeys(partitions, start))
                positions = end | {partition.partition: entry.offset for partition, entry in found.items() if entry}
            else:
                self._check(start, first, end)
                positions = first | dict(start.offsets)
        await self._look_before(positions, first, start if isinstance(start, ReadTo) else None)
        self._assign(positions)

    @property
    def last_ends(self) -> dict[int, int]:
        """The end of each partition as Kafka said it when it was asked for records last; asks for nothing."""
        said = {each.partition: self._consumer.last_stable_offset(each) for each in self._consumer.assignment()}
        return {number: end for number, end in said.items() if end is not None}

    async def ends(self) -> dict[int, int]:
        """The end of each partition. Raises BrokerError when Kafka cannot be reached."""
        with broker_errors(self._settings):
            return self._by_number(await stable_ends(self._consumer, self._consumer.assignment()))

    async def poll(self, wait_s: float) -> Sequence[Any]:
        """The next records, in order within each partition; waits for the first of them at most `wait_s` seconds.

        Raises BrokerError when the login is refused, and StateError when records expired before they were read, or when
        those that were read before do not stand in the log any more. One that is cancelled loses no records.
        """
        if not self._held:
            self._take_new_partitions()
        try:
            with broker_errors(self._settings):
                if not self._held:
                    fetched = await self._consumer.getmany(timeout_ms=int(wait_s * 1_000), max_records=MAX_RECORDS)
                    self._held = [record for records in fetched.values() for record in records]
                if self._held and not await self._still_stands():
                    await asyncio.sleep(min(wait_s, PAUSE_S))
                    return ()
                for assigned in self._consumer.assignment():
                    # The position, not the last record, tells the place: compaction may have removed the last ones.
                    self.positions[assigned.partition] = await self._consumer.position(assigned)
        except OffsetOutOfRangeError as error:
            [(failed, offset)] = error.args[0].items()
            raise self._lost(failed.partition, f"offset {offset}, the next to be read, is not in the log") from None
        records, self._held = self._held, ()
        return records

    async def close(self) -> None:
        """Disconnect. May be called at any time, and again."""
        await self._consumer.stop()

    def _assign(self, positions: Mapping[int, int]) -> None:
        self.positions = dict(positions)
        self._consumer.assign([TopicPartition(self._topic, number) for number in sorted(positions)])
        for number, offset in positions.items():
            self._consumer.seek(TopicPartition(self._topic, number), offset)

    def _take_new_partitions(self) -> None:
        added = (self._consumer.partitions_for_topic(self._topic) or set()) - self.positions.keys()
        if added:
            self._assign(self.positions | dict.fromkeys(added, 0))

    async def _still_stands(self) -> bool:
        """Whether the records before those that are held are the ones that were read. False: Kafka does not say now."""
        now_s = time.monotonic()
        last = {record.partition: record for record in self._held}
        came_s = min(self._came_s.get(number, 0.0) for number in last)
        if now_s - min(came_s, self._looked_s) >= LOOK_EVERY_S:
            try:
                identity = await identify(self._consumer._client, self._topic)
                if identity != self._identity:
                    await self._compare(self._known)
            except KafkaError as error:
                if not error.retriable:
                    raise
                return False
            except BrokerError:
                return False
            self._identity, self._looked_s = identity, now_s
        for number, record in last.items():
            self._came_s[number] = now_s
            self._known.setdefault(number, deque(maxlen=REMEMBERED)).append(fingerprint_of(record))
        return True

    async def _look_before(self, positions: Mapping[int, int], first: Mapping[int, int], start: ReadTo | None) -> None:
        """Take note of the record before each position, or of the one that was read last, which must still stand."""
        read = {} if start is None else start.last_read
        places = {number: read[number].offset if number in read else offset - 1 for number, offset in positions.items()}
        async with log_probe(self._settings, self._topic) as probe:
            standings = await probe.standing(
                {number: [offset] for number, offset in places.items() if offset >= first[number]}
            )
        self._judge({number: [read[number]] for number in standings if number in read}, standings)
        self.last_read = {number: each for number, now in standings.items() for each in now.found.values()}
        self._known = {number: deque([each], maxlen=REMEMBERED) for number, each in self.last_read.items()}
        if start is None or None in (start.topic_id, self.topic_id) or start.topic_id == self.topic_id:
            return
        for number, offset in start.offsets.items():
            if offset and not (number in read and number in self.last_read):
                raise self._lost(
                    number,
                    f"the topic's id was {start.topic_id} and is {self.topic_id}, and no record that was read is there "
                    "to compare",
                )

    async def _compare(self, known: Mapping[int, Collection[Fingerprint]]) -> None:
        async with log_probe(self._settings, self._topic) as probe:
            asked = {number: [each.offset for each in records] for number, records in known.items()}
            self._judge(known, await probe.standing(asked))

    def _judge(self, known: Mapping[int, Collection[Fingerprint]], standings: Mapping[int, Standing]) -> None:
        for number, records in known.items():
            if (found := difference(records, standings[number], compacted=self._topic in COMPACTED)) is not None:
                raise self._lost(number, f"{found}; the log was cut or the topic made anew")

    def _check(self, start: ReadTo, first: Mapping[int, int], end: Mapping[int, int]) -> None:
        for number, offset in start.offsets.items():
            if number not in end:
                raise self._lost(number, "there is no such partition, so the topic was made anew")
            if offset < first[number]:
                raise self._lost(number, f"the records from offset {offset} to {first[number] - 1} have expired")
            if offset > end[number]:
                raise self._lost(number, f"it ends at {end[number]}, before {offset}, so the topic was made anew")

    def _lost(self, number: int, what: str) -> StateError:
        return StateError(
            f"{self._topic}/{number} of Kafka at {self._settings.kafka_bootstrap} cannot be read on: {what}; "
            "read the topic from its beginning"
        )

    @staticmethod
    def _by_number(offsets: Mapping[TopicPartition, int]) -> dict[int, int]:
        return {partition.partition: offset for partition, offset in offsets.items()}

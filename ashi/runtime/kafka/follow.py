"""Reading a whole topic on and on, from a place that the caller knows. No group, nothing is committed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from aiokafka import TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from ashi.contracts.errors import StateError
from ashi.runtime.kafka.clients import make_consumer, partitions_of
from ashi.runtime.kafka.errors import broker_errors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ashi.runtime.settings import Settings

Start: TypeAlias = "Literal['beginning', 'end'] | int | Mapping[int, int]"
"""Where to begin: at the first record kept, after the last one, at the first that was written at or after a time (ms
since the epoch), or at the offset of each partition; a partition without one is new and begins at its beginning."""

MAX_RECORDS: Final = 500
"""The most records that one poll gives; the client library holds some more that it has fetched ahead."""


class TopicFollower:
    """All partitions of a topic, those that are added later too.

    A broker that restarts or hands a partition to another is waited for, however long it is away.

    Attributes:
        positions: the offset of the next record of each partition, as of the last poll.

    """

    def __init__(self, settings: Settings, topic: str, **options: Any) -> None:
        """`options` are for the client library."""
        self._settings = settings
        self._topic = topic
        self.positions: dict[int, int] = {}
        # No reset: records that expire before they were read are missing, and nobody would know.
        self._consumer = make_consumer(settings, group_id=None, **{"auto_offset_reset": "none", **options})

    async def open(self, start: Start) -> None:
        """Connect and go to `start`.

        Raises BrokerError when Kafka cannot be reached or has no such topic, and StateError when it does not have the
        records of an offset in `start` any more, or not yet.
        """
        partitions = await partitions_of(self._settings, self._topic)
        await self._consumer.start()
        with broker_errors(self._settings):
            first = self._by_number(await self._consumer.beginning_offsets(partitions))
            end = self._by_number(await self._consumer.end_offsets(partitions))
            if start == "beginning":
                positions = first
            elif start == "end":
                positions = end
            elif isinstance(start, int):
                found = await self._consumer.offsets_for_times(dict.fromkeys(partitions, start))
                positions = end | {partition.partition: entry.offset for partition, entry in found.items() if entry}
            else:
                self._check(start, first, end)
                positions = first | dict(start)
        self._assign(positions)

    async def ends(self) -> dict[int, int]:
        """The offset after the last record of each partition. Raises BrokerError when Kafka cannot be reached."""
        with broker_errors(self._settings):
            return self._by_number(await self._consumer.end_offsets(self._consumer.assignment()))

    async def poll(self, wait_s: float) -> Sequence[Any]:
        """The next records, in order within each partition; waits for the first of them at most `wait_s` seconds.

        Raises BrokerError when the login is refused, and StateError when records expired before they were read.
        """
        self._take_new_partitions()
        try:
            with broker_errors(self._settings):
                fetched = await self._consumer.getmany(timeout_ms=int(wait_s * 1_000), max_records=MAX_RECORDS)
                for assigned in self._consumer.assignment():
                    # The position, not the last record, tells the place: compaction may have removed the last ones.
                    self.positions[assigned.partition] = await self._consumer.position(assigned)
        except OffsetOutOfRangeError as error:
            [(failed, offset)] = error.args[0].items()
            raise self._lost(failed.partition, f"offset {offset}, the next to be read, is not in the log") from None
        return [record for records in fetched.values() for record in records]

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

    def _check(self, start: Mapping[int, int], first: Mapping[int, int], end: Mapping[int, int]) -> None:
        for number, offset in start.items():
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

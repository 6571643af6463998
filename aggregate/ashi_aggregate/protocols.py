"""What the stage needs of whoever runs it: Faust in a worker, a log in memory in the tests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol

from ashi.runtime.kafka.cluster.log_identity import ObservedLog
from ashi.runtime.kafka.producing.record_batches import OutgoingRecord

Acknowledge = Callable[[], Awaitable[object]]
"""Says that a chunk has been dealt with."""


class Acknowledged(Protocol):
    """What Kafka says of a record it has taken.

    Attributes:
        timestamp: the record's, ms since the epoch.
        timestamp_type: 1 where it is the broker's append time, 0 where it is that of whoever sent it.

    """

    timestamp: int
    timestamp_type: int


class StateTable(Protocol):
    """What is needed of a table: its name, and the rows of a partition by key."""

    name: str

    def rows(self, partition: int) -> Mapping[bytes, bytes]:
        """The rows of a partition by key."""

    def put(self, partition: int, key: bytes, value: bytes | None) -> None:
        """Keep a row in memory; None takes it away."""


class LatestLog(Protocol):
    """Where candles in progress are sent. What is lost there is replaced by what comes next."""

    @property
    def is_connected(self) -> bool:
        """Whether records may be posted."""

    async def connect(self) -> None:
        """Connect. Raises BrokerError."""

    def partitions(self) -> int:
        """How many partitions the topic has. Raises BrokerError where that is not known."""

    def post(self, records: Mapping[int, Sequence[OutgoingRecord]]) -> asyncio.Future[None]:
        """Send records to each of these partitions; gives what is done when all are taken, or raises BrokerError."""


class KafkaLog(ObservedLog, Protocol):
    """What the pipeline needs of Kafka; what it can ask of topic `trades` as it stands now is `ObservedLog`'s."""

    async def partitions_of(self, topic: str) -> int:
        """How many partitions a topic has."""

    async def send(self, topic: str, partition: int, records: Sequence[OutgoingRecord]) -> Awaitable[Acknowledged]:
        """Hand over records, at least one, which come after all that was sent to that partition before.

        What is returned completes when all of them have been acknowledged, and tells what Kafka says of the last one.
        May wait until less is on its way. Raises what sending has failed of, now or before.
        """

    async def rewind(self, partition: int, offset: int) -> None:
        """Read `trades` of `partition` again from `offset`."""

    def mark_durable(self, partition: int, end: int) -> None:
        """Let offsets up to `end` (exclusive) be committed."""

    def end_of(self, partition: int) -> int | None:
        """The end of all that is written of `trades` in `partition`, as of the last fetch; None when it is not known.

        What a transaction that is still open has written counts.
        """

    async def ask_ends(self, partitions: Iterable[int]) -> Mapping[int, int]:
        """Such ends of `trades` in `partitions`, asked for now; without those that nobody tells soon."""

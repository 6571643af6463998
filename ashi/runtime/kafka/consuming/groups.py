"""A consumer in a group: partitions come and go between a poll and a commit, and that is no error."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.errors import CommitFailedError, GroupAuthorizationFailedError, IllegalStateError, KafkaError, for_code

from ashi.contracts.errors import BrokerError
from ashi.runtime.kafka.cluster.ends import stable_ends
from ashi.runtime.kafka.cluster.offsets import ask_coordinator
from ashi.runtime.kafka.connections.clients import admin_client
from ashi.runtime.kafka.connections.errors import broker_errors
from ashi.runtime.kafka.connections.naming import kafka_name
from ashi.runtime.logs import get_logger, get_weather_logger

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from aiokafka import AIOKafkaConsumer

    from ashi.runtime.settings import Settings

COMMIT_TIMEOUT_S: Final = 5.0
"""The library would try for ever; the worker has other work, and must be able to stop."""
REBALANCE_PAUSE_S: Final = 0.1
PLACES_TIMEOUT_S: Final = 5.0

NEVER_LEAVE_MS: Final = 2**31 - 1
"""`max_poll_interval_ms` of a worker that polls when it can: whether it hangs is for `/live` to say."""

_log = get_logger(__name__)
_weather = get_weather_logger(__name__)


class GroupView(NamedTuple):
    """A group as its coordinator sees it.

    Attributes:
        members: how many consumers are in it.
        held: the partitions that they have; none while the group rebalances.

    """

    members: int
    held: frozenset[TopicPartition]


async def members(settings: Settings, group: str) -> int:
    """How many consumers are in the group now. Raises BrokerError when Kafka cannot be reached."""
    return (await view_group(settings, group)).members


async def view_group(settings: Settings, group: str) -> GroupView:
    """Who is in the group now, and what they have. Raises BrokerError when Kafka cannot be reached."""
    async with admin_client(settings) as client:

        async def ask() -> GroupView:
            (response,) = await client.describe_consumer_groups([group])
            code, described_members = response.groups[0][0], response.groups[0][5]
            if code:
                raise for_code(code)(group)
            held = {
                partition
                for *_, assignment in described_members
                if assignment
                for partition in ConsumerProtocol.ASSIGNMENT.decode(assignment).partitions()
            }
            return GroupView(len(described_members), frozenset(held))

        try:
            return await ask_coordinator(ask)
        except GroupAuthorizationFailedError:
            raise  # which the client's errors are told by
        except KafkaError as error:
            raise BrokerError(
                f"Kafka at {settings.kafka_bootstrap} does not say who is in group {kafka_name(settings, group)!r} "
                f"({type(error).__name__}): look at the broker's log, then try again"
            ) from error


class RebalanceCounter(ConsumerRebalanceListener):  # type: ignore[misc]  # the library is not typed
    """Counts how often the group has taken a consumer's partitions away, if only to give them back.

    Attributes:
        count: so often a rebalance has begun.
        assigned: so often one has ended.

    """

    def __init__(self) -> None:
        self.count = 0
        self.assigned = 0

    def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:  # noqa: ARG002
        """A rebalance begins: another may commit further than we have read."""
        self.count += 1

    def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:  # noqa: ARG002
        """A rebalance ends: reading goes on from what is committed."""
        self.assigned += 1


def subscribe(consumer: AIOKafkaConsumer, topics: Sequence[str]) -> RebalanceCounter:
    """Let a consumer, not yet started, join its group for `topics`. Gives the count of its rebalances."""
    rebalances = RebalanceCounter()
    consumer.subscribe(topics, listener=rebalances)
    return rebalances


async def commit(consumer: AIOKafkaConsumer, offsets: Mapping[Any, int | tuple[int, str]]) -> bool:
    """Commit `offsets` (TopicPartition to the offset of the next record, or to that and a note of up to 4,096 bytes).

    False: Kafka did not answer, try again later.

    Partitions that the group has given to others meanwhile are left out: whoever has them goes on from what is
    committed and reads the same offsets again, so this is only safe for work that may be done twice.
    """
    held = consumer.assignment()
    kept = {partition: offset for partition, offset in offsets.items() if partition in held}
    if not kept:
        return True
    try:
        async with asyncio.timeout(COMMIT_TIMEOUT_S):
            await consumer.commit(kept)
    except (CommitFailedError, IllegalStateError) as error:
        _log.warning("partitions were given to others before their offsets were committed", error=type(error).__name__)
    except TimeoutError:
        _weather.warning("Kafka does not answer a commit; trying again", timeout_s=COMMIT_TIMEOUT_S)
        return False
    return True


async def places(settings: Settings, consumer: AIOKafkaConsumer) -> dict[Any, tuple[int, int]]:
    """Of each partition the consumer holds, the offset it reads next and the end of the log for readers.

    Raises BrokerError when Kafka does not answer.
    """
    held = consumer.assignment()
    found: dict[Any, tuple[int, int]] = {}
    with broker_errors(settings), suppress(IllegalStateError):  # which says that a rebalance has just taken it away
        async with asyncio.timeout(PLACES_TIMEOUT_S):
            ends = await stable_ends(consumer, held)
            for partition, end in ends.items():
                found[partition] = (await consumer.position(partition), end)
    return found


async def rewind(consumer: AIOKafkaConsumer, topics: Collection[str] | None = None) -> None:
    """Go back to the first record of each partition held, for the group too: a crash does not undo it.

    With `topics` only those of these; the others held go on from what is committed.
    """
    while True:
        held = consumer.assignment()
        begun_anew = {at for at in held if topics is None or at.topic in topics}
        beginnings = await consumer.beginning_offsets(begun_anew) if begun_anew else {}
        try:
            for partition, offset in beginnings.items():
                consumer.seek(partition, offset)
            for partition in held - begun_anew:
                at = await consumer.committed(partition)
                if at is None:
                    await consumer.seek_to_beginning(partition)
                else:
                    consumer.seek(partition, at)
            if beginnings:
                await consumer.commit(beginnings)
        except (CommitFailedError, IllegalStateError):
            await asyncio.sleep(REBALANCE_PAUSE_S)  # a rebalance is under way: once more with what it leaves us
        else:
            return

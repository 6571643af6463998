"""The worker's side of Kafka: records in, offsets and dead letters out."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from ashi.contracts.errors import BrokerError
from ashi.contracts.topics import FEED_GAPS, FEED_STATUS
from ashi.runtime.kafka.cluster.log_identity import LogProbe
from ashi.runtime.kafka.cluster.offsets import committed
from ashi.runtime.kafka.cluster.retention import show_retention
from ashi.runtime.kafka.cluster.topics import require_topics
from ashi.runtime.kafka.cluster.writers_time import warn_of_writers_time
from ashi.runtime.kafka.connections.background import raise_if_dead
from ashi.runtime.kafka.connections.clients import make_consumer, make_producer
from ashi.runtime.kafka.connections.errors import broker_errors
from ashi.runtime.kafka.connections.naming import kafka_name
from ashi.runtime.kafka.consuming.groups import NEVER_LEAVE_MS, commit, places, rewind, subscribe
from ashi.runtime.kafka.consuming.reading_state import reading_state
from ashi.runtime.kafka.consuming.spans import fetch_spans
from ashi.runtime.logs import get_logger, get_weather_logger
from ashi.runtime.metrics.common import rebalances
from ashi_sinks.gaps_first import GapsFirst
from ashi_sinks.place_watch import PlaceWatch
from ashi_sinks.read_log import ReadLog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from ashi.runtime.kafka.cluster.offsets import Committed
    from ashi.runtime.kafka.consuming.reading_state import ReadingState
    from ashi.runtime.kafka.consuming.spans import Span
    from ashi.runtime.kafka.producing.dead_letters import DeadLetter
    from ashi.runtime.settings import Settings
    from ashi_sinks.read_log import Stored

DEAD_LETTERS_TIMEOUT_S: Final = 30.0
COMPARE_TIMEOUT_S: Final = 5.0

_log = get_logger(__name__)
_weather = get_weather_logger(__name__)


class Record(Protocol):
    """A record of a topic, as the client library gives it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    timestamp: int


class SinkConsumer(Protocol):
    """What the worker needs of Kafka; a partition is an opaque key."""

    async def poll(self, most: int, wait_s: float) -> Mapping[Any, Span]:
        """What comes next by partition, at most so many records; waits for it at most `wait_s` seconds.

        A span may hold no record, and its end may lie behind the last one: it is to be read on from there.
        """

    async def send_dead_letters(self, dead_letters: Sequence[DeadLetter]) -> None:
        """Send them and wait until Kafka has them. Raises BrokerError."""

    async def commit(self, offsets: Mapping[Any, int]) -> bool:
        """Commit the offset that each partition is to be read on from. False: not done, to be tried again later.

        Raises StateError when what was committed before does not stand in the log any more.
        """

    async def read_again(self, topic: str) -> None:
        """Read a topic from its beginning, and the others from what is committed; the group does so too.

        Raises BrokerError.
        """


class AssignedPartition(NamedTuple):
    """A partition, and after how many rebalances of the group it was read: what is read after the next is another."""

    partition: Any
    rebalances: int


class KafkaSinkConsumer:
    """The real one: a consumer in the sink's group and a producer for what cannot be stored."""

    def __init__(
        self,
        settings: Settings,
        group: str,
        topics: Sequence[str],
        dead_topic: str,
        *,
        remedy: str = "",
        on_made_anew: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """`dead_topic`: where dead letters go. `remedy`: what to do about a log that is not the one that was read.

        `on_made_anew` is awaited before anything is read of a topic that was made anew meanwhile, and may raise.
        """
        self._settings = settings
        self._group = group
        self._on_made_anew = on_made_anew
        self._probes = {topic: LogProbe(settings, topic) for topic in topics}
        self._log = ReadLog(group, remedy, self._probes.__getitem__)
        self._places = PlaceWatch()
        self._compared = self._counted = 0
        self._held_back: dict[AssignedPartition, Span] = {}
        self._gaps_first = GapsFirst({FEED_STATUS: FEED_GAPS} if FEED_GAPS in topics else {})
        self._committed_before: dict[Any, int] = {}
        self._is_going_back = False
        self._topics = (*topics, dead_topic)
        # While the store is away nothing is polled, for hours if need be, and the worker stays in its group.
        self._consumer = make_consumer(settings, group_id=group, max_poll_interval_ms=NEVER_LEAVE_MS)
        self._rebalances = subscribe(self._consumer, topics)
        self._producer = make_producer(settings)
        self._polled_s = time.monotonic()

    async def start(self) -> None:
        """Connect and join the group. Raises BrokerError when Kafka cannot be reached or lacks a topic."""
        await require_topics(self._settings, self._topics)
        await warn_of_writers_time(self._settings, self._topics)
        await show_retention(self._settings, list(self._probes))
        await self._producer.start()
        await self._consumer.start()

    @property
    def polled_s(self) -> float:
        """See `HeldPartitions.polled_s`."""
        return self._polled_s

    async def places(self) -> Mapping[Any, tuple[int, int]]:
        """See `HeldPartitions.places`."""
        return await places(self._settings, self._consumer)

    @property
    def stored(self) -> Mapping[Any, Stored]:
        """See `HeldPartitions.stored`."""
        return self._log.stored

    @property
    def is_going_back(self) -> bool:
        """See `HeldPartitions.is_going_back`."""
        return self._is_going_back

    @property
    def committed_before(self) -> Mapping[Any, int]:
        """See `HeldPartitions.committed_before`."""
        return self._committed_before

    async def read_again(self, topic: str) -> None:
        """See `SinkConsumer.read_again`."""
        self._is_going_back = True
        found = await committed(self._settings, self._group, topic)
        held = [at for at in self._consumer.assignment() if at.topic == topic and at.partition in found]
        self._committed_before |= {at: found[at.partition].offset for at in held}
        with broker_errors(self._settings):
            await rewind(self._consumer, {topic})
        self._begin_anew()
        self._held_back = {}
        self._compared = 0  # what the group has committed is looked up anew
        self._is_going_back = False

    async def rewind(self) -> None:
        """Read the partitions held from their beginning, and let the group do so if this process ends meanwhile."""
        await rewind(self._consumer)
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._log.forget()
        self._resume(self._gaps_first.forget())

    def _resume(self, keys: Iterable[AssignedPartition]) -> None:
        self._consumer.resume(*(key.partition for key in keys if key.partition in self._consumer.assignment()))

    def _partner(self, key: AssignedPartition, topic: str) -> Any | None:
        partner = key.partition._replace(topic=topic)
        return partner if partner in self._consumer.assignment() else None

    async def poll(self, most: int, wait_s: float) -> Mapping[Any, Span]:
        """See `SinkConsumer.poll`. Raises StateError when the log is not the one that the group has read."""
        fetched = self._held_back or await self._fetch(most, wait_s)
        self._held_back = {}
        while self._compared != self._rebalances.assigned:
            try:
                await self._take_over()
            except BrokerError as error:
                _weather.warning("what the group has read cannot be looked up; trying again", reason=str(error))
                self._held_back = fetched
                await asyncio.sleep(wait_s)
                return {}
        try:
            again = {read: await self._log.where_to_go_on(read.partition, span) for read, span in fetched.items()}
        except BrokerError as error:
            _weather.warning("what was read before cannot be looked up; trying again", reason=str(error))
            self._held_back = fetched
            await asyncio.sleep(wait_s)
            return {}
        # What was fetched before a rebalance is read again after it by whoever has the partition then.
        now = {read: span for read, span in fetched.items() if read.rebalances == self._rebalances.count}
        for read in list(now):
            if (offset := again[read]) is not None:
                self._consumer.seek(read.partition, offset)
                del now[read]
        for read, span in now.items():
            self._log.take(read.partition, span)
            if partitions := self._consumer.partitions_for_topic(read.partition.topic):
                self._places.look(read.partition, span, len(partitions))
        return self._in_order(now)

    def _in_order(self, spans: Mapping[AssignedPartition, Span]) -> dict[AssignedPartition, Span]:
        """What may be handed out now, of what was held too: statuses only after the gaps that they rest on."""

        def state(partition: Any) -> ReadingState | None:
            return reading_state(self._consumer, partition)

        self._gaps_first.forget(lambda key: key.rebalances != self._rebalances.count)  # it is read again
        released = self._gaps_first.release(self._partner, state)
        self._resume(released)
        ready, held = self._gaps_first.hold(spans, self._partner, state)
        self._consumer.pause(*(key.partition for key in held))
        for key, span in released.items():
            ready[key] = span.joined(ready[key]) if key in ready else span  # with an end without a record, perhaps
        return ready

    async def _fetch(self, most: int, wait_s: float) -> dict[AssignedPartition, Span]:
        fetched = await fetch_spans(self._consumer, (), wait_s=wait_s, max_records=most)
        raise_if_dead(self._consumer)
        self._polled_s = time.monotonic()
        return {AssignedPartition(partition, self._rebalances.count): span for partition, span in fetched.items()}

    async def _take_over(self) -> None:
        """Compare what the group has read of the partitions held with what stands in the topics."""
        assigned, held = self._rebalances.assigned, self._consumer.assignment()
        found: dict[Any, Committed] = {}
        for topic in {at.topic for at in held}:
            by_number = await committed(self._settings, self._group, topic)
            found |= {at: by_number[at.partition] for at in held if at.topic == topic and at.partition in by_number}
        self._committed_before = {
            at: before
            for at, before in self._committed_before.items()
            if at in held and (at not in found or found[at].offset < before)
        }
        for topic in sorted(await self._log.take_over(held, found)):
            _log.warning(
                f"topic {kafka_name(self._settings, topic)} was made anew and is read from its beginning; what was "
                "not stored of the old one is lost: look with `ashi verify`, and if trades was made anew too run "
                "`ashi aggregate reconfigure`",
                group=self._group,
            )
            if self._on_made_anew is not None:
                await self._on_made_anew()
        self._compared = assigned
        rebalances.labels("sink").inc(assigned - self._counted)
        self._counted = assigned

    async def send_dead_letters(self, dead_letters: Sequence[DeadLetter]) -> None:
        """See `SinkConsumer.send_dead_letters`."""
        with broker_errors(self._settings):
            async with asyncio.timeout(DEAD_LETTERS_TIMEOUT_S):
                sent = [
                    await self._producer.send(letter.topic, letter.value, letter.key, headers=letter.headers)
                    for letter in dead_letters
                ]
                await asyncio.gather(*sent)

    async def commit(self, offsets: Mapping[Any, int]) -> bool:
        """See `SinkConsumer.commit`."""
        # What was read before a rebalance is not committed after it: another may have come further meanwhile, and the
        # group would go back, with a lag that stays until the next message.
        now = self._rebalances.count
        fresh = {read.partition: offset for read, offset in offsets.items() if read.rebalances == now}
        try:
            async with asyncio.timeout(COMPARE_TIMEOUT_S):
                await self._log.check(fresh)
                noted = {at: (offset, await self._log.note(at, offset)) for at, offset in fresh.items()}
        except (BrokerError, TimeoutError) as error:
            _weather.warning(
                "what was committed last cannot be looked up; trying again", reason=str(error) or "no answer"
            )
            return False
        if now != self._rebalances.count:
            return True
        done = await commit(self._consumer, noted)
        if done:
            for at, offset in fresh.items():
                self._log.committed(at, offset)
                if offset >= self._committed_before.get(at, 0):
                    self._committed_before.pop(at, None)
        return done

    async def close(self) -> None:
        """Leave the group and disconnect."""
        await self._consumer.stop()
        await self._producer.stop()
        for probe in self._probes.values():
            await probe.close()

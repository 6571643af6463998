"""Whether all partitions are read, by us and by the others of the group: what `/ready` of a sink is about.

A worker that waits for messages looks the same whether there are none, or nobody has given it a partition: a topic that
was made anew, a group whose leader does not know of it yet, a partition whose reading has come to a stand.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from ashi.contracts.errors import BrokerError
from ashi.runtime.kafka.cluster.topics import partition_counts
from ashi.runtime.kafka.connections.naming import kafka_name
from ashi.runtime.kafka.consuming.groups import view_group
from ashi.runtime.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ashi.runtime.service import Service
    from ashi_sinks.delays import SinkLag
    from ashi_sinks.read_log import Stored

LOOK_S: Final = 3.0
"""How often it is looked, seconds: three requests."""
STALLED_S: Final = 30.0
"""A partition that has something unread and of which nothing was read for so long is not being read."""
SHOWN: Final = 3

LOST_ROWS: Final = "lost rows"
"""What an obstacle of that kind is about."""

_ABOUT: Final = "partitions"

_log = get_logger(__name__)


class HeldPartitions(Protocol):
    """The consumer that is watched."""

    @property
    def polled_s(self) -> float:
        """When it was last polled, by the monotonic clock."""

    async def places(self) -> Mapping[Any, tuple[int, int]]:
        """Of each partition it holds, the offset it reads next and the end of the log. Raises BrokerError."""

    @property
    def stored(self) -> Mapping[Any, Stored]:
        """Up to where the group has committed each partition that it holds, where it has."""

    @property
    def is_going_back(self) -> bool:
        """Whether it is about to read partitions once more, and does not know yet how far they were stored."""

    @property
    def committed_before(self) -> Mapping[Any, int]:
        """How far partitions were stored whose rows were lost, for as long as they are not stored so far again."""


class PartitionWatch:
    """Looks every few seconds, and tells the process's health what it sees."""

    def __init__(
        self,
        service: Service,
        group: str,
        topics: Sequence[str],
        consumer: HeldPartitions,
        *,
        lag: SinkLag,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._group = group
        self._topics = topics
        self._consumer = consumer
        self._lag = lag
        self._clock = clock
        # A member that died is noticed after a session, and the group then needs a moment to agree.
        self._patience_s = service.settings.session_timeout_us / 1e6 + LOOK_S
        self._trouble_since: float | None = None
        self._told = ""
        self._moved: dict[Any, tuple[int, float]] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Look once. What is in the way for longer than a rebalance takes is an obstacle to being ready."""
        try:
            trouble, remark = await self._find()
        except BrokerError as error:
            trouble, remark = str(error), None
        now = self._clock()
        if trouble is None:
            self._trouble_since = None
        elif self._trouble_since is None:
            self._trouble_since = now
        lasting = self._trouble_since is not None and now - self._trouble_since >= self._patience_s
        self._tell(trouble if lasting else None, remark)

    def _tell(self, obstacle: str | None, remark: str | None) -> None:
        health = self._service.health
        health.set_obstacle(_ABOUT, obstacle)
        health.set_remark(_ABOUT, remark)
        said = obstacle or ""
        if said != self._told:
            if said:
                _log.error("not all partitions are read", reason=said, group=self._group)
            else:
                _log.info("all partitions are read again", group=self._group)
            self._told = said

    async def _find(self) -> tuple[str | None, str | None]:
        """What keeps messages from being stored, and what else is worth knowing."""
        settings = self._service.settings
        counts = await partition_counts(settings)
        missing = [kafka_name(settings, topic) for topic in self._topics if topic not in counts]
        if missing:
            return f"topic {', '.join(missing)} is missing: make it with `ashi topics create`", None
        there = {(topic, number) for topic in self._topics for number in range(counts[topic])}
        group = await view_group(settings, self._group)
        nobodys = sorted(there - group.held)
        if nobodys:
            return f"nobody in group {kafka_name(settings, self._group)} reads {_some(nobodys)}", None
        stored = dict(self._consumer.stored)
        places = await self._consumer.places()
        self._lag.show(stored, places)
        stalled = self._stalled(places)
        if stalled:
            return (
                f"{_some(stalled)} {'has' if len(stalled) == 1 else 'have'} unread messages and nothing is read",
                None,
            )
        self._tell_of_lost_rows(places)
        if places:
            return None, None
        return None, f"without a partition: group {self._group} has {group.members} members for {len(there)} of them"

    def _tell_of_lost_rows(self, places: Mapping[Any, tuple[int, int]]) -> None:
        """Not ready until what was stored once is stored again. The writer says the same as soon as it is known."""
        if self._consumer.is_going_back:
            return
        behind = sorted(at for at in self._consumer.committed_before if at in places)
        health = self._service.health
        if behind:
            health.set_obstacle(LOST_ROWS, f"rows that were lost are stored again: {_some(behind)} not done yet")
        else:
            health.set_obstacle(LOST_ROWS, None)

    def _stalled(self, places: Mapping[Any, tuple[int, int]]) -> list[Any]:
        """The partitions with something unread that have not moved for long, though they were polled."""
        now = self._clock()
        if now - self._consumer.polled_s > LOOK_S:
            # The store is slow or away, which is said elsewhere; nothing is read meanwhile, rightly.
            self._moved = {}
            return []
        before, self._moved = self._moved, {}
        for at, (position, end) in places.items():
            last, since = before.get(at, (-1, now))
            self._moved[at] = (position, since if position == last and position < end else now)
        return sorted(at for at, (_, since) in self._moved.items() if now - since >= STALLED_S)


def _some(partitions: Sequence[tuple[str, int]]) -> str:
    shown = ", ".join(f"{topic}/{number}" for topic, number in partitions[:SHOWN])
    more = len(partitions) - SHOWN
    return f"{shown} and {more} more" if more > 0 else shown

"""How a worker is a member of its group: for as long as its process lives, or under a name that a restart keeps.

A member with an instance id (KIP-345, `ASHI_INSTANCE_ID`) does not leave when it stops, and when it is back within its
session it gets what it had, without a rebalance: nobody else's partitions are touched. The library joins with the id
and does not leave, but it never learns that another process has taken its id. The broker then knows its member no more,
which looks like a session that has expired, and it would join again and take the id back, to and fro for ever.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Any, Final

from faust.tables.manager import TableManager
from faust.transport.drivers import aiokafka as driver

from ashi.contracts.errors import InstanceTakenError
from ashi.runtime.logs import get_logger
from ashi.runtime.metrics.aggregate import handover_seconds, standstill_seconds
from ashi_aggregate.faust.recovery import PatientRecovery
from ashi_aggregate.faust.table import FAUST_LOGGER

_log = get_logger(__name__)

FENCED_INSTANCE_ID: Final = 82
"""Kafka's error code for a member whose instance id another member has now. The library has no name for it."""


class PromptTableManager(TableManager):  # type: ignore[misc]  # Faust is not typed
    """Begins at once: Faust's waits a second for an application to declare more tables, and ours has them all."""

    logger = FAUST_LOGGER
    _recovery: PatientRecovery | None = None

    @property
    def recovery(self) -> PatientRecovery:
        """What restores the tables."""
        if self._recovery is None:
            self._recovery = PatientRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery

    async def on_start(self) -> None:
        """As Faust's, without the wait."""
        await self._update_channels()
        await self.recovery.start()


class HandoverTimes:
    """What a start or a hand-over takes: joining the group, which gives partitions, and then taking up their state."""

    def __init__(self) -> None:
        self._begun_s: float | None = time.monotonic()
        self._joined_s: float | None = None
        self._has_none = False

    @property
    def ongoing(self) -> bool:
        """Whether partitions are yet to be given, or have been and are yet to be taken up."""
        return self._begun_s is not None and not self._has_none

    def begin(self) -> None:
        """The partitions are let go."""
        self._begun_s, self._joined_s, self._has_none = time.monotonic(), None, False

    def join(self, *, has_none: bool) -> None:
        """The group has decided who has which; `has_none`: there is none for us."""
        self._joined_s, self._has_none = time.monotonic(), has_none

    def end(self, partitions: Collection[int]) -> None:
        """The state of ours is there, and trades are read on: tell what it took, once."""
        if self._begun_s is None or self._joined_s is None:
            return
        join_s, state_s = self._joined_s - self._begun_s, time.monotonic() - self._joined_s
        self._begun_s = self._joined_s = None
        handover_seconds.labels("join").set(join_s)
        handover_seconds.labels("state").set(state_s)
        standstill_seconds.labels("join").inc(join_s)
        standstill_seconds.labels("state").inc(state_s)
        _log.info("taken up", partitions=sorted(partitions), join_s=round(join_s, 2), state_s=round(state_s, 2))


class TakeUpWatch:
    """Notices a start or a rebalance that does not end: everything else may go on meanwhile, and look alive.

    While the tables are restored that gets on with every record. Whatever else it takes has bounds: a group waits for
    a member for as long as a request may take, or for its session, and each question to Kafka as long.
    """

    def __init__(self, bound_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`bound_s`: for how long nothing may be taken up and nothing restored."""
        self._bound_s = bound_s
        self._clock = clock
        self._since_s: float | None = None
        self._restored = 0

    def complaint(self, *, taken_up: bool, restored: int) -> str | None:
        """A sentence when it has lasted for too long. `restored`: records in all, as of now."""
        now_s = self._clock()
        if taken_up:
            self._since_s = None
            return None
        if self._since_s is None or restored != self._restored:
            self._since_s, self._restored = now_s, restored
        silent_s = now_s - self._since_s
        if silent_s < self._bound_s:
            return None
        return (
            f"the group's rebalance does not end: no partitions taken up and no rows restored for {silent_s:.0f} s; "
            f"at most {self._bound_s:g} s are allowed"
        )


class InstanceGuard:
    """Notices, in the client's thread, that another process has the instance id of this one; asked in any thread."""

    def __init__(self, instance_id: str) -> None:
        self._instance_id = instance_id
        self._member_id = ""
        self._taken = False

    def raise_if_taken(self) -> None:
        """Raise InstanceTakenError when another process has the id."""
        if self._taken:
            raise InstanceTakenError(
                f"another worker has joined the group with the instance id {self._instance_id!r} (ASHI_INSTANCE_ID) "
                "and has the partitions of this one: give each worker an id of its own, such as the name of its pod in "
                "a StatefulSet, or unset ASHI_INSTANCE_ID"
            )

    def watch(self, client: Any) -> None:
        """Look at what a started client does in its group from now on."""
        coordinator = client._coordinator
        join, send = coordinator._do_rejoin_group, coordinator._send_req

        async def join_as_before(subscription: Any) -> Any:
            """Join under the member id that the broker does not know any more: only then it says why."""
            if not coordinator.member_id:
                coordinator.member_id = self._member_id
            self._member_id = ""
            joined = await join(subscription)
            if joined:
                self._member_id = coordinator.member_id
            return joined

        async def send_unless_taken(request: Any) -> Any:
            response = await send(request)
            if getattr(response, "error_code", 0) == FENCED_INSTANCE_ID:
                self._taken = True
                await asyncio.wait([coordinator._closing])  # until whoever watches this has ended the worker
                raise driver.KafkaError("another member has the instance id")
            return response

        coordinator._do_rejoin_group, coordinator._send_req = join_as_before, send_unless_taken

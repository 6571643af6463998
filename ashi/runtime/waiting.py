"""Waiting for what is away: Kafka when a worker starts, a store at any time. That is weather, and no error."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import BrokerUnreachableError
from ashi.runtime.kafka.cluster.access import require_access, rights_named
from ashi.runtime.kafka.connections.reach import tell_whether_kafka_answers
from ashi.runtime.logs import get_logger
from ashi.runtime.metrics.common import kafka_up
from ashi.runtime.retry import Backoff, retry
from ashi.runtime.service import StoppedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ashi.contracts.access import Access
    from ashi.runtime.service import Service

TELL_INTERVAL_S: Final = 60.0
"""While something is away, the log says so so often."""
LONGEST_PAUSE_S: Final = 5.0
"""Kafka that is back is noticed so soon."""

_log = get_logger(__name__)


class Absence:
    """Something that this process needs is away: `/ready` says no and why, the log says so once a minute."""

    def __init__(self, service: Service, what: str) -> None:
        """`what` is away, for people, as `the store`."""
        self._service = service
        self._what = what
        self._told_s: float | None = None

    def note(self, error: Exception, **context: object) -> None:
        """It is still away, for this reason. `context` goes to the log. Raises StoppedError when told to stop."""
        if self._service.stopping.is_set():
            raise StoppedError from error
        self._service.health.set_ready(False, f"waiting for {self._what}: {error}")
        now_s = time.monotonic()
        if self._told_s is None or now_s - self._told_s >= TELL_INTERVAL_S:
            self._told_s = now_s
            _log.error(f"{self._what} is away, trying again", reason=str(error), **context)

    def end(self, **context: object) -> bool:
        """It is there. Whether it was away; then the log says so."""
        was_away, self._told_s = self._told_s is not None, None
        if was_away:
            _log.info(f"{self._what} is back", **context)
        return was_away


async def start_when_kafka_is_there(
    service: Service,
    access: Access,
    work: Callable[[Callable[[], None]], Awaitable[None]],
    on_try: Callable[[], None] = lambda: None,
) -> None:
    """Run the work of a service to its end, once Kafka can be reached, has its topics and permits them.

    `work` gets a function to call when it has begun. Until then Kafka may go away again, and the work begins anew;
    `on_try` is called each time, before Kafka is looked for. It returns when the service is told to stop. Raises
    BrokerError when Kafka is there and lacks a topic or refuses us, and whatever the work raises.
    """
    absence = Absence(service, "Kafka")
    stage = service.name.partition("-")[0]
    asking: asyncio.Task[None] | None = None

    def on_begun() -> None:
        nonlocal asking
        kafka_up.labels(stage).set(1)
        absence.end()
        if asking is None:  # from here on nobody else may come to see whether Kafka is there
            asking = asyncio.create_task(tell_whether_kafka_answers(service.settings, stage))

    def on_wait(error: Exception, _: float) -> None:
        kafka_up.labels(stage).set(0)
        absence.note(error)

    async def attempt() -> None:
        on_try()
        await service.unless_stopped(require_access(service.settings, access))
        async with rights_named(service.settings, access):
            await work(on_begun)

    try:
        await retry(
            attempt,
            least_wait_s=lambda error: 0.0 if isinstance(error, BrokerUnreachableError) and asking is None else None,
            backoff=Backoff(cap_s=LONGEST_PAUSE_S),
            on_wait=on_wait,
            sleep=service.pause,
        )
    except StoppedError:
        if asking is not None:
            raise
    except BrokerUnreachableError:
        kafka_up.labels(stage).set(0)
        raise
    finally:
        if asking is not None:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

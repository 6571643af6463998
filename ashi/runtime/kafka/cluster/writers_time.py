"""What a worker says at its start of topics that keep the writers' time. Apart, as `ashi topics` needs no logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ashi.runtime.kafka.cluster.topics import APPEND_TIME, TIMESTAMP_TYPE, PermissionDeniedError, topics_of_writers_time
from ashi.runtime.kafka.connections.naming import kafka_name
from ashi.runtime.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashi.runtime.settings import Settings

_log = get_logger(__name__)


async def warn_of_writers_time(settings: Settings, names: Sequence[str]) -> None:
    """One line in the log of a worker that starts about the topics among these that were made by an earlier version.

    Raises BrokerError when Kafka cannot be reached.
    """
    try:
        found = await topics_of_writers_time(settings, names)
    except PermissionDeniedError as error:
        _log.info("cannot see whether the topics take Kafka's time", reason=str(error))
        return
    if found:
        _log.warning(
            f"{TIMESTAMP_TYPE} is not {APPEND_TIME} for these topics: Kafka refuses records of a machine whose clock "
            "is more than an hour ahead, and keeps them by the clocks of the writers; `ashi topics check` prints the "
            "command that sets it",
            topics=[kafka_name(settings, name) for name in found],
        )

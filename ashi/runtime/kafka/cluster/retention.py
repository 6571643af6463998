"""How long Kafka keeps what a stage reads, as a metric: who is behind by as much loses records."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from ashi.runtime.kafka.cluster.topics import PermissionDeniedError, topic_settings
from ashi.runtime.logs import get_logger
from ashi.runtime.metrics.common import topic_retention_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashi.runtime.settings import Settings

RETENTION: Final = "retention.ms"

_log = get_logger(__name__)


async def show_retention(settings: Settings, names: Sequence[str]) -> None:
    """Look how long the records of these topics, all of which exist, are kept; those that are compacted are left out.

    Raises BrokerError when Kafka cannot be reached.
    """
    try:
        found = await topic_settings(settings, names, RETENTION, "cleanup.policy")
    except PermissionDeniedError as error:
        _log.info("cannot see how long Kafka keeps the topics", reason=str(error))
        return
    for name, (kept, policy) in found.items():
        if kept is not None and "delete" in (policy or ""):
            milliseconds = int(kept)
            topic_retention_seconds.labels(name).set(milliseconds / 1000 if milliseconds >= 0 else math.inf)

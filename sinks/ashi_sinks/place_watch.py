"""Messages that do not stand on the partition of their key, as somebody's producer partitions in another way.

They are stored all the same. A topic may have been given more partitions, and what was written before stays where it
was; and a row yields only to a greater version, whatever order its messages come in. But who joins topics by key, or
shares their partitions among workers, goes wrong with such messages, so it is said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ashi.runtime.kafka.connections.clients import partition_of
from ashi.runtime.logs import get_logger
from ashi.runtime.metrics import sink as metrics

if TYPE_CHECKING:
    from ashi.runtime.kafka.consuming.spans import Span
    from ashi_sinks.read_log import Partition

TOLD_AT_MOST: Final = 20
"""Lines in the log; the metric counts all."""

_log = get_logger(__name__)


class PlaceWatch:
    """Looks at the keys of what is read, and tells of each wrong place of a key once."""

    def __init__(self) -> None:
        self._told: set[tuple[str, bytes]] = set()

    def look(self, at: Partition, span: Span, partitions: int) -> None:
        """`partitions`: how many the topic has."""
        keys = {record.key for record in span.records}
        wrong = {key for key in keys if key is not None and partition_of(key, partitions) != at.partition}
        if not wrong:
            return
        metrics.messages_misplaced.inc(sum(record.key in wrong for record in span.records))
        for key in sorted(wrong):
            if (at.topic, key) in self._told or len(self._told) >= TOLD_AT_MOST:
                continue
            self._told.add((at.topic, key))
            _log.warning(
                "messages are not on the partition of their key, and stored all the same: the topic was given more "
                "partitions since, or their producer does not partition keys by murmur2, as the Java client does",
                topic=at.topic,
                key=key[:100].decode(errors="backslashreplace"),
                partition=at.partition,
                belongs_on=partition_of(key, partitions),
            )

"""By whom the records of a fetch were appended: Kafka tells it in each batch, and the client throws it away.

After an election that is not clean the log ends earlier, and the new leader gives the same offsets to other records.
Its epoch is greater, and every batch says in which it was appended. So a fetch that begins with another epoch than the
one before it does not go on by itself: what came before it must be looked at. It is the only sign that never comes too
late, since metadata may be old and the log longer again than what was read.
"""

from __future__ import annotations

from collections import defaultdict
from struct import Struct
from typing import Any, Final

from ashi_aggregate.faust.fetches import see_fetches

_HEADER: Final = Struct(">qiib")  # base offset, length, epoch of the leader, magic
_MAGIC_WITH_EPOCH: Final = 2


class ElectionWatch:
    """Sees the answers to a client's fetches of one topic, in the client's thread; asked in another one."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._epochs: dict[int, int] = {}
        self._suspected: defaultdict[int, set[int]] = defaultdict(set)

    def watch(self, consumer: Any) -> None:
        """Look at what the client gets from now on, before it takes it in."""
        see_fetches(consumer, self._look)

    def suspects(self, partition: int, offset: int) -> bool:
        """Whether records at or after `offset` may not continue those before it."""
        return any(begin <= offset for begin in list(self._suspected[partition]))

    def cleared(self, partition: int, offset: int) -> None:
        """What stands before `offset` is what was read: suspicions up to there are void."""
        for begin in list(self._suspected[partition]):
            if begin <= offset:
                self._suspected[partition].discard(begin)

    def forget(self, partition: int) -> None:
        """The partition is read from another place: the first fetch there is suspected, whatever its epoch."""
        self._epochs.pop(partition, None)

    def _look(self, _: int, request: Any, response: Any) -> None:
        asked = {
            partition: offset for topic, of in request.topics if topic == self._topic for partition, offset, _ in of
        }
        for topic, partitions in response.topics:
            if topic != self._topic:
                continue
            for partition, _, _, *_, batches in partitions:
                if not batches or len(batches) < _HEADER.size:
                    continue
                _, _, epoch, magic = _HEADER.unpack_from(batches)
                if magic >= _MAGIC_WITH_EPOCH and self._epochs.get(partition) != epoch:
                    self._epochs[partition] = epoch
                    self._suspected[partition].add(asked[partition])

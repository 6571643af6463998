"""The Faust table of rows, one for each timeframe: what recovery keeps, and of which partitions."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import faust

from ashi.runtime.kafka.consuming.records import keep_newest
from ashi_aggregate.core.codec import rank_of

FAUST_LOGGER: Final = logging.getLogger("faust")
"""Where subclasses of Faust's services log: else their starts and stops would look like ours."""


class RowTable(faust.Table):  # type: ignore[misc]  # Faust is not typed
    """Rows as bytes, by partition and key, of the partitions this worker owns.

    Differs from a plain table in three ways. It is restored from whole fetches of its changelog, where Faust takes a
    record at a time. Recovery keeps, for each row, the write of the greatest epoch and offset: a worker that was
    declared dead may write an older one later. And rows of partitions it no longer owns are dropped: Faust's memory
    store would keep them, and take them up stale when the partition comes back.
    """

    logger = FAUST_LOGGER

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rows: dict[int, dict[bytes, bytes]] = defaultdict(dict)

    def rows(self, partition: int) -> Mapping[bytes, bytes]:
        """The rows of a partition by key."""
        return self._rows[partition]

    def put(self, partition: int, key: bytes, value: bytes | None) -> None:
        """Keep a row in memory, or None. Its changelog record is sent by whoever calls."""
        if value is None:
            self._rows[partition].pop(key, None)
        else:
            self._rows[partition][key] = value

    def restore(self, partition: int, records: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Take up the next records, (key, value), of a partition's changelog. Raises StateError for one without rank.

        To take them up again, from any place on, does no harm.
        """
        keep_newest(self._rows[partition], records, rank_of)

    def apply_changelog_batch(self, batch: Iterable[Any]) -> None:
        """Nothing is left to be done: by the time recovery is told of records, `restore` has taken them up."""

    async def on_recovery_completed(self, active_tps: set[Any], standby_tps: set[Any]) -> None:
        """Drop what belongs to partitions this worker does not own."""
        owned = {tp.partition for tp in active_tps}
        for partition in set(self._rows) - owned:
            del self._rows[partition]
        await super().on_recovery_completed(active_tps, standby_tps)

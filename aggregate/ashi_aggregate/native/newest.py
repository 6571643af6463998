"""Changelogs as the native library reads them: of each fetch, what counts of each key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ashi.runtime.kafka.consuming.raw_batches import RawBatches, keys_and_values
from ashi_aggregate.core.codec import ROW_FORMAT
from ashi_aggregate.native.kernel import Kernel, Malformed

if TYPE_CHECKING:
    from collections.abc import Iterable


class NewestRows(list[tuple[Any, bytes | None]]):
    """Keys and values as `RowTable.restore` takes them, made of so many records that were `read`."""

    def __init__(self, rows: Iterable[tuple[Any, bytes | None]], read: int) -> None:
        super().__init__(rows)
        self.read = read


def read_newest(kernel: Kernel, batches: RawBatches, begin: int) -> NewestRows:
    """What records from offset `begin` on leave of each key; all of them where the library cannot read every one."""
    try:
        newest = kernel.newest(batches.data, begin, batches.max_records, ROW_FORMAT)
    except Malformed:  # as rows of an earlier version, which are JSON
        rows = keys_and_values(batches, begin)
        return NewestRows(rows, len(rows))
    return NewestRows(newest.rows, newest.records)

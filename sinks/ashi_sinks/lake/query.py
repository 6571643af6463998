"""Reading a Delta table: one state of it, asked in SQL (https://datafusion.apache.org/user-guide/sql/)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ashi_sinks.lake.driver import delta
from ashi_sinks.lake.tables import day_number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ashi_sinks.lake.delta import DeltaTable
    from ashi_sinks.lake.driver import arrow


class Snapshot:
    """A table as it was at one moment; what is written later is not in it."""

    def __init__(self, table: DeltaTable) -> None:
        self._table = table
        state = table.refresh()
        self._partitions = state.partitions() if table.table.partitions else []
        self._query = delta.QueryBuilder().register(table.table.name, state)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What a query gives. Raises RetryableError when the table is away, StorageError when it is damaged."""
        return [row for batch in self.batches(query) for row in batch]

    def batches(self, query: str) -> Iterator[list[tuple[Any, ...]]]:
        """The same, some thousand rows at a time."""
        for batch in self.columns(query):
            yield list(zip(*(column.to_pylist() for column in batch.columns), strict=True))

    def columns(self, query: str) -> Iterator[arrow.RecordBatch]:
        """The same as columns, and as they are."""
        with self._table.errors():
            yield from self._query.execute(query)

    def days(self, values: Mapping[str, str], first: int | None, last: int | None) -> list[int]:
        """The days, since the epoch, of the partitions with these values, from `first` to `last`, both inclusive."""
        found = {
            day_number(partition["day"])
            for partition in self._partitions
            if all(partition[name] == value for name, value in values.items())
        }
        return sorted(day for day in found if (first is None or day >= first) and (last is None or day <= last))

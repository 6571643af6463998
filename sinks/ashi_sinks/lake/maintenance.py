"""Upkeep of a lake while workers write to it: many small files into few, and away with what nobody needs.

Every batch adds a file to each partition it touches, which is what makes reading slow after a while. Merging them
leaves the old ones where they are, for readers that are at it; vacuuming removes those that have been out of use for
long, and what writers that were killed have left behind.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import StorageError
from ashi.contracts.timeframe import HOUR_US
from ashi.contracts.topics import TRADES
from ashi_sinks.lake.delta import DeltaTable
from ashi_sinks.lake.driver import CommitFailedError
from ashi_sinks.lake.tables import TABLES
from ashi_sinks.lake.tables import TRADES as TABLE_OF_TRADES
from ashi_sinks.protocol import RetryableError
from ashi_sinks.upkeep import Chore

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Sequence

    from ashi.runtime.settings import Settings
    from ashi_sinks.lake.driver import delta
    from ashi_sinks.lake.location import Lake
    from ashi_sinks.lake.tables import LakeTable

LEAST_RETENTION_US: Final = HOUR_US
"""A file that no state of the table has yet may belong to a batch that is just being written."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """What was done to a table: partitions merged, and left because a writer was always faster; files before, after."""

    table: str
    partitions: int
    busy: int
    before: int
    after: int

    def __str__(self) -> str:
        left = f"; {self.busy} partitions are too busy now, left for the next time" if self.busy else ""
        return (
            f"{self.table}: {self.before:,} files are {self.after:,} now, {self.partitions:,} partitions merged{left}"
        )


@dataclass(frozen=True, slots=True)
class Vacuumed:
    """How many files of a table were removed."""

    table: str
    files: int

    def __str__(self) -> str:
        return f"{self.table}: {self.files:,} files removed"


def compact(
    lake: Lake, tables: Sequence[LakeTable] = TABLES, stopping: Callable[[], bool] = lambda: False
) -> Iterator[Compacted]:
    """Merge the small files of each partition of each table; raises StorageError when there is no table.

    One commit for each partition, so that a worker that writes to one of them does not undo the work on all others.
    It ends before the next one when it is `stopping`.
    """
    for table in _tables(lake, tables):
        merged, busy = 0, 0
        with table.errors():
            before, partitions = len(table.now.file_uris()), sorted(_files_by_partition(table.now).items())
        for partition, files in partitions:
            if files < 2:
                continue
            if stopping():
                return
            try:
                merged += table.commit(partial(_compact, partition))
            except RetryableError:
                busy += 1
        with table.errors():
            after = len(table.refresh().file_uris())
        yield Compacted(table.table.name, merged, busy, before, after)


def _compact(partition: tuple[tuple[str, str], ...], table: delta.DeltaTable) -> bool:
    filters = [(name, "=", value) for name, value in partition]
    done = table.optimize.compact(partition_filters=filters or None)
    return bool(done["numFilesRemoved"])


def vacuum(lake: Lake, retention_us: int, tables: Sequence[LakeTable] = TABLES) -> Iterator[Vacuumed]:
    """Remove files that have been out of use for longer than `retention_us`, and entries of the log older than 7 days.

    Raises StorageError when there is no table or when `retention_us` is less than `LEAST_RETENTION_US`.
    """
    if retention_us < LEAST_RETENTION_US:
        raise StorageError("vacuuming needs a retention of at least 1h: younger files may be in the middle of a write")
    for table in _tables(lake, tables):
        try:
            with table.errors():
                now = table.refresh()
                removed = now.vacuum(
                    retention_hours=retention_us // HOUR_US, dry_run=False, enforce_retention_duration=False, full=True
                )
                now.create_checkpoint()
                now.cleanup_metadata()
        except CommitFailedError as error:
            raise RetryableError(f"{table.where}: other writers were faster, vacuum it once more ({error})") from error
        table.make_durable()
        yield Vacuumed(table.table.name, len(removed))


def chores(lake: Lake, topic: str, settings: Settings) -> Sequence[Chore]:
    """What the worker of `topic` does for the tables that it writes to, as often as the settings say."""
    tables = [table for table in TABLES if (table is TABLE_OF_TRADES) == (topic == TRADES)]

    def do_compact(stopping: threading.Event) -> list[str]:
        return [str(done) for done in compact(lake, tables, stopping.is_set) if done.partitions or done.busy]

    def do_vacuum(stopping: threading.Event) -> list[str]:
        return [str(done) for done in takewhile(lambda _: not stopping.is_set(), vacuum(lake, retention_us, tables))]

    retention_us = settings.lake_retention_us
    wanted = (
        Chore("compact", settings.lake_compact_interval_us / 1e6, do_compact),
        Chore("vacuum", settings.lake_vacuum_interval_us / 1e6, do_vacuum),
    )
    return [chore for chore in wanted if chore.interval_s]


def _tables(lake: Lake, tables: Sequence[LakeTable]) -> Iterator[DeltaTable]:
    found = False
    for table in (DeltaTable(lake, table) for table in tables):
        if table.exists():
            found = True
            with contextlib.closing(table):
                table.open()
                yield table
    if not found:
        raise StorageError(f"{lake.location} does not exist: name the lake that `ashi sink lake` writes")


def _files_by_partition(table: delta.DeltaTable) -> Counter[tuple[tuple[str, str], ...]]:
    names = table.metadata().partition_columns
    actions = table.get_add_actions(flatten=True)
    columns = [[str(value) for value in actions.column(f"partition.{name}").to_pylist()] for name in names]
    rows = zip(*columns, strict=True) if names else (() for _ in range(actions.num_rows))
    return Counter(tuple(zip(names, row, strict=True)) for row in rows)

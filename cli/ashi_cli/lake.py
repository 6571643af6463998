"""`ashi lake`: upkeep of a lake, and what was done, a line for each table."""

from __future__ import annotations

from ashi.contracts.errors import UsageError
from ashi_sinks.lake.location import NAME, Lake, lake_of
from ashi_sinks.registry import store_name


def run_compact(storage: str) -> int:
    """Merge small files; the exit status. Raises UsageError for a URL of another store, StorageError without a lake."""
    from ashi_sinks.lake.maintenance import compact

    for done in compact(_lake(storage)):
        busy = f"; {done.busy} partitions are too busy now, left for the next time" if done.busy else ""
        print(
            f"{done.table}: {done.before:,} files are {done.after:,} now, {done.partitions:,} partitions merged{busy}"
        )
    return 0


def run_vacuum(storage: str, retention_us: int) -> int:
    """Remove what has been out of use for `retention_us`; the exit status. Raises as `run_compact`."""
    from ashi_sinks.lake.maintenance import vacuum

    for done in vacuum(_lake(storage), retention_us):
        print(f"{done.table}: {done.files:,} files removed")
    return 0


def _lake(storage: str) -> Lake:
    if (name := store_name(storage)) != NAME:
        raise UsageError(f"the storage is a URL of {name}: name a lake with --storage or ASHI_STORAGE")
    return lake_of(storage)

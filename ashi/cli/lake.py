"""`ashi lake`: upkeep of a lake, and what was done, a line for each table."""

from __future__ import annotations

from sinks.lake.location import lake_of


def run_compact(storage: str) -> int:
    """Merge small files; the exit status. Raises UsageError for a URL of another store, StorageError without a lake."""
    from sinks.lake.upkeep import compact

    for done in compact(lake_of(storage)):
        busy = f"; {done.busy} partitions are too busy now, left for the next time" if done.busy else ""
        print(
            f"{done.table}: {done.before:,} files are {done.after:,} now, {done.partitions:,} partitions merged{busy}"
        )
    return 0


def run_vacuum(storage: str, retention_us: int) -> int:
    """Remove what has been out of use for `retention_us`; the exit status. Raises as `run_compact`."""
    from sinks.lake.upkeep import vacuum

    for done in vacuum(lake_of(storage), retention_us):
        print(f"{done.table}: {done.files:,} files removed")
    return 0

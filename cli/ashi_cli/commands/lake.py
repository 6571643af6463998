"""`ashi lake`: upkeep of a lake, and what was done, a line for each table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

from ashi.contracts.timeframe import DAY_US
from ashi_cli import values
from ashi_cli.declaration import Command, Option
from ashi_cli.extras import require_extras
from ashi_cli.shared_options import STORAGE, SYMBOLS, settings_with, tell

if TYPE_CHECKING:
    from ashi_sinks.lake.location import Lake


def compact(*, storage: Annotated[str | None, STORAGE] = None) -> int:
    """Merge small files; the exit status. Raises UsageError for a URL of another store, StorageError without a lake."""
    lake = _lake(storage)
    from ashi_sinks.lake.maintenance import compact as compact_tables

    for done in compact_tables(lake):
        print(done)
    return 0


def vacuum(
    *,
    retention: Annotated[
        int,
        Option(
            "at least 1h; longer than any reader takes, and as far back as you want to travel (default: 7d)",
            metavar="DURATION",
            parse=values.retention,
        ),
    ] = 7 * DAY_US,
    storage: Annotated[str | None, STORAGE] = None,
) -> int:
    """Remove what has been out of use for the retention, in µs; the exit status. Raises as `compact`."""
    lake = _lake(storage)
    from ashi_sinks.lake.maintenance import vacuum as vacuum_tables

    for done in vacuum_tables(lake, retention):
        print(done)
    return 0


def publish(
    *,
    symbols: Annotated[Sequence[str], SYMBOLS] = (),
    begin_at: Annotated[
        int | None,
        Option("only trades of then or later (ISO 8601, UTC)", flag="--from", metavar="TIME", parse=values.time),
    ] = None,
    end_at: Annotated[
        int | None, Option("only trades of before that", flag="--to", metavar="TIME", parse=values.time)
    ] = None,
    storage: Annotated[str | None, STORAGE] = None,
) -> int:
    """Bring trades and what feeds have said back into the topics; the exit status. Raises as `compact`."""
    import asyncio

    lake = _lake(storage)
    from ashi_sinks.lake.publish import publish_lake

    asyncio.run(publish_lake(settings_with(storage), lake, symbols=symbols, start=begin_at, end=end_at, tell=tell))
    return 0


def _lake(storage: str | None) -> Lake:
    from ashi.contracts.errors import UsageError

    require_extras("lake", store="lake")
    from ashi_sinks.lake.location import NAME, lake_of
    from ashi_sinks.registry import store_name

    url = settings_with(storage).storage
    if store_name(url) != NAME:
        raise UsageError(f"the storage is a URL of {store_name(url)}: name a lake with --storage or ASHI_STORAGE")
    return lake_of(url)


LAKE: Final = Command(
    name="lake",
    text="upkeep of a lake, also while workers write to it",
    actions=(
        Command("compact", "merge the many small files of each partition, so that reading is fast", compact),
        Command("vacuum", "remove files that have been out of use for longer than the retention", vacuum),
        Command(
            name="publish",
            text="bring the trades that a lake has kept into topic trades, of a Kafka that has lost them",
            run=publish,
            epilog="""\
examples:
  ashi lake publish --storage lake:////data/lake --from 2026-11-01

Before ingest workers start: of a symbol nothing is published that is older than what the topic has of it. It may be
broken off and given again (docs/maintenance.md).""",
        ),
    ),
    epilog="""\
examples:
  ashi lake compact --storage lake:////data/lake        each hour or day
  ashi lake vacuum --storage lake:////data/lake         each day or week""",
)

"""`ashi topics`: make and check what the stages read and write."""

from __future__ import annotations

import sys
from typing import Annotated, Final

from ashi_cli import values
from ashi_cli.declaration import Command, Option
from ashi_cli.shared_options import tell


def create() -> int:
    """`ashi topics create`."""
    import asyncio
    from contextlib import suppress

    from ashi.contracts.topics import TRADES, topic_specs
    from ashi.runtime.kafka.cluster.topics import (
        PermissionDeniedError,
        create_topics,
        partition_counts,
        topics_of_writers_time,
    )
    from ashi.runtime.kafka.connections.naming import kafka_name
    from ashi.runtime.settings import Settings

    settings = Settings.from_environment()
    partitions = asyncio.run(partition_counts(settings)).get(TRADES, settings.partitions)
    if partitions != settings.partitions:
        print(
            f"topic {kafka_name(settings, TRADES)} has {partitions} partitions, so the others get as many and "
            f"ASHI_PARTITIONS={settings.partitions} is left aside; for more `ashi topics grow`",
            file=sys.stderr,
        )
    specs = topic_specs(partitions, settings.timeframes)
    created = asyncio.run(create_topics(settings, specs))
    for name in created:
        print(f"created {kafka_name(settings, name)}")
    print(f"{len(created)} topics created, {len(specs) - len(created)} were there")
    old: list[str] = []
    with suppress(PermissionDeniedError):  # who may create and not look has done what could be done
        old = asyncio.run(topics_of_writers_time(settings, [spec.name for spec in specs if spec.name not in created]))
    if old:
        names = [kafka_name(settings, name) for name in old]
        print(
            f"{len(old)} of those that were there do not take Kafka's time (message.timestamp.type is not "
            f"LogAppendTime): {', '.join(names)}. They go on as they are; `ashi topics check` prints the commands that "
            "set it",
            file=sys.stderr,
        )
    return 0


def check() -> int:
    """`ashi topics check`: 1 when there are problems."""
    import asyncio

    from ashi.contracts.topics import topic_specs
    from ashi.runtime.kafka.cluster.topics import check_topics
    from ashi.runtime.settings import Settings

    settings = Settings.from_environment()
    specs = topic_specs(settings.partitions, settings.timeframes)
    problems = asyncio.run(check_topics(settings, specs))
    for problem in problems:
        print(problem)
    if not problems:
        print(f"all {len(specs)} topics are as they must be")
    return 1 if problems else 0


def grow(
    *,
    partitions: Annotated[int, Option("how many there are to be", metavar="N", parse=values.positive)],
    since: Annotated[
        int | None,
        Option(
            "copy the trades appended from then on (ISO 8601, UTC), in place of what open windows need",
            metavar="TIME",
            parse=values.time,
        ),
    ] = None,
) -> int:
    """`ashi topics grow`."""
    import asyncio

    from ashi.runtime.settings import Settings
    from ashi_cli.extras import require_extras

    require_extras("topics grow")
    from ashi_aggregate.growth import grow as grow_topics

    asyncio.run(grow_topics(Settings.from_environment(), partitions, since, tell=tell))
    return 0


TOPICS: Final = Command(
    name="topics",
    text="make the topics, or check that they are as they must be",
    actions=(
        Command("create", "make the topics that are missing", create),
        Command("check", "print what is not as it must be, and what to do; exit status 1 if anything is", check),
        Command(
            name="grow",
            text="give all topics more partitions, and let the workers build their state anew",
            run=grow,
            epilog="""\
examples:
  ashi topics grow --partitions 24

Stop all ingest and aggregate workers first; sinks, strategies and charts may go on. It may be broken off and given
again (docs/maintenance.md).""",
        ),
    ),
    epilog="examples:\n  ashi topics create",
)

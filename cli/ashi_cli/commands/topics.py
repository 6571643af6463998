"""`ashi topics`: make and check what the stages read and write."""

from __future__ import annotations

import sys
from typing import Final

from ashi_cli.declaration import Command


def create() -> int:
    """`ashi topics create`."""
    import asyncio

    from ashi.contracts.topics import TRADES, topic_specs
    from ashi.runtime.kafka.topics import create_topics, partition_counts
    from ashi.runtime.settings import Settings

    settings = Settings.from_environment()
    partitions = asyncio.run(partition_counts(settings)).get(TRADES, settings.partitions)
    if partitions != settings.partitions:
        print(
            f"topic {TRADES} has {partitions} partitions, so the others get as many and ASHI_PARTITIONS="
            f"{settings.partitions} is left aside; for more see `ashi topics check`",
            file=sys.stderr,
        )
    specs = topic_specs(partitions, settings.timeframes)
    created = asyncio.run(create_topics(settings, specs))
    for name in created:
        print(f"created {name}")
    print(f"{len(created)} topics created, {len(specs) - len(created)} were there")
    return 0


def check() -> int:
    """`ashi topics check`: 1 when there are problems."""
    import asyncio

    from ashi.contracts.topics import topic_specs
    from ashi.runtime.kafka.topics import check_topics
    from ashi.runtime.settings import Settings

    settings = Settings.from_environment()
    specs = topic_specs(settings.partitions, settings.timeframes)
    problems = asyncio.run(check_topics(settings, specs))
    for problem in problems:
        print(problem)
    if not problems:
        print(f"all {len(specs)} topics are as they must be")
    return 1 if problems else 0


TOPICS: Final = Command(
    name="topics",
    text="make the topics, or check that they are as they must be",
    actions=(
        Command("create", "make the topics that are missing", create),
        Command("check", "print what is not as it must be, and what to do; exit status 1 if anything is", check),
    ),
    epilog="examples:\n  ashi topics create",
)

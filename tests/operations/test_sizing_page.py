"""The table of topics in docs/sizing.md is that of the code."""

from __future__ import annotations

import re
from pathlib import Path

from ashi.contracts.timeframe import parse_timeframes
from ashi.contracts.topics import TopicSpec, topic_specs
from ashi.runtime.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "sizing.md"
CHANGELOGS = "ashi-aggregate-…-changelog"
OF_ALL = {"message.timestamp.type": "LogAppendTime"}
DEFAULTS = Settings.from_environment({})


def row_of(spec: TopicSpec) -> tuple[str, str, frozenset[str]]:
    """Name, partitions and settings of a topic as the page has them."""
    name = CHANGELOGS if spec.name.endswith("-changelog") else spec.name
    assert OF_ALL.items() <= spec.config.items(), "what the page says of all of them"
    settings = {f"{key}={value}" for key, value in spec.config.items() if key not in OF_ALL}
    return name, "as many" if spec.partitions == DEFAULTS.partitions else str(spec.partitions), frozenset(settings)


def test_the_table_of_topics_is_that_of_the_code() -> None:
    table = re.findall(r"(?m)^\| `([^`|]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", PAGE.read_text(encoding="utf-8"))
    found = [
        (name, partitions, frozenset(re.findall(r"`([^`]+)`", settings))) for name, partitions, settings, _ in table
    ]
    wanted = [row_of(spec) for spec in topic_specs(DEFAULTS.partitions, parse_timeframes("1m,5m"))]
    assert found == list(dict.fromkeys(wanted))
    assert all(len(why) > 20 for *_, why in table), "each says why"

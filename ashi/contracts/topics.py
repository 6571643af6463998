"""The topics other teams see, and how they are kept. `ashi topics create` makes them; no worker ever does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from ashi.contracts.timeframe import Timeframe

TRADES: Final = "trades"
CANDLES: Final = "candles"
CANDLES_LIVE: Final = "candles.live"
"""Candles in progress."""
TRADES_LATE: Final = "trades.late"
TRADES_DEAD: Final = "trades.dead"
CANDLES_DEAD: Final = "candles.dead"
FEED_STATUS: Final = "feed.status"
FEED_GAPS: Final = "feed.gaps"
INSTRUMENTS: Final = "instruments"
SIGNALS: Final = "signals"
META: Final = "ashi.meta"

COMPACTED: Final = frozenset({CANDLES_LIVE, FEED_STATUS, INSTRUMENTS, META})
"""Of these only the last record of each key is kept: one before it may go while those around it stay."""

AGGREGATE_APP: Final = "ashi-aggregate"
"""The Faust application: the consumer group of the aggregate workers and the prefix of their changelogs."""

MAX_CHANGELOG_RECORD_BYTES: Final = 4 * 1024 * 1024
"""The longest record of a changelog. Windows and ids of a row are bounded so that it stays below, whatever they are."""

_DAY_MS: Final = 86_400_000


def table_name(timeframe: Timeframe) -> str:
    """The Faust table of a timeframe: `ohlcv-1m`."""
    return f"ohlcv-{timeframe}"


MARKERS_TABLE: Final = "markers"
"""The Faust table of positions that have been made durable, one row per partition."""


def changelog_topic(table: str) -> str:
    """The changelog that Faust keeps of a table of the aggregate application."""
    return f"{AGGREGATE_APP}-{table}-changelog"


def state_topics(timeframes: Sequence[Timeframe]) -> list[str]:
    """The changelogs that hold the state of the aggregate workers, each with as many partitions as `trades`."""
    return [changelog_topic(table) for table in (MARKERS_TABLE, *map(table_name, timeframes))]


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it must be: its name, number of partitions and topic settings in Kafka's own names."""

    name: str
    partitions: int
    config: dict[str, str] = field(default_factory=dict)


def topic_specs(partitions: int, timeframes: Sequence[Timeframe]) -> tuple[TopicSpec, ...]:
    """All topics of a deployment; those that are joined by key have the same number of partitions."""
    # Records have the time at which the broker appended them: the time of whoever writes may be wrong, and retention,
    # compaction and readers go by it. A broker refuses records from more than an hour ahead, but for these topics.
    by_the_broker = {"message.timestamp.type": "LogAppendTime"}

    def delete(days: int) -> dict[str, str]:
        return {"cleanup.policy": "delete", "retention.ms": str(days * _DAY_MS), **by_the_broker}

    changelog = {
        "cleanup.policy": "compact",
        **by_the_broker,
        # Small segments and an eager cleaner bound what a recovery has to read; the lag keeps a row that a dead
        # worker wrote late from being the only one left.
        "segment.ms": "600000",
        "min.cleanable.dirty.ratio": "0.1",
        "min.compaction.lag.ms": "300000",
        # A row is written whole, whatever it holds; the default of 1 MB is less than the widest ones need.
        "max.message.bytes": str(MAX_CHANGELOG_RECORD_BYTES),
    }
    return (
        TopicSpec(TRADES, partitions, delete(7)),
        TopicSpec(CANDLES, partitions, delete(90)),
        # Each (symbol, timeframe) comes up to four times a second: what has been replaced must go soon, which it does
        # only in segments that are closed.
        TopicSpec(
            CANDLES_LIVE,
            partitions,
            {
                **delete(1),
                "cleanup.policy": "compact,delete",
                "segment.ms": "600000",
                "segment.bytes": str(16 * 1024 * 1024),
                "min.cleanable.dirty.ratio": "0.1",
            },
        ),
        TopicSpec(TRADES_LATE, partitions, delete(30)),
        TopicSpec(TRADES_DEAD, partitions, delete(30)),
        TopicSpec(CANDLES_DEAD, partitions, delete(30)),
        # Each symbol comes every ten seconds, and whoever starts reads the topic whole: without short segments, which
        # alone are compacted, that would be a week of heartbeats, gigabytes.
        TopicSpec(
            FEED_STATUS,
            partitions,
            {
                "cleanup.policy": "compact",
                **by_the_broker,
                "segment.ms": "600000",
                "min.cleanable.dirty.ratio": "0.1",
            },
        ),
        TopicSpec(FEED_GAPS, partitions, delete(90)),
        TopicSpec(INSTRUMENTS, partitions, {"cleanup.policy": "compact", **by_the_broker}),
        TopicSpec(SIGNALS, partitions, delete(90)),
        TopicSpec(META, 1, {"cleanup.policy": "compact", **by_the_broker}),
        *(TopicSpec(topic, partitions, changelog) for topic in state_topics(timeframes)),
    )

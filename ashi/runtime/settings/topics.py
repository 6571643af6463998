"""What all stages must agree on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ashi.runtime.settings.declare import setting
from ashi.runtime.settings.parsers import integer_between, parse_timeframe_list, topic_prefix

if TYPE_CHECKING:
    from ashi.contracts.timeframe import Timeframe


@dataclass(frozen=True)
class TopicSettings:
    """How topics are made, and which candles there are."""

    partitions: int = field(
        metadata=setting(
            integer_between(1, 10_000),
            "8",
            "Partitions of each topic that is keyed by symbol: the most workers that can share the work.",
        )
    )
    replication: int | None = field(
        metadata=setting(
            integer_between(1, 100),
            None,
            "Copies of each partition that topics are created with.",
            when_unset="the broker's own",
        )
    )
    topic_prefix: str = field(
        metadata=setting(
            topic_prefix,
            "",
            "What the names of all topics and consumer groups in Kafka begin with, such as `staging.`: for two "
            "deployments on one Kafka, or where others have a topic `trades`. All stages and readers need the same.",
        )
    )
    timeframes: tuple[Timeframe, ...] = field(
        metadata=setting(
            parse_timeframe_list, "1m,5m,1h", "Lengths of the candles, `1s` to `1d`, each a multiple of the finest."
        )
    )

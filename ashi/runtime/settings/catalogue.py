"""All settings of all stages, as they are read and documented."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ashi.runtime.settings.aggregate import AggregateSettings
from ashi.runtime.settings.chart import ChartSettings
from ashi.runtime.settings.declare import settings_of
from ashi.runtime.settings.ingest import IngestSettings
from ashi.runtime.settings.kafka import KafkaSettings
from ashi.runtime.settings.local import LOCAL_SETTINGS
from ashi.runtime.settings.process import ProcessSettings
from ashi.runtime.settings.sink import SinkSettings
from ashi.runtime.settings.strategy import StrategySettings
from ashi.runtime.settings.topics import TopicSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ashi.runtime.settings.declare import Setting

GROUPS: Final[Mapping[str, tuple[Setting, ...]]] = {
    "Kafka": settings_of(KafkaSettings),
    "Topics": settings_of(TopicSettings),
    "Ingest": settings_of(IngestSettings),
    "Aggregate": settings_of(AggregateSettings),
    "Sinks": settings_of(SinkSettings),
    "Strategies": settings_of(StrategySettings),
    "Chart": settings_of(ChartSettings),
    "Every process": settings_of(ProcessSettings),
    "The local broker": LOCAL_SETTINGS,
}
"""The settings by what they are for."""

CATALOGUE: Final = tuple(setting for group in GROUPS.values() for setting in group)

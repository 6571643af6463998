"""Compaction of the changelogs within seconds, where a deployment takes minutes."""

from __future__ import annotations

from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from ashi.contracts.topics import TopicSpec, topic_specs
from ashi.runtime.kafka.cluster.offsets import end_offsets
from ashi.runtime.kafka.connections.clients import admin_client
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.settings import Settings
from chaos.market import PARTITIONS
from rig.fleet import PromiseError, Timeline

LAG_MS = 30_000
"""A deployment's changelogs are compacted after five minutes: longer than a frozen worker's late write plus the two
minutes in which each row is written again. A run is too short for that, so it takes half a minute; and instead of
two minutes, it counts on no symbol being quiet for much longer than 6 s. Frozen workers come back after 12 s at most.
"""
SEGMENT_MS = 5_000


def _changelogs(settings: Settings) -> list[TopicSpec]:
    return [spec for spec in topic_specs(PARTITIONS, settings.timeframes) if spec.name.endswith("-changelog")]


async def force_compaction(settings: Settings) -> None:
    """Let Kafka compact all but the last `LAG_MS` of the changelogs, from now on."""
    eager = {
        "segment.ms": str(SEGMENT_MS),
        "min.cleanable.dirty.ratio": "0.01",
        "min.compaction.lag.ms": str(LAG_MS),
    }
    resources = [
        ConfigResource(ConfigResourceType.TOPIC, spec.name, spec.config | eager) for spec in _changelogs(settings)
    ]
    # The cleaner looks for work every 15 s by itself.
    resources.append(ConfigResource(ConfigResourceType.BROKER, "1", {"log.cleaner.backoff.ms": "1000"}))
    async with admin_client(settings) as client:
        for response in await client.alter_configs(resources):
            for code, message, *_ in response.resources:
                if code:
                    raise PromiseError(f"Kafka refuses to change a topic: {message}")


async def show_compaction(settings: Settings, timeline: Timeline) -> None:
    """That compaction has really happened: the changelogs have fewer records than offsets."""
    removed = 0
    for spec in _changelogs(settings):
        left = 0
        async for _ in read_topic(settings, spec.name):
            left += 1
        written = sum((await end_offsets(settings, spec.name)).values())
        removed += written - left
        timeline(f"{spec.name}: {left} of {written} records left")
    if not removed:
        raise PromiseError("no changelog was compacted, though that was forced")

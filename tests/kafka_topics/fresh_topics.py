"""The topics of the tests' Kafka: as new as those of a deployment that has just been made."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import GroupIdNotFound
from aiokafka.protocol.admin import DeleteGroupsRequest
from aiokafka.protocol.offset import OffsetRequest

from ashi.contracts.topics import TopicSpec, topic_specs
from ashi.runtime.kafka.cluster.topics import create_topics
from ashi.runtime.kafka.connections.clients import admin_client, partitions_of_topics, topics_by_broker
from ashi.runtime.settings import Settings

PARTITIONS = 4
"""Of the topics that are joined by key: enough for workers to share. Kafka makes twice as many in twice the time."""


_OF_THE_TOPIC = 1
"""Where a setting comes from, by Kafka's number: it was given to the topic itself."""
_WRITTEN, _LATEST = 0, -1
"""Kafka's numbers for what is asked of a partition: the end of all that was written to it."""


async def renew_topics(chosen: Settings) -> None:
    """Have the topics of a deployment, all empty, no others, and no group that has read any of them.

    Those that nobody has written to since they were made so are left: most tests write to a few, and to delete and make
    all anew takes a broker a quarter of a second of a core.
    """
    specs = topic_specs(chosen.partitions, chosen.timeframes)
    await delete_topics(chosen, but=await _as_made(chosen, specs))
    await create_topics(chosen, specs)


async def delete_topics(chosen: Settings, *, but: Collection[str] = ()) -> None:
    """Delete every topic there is, with the groups' offsets in them, and wait until no broker knows them."""
    async with admin_client(chosen) as client:
        names = [name for name in set().union(*await topics_by_broker(client)) if not name.startswith("__")]
        names = [name for name in names if name not in but]
        if names:
            await client.delete_topics(names)
            deadline = time.monotonic() + 60
            while any(set(names) & set(known) for known in await topics_by_broker(client)):
                assert time.monotonic() < deadline, "topics do not go away"
                await asyncio.sleep(0.05)


async def _as_made(chosen: Settings, specs: Sequence[TopicSpec]) -> set[str]:
    """The topics that are as they would be if they were made now. None where that cannot be told by one broker."""
    async with admin_client(chosen) as client:
        brokers = client._client.cluster.brokers()
        if chosen.topic_prefix or len(brokers) != 1:
            return set()
        (node,) = (broker.nodeId for broker in brokers)
        if not await _delete_groups(client, node):
            return set()
        existing = await partitions_of_topics(client)
        alike = [spec for spec in specs if len(existing.get(spec.name, ())) == spec.partitions]
        if not alike:
            return set()
        settings = await _own_settings(client, [spec.name for spec in alike])
        unwritten = await _unwritten(client, node, {spec.name: spec.partitions for spec in alike})
        return {spec.name for spec in alike if spec.name in unwritten and settings[spec.name] == spec.config}


async def _delete_groups(client: AIOKafkaAdminClient, node: int) -> bool:
    """Delete all groups with their offsets; whether all are gone: one with a killed member stays for a session."""
    groups = [group for group, _ in await client.list_consumer_groups([node])]
    if not groups:
        return True
    answer: Any = await client._send_request(DeleteGroupsRequest(groups), node)
    return all(code in (0, GroupIdNotFound.errno) for _, code in answer.results)


async def _own_settings(client: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, dict[str, str]]:
    (answer,) = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
    return {
        name: {setting: value for setting, value, _, source, *_ in entries if source == _OF_THE_TOPIC}
        for _, _, _, name, entries in answer.resources
    }


async def _unwritten(client: AIOKafkaAdminClient, node: int, partitions: Mapping[str, int]) -> set[str]:
    """The topics to which nothing was ever written; not those that the broker has not taken up yet."""
    asked = [(name, [(number, _LATEST) for number in range(count)]) for name, count in partitions.items()]
    answer: Any = await client._send_request(OffsetRequest(-1, _WRITTEN, asked), node)
    return {name for name, entries in answer.topics if not any(code or end for _, code, _, end in entries)}

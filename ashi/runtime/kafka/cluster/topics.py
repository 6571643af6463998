"""Creating the topics of a deployment, and saying how those that are there differ from what they must be."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import InvalidReplicationFactorError, TopicAlreadyExistsError, for_code

from ashi.contracts.errors import BrokerError
from ashi.contracts.topics import TRADES
from ashi.runtime.kafka.connections.clients import admin_client, partitions_of_topics, topics_by_broker
from ashi.runtime.kafka.connections.errors import require_brokers
from ashi.runtime.kafka.connections.naming import kafka_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ashi.contracts.topics import TopicSpec
    from ashi.runtime.settings import Settings

TIMESTAMP_TYPE: Final = "message.timestamp.type"
APPEND_TIME: Final = "LogAppendTime"
READY_TIMEOUT_S: Final = 30.0
_AT_LEAST: Final = {"retention.ms", "max.message.bytes"}
"""Settings that may be greater than specified: records that are kept for longer, or may be larger, do no harm."""
BROKERS_OWN: Final = -1
"""Kafka's number for "as the broker is configured", of a topic's replication."""


class PermissionDeniedError(BrokerError):
    """Kafka does not show this user the settings of a topic."""


class TopicProblem(NamedTuple):
    """One way in which a topic is not as specified.

    Attributes:
        topic: its name in Kafka.
        missing: whether it is not there at all.
        what: what is wrong, a sentence.
        remedy: what to do about it.
        command: the command that does it, or shows what there is to do.

    """

    topic: str
    missing: bool
    what: str
    remedy: str
    command: str

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}"


async def create_topics(settings: Settings, specs: Sequence[TopicSpec]) -> list[str]:
    """Create the topics that are missing, wait until every broker knows them, and name them. Those there are are left.

    Raises BrokerError with a sentence for each topic that the broker refuses.
    """
    async with admin_client(settings) as client:
        known = await topics_by_broker(client)
        missing = [spec for spec in specs if any(spec.name not in found for found in known)]
        if not missing:
            return []
        response = await client.create_topics([_new_topic(spec, settings.replication) for spec in missing])
        refused, created = [], []
        # The library does not raise these: each topic has its own error inside the answer.
        for name, code, message in response.topic_errors:
            error = for_code(code)
            if code and error is not TopicAlreadyExistsError:
                refused.append(_refusal(name, error, message, settings))
            elif not code:
                created.append(name)
        if refused:
            raise BrokerError("; ".join(refused))
        # One that some brokers knew before is as it was made.
        wanted = {spec.name: spec.partitions if spec.name in created else 1 for spec in missing}
        await _wait_until_ready(client, wanted, settings)
        return created


async def grow_topics(settings: Settings, specs: Sequence[TopicSpec]) -> list[str]:
    """Give the topics that exist with fewer partitions as many as they must have, and name them.

    Only for topics whose records need not stay on their partitions. Raises BrokerError when one has more already:
    partitions cannot be taken away.
    """
    async with admin_client(settings) as client:
        existing = {name: len(partitions) for name, partitions in (await partitions_of_topics(client)).items()}
        for spec in specs:
            if existing.get(spec.name, 0) > spec.partitions:
                raise BrokerError(
                    f"topic {kafka_name(settings, spec.name)!r} has {existing[spec.name]} partitions, more than the "
                    f"{spec.partitions} it must have, and partitions cannot be taken away: delete it, then try again"
                )
        grown = {spec.name: spec.partitions for spec in specs if 0 < existing.get(spec.name, 0) < spec.partitions}
        if grown:
            await client.create_partitions({name: NewPartitions(total) for name, total in grown.items()})
            await _wait_until_ready(client, grown, settings)
        return list(grown)


def _new_topic(spec: TopicSpec, replication: int | None) -> NewTopic:
    if replication is None:
        # The library wants assignments where the replication is not a number; none of them means the broker's own.
        return NewTopic(spec.name, spec.partitions, BROKERS_OWN, replica_assignments={}, topic_configs=spec.config)
    return NewTopic(spec.name, spec.partitions, replication, topic_configs=spec.config)


def _refusal(name: str, error: type[Exception], message: str | None, settings: Settings) -> str:
    topic = kafka_name(settings, name)
    sentence = f"topic {topic!r} cannot be created at {settings.kafka_bootstrap}: {message or error.__name__}"
    if error is InvalidReplicationFactorError:
        sentence += " (lower ASHI_REPLICATION or add brokers)"
    return sentence


async def _wait_until_ready(client: AIOKafkaAdminClient, wanted: dict[str, int], settings: Settings) -> None:
    deadline = asyncio.get_running_loop().time() + READY_TIMEOUT_S
    while True:
        known = await topics_by_broker(client)
        waiting = [
            kafka_name(settings, name)
            for name, partitions in wanted.items()
            if not all(_is_ready(found.get(name, ()), partitions) for found in known)
        ]
        if not waiting:
            return
        if asyncio.get_running_loop().time() > deadline:
            raise BrokerError(
                f"topics {', '.join(waiting)} were created at {settings.kafka_bootstrap} but still have partitions "
                f"without a leader, or that a broker does not know of, after {READY_TIMEOUT_S:g} s: look at the "
                "brokers' logs, then run `ashi topics check`"
            )
        await asyncio.sleep(0.05)


def _is_ready(found: Sequence[dict[str, Any]], wanted: int) -> bool:
    """Whether a broker that says this of a topic's partitions knows so many, each with a leader."""
    return len(found) >= wanted and all(partition["leader"] >= 0 for partition in found)


async def require_topics(settings: Settings, names: Iterable[str]) -> None:
    """Refuse to go on without the topics and all brokers: a send to one that is missing would wait for ever.

    Raises BrokerError that names the topics that are missing, BrokerUnreachableError that names the broker: a part of
    the clients would try one whose advertised address is wrong for ever, and not say which.
    """
    async with admin_client(settings) as client:
        existing = await partitions_of_topics(client)
        await require_brokers(client._client)
    refuse_missing(settings, [name for name in names if name not in existing])


def refuse_missing(settings: Settings, missing: Sequence[str]) -> None:
    """Raises BrokerError that names these topics, if there are any."""
    if missing:
        raise BrokerError(
            f"Kafka at {settings.kafka_bootstrap} has no topic "
            f"{', '.join(kafka_name(settings, name) for name in missing)}: create all with `ashi topics create`, "
            "then start again"
        )


async def topics_of_writers_time(settings: Settings, names: Sequence[str]) -> list[str]:
    """Those of these topics, all of which exist, whose records have the time of whoever writes and not Kafka's.

    Raises BrokerError when Kafka cannot be reached, or does not show their settings.
    """
    async with admin_client(settings) as client:
        configs = await _configs(settings, client, list(names)) if names else {}
    return [name for name in names if configs[name].get(TIMESTAMP_TYPE) != APPEND_TIME]


async def partition_counts(settings: Settings) -> dict[str, int]:
    """How many partitions each topic there is has."""
    async with admin_client(settings) as client:
        return {name: len(partitions) for name, partitions in (await partitions_of_topics(client)).items()}


async def topic_settings(settings: Settings, topics: Sequence[str], *names: str) -> dict[str, list[str | None]]:
    """Some settings of topics that exist, by Kafka's own names for them: of each topic in the order of `names`."""
    async with admin_client(settings) as client:
        configs = await _configs(settings, client, list(topics)) if topics else {}
    return {topic: [config.get(name) for name in names] for topic, config in configs.items()}


async def topic_setting(settings: Settings, topic: str, name: str) -> str | None:
    """One setting of a topic that exists, by Kafka's own name for it."""
    async with admin_client(settings) as client:
        return (await _configs(settings, client, [topic]))[topic].get(name)


async def check_topics(settings: Settings, specs: Sequence[TopicSpec]) -> list[str]:
    """A sentence, with what to do, for every way in which the topics are not as specified. None: all is well."""
    async with admin_client(settings) as client:
        existing = await partitions_of_topics(client)
        present = [spec for spec in specs if spec.name in existing]
        configs = await _configs(settings, client, [spec.name for spec in present]) if present else {}
    return [str(problem) for problem in topic_problems(settings, specs, existing, configs)]


def topic_problems(
    settings: Settings,
    specs: Sequence[TopicSpec],
    existing: Mapping[str, Sequence[Mapping[str, Any]]],
    configs: Mapping[str, Mapping[str, str]],
) -> list[TopicProblem]:
    """How topics differ from what they must be: first those that are missing, then each difference of the others.

    `existing`: the partitions of each as metadata has them. `configs`: the settings of those that are there; of a topic
    that has none here, as Kafka does not show them to this user, nothing is said of its settings.
    """
    problems = [
        TopicProblem(
            kafka_name(settings, spec.name),
            True,
            f"topic {kafka_name(settings, spec.name)} is missing",
            "create it with `ashi topics create`",
            "ashi topics create",
        )
        for spec in specs
        if spec.name not in existing
    ]
    for spec in specs:
        if spec.name in existing:
            problems += _differences(settings, spec, existing[spec.name], configs.get(spec.name))
    return problems


async def _configs(settings: Settings, client: AIOKafkaAdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    responses = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
    configs = {}
    for response in responses:
        for code, message, _, name, entries in response.resources:
            if code:
                raise PermissionDeniedError(
                    f"the settings of topic {kafka_name(settings, name)!r} cannot be read: "
                    f"{message or for_code(code).__name__}; the user needs DescribeConfigs on the topics"
                )
            configs[name] = {entry[0]: entry[1] for entry in entries}
    return configs


def _differences(
    settings: Settings, spec: TopicSpec, partitions: Sequence[Mapping[str, Any]], config: Mapping[str, str] | None
) -> list[TopicProblem]:
    problems, topic = [], kafka_name(settings, spec.name)
    tool = f"--bootstrap-server {settings.kafka_bootstrap}"
    if len(partitions) != spec.partitions:
        problems.append(
            TopicProblem(
                topic,
                False,
                f"topic {topic} has {len(partitions)} partitions, not {spec.partitions}",
                f"set ASHI_PARTITIONS to what topic {kafka_name(settings, TRADES)} has. For more of them "
                "`ashi topics grow` (docs/maintenance.md). Where they were added by other means, symbols have moved "
                "away from their state: stop all aggregate workers and run `ashi aggregate reconfigure`, which also "
                "gives the topics of the state as many",
                f"kafka-topics {tool} --describe --topic {kafka_name(settings, TRADES)}",
            )
        )
    copies = min((len(partition["replicas"]) for partition in partitions), default=0)
    if settings.replication is not None and copies != settings.replication:
        problems.append(
            TopicProblem(
                topic,
                False,
                f"topic {topic} has {copies} copies of each partition, not {settings.replication}",
                "set ASHI_REPLICATION as the topics are, or move replicas with kafka-reassign-partitions",
                f"kafka-topics {tool} --describe --topic {topic}",
            )
        )
    if config is None:
        return problems
    for name, wanted in spec.config.items():
        found = config.get(name)
        if found is None or not (_same(found, wanted) or (name in _AT_LEAST and _is_more(found, wanted))):
            value = f"[{wanted}]" if "," in wanted else wanted
            command = (
                f"kafka-configs {tool} --alter --entity-type topics --entity-name {topic} --add-config '{name}={value}'"
            )
            what = f"topic {topic} has {name}={found}, not {wanted}"
            problems.append(TopicProblem(topic, False, what, f"run {command}", command))
    return problems


def _is_more(found: str, wanted: str) -> bool:
    """-1 is without a bound."""
    return float(found) == -1 or float(found) > float(wanted)


def _same(found: str, wanted: str) -> bool:
    """Equal as numbers (0.1, 0.10) or as sets of words (compact,delete)."""
    try:
        return float(found) == float(wanted)
    except ValueError:
        return {word.strip() for word in found.split(",")} == {word.strip() for word in wanted.split(",")}

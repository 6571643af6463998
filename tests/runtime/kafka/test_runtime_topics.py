from __future__ import annotations

import asyncio
import dataclasses
import json
import uuid
from typing import TYPE_CHECKING

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from ashi.contracts.errors import BrokerError
from ashi.contracts.topics import CANDLES_DEAD, TRADES_DEAD, TopicSpec, topic_specs
from ashi.runtime.kafka.cluster.offsets import begin_offsets, committed_offsets, end_offsets
from ashi.runtime.kafka.cluster.topics import (
    TIMESTAMP_TYPE,
    check_topics,
    create_topics,
    require_topics,
    topic_problems,
    topic_setting,
)
from ashi.runtime.kafka.connections.clients import admin_client, make_consumer, make_producer, partitions_of_topics
from ashi.runtime.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from conftest import StartStage

pytestmark = pytest.mark.kafka


def unique(specs: Sequence[TopicSpec]) -> list[TopicSpec]:
    prefix = uuid.uuid4().hex
    return [dataclasses.replace(spec, name=f"{prefix}.{spec.name}") for spec in specs]


def test_the_topics_of_a_deployment_are_created_as_specified_and_only_once(kafka_settings: Settings) -> None:
    specs = unique(topic_specs(3, kafka_settings.timeframes))

    async def scenario() -> None:
        assert await create_topics(kafka_settings, specs[:2]) == [spec.name for spec in specs[:2]]
        assert sorted(await create_topics(kafka_settings, specs)) == sorted(spec.name for spec in specs[2:])
        assert await create_topics(kafka_settings, specs) == []
        assert await check_topics(kafka_settings, specs) == []
        async with admin_client(kafka_settings) as client:
            found = await partitions_of_topics(client)
        assert [len(found[spec.name]) for spec in specs] == [spec.partitions for spec in specs]

    asyncio.run(scenario())


def test_topics_that_differ_are_described_with_the_remedy(kafka_settings: Settings) -> None:
    name = f"differs-{uuid.uuid4().hex}"
    as_created = TopicSpec(name, 2, {"cleanup.policy": "delete", "retention.ms": "1000"})
    wanted = TopicSpec(
        name,
        3,
        {"cleanup.policy": "compact,delete", "retention.ms": "86400000", "message.timestamp.type": "LogAppendTime"},
    )
    missing = TopicSpec(f"missing-{uuid.uuid4().hex}", 1)

    async def scenario() -> list[str]:
        await create_topics(kafka_settings, [as_created])
        return await check_topics(dataclasses.replace(kafka_settings, replication=2), [wanted, missing])

    absent, partitions, copies, cleanup, retention, timestamps = asyncio.run(scenario())
    assert absent == f"topic {missing.name} is missing: create it with `ashi topics create`"
    assert f"{name} has 2 partitions, not 3: set ASHI_PARTITIONS" in partitions
    assert f"{name} has 1 copies of each partition, not 2" in copies
    assert "cleanup.policy=delete, not compact,delete" in cleanup
    assert f"--entity-name {name} --add-config 'cleanup.policy=[compact,delete]'" in cleanup
    assert "retention.ms=1000, not 86400000" in retention
    assert "message.timestamp.type=CreateTime, not LogAppendTime" in timestamps


def test_settings_are_compared_by_meaning_and_not_by_spelling(kafka_settings: Settings) -> None:
    name = f"spelling-{uuid.uuid4().hex}"
    created = TopicSpec(name, 1, {"cleanup.policy": "delete,compact", "min.cleanable.dirty.ratio": "0.10"})
    wanted = TopicSpec(name, 1, {"cleanup.policy": "compact,delete", "min.cleanable.dirty.ratio": "0.1"})

    async def scenario() -> list[str]:
        await create_topics(kafka_settings, [created])
        return await check_topics(kafka_settings, [wanted])

    assert asyncio.run(scenario()) == []


@pytest.mark.parametrize(
    ("found", "is_well"),
    [("604800000", True), ("1209600000", True), ("-1", True), ("86400000", False)],
)
def test_a_topic_may_keep_its_records_for_longer_and_not_for_shorter(found: str, is_well: bool) -> None:
    """The runbook says to keep them for longer where a reader is far behind: nobody is then told to shorten it."""
    spec = TopicSpec("trades", 1, {"retention.ms": "604800000"})
    there = {"trades": [{"replicas": [1]}]}
    problems = topic_problems(Settings.from_environment({}), [spec], there, {"trades": {"retention.ms": found}})
    assert [problem.topic for problem in problems] == ([] if is_well else ["trades"])


def test_a_topic_that_the_broker_refuses_is_an_error_with_its_name(kafka_settings: Settings) -> None:
    specs = [
        TopicSpec(f"good-{uuid.uuid4().hex}", 1),
        TopicSpec("bad name!", 1),
        TopicSpec("bad-config", 1, {"no.such": "x"}),
    ]
    with pytest.raises(BrokerError) as caught:
        asyncio.run(create_topics(kafka_settings, specs))
    assert "topic 'bad name!' cannot be created" in str(caught.value)
    assert "topic 'bad-config' cannot be created" in str(caught.value)
    assert "good-" not in str(caught.value)


def test_more_copies_than_brokers_are_refused_with_the_setting(kafka_settings: Settings) -> None:
    with pytest.raises(BrokerError, match="lower ASHI_REPLICATION"):
        asyncio.run(create_topics(dataclasses.replace(kafka_settings, replication=3), unique([TopicSpec("x", 1)])))


@pytest.mark.slow
def test_topics_of_a_version_before_that_take_the_writers_time_are_named_once_by_each_worker_and_by_topics_create(
    kafka_settings: Settings, start_stage: StartStage, ashi: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    def set_time(kind: str, *names: str) -> None:
        async def scenario() -> None:
            async with admin_client(kafka_settings) as client:
                config = {TIMESTAMP_TYPE: kind}
                topics = [ConfigResource(ConfigResourceType.TOPIC, name, configs=config) for name in names]
                await client.alter_configs(topics)
            async with asyncio.timeout(30):  # a broker says so before it does it
                while any([await topic_setting(kafka_settings, name, TIMESTAMP_TYPE) != kind for name in names]):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)

        asyncio.run(scenario())

    set_time("CreateTime", CANDLES_DEAD, TRADES_DEAD)
    storage = f"sqlite:///{tmp_path}/candles.db"
    markets = ("gmo", "BTC_JPY")
    started = [
        (CANDLES_DEAD, start_stage("sink", "sqlite", ASHI_STORAGE=storage), "storing candles"),
        (TRADES_DEAD, start_stage("ingest", *markets, ASHI_WEBSOCKET_URL="ws://127.0.0.1:9"), "cannot connect"),
        (TRADES_DEAD, start_stage("aggregate"), '"event":"ready"'),
    ]
    for name, stage, begun in started:
        stage.wait_for(begun)
        (line,) = (line for line in stage.log.read_text().splitlines() if "message.timestamp.type" in line)
        assert json.loads(line)["topics"] == [name], "those that it uses"
        assert "`ashi topics check` prints the command" in line

    status, _, said = ashi("topics", "create")
    assert status == 0
    assert "2 of those that were there do not take Kafka's time (message.timestamp.type is not LogAppendTime): " in said
    assert f"{TRADES_DEAD}, {CANDLES_DEAD}." in said
    status, printed, _ = ashi("topics", "check")
    assert status == 1
    assert f"--entity-name {CANDLES_DEAD} --add-config 'message.timestamp.type=LogAppendTime'" in printed
    set_time("LogAppendTime", CANDLES_DEAD, TRADES_DEAD)
    assert ashi("topics", "create")[2] == ""


def test_missing_topics_are_named_before_anything_is_sent(kafka_settings: Settings) -> None:
    there = f"there-{uuid.uuid4().hex}"

    async def scenario() -> None:
        await create_topics(kafka_settings, [TopicSpec(there, 1)])
        await require_topics(kafka_settings, [there])
        with pytest.raises(BrokerError, match="no topic gone-1, gone-2: create all with `ashi topics create`"):
            await require_topics(kafka_settings, ["gone-1", there, "gone-2"])

    asyncio.run(scenario())


def test_offsets_tell_where_a_topic_ends_and_how_far_a_group_has_come(kafka_settings: Settings) -> None:
    topic, group = f"offsets-{uuid.uuid4().hex}", f"group-{uuid.uuid4().hex}"

    async def scenario() -> None:
        await create_topics(kafka_settings, [TopicSpec(topic, 3)])
        assert await end_offsets(kafka_settings, topic) == {0: 0, 1: 0, 2: 0}
        producer = make_producer(kafka_settings)
        await producer.start()
        for partition in (0, 0, 2):
            await producer.send_and_wait(topic, b"x", partition=partition)
        await producer.stop()
        assert await begin_offsets(kafka_settings, topic) == {0: 0, 1: 0, 2: 0}
        assert await end_offsets(kafka_settings, topic) == {0: 2, 1: 0, 2: 1}
        assert await committed_offsets(kafka_settings, group, topic) == {}

        consumer = make_consumer(kafka_settings, topic, group_id=group)
        await consumer.start()
        record = await consumer.getone()
        while record.partition != 0 or record.offset != 1:
            record = await consumer.getone()
        await consumer.commit({tp: 2 for tp in consumer.assignment() if tp.partition == 0})
        await consumer.stop()
        assert await committed_offsets(kafka_settings, group, topic) == {0: 2}

    asyncio.run(scenario())


def test_offsets_of_a_missing_topic_are_refused(kafka_settings: Settings) -> None:
    for question in (
        end_offsets(kafka_settings, "nowhere"),
        begin_offsets(kafka_settings, "nowhere"),
        committed_offsets(kafka_settings, "g", "nowhere"),
    ):
        with pytest.raises(BrokerError, match=r"no topic 'nowhere'.*ashi topics create"):
            asyncio.run(question)

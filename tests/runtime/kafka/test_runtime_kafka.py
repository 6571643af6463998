from __future__ import annotations

import asyncio
import dataclasses
import functools
import socket
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    AuthenticationFailedError,
    GroupAuthorizationFailedError,
    GroupCoordinatorNotAvailableError,
    IllegalStateError,
    InvalidTimestampError,
    KafkaError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.structs import BrokerMetadata, PartitionMetadata
from hypothesis import given
from hypothesis import strategies as st

from ashi.contracts.errors import BrokerError, BrokerUnreachableError, NotPermittedError, UsageError
from ashi.contracts.topics import TopicSpec
from ashi.runtime.kafka.cluster.offsets import end_offsets
from ashi.runtime.kafka.cluster.topics import create_topics
from ashi.runtime.kafka.connections.clients import (
    admin_client,
    make_consumer,
    make_producer,
    partition_of,
    security_options,
)
from ashi.runtime.kafka.connections.errors import as_broker_error, broker_errors, is_refused_for_its_time
from ashi.runtime.kafka.consuming.records import keep_newest, read_topic
from ashi.runtime.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SASL = {
    "ASHI_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "ASHI_KAFKA_SASL_MECHANISM": "scram-sha-512",
    "ASHI_KAFKA_USERNAME": "ashi",
    "ASHI_KAFKA_PASSWORD": "hunter2",
}
# From testMurmur2 of Apache Kafka's own org.apache.kafka.common.utils.UtilsTest.
JAVA_VECTORS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("key", "java_hash"), JAVA_VECTORS.items())
def test_keys_are_partitioned_as_by_the_java_client(key: bytes, java_hash: int) -> None:
    for partitions in (1, 8, 2**31 - 1):
        assert partition_of(key, partitions) == (java_hash & 0x7FFFFFFF) % partitions


@functools.cache
def partitioner() -> Any:
    return asyncio.run(made(make_producer, Settings.from_environment({})))._partitioner


async def made(make: Any, *arguments: Any, **options: Any) -> Any:
    client = make(*arguments, **options)
    await client.stop()
    return client


@given(st.binary(max_size=40), st.integers(min_value=1, max_value=50))
def test_the_producer_sends_to_the_partition_that_partition_of_names(key: bytes, partitions: int) -> None:
    everywhere = list(range(partitions))
    chosen = partitioner()(key, everywhere, everywhere)
    assert chosen == partition_of(key, partitions) == DefaultPartitioner()(key, everywhere, everywhere)


def test_the_producer_is_idempotent_and_waits_for_all(settings: Settings) -> None:
    producer = asyncio.run(made(make_producer, settings))
    assert producer._txn_manager is not None
    assert producer._sender._acks == -1


def test_the_consumer_commits_nothing_by_itself_and_begins_at_the_beginning(settings: Settings) -> None:
    consumer = asyncio.run(made(make_consumer, settings, "trades", group_id="g"))
    assert consumer._enable_auto_commit is False
    assert consumer._auto_offset_reset == "earliest"
    assert consumer._session_timeout_ms == 10_000


def test_without_security_only_the_protocol_is_set(settings: Settings) -> None:
    assert security_options(settings) == {"security_protocol": "PLAINTEXT"}


def test_a_login_over_tls_sets_all_of_it() -> None:
    options = security_options(Settings.from_environment(SASL))
    context = options.pop("ssl_context")
    assert context.check_hostname
    assert options == {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "ashi",
        "sasl_plain_password": "hunter2",
    }


def test_a_file_without_certificates_is_wrong_usage(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("not a certificate")
    wrong = Settings.from_environment({**SASL, "ASHI_KAFKA_CA_FILE": str(path)})
    with pytest.raises(UsageError, match=r"ASHI_KAFKA_CA_FILE.*PEM"):
        security_options(wrong)


@pytest.fixture
def nobody(settings: Settings) -> Settings:
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        port = closed_soon.getsockname()[1]
    return dataclasses.replace(settings, kafka_bootstrap=f"127.0.0.1:{port}")


async def start_producer(settings: Settings) -> None:
    await make_producer(settings).start()


async def start_consumer(settings: Settings) -> None:
    await make_consumer(settings, "trades", group_id="g").start()


async def start_admin(settings: Settings) -> None:
    async with admin_client(settings):
        pass


STARTS = [start_producer, start_consumer, start_admin]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("start", STARTS)
def test_a_broker_that_is_not_there_is_named_with_what_to_do(nobody: Settings, start: Any) -> None:
    with pytest.raises(BrokerError) as caught:
        asyncio.run(start(nobody))
    message = str(caught.value)
    assert f"cannot reach Kafka at {nobody.kafka_bootstrap} (ASHI_KAFKA_BOOTSTRAP)" in message
    assert "no broker there answers, or none accepts a client that speaks PLAINTEXT" in message
    assert "`ashi broker start`" in message


@pytest.fixture
def silent(settings: Settings) -> Iterator[Settings]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield dataclasses.replace(settings, kafka_bootstrap=f"127.0.0.1:{server.getsockname()[1]}")


@pytest.mark.parametrize("start", [start_producer, start_admin])
def test_an_address_that_never_answers_is_given_up(
    silent: Settings, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ashi.runtime.kafka.connections.clients.START_TIMEOUT_S", 0.2)
    monkeypatch.setattr("ashi.runtime.kafka.authentication.diagnosis.PROBE_TIMEOUT_S", 0.2)
    with pytest.raises(BrokerError, match=r"cannot reach Kafka.*no answer"):
        asyncio.run(start(silent))


def test_errors_that_are_not_about_reaching_kafka_pass_unchanged(settings: Settings) -> None:
    for error in (IllegalStateError("x"), KeyError("x")):
        with pytest.raises(type(error)), broker_errors(settings):
            raise error
    assert as_broker_error(OSError("disk full"), settings) is None


def test_a_refused_login_names_the_user_but_not_the_password() -> None:
    explained = str(as_broker_error(AuthenticationFailedError("bad"), Settings.from_environment(SASL)))
    assert "'ashi'" in explained
    assert "ASHI_KAFKA_PASSWORD" in explained
    assert "hunter2" not in explained


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (GroupAuthorizationFailedError("a-group"), "Read on group a-group"),
        (GroupAuthorizationFailedError("Unable to get coordinator id for a-group"), "Read on group a-group"),
        (GroupAuthorizationFailedError(), "something that is needed ([Error 30] GroupAuthorizationFailedError)"),
        (TopicAuthorizationFailedError("trades"), "what is needed on topic trades"),
        (TopicAuthorizationFailedError({"trades", "candles"}), "what is needed on topic candles, trades"),
        (TopicAuthorizationFailedError(TopicPartition("trades", 3)), "what is needed on topic trades"),
        (
            KafkaError(repr(TopicAuthorizationFailedError())),
            "something that is needed (KafkaError: TopicAuthorizationFailedError())",
        ),
    ],
)
def test_what_kafka_does_not_permit_is_named_as_far_as_the_library_says_it(error: KafkaError, named: str) -> None:
    explained = as_broker_error(error, Settings.from_environment(SASL))
    assert isinstance(explained, NotPermittedError)
    assert f"does not permit user 'ashi': {named}. Grant it" in str(explained)


def test_a_missing_topic_names_the_command_that_creates_it(settings: Settings) -> None:
    assert "`ashi topics create`" in str(as_broker_error(UnknownTopicOrPartitionError(), settings))


def test_a_broker_without_a_coordinator_yet_is_waited_for_as_one_that_is_away(settings: Settings) -> None:
    explained = as_broker_error(GroupCoordinatorNotAvailableError("Unable to get coordinator id for x"), settings)
    assert isinstance(explained, BrokerUnreachableError)
    assert "has no coordinator for a group yet, as when it has just started" in str(explained)


def test_a_refusal_for_the_time_of_records_names_the_clocks_and_is_found_behind_others(
    settings: Settings,
) -> None:
    refused = InvalidTimestampError()
    assert "message.timestamp.after.max.ms" in str(as_broker_error(refused, settings))
    behind = BrokerError("did not take messages")
    assert not is_refused_for_its_time(behind)
    behind.__cause__ = refused
    assert is_refused_for_its_time(behind)


async def _records(settings: Settings, topic: str) -> list[Any]:
    return [record async for record in read_topic(settings, topic)]


@pytest.mark.kafka
def test_everything_sent_is_read_back_in_order_within_each_key(kafka_settings: Settings) -> None:
    topic = f"read-{uuid.uuid4()}"

    async def scenario() -> list[Any]:
        await create_topics(kafka_settings, [TopicSpec(topic, 4)])
        producer = make_producer(kafka_settings)
        await producer.start()
        try:
            sent = [
                await producer.send(topic, key=b"key-%d" % (number % 7), value=b"%d" % number, headers=[("h", b"v")])
                for number in range(5_000)
            ]
            await asyncio.gather(*sent)
        finally:
            await producer.stop()
        return await _records(kafka_settings, topic)

    records = asyncio.run(scenario())
    assert sorted(int(record.value) for record in records) == list(range(5_000))
    for key in {record.key for record in records}:
        numbers = [int(record.value) for record in records if record.key == key]
        assert numbers == sorted(numbers)
    assert all(record.partition == partition_of(record.key, 4) for record in records)
    assert records[0].headers == (("h", b"v"),)


@pytest.mark.kafka
def test_an_empty_topic_reads_as_nothing(kafka_settings: Settings) -> None:
    topic = f"empty-{uuid.uuid4()}"

    async def scenario() -> list[Any]:
        await create_topics(kafka_settings, [TopicSpec(topic, 2)])
        return await _records(kafka_settings, topic)

    assert asyncio.run(scenario()) == []


@pytest.mark.kafka
def test_what_is_sent_after_the_call_is_not_read(kafka_settings: Settings) -> None:
    topic = f"later-{uuid.uuid4()}"

    async def scenario() -> list[bytes]:
        await create_topics(kafka_settings, [TopicSpec(topic, 1)])
        producer = make_producer(kafka_settings)
        await producer.start()
        values = []
        try:
            await producer.send_and_wait(topic, b"before")
            async for record in read_topic(kafka_settings, topic):
                values.append(record.value)
                await producer.send_and_wait(topic, b"after")
        finally:
            await producer.stop()
        return values

    assert asyncio.run(scenario()) == [b"before"]


@pytest.mark.kafka
def test_a_topic_whose_last_records_are_gone_still_comes_to_an_end(kafka_settings: Settings) -> None:
    topic = f"transaction-{uuid.uuid4()}"

    async def scenario() -> list[bytes]:
        await create_topics(kafka_settings, [TopicSpec(topic, 1)])
        producer = make_producer(kafka_settings, transactional_id=topic)
        await producer.start()
        try:
            async with producer.transaction():  # its end is a control record: an offset that no reader ever gets
                await producer.send_and_wait(topic, b"only")
        finally:
            await producer.stop()
        while await end_offsets(kafka_settings, topic) != {0: 2}:  # noqa: ASYNC110  (Kafka answers before that stands)
            await asyncio.sleep(0.05)
        return [record.value for record in await _records(kafka_settings, topic)]

    assert asyncio.run(asyncio.wait_for(scenario(), 30)) == [b"only"]


@pytest.mark.kafka
def test_reading_a_topic_that_is_missing_is_refused_and_does_not_create_it(kafka_settings: Settings) -> None:
    for _ in range(2):
        with pytest.raises(BrokerError, match=r"no topic 'nowhere'.*ashi topics create"):
            asyncio.run(_records(kafka_settings, "nowhere"))


def test_of_a_compacted_topic_the_record_of_the_greatest_rank_counts_and_of_equals_the_later() -> None:
    rows: dict[bytes, bytes] = {}
    for key, value in [(b"a", b"2x"), (b"a", b"1"), (b"b", b"5"), (b"a", b"2y"), (b"b", None), (b"c", b"1")]:
        keep_newest(rows, [(key, value)], lambda value: int(value[:1]))
    assert rows == {b"a": b"2y", b"c": b"1"}


def test_kafka_that_is_away_is_not_asked_in_a_busy_loop(
    nobody: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ashi.runtime.kafka.connections.clients.FAILED_PAUSE_S", 0.05)

    async def main() -> int:
        client = make_producer(nobody).client
        client._sync_task = asyncio.create_task(client._md_synchronizer())
        asked = 0
        async with asyncio.timeout(60):
            ends_s = asyncio.get_running_loop().time() + 0.5
            while asyncio.get_running_loop().time() < ends_s:
                assert not await client.force_metadata_update()
                asked += 1
        await client.close()
        return asked

    assert 2 <= asyncio.run(main()) <= 11


def test_a_consumer_whose_broker_is_away_stops_without_cancelling_whoever_stops_it(nobody: Settings) -> None:
    at = TopicPartition("trades", 0)

    async def main() -> None:
        consumer = make_consumer(nobody, group_id=None)
        cluster = consumer._client.cluster

        async def bootstrap() -> None:  # it was there when the consumer was started
            [(host, port, _)] = consumer._client.hosts
            cluster._brokers = {1: BrokerMetadata(1, host, port, None)}
            cluster._partitions = {at.topic: {0: PartitionMetadata(at.topic, 0, 1, [1], [1], None)}}

        consumer._client.bootstrap = bootstrap
        await consumer.start()
        consumer.assign([at])
        consumer.seek(at, 0)
        failed = asyncio.Event()
        send = consumer._client.send

        async def send_and_note(*arguments: Any, **options: Any) -> Any:
            try:
                return await send(*arguments, **options)
            except KafkaError:
                failed.set()
                raise

        consumer._client.send = send_and_note
        async with asyncio.timeout(60):
            await failed.wait()  # the fetch waits to be tried again
            await consumer.stop()
        assert consumer._fetcher._fetch_task.done()

    asyncio.run(main())

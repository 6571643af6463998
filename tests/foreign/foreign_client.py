"""Another team's producer: librdkafka by `confluent-kafka`, which shares no code with the client that Ashi reads by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from ashi.runtime.settings import Settings

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
Sent = tuple[str, bytes | None, bytes | None]
"""Topic, key and value."""


class ForeignProducer:
    """Sends, each call whole: what it was given is acknowledged when it returns."""

    def __init__(self, settings: Settings, **options: Any) -> None:
        self.producer = Producer(
            {
                "bootstrap.servers": settings.kafka_bootstrap,
                "partitioner": "murmur2_random",  # librdkafka's own is another; docs/messages.md asks for Java's
                "linger.ms": 5,
                "log_level": 0,  # it would tell of a broker that ends with the tests
                **{name.replace("_", "."): value for name, value in options.items()},
            }
        )

    def send(self, records: Iterable[Sent], headers: list[tuple[str, str | bytes | None]] | None = None) -> None:
        for topic, key, value in records:
            self.producer.produce(topic, value, key, on_delivery=_raise, headers=headers or [])
            self.producer.poll(0)
        self.flush()

    def flush(self) -> None:
        assert self.producer.flush(30) == 0, "not all was acknowledged in time"

    @contextmanager
    def transaction(self, *, aborted: bool = False) -> Iterator[None]:
        self.producer.begin_transaction()
        yield
        self.producer.abort_transaction(30) if aborted else self.producer.commit_transaction(30)


def transactional(settings: Settings, name: str, **options: Any) -> ForeignProducer:
    """A producer whose records come in transactions only."""
    foreign = ForeignProducer(settings, transactional_id=name, **options)
    foreign.producer.init_transactions(30)
    return foreign


def committed_by(settings: Settings, topic: str, count: int) -> set[tuple[int | None, int | None, bytes | None]]:
    """Partition, offset and value of what librdkafka reads of a topic, committed only; waits for so many records."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka_bootstrap,
            "group.id": "of-another-team",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    found: set[tuple[int | None, int | None, bytes | None]] = set()
    try:
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(settings.partitions)])
        at_end: set[int | None] = set()
        while len(at_end) < settings.partitions:
            message = consumer.poll(30)
            assert message is not None, f"librdkafka reads no more than {len(found)} of {count}"
            if (error := message.error()) is not None:
                assert error.code() == KafkaError._PARTITION_EOF, error
                at_end.add(message.partition())
            else:
                found.add((message.partition(), message.offset(), message.value()))
    finally:
        consumer.close()
    return found


def set_compression(settings: Settings, codecs: dict[str, str]) -> None:
    """Let the broker compress what comes into these topics, whatever it comes in."""
    resources = [
        ConfigResource(
            ResourceType.TOPIC,
            topic,
            incremental_configs=[
                ConfigEntry("compression.type", codec, incremental_operation=AlterConfigOpType.SET),
            ],
        )
        for topic, codec in codecs.items()
    ]
    client = AdminClient({"bootstrap.servers": settings.kafka_bootstrap})
    for altered in client.incremental_alter_configs(resources).values():
        altered.result(30)


def _raise(error: KafkaError | None, _: Message) -> None:
    if error is not None:
        raise AssertionError(str(error))

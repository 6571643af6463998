"""What stands in a topic, read by a client that has nothing to do with ours."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

from confluent_kafka import Consumer, TopicPartition

READ_S = 30.0
AT_ONCE_S = 0.2


class ReadRecord(NamedTuple):
    """A record; `at_ms`: its timestamp, ms since the epoch."""

    key: bytes
    offset: int
    value: bytes
    at_ms: int


def read_partition(
    bootstrap: str, topic: str, partition: int, since_ms: int = 0, end: int | None = None
) -> Iterator[ReadRecord]:
    """Every committed record of a partition, up to its end. Raises AssertionError when Kafka does not give them.

    `since_ms`: only those from the first on whose timestamp is no earlier. `end`: only those before this offset, where
    there is one there: a partition that others write to all the time may never be seen to end.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "foreign-reader",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    try:
        begin = TopicPartition(topic, partition, 0)
        if since_ms:
            (begin,) = consumer.offsets_for_times([TopicPartition(topic, partition, since_ms)], READ_S)
        consumer.assign([begin])
        deadline_s = time.monotonic() + READ_S
        while True:
            found = consumer.consume(10_000, AT_ONCE_S)  # it waits so long for so many, whatever has come
            if found:
                deadline_s = time.monotonic() + READ_S
            assert time.monotonic() < deadline_s, f"{topic}/{partition}: nothing for {READ_S:g} s, and its end neither"
            for message in found:
                error = message.error()
                if error is None:
                    if end is not None and (message.offset() or 0) >= end:
                        return
                    key, value = message.key() or b"", message.value() or b""
                    yield ReadRecord(key, message.offset() or 0, value, message.timestamp()[1])
                elif error.name() == "_PARTITION_EOF":
                    return
                else:
                    raise AssertionError(f"{topic}/{partition}: {error}")
    finally:
        consumer.close()

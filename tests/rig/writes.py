"""What somebody else does to the topics and to a store: foreign records, open transactions, locks."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Producer

from ashi.contracts.topics import TRADES
from ashi.runtime.kafka.connections.clients import partition_of
from ashi.runtime.settings import Settings


def publish(settings: Settings, records: Sequence[tuple[bytes, bytes]]) -> None:
    """Write keys and values into topic `trades`, and wait until Kafka has them."""
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap, "queue.buffering.max.messages": 10**6})
    for key, value in records:
        producer.produce(TRADES, value, key, partition=partition_of(key, settings.partitions))
    left = producer.flush(60)
    assert not left, f"Kafka has not taken {left} of {len(records)} records within 60 s"


def open_transaction(settings: Settings, symbol: str) -> Producer:
    """Leave one open in the partition of a symbol; `abort_transaction` ends it, and Kafka after 15 minutes."""
    producer = Producer(
        {
            "bootstrap.servers": settings.kafka_bootstrap,
            "transactional.id": f"drill-{time.time()}",
            "transaction.timeout.ms": 900_000,  # the most that brokers take by default
        }
    )
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(TRADES, b"held", b"drill", partition=partition_of(symbol.encode(), settings.partitions))
    producer.flush(20)
    return producer


@contextmanager
def locked_database(path: Path, hold_s: float | None = None, gap_s: float = 0.02) -> Iterator[None]:
    """Somebody else has an SQLite database locked: all the time, or for `hold_s` at a time with gaps in between."""
    done = threading.Event()

    def hold() -> None:
        other = sqlite3.connect(path, timeout=30, isolation_level=None)
        while not done.is_set():
            other.execute("BEGIN EXCLUSIVE")
            done.wait(hold_s)
            other.execute("COMMIT")
            time.sleep(gap_s)
        other.close()

    holding = threading.Thread(target=hold)
    holding.start()
    try:
        yield
    finally:
        done.set()
        holding.join(40)


def venue_fault(port: int, name: str, **arguments: object) -> None:
    """Let the simulated venue that serves at a port do something wrong."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/sim/fault",
        data=json.dumps({"fault": name, "args": arguments}).encode(),
        headers={"Content-Type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=10).close()

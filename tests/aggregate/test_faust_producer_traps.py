"""The traps of docs/faust.md about the producer and the sensors: each twice, as in `test_faust_traps`."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

from aiokafka.cluster import ClusterMetadata
from faust.sensors.prometheus import PrometheusMonitor
from faust.transport.drivers import aiokafka as driver
from faust.transport.producer import ProducerBuffer
from faust.types import TP
from faust.types.tuples import FutureMessage, PendingMessage
from faust_apps import (
    our_app,
    plain_app,
    ticks,
)
from faust_fakes import FakeProducer, consumer_of

from ashi.contracts.topics import CANDLES
from ashi.runtime.kafka.connections.clients import murmur2_partitioner
from ashi.runtime.kafka.producing.record_batches import RecordBatches
from ashi.runtime.settings import Settings
from ashi_aggregate.faust import transport

# The producer


def test_fausts_producer_is_idempotent_only_in_transactions_and_ashis_always_is():
    """Trap: without idempotence a retry repeats or reorders records; Faust's partitioner depends on its settings."""

    async def scenario() -> None:
        assert "enable_idempotence" not in driver.Producer._settings_extra(plain_app().producer)
        made = plain_app().producer._new_producer()
        assert made._txn_manager is None, "Faust's producer is idempotent"
        await made.stop()

        producer = our_app().producer
        assert type(producer) is transport.Producer
        made = producer._new_producer()
        assert made._txn_manager is not None
        assert made._sender._acks == -1
        assert made._partitioner is murmur2_partitioner
        await made.stop()

    asyncio.run(scenario())


def test_faust_knows_no_prefix_of_topics_and_no_rack_and_ashis_clients_do():
    """Trap: a setting of every client must be set in Faust's by hand."""

    async def scenario() -> None:
        settings = Settings.from_environment({"ASHI_TOPIC_PREFIX": "staging.", "ASHI_KAFKA_RACK": "eu-1a"})
        app = our_app(settings=settings)
        consumer = app.consumer._thread._create_consumer(asyncio.get_running_loop())
        assert consumer._client_rack == "eu-1a"
        assert consumer._client._get_conn.__name__ == "connect_and_name", "it would read somebody else's trades"
        producer = app.producer._new_producer()
        assert producer.client._get_conn.__name__ == "connect_and_name", "it would write into somebody else's candles"
        await consumer.stop()
        await producer.stop()

    asyncio.run(scenario())


def test_faust_throttles_at_a_hundred_buffered_messages_and_ashi_sends_past_the_buffer():
    """Trap: what goes through `send_soon` waits in a buffer that stops all processing when it is full."""

    async def scenario() -> None:
        assert ProducerBuffer.max_messages == 100, "look at how Faust's producer buffer throttles now"
        app = our_app()
        consumer_of(app)
        app.producer.batches = RecordBatches(app._producer, app.settings)
        pending = await app.send(CANDLES, 0, [(b"k", b"v", [("h", b"1")])] * 200)
        await ticks()
        assert app._producer.buffer.pending.empty()
        assert app._producer.sent == [(CANDLES, {"key": None, "value": 200, "partition": 0})]
        app._producer.futures[0].set_result("acknowledged")
        assert await pending == "acknowledged", "what is awaited is the broker's acknowledgement"

    asyncio.run(scenario())


def test_fausts_threaded_producer_resolves_another_future_and_ashi_does_not_use_it():
    """Trap: with `producer_threaded=True` whoever awaits the message he was given waits for ever."""

    async def scenario() -> None:
        app = plain_app()
        producer = FakeProducer(app)
        promise = FutureMessage(PendingMessage(app.topic("t"), b"k", b"v", 0, None, [], None, None, None))
        threaded = SimpleNamespace(app=app, _producer=producer)
        await driver.ThreadedProducer.publish_message(threaded, promise)
        producer.futures[0].set_result(SimpleNamespace(topic_partition=TP("t", 0), offset=0))
        await ticks()
        assert not promise.done(), "the threaded producer resolves the promise: it could be used"
        assert our_app().producer.threaded_producer is None

    asyncio.run(scenario())


def test_faust_sends_outside_the_transaction_to_topics_it_does_not_read_and_ashi_uses_versions():
    """Trap: with exactly_once, what is sent to a topic the application does not read escapes the transaction."""

    async def scenario() -> None:
        app = plain_app()
        app._producer = producer = FakeProducer(app)
        thread = driver.AIOKafkaConsumerThread(app.consumer)
        thread._consumer = SimpleNamespace(_client=SimpleNamespace(cluster=ClusterMetadata()))
        app.consumer._thread = thread
        transactions = app.consumer.transactions
        transactions.producer = SimpleNamespace(send=lambda *args, **options: sending(args, options))

        async def sending(args: Any, options: Any) -> None:
            producer.sent.append((args[0], options))

        await transactions.send(CANDLES, b"k", b"v", None, None, None)
        assert producer.sent == [(CANDLES, {"transactional_id": None})], "Faust's transactions cover all topics"
        assert not our_app().in_transaction

    asyncio.run(scenario())


def test_fausts_prometheus_monitor_measures_nothing_and_ashi_does_not_use_it():
    """Trap: its latencies count from the end of what they measure."""
    metrics = MagicMock()
    monitor = PrometheusMonitor(metrics)
    long_ago = monitor.time() - 1_000
    monitor.on_rebalance_end(plain_app(), {"time_start": long_ago, "time_return": long_ago})
    (observed_ms,) = metrics.rebalance_done_latency.observe.call_args.args
    assert abs(observed_ms) < 10_000, "the monitor now says how long a rebalance took"
    assert not isinstance(our_app().monitor, PrometheusMonitor)

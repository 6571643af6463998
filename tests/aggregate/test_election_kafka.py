"""An election that is not clean, on three real brokers: the log ends before what a worker has read, and grows again."""

from __future__ import annotations

import asyncio
import signal

import pytest
from test_aggregate_kafka import aggregated, at, publish, steady_trades
from test_moved_ground_kafka import candles, ended

import kafka_cluster
from ashi.contracts.topics import TRADES
from ashi.runtime.kafka.offsets import end_offsets
from ashi.runtime.settings import Settings
from kafka_cluster import patiently

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def brokers(tmp_path_factory):
    with kafka_cluster.cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def kafka_settings(brokers):
    """Settings of the cluster, so that stages are started against it."""
    settings = Settings.from_environment({"ASHI_KAFKA_BOOTSTRAP": brokers.bootstrap, "ASHI_PARTITIONS": "4"})
    asyncio.run(kafka_cluster.create_deployment(settings, unsafe=TRADES))
    return settings


def test_a_log_that_is_cut_under_a_worker_and_outgrows_what_it_has_read_stops_it_at_every_start(
    brokers, kafka_settings, start_stage
):
    log = steady_trades(3_000, seed=10)

    async def scenario() -> None:
        await publish(kafka_settings, log[:1_000])
        worker = start_stage("aggregate", ASHI_SESSION_TIMEOUT="60s", ASHI_PARTITIONS="4")
        await aggregated(kafka_settings)
        brokers.kill(3)
        await kafka_cluster.isr_of(kafka_settings, TRADES, {2})
        await publish(kafka_settings, log[1_000:1_200])
        await patiently(lambda: aggregated(kafka_settings))
        read = await patiently(lambda: end_offsets(kafka_settings, TRADES))
        before = await patiently(lambda: candles(kafka_settings))
        worker.signal(signal.SIGSTOP)  # so that its next fetch comes only when the log is longer than it was
        brokers.kill(2)
        brokers.start(3)
        await asyncio.to_thread(brokers.wait_until_ready, 3)
        await kafka_cluster.leader_of(kafka_settings, TRADES, 3)
        await publish(kafka_settings, [at(trade, trade.traded_at + 900_000_000) for trade in log[1_200:]])
        grown = await patiently(lambda: end_offsets(kafka_settings, TRADES))
        assert all(grown[number] > end for number, end in read.items() if end), (read, grown)
        worker.signal(signal.SIGCONT)
        texts = [await ended(worker)]
        while len(texts) < 2 or "cannot reach Kafka" in texts[-1]:  # it may have asked the broker that was killed
            texts.append(await ended(start_stage("aggregate", ASHI_PARTITIONS="4")))
            assert len(texts) < 6
        for text in (texts[0], texts[-1]):
            assert "is not the log that its state has read: offset" in text
            assert "ashi aggregate reconfigure" in text
        after = await patiently(lambda: candles(kafka_settings))
        assert after == before, "something was folded on top of another log"

    asyncio.run(scenario())

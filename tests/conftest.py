"""What all tests share: one real broker for the whole run, and fresh topics for each test that asks for them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from ashi.cli.broker import Broker
from ashi.contracts.topics import topic_specs
from ashi.runtime.kafka import admin_client, partitions_of_topics
from ashi.runtime.settings import Settings
from ashi.runtime.topics import create_topics

# Timing belongs to the benchmarks: on a shared machine a deadline only makes tests flaky.
settings.register_profile("ashi", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ashi")


@pytest.fixture(scope="session", autouse=True)
def no_settings_from_outside() -> None:
    """Settings of whoever runs the tests must not change them; those that say where Java is may."""
    for name in list(os.environ):
        if name.startswith("ASHI_") and name not in {"ASHI_JAVA", "ASHI_CACHE_DIR"}:
            del os.environ[name]


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A real Apache Kafka, started once; it dies with the tests, however they end."""
    broker = Broker(Path(tmp_path_factory.mktemp("kafka")))
    broker.start(child=True, fresh=True)
    yield broker
    broker.stop()


@pytest.fixture
def kafka_settings(kafka: Broker) -> Settings:
    """Settings whose Kafka has all topics of a deployment, each newly made and empty."""
    chosen = Settings.from_environment({"ASHI_KAFKA_BOOTSTRAP": kafka.bootstrap, "ASHI_SESSION_TIMEOUT": "6s"})
    asyncio.run(renew_topics(chosen))
    return chosen


async def renew_topics(chosen: Settings) -> None:
    """Delete every topic there is, with the groups' offsets in them, and create those of a deployment."""
    async with admin_client(chosen) as client:
        names = [name for name in await partitions_of_topics(client) if not name.startswith("__")]
        if names:
            await client.delete_topics(names)
            deadline = time.monotonic() + 20
            while set(names) & set(await partitions_of_topics(client)):
                assert time.monotonic() < deadline, "topics do not go away"
                await asyncio.sleep(0.05)
    await create_topics(chosen, topic_specs(chosen.partitions, chosen.timeframes))

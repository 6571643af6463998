"""A state that was built by other rules of acceptance is not gone on from, and the way out is named and works."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import pytest
from recorded import SETTINGS, recorded_log

from ashi.contracts.errors import StateError
from ashi.contracts.topics import META
from ashi.runtime.kafka.connections.clients import make_producer
from ashi.runtime.settings import Settings
from ashi_aggregate.epoch import ACCEPTANCE, Epoch, agree_on_epoch, check_epoch, require_epoch
from ashi_aggregate.reconfigure import reconfigure

pytestmark = pytest.mark.kafka


async def write(settings: Settings, key: bytes, value: bytes) -> None:
    producer = make_producer(settings)
    await producer.start()
    await producer.send_and_wait(META, value, key)
    await producer.stop()


async def reconfigured(settings: Settings) -> tuple[Epoch | None, Epoch]:
    """The epochs before and after, once Kafka knows of workers killed by earlier tests that they are dead."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return await reconfigure(settings)
        except StateError as error:
            if "within the session timeout" not in str(error) or time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.5)


def test_an_epoch_of_other_rules_is_refused_until_it_is_reconfigured(kafka_settings: Settings) -> None:
    """That of version 0.1.0, byte for byte, which wrote no number, and one of a version to come."""
    recorded = next(record for record in recorded_log() if record.topic == META)
    environment: dict[str, Any] = {"ASHI_KAFKA_BOOTSTRAP": kafka_settings.kafka_bootstrap, **SETTINGS}
    settings = Settings.from_environment(environment | {"ASHI_PARTITIONS": str(kafka_settings.partitions)})
    written = msgspec.json.decode(recorded.value or b"", type=Epoch)
    assert b"acceptance" not in (recorded.value or b"")
    assert written.acceptance == 1 < ACCEPTANCE

    async def scenario() -> None:
        await write(settings, recorded.key or b"", recorded.value or b"")
        for ask in (agree_on_epoch, require_epoch):
            with pytest.raises(StateError, match=r"an earlier version.*acceptance 1.*`ashi aggregate reconfigure`"):
                await ask(settings)
        await check_epoch(settings, written)  # a worker of that version that runs is not disturbed
        before, after = await reconfigured(settings)
        assert before == written
        assert (after.epoch, after.acceptance) == (written.epoch + 1, ACCEPTANCE)
        assert await agree_on_epoch(settings) == await require_epoch(settings) == after
        with pytest.raises(StateError, match="has been reconfigured"):
            await check_epoch(settings, written)
        later = msgspec.structs.replace(after, epoch=after.epoch + 1, acceptance=ACCEPTANCE + 1)
        await write(settings, b"epoch-later", msgspec.json.encode(later))
        with pytest.raises(StateError, match=r"a later version.*`ashi aggregate reconfigure`"):
            await agree_on_epoch(settings)

    asyncio.run(scenario())


def test_the_first_worker_of_all_writes_its_rules_down(kafka_settings: Settings) -> None:
    assert asyncio.run(agree_on_epoch(kafka_settings)).acceptance == ACCEPTANCE

"""Workers that keep their places in the group while they are restarted, on a real Kafka."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from typing import Any

import pytest
from aggregate_kafka import aggregated, check, publish, steady_trades

from ashi.runtime.settings import Settings
from kafka_topics.fresh_topics import PARTITIONS

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SESSION = "30s"
"""Much longer than a restart takes here: whoever is given a stopped worker's partitions was told to take them."""
AWAY_S = 25.0
"""Longest from the signal to the restored state: some two seconds on a quiet machine."""
ALL = set(range(PARTITIONS))


def taken_up(worker: Any) -> list[set[int]]:
    """The partitions that a worker has gone on with, each time that it did."""
    said = [json.loads(line) for line in worker.log.read_text().splitlines() if '"event":"taken up"' in line]
    return [set(entry["partitions"]) for entry in said]


def until_they_share(*workers: Any) -> None:
    """Wait until each partition is one worker's."""
    deadline = time.monotonic() + 60
    while sorted(number for worker in workers for number in taken_up(worker)[-1]) != sorted(ALL):
        assert time.monotonic() < deadline, [taken_up(worker) for worker in workers]
        time.sleep(0.05)


def test_a_worker_with_an_instance_id_is_restarted_unnoticed_and_a_second_one_with_its_id_ends_it(
    kafka_settings: Settings, start_stage: Any
) -> None:
    log = steady_trades(4_000, seed=3)

    def start(instance_id: str) -> Any:
        worker = start_stage("aggregate", ASHI_INSTANCE_ID=instance_id, ASHI_SESSION_TIMEOUT=SESSION)
        worker.wait_for('"event":"ready"')
        return worker

    def restarted(worker: Any, instance_id: str, number: signal.Signals, status: int) -> Any:
        began_s, had = time.monotonic(), taken_up(worker)[-1]
        worker.signal(number)
        assert worker.process.wait(20) == status
        again = start(instance_id)
        assert time.monotonic() - began_s < AWAY_S
        assert taken_up(again) == [had], "it goes on with what it had"
        return again

    async def scenario() -> None:
        first, second = start("first"), start("second")
        until_they_share(first, second)
        heard = len(taken_up(second))
        await publish(kafka_settings, log[:1_000])
        first = restarted(first, "first", signal.SIGTERM, 0)
        await publish(kafka_settings, log[1_000:2_000])
        first = restarted(first, "first", signal.SIGKILL, -signal.SIGKILL)
        await publish(kafka_settings, log[2_000:3_000])

        usurper = start("first")
        assert first.process.wait(20) == 78
        assert "the instance id 'first' (ASHI_INSTANCE_ID)" in first.log.read_text()
        assert taken_up(usurper) == taken_up(first)
        await publish(kafka_settings, log[3_000:])
        await aggregated(kafka_settings)
        assert len(taken_up(second)) == heard, "nobody else has noticed anything"
        assert (usurper.process.poll(), second.process.poll()) == (None, None)
        await check(kafka_settings, log)

    asyncio.run(scenario())

"""A broker that stands still while a worker takes up its partitions, longer than a request may take."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aggregate_kafka import aggregated, check, publish, steady_trades

from ashi.runtime.settings import Settings
from ashi_cli.onemachine.children import spawn, stop_all

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

REQUEST_TIMEOUT_S = 7.0
WORKER = """
import asyncio, os, pathlib, sys
from ashi.runtime.settings import Settings
from ashi_aggregate.faust import app, transport
from ashi_aggregate.worker import run_aggregate

def waiting(method):
    async def waits(self, *arguments):
        pathlib.Path("asks").touch()
        while not os.path.exists("frozen"):
            await asyncio.sleep(0.01)
        return await method(self, *arguments)
    return waits

app.REQUEST_TIMEOUT_S = float(os.environ["REQUEST_TIMEOUT"])
name = os.environ["ASKS"]
setattr(transport.Consumer, name, waiting(getattr(transport.Consumer, name)))
sys.exit(run_aggregate(Settings.from_environment()))
"""
"""A worker that asks the broker something for the first time when that stands still."""


@pytest.mark.parametrize("asks", ["highwaters", "seek_to_committed"])
def test_a_worker_takes_up_its_partitions_when_a_broker_that_stood_still_for_long_goes_on(
    kafka: Any, kafka_settings: Settings, tmp_path: Path, asks: str
) -> None:
    log = tmp_path / "worker.log"
    trades = steady_trades(400, seed=3)
    asyncio.run(publish(kafka_settings, trades))
    with log.open("wb") as output:
        worker = spawn(
            [sys.executable, "-c", WORKER],
            env=os.environ
            | {
                "ASHI_KAFKA_BOOTSTRAP": kafka_settings.kafka_bootstrap,
                "ASHI_SESSION_TIMEOUT": "30s",  # longer than the broker stands still, which is not what is tried here
                "ASHI_QUIET_CLOSE": "off",
                "ASHI_METRICS_PORT": "0",
                "ASKS": asks,
                "REQUEST_TIMEOUT": str(REQUEST_TIMEOUT_S),
            },
            stdout=output,
            stderr=output,
            cwd=tmp_path,
        )

    def wait_for(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 45
        while not condition():
            assert worker.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.05)

    try:
        wait_for((tmp_path / "asks").exists)
        kafka.process.send_signal(signal.SIGSTOP)
        os.waitpid(kafka.process.pid, os.WUNTRACED)  # a busy machine lets it answer for a while
        (tmp_path / "frozen").touch()
        time.sleep(REQUEST_TIMEOUT_S + 1)
        assert '"event":"taken up"' not in log.read_text()
        kafka.process.send_signal(signal.SIGCONT)
        wait_for(lambda: '"event":"taken up"' in log.read_text())

        async def judge() -> None:
            await aggregated(kafka_settings)
            await check(kafka_settings, trades)

        asyncio.run(judge())
        assert log.read_text().count('"event":"joining the group"') == 1, "it did not begin anew"
    finally:
        kafka.process.send_signal(signal.SIGCONT)
        stop_all([worker], 10)

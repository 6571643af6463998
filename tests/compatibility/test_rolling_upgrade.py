"""Living workers of an earlier version are replaced one by one, and back, under load: docs/maintenance.md says how.

What versions before the earlier one left behind is gone on from all the same, see `test_recorded_kafka`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import waits
from ashi.contracts import Trade
from ashi.contracts.records import trade_in
from ashi.contracts.topics import AGGREGATE_APP, TRADES, TRADES_DEAD
from ashi.runtime.kafka.consuming.groups import view_group
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.settings import Settings
from ashi_cli.onemachine.broker import Broker
from kafka_topics.fresh_topics import PARTITIONS, delete_topics
from oracle import candles_of, closed, stored, timely, unique
from samples.sqlite_candles import rows_in
from servers import earlier_version
from servers.stages import get, served_at, simulated_venue

pytestmark = pytest.mark.outside

MARKETS = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "DOGEUSDT", "BNBUSDT"]
NAMES = ["1s", "5s", "1m"]
PATIENCE_S = 90.0
until = partial(waits.until, timeout_s=PATIENCE_S)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the earlier version."""
    folder = tmp_path_factory.mktemp("earlier")
    if missing := earlier_version.unpack(folder):
        pytest.skip(f"no upgrade is tested: {missing}")
    return folder


class Deployment:
    """Processes of two versions on one Kafka."""

    def __init__(self, settings: Settings, earlier: Path, folder: Path, addresses: dict[str, str]) -> None:
        self.settings = settings
        self.folder = folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._earlier = earlier
        self._started = 0
        self._env = {name: value for name, value in os.environ.items() if not name.startswith("ASHI_")} | {
            "ASHI_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
            "ASHI_PARTITIONS": str(PARTITIONS),
            "ASHI_TIMEFRAMES": ",".join(NAMES),
            "ASHI_QUIET_CLOSE": "off",
            "ASHI_METRICS_PORT": "0",
            "ASHI_LOG_FORMAT": "json",
            **addresses,
        }

    def environment(self, version: str, **more: str) -> dict[str, str]:
        root = earlier_version.ROOT if version == "now" else self._earlier
        return self._env | earlier_version.environment(root) | more

    def run(self, version: str, *argv: str) -> str:
        command = [sys.executable, "-P", "-m", "ashi_cli.main", *argv]
        done = subprocess.run(
            command, env=self.environment(version), cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def replace(self, name: str, version: str, *argv: str, **env: str) -> None:
        """Stop the process of this name, if there is one, and start one of a version; wait until it is ready."""
        self.stop(name)
        self._started += 1
        log = self.folder / f"{self._started}-{name}-{version}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "ashi_cli.main", *argv],
                env=self.environment(version, **env), cwd=self.folder, stdout=output, stderr=output,
            )  # fmt: skip
        self.running[name] = process
        deadline = time.monotonic() + PATIENCE_S
        while not is_ready(log):
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, f"not ready: {log.read_text()[-3000:]}"
            time.sleep(0.1)
        assert version_of(process, self._earlier) == version

    def stop(self, name: str) -> None:
        process = self.running.pop(name, None)
        if process is not None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0, f"{name} ended with {process.returncode}"

    def kill(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()


def version_of(process: subprocess.Popen[bytes], earlier: Path) -> str:
    environment = Path(f"/proc/{process.pid}/environ").read_text()
    return "earlier" if f"PYTHONPATH={earlier}" in environment else "now"


def is_ready(log: Path) -> bool:
    """Whether a worker serves its metrics and says there that it is ready."""
    text = log.read_text()
    if '"metrics":"http' not in text:
        return False
    try:
        return get(f"{served_at(text)}/ready")[0] == 200
    except OSError:
        return False


@pytest.fixture
def deployment(kafka: Broker, earlier: Path, tmp_path: Path) -> Iterator[Deployment]:
    settings = Settings.from_environment(
        {
            "ASHI_KAFKA_BOOTSTRAP": kafka.bootstrap,
            "ASHI_PARTITIONS": str(PARTITIONS),
            "ASHI_TIMEFRAMES": ",".join(NAMES),
        }
    )
    asyncio.run(delete_topics(settings))
    with simulated_venue("binance", *MARKETS, "--rate", "150", "--seed", "11") as addresses:
        deployment = Deployment(settings, earlier, tmp_path, addresses)
        try:
            yield deployment
        finally:
            deployment.kill()


async def read_trades(settings: Settings) -> list[Trade]:
    return [trade_in(record) async for record in read_topic(settings, TRADES)]


def test_an_upgrade_worker_by_worker_and_back_leaves_the_oracles_candles(deployment: Deployment) -> None:
    """Readers of a topic first, and back the other way round; what is stored is right at each step."""
    settings, store = deployment.settings, deployment.folder / "candles.db"
    # A file whose layout this version has changed is not opened by the one before: on the way back it has another one,
    # and a group for it, so that the first one can be gone on with.
    stores = {"earlier": store, "now": store}
    in_use = [store]

    def goes_on(step: str) -> None:
        """Candles of trades that were made since go into the store."""
        begun_us = time.time_ns() // 1_000
        until(
            f"{step}: candles of now are stored",
            lambda: any(candle.open_time > begun_us for candle in rows_in(in_use[0]) if candle.timeframe == "1s"),
        )

    def all_of(version: str, stage: str) -> None:
        if stage == "sink":
            in_use[0] = stores[version]
            group = f"ashi-sink-{in_use[0].stem}"
            deployment.replace(
                "sink", version, "sink", "sqlite", "--storage", f"sqlite:///{in_use[0]}", ASHI_SINK_GROUP=group
            )
        elif stage == "ingest":
            deployment.replace("ingest", version, "ingest", "binance", *MARKETS)
        else:
            for name in ("one", "two"):
                deployment.replace(name, version, "aggregate", ASHI_INSTANCE_ID=name)
                held = asyncio.run(view_group(settings, AGGREGATE_APP))
                assert held.members == 2
        goes_on(f"{stage} of {version}")

    deployment.run("earlier", "topics", "create")
    for name in ("one", "two"):
        deployment.replace(name, "earlier", "aggregate", ASHI_INSTANCE_ID=name)
    group = f"ashi-sink-{store.stem}"
    deployment.replace("sink", "earlier", "sink", "sqlite", "--storage", f"sqlite:///{store}", ASHI_SINK_GROUP=group)
    all_of("earlier", "ingest")

    deployment.run("now", "topics", "create")
    for stage in ("sink", "aggregate", "ingest"):
        all_of("now", stage)
    stores["earlier"] = deployment.folder / "back.db"
    for stage in ("ingest", "aggregate", "sink"):
        all_of("earlier", stage)
    all_of("now", "sink")
    all_of("now", "aggregate")

    deployment.stop("ingest")
    trades = asyncio.run(read_trades(settings))
    counted = timely(unique(trades), "1s", 120_000_000)
    expected = closed(candles_of(counted, NAMES), trades, 2_000_000)
    until("all candles are stored", lambda: len(stored(rows_in(store))) >= len(expected))
    until("the store has the oracle's candles", lambda: stored(rows_in(store)) == expected)
    assert not asyncio.run(messages(settings, TRADES_DEAD))
    ids = defaultdict(set)
    for trade in trades:
        ids[trade.symbol].add(int(trade.trade_id))
    assert len(ids) == len(MARKETS)
    for symbol, known in ids.items():
        assert known == set(range(min(known), max(known) + 1)), f"trades of {symbol} were missed"


async def messages(settings: Settings, topic: str) -> list[Any]:
    return [record async for record in read_topic(settings, topic)]

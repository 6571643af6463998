"""Each trap of docs/faust.md twice: that the pinned Faust still has it, and that Ashi does not fall into it.

When a test fails after a version has been raised, its message or comment says whether the workaround may go or must
change. Faust's own code is run in this process wherever that is possible, on its own classes without a broker.

Here: versions, windows, events, workers that are dead or whose agent died. Those of positions, rebalances, commits,
changelogs, the producer and membership are in `test_faust_*_traps.py` and `test_membership_traps.py`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tomllib
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mode
import pytest
from faust.types import TP
from faust_apps import (
    MINUTE,
    RULES,
    TIMEFRAMES,
    TP0,
    our_app,
    plain_app,
    record,
    ticks,
)
from faust_fakes import HeldWorker, consumer_of, fetched_by, records, trade

from ashi.contracts import encode_trade
from ashi.contracts.topics import MARKERS_TABLE, TRADES, changelog_topic
from ashi.runtime.kafka.connections.clients import make_producer, partition_of
from ashi_aggregate.core.codec import Marker, encode
from ashi_aggregate.faust.transport import ChunkSchema
from ashi_aggregate.fencing import SessionGuard
from ashi_aggregate.worker import _progress
from ashi_cli.onemachine.children import spawn, stop_all
from kafka_topics.simulated_log import Broker, Worker
from samples.hypothesis_strategies import START

# The versions


def test_what_is_installed_are_exactly_the_versions_that_are_pinned():
    """All below holds for these versions, and nobody knows for which others."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    pins = dict(line.split("==") for line in extras["worker"] + extras["aggregate"] if "==" in line)
    assert {"faust-streaming", "mode-streaming", "aiokafka"} <= set(pins)
    assert pins == {name: version(name) for name in pins}


def test_the_application_avoids_what_its_settings_can_avoid():
    """Traps that a setting avoids: undeclared topics, a leader topic, standbys, threads, the web application."""
    conf, faust_conf = our_app().conf, plain_app().conf
    assert (conf.topic_allow_declare, faust_conf.topic_allow_declare) == (False, True)
    assert (conf.web_enabled, faust_conf.web_enabled) == (False, True)
    assert conf.stream_wait_empty
    assert (conf.table_standby_replicas, faust_conf.table_standby_replicas) == (0, 1)
    assert conf.topic_disable_leader
    assert conf.consumer_auto_offset_reset == "earliest"
    assert conf.producer_acks == -1
    assert not conf.producer_threaded
    assert conf.processing_guarantee.name == "AT_LEAST_ONCE"


# Windowed tables


def test_faust_closes_the_windows_of_one_partition_only_and_ashi_those_of_each():
    """Trap: `on_window_close` goes by one number for all partitions, and pops the row before it is called."""

    async def faust_closes() -> tuple[list[str], dict]:
        closed: list[str] = []

        async def on_close(key: Any, value: Any) -> None:
            assert key not in table.data, "the row is popped before the callback"
            closed.append(key[0])

        table = plain_app().Table("windows", partitions=2, on_window_close=on_close)
        table.tumbling(60.0, expires=1.0)
        for partition, symbol in enumerate(["a", "b"]):
            key = (symbol, (60.0, 119.9))
            table.data[key] = 1
            table._maybe_set_key_ttl(key, partition)
        await table._del_old_keys()
        return closed, dict(table.data)

    assert asyncio.run(faust_closes()) == (["a"], {}), "Faust's windowed tables no longer lose windows"

    async def ashi_closes() -> list[str]:
        symbols = ["binance:S0", "binance:S1"]
        broker = Broker(partitions=2)
        assert {partition_of(symbol.encode(), 2) for symbol in symbols} == {0, 1}
        broker.publish([trade(symbol, 0) for symbol in symbols])
        worker = Worker(broker, TIMEFRAMES, RULES)
        await worker.start()
        await worker.run_to_end()
        assert broker.candles() == [], "the windows are open, however late it is by the wall clock"
        broker.publish([trade(symbol, 2 * MINUTE, 1) for symbol in symbols])
        recovered = Worker(broker, TIMEFRAMES, RULES)
        await recovered.start()
        await recovered.run_to_end()
        return sorted(candle.symbol for candle in broker.candles() if candle.open_time == START)

    assert asyncio.run(ashi_closes()) == ["binance:S0", "binance:S1"]


# One event at a time


def test_faust_delivers_a_fetch_one_record_at_a_time_and_ashi_in_one_chunk():
    """Trap: what Faust does for each event costs more than folding it."""

    async def scenario() -> None:
        faust_consumer, thread = consumer_of(plain_app())
        thread.fetched = {TP0: records(0, 100)}
        assert len(await fetched_by(faust_consumer)) == 100

        consumer, thread = consumer_of(our_app(), 0, 1)
        consumer._next = {TP0: 0, TP(TRADES, 1): 0}
        changelog = TP(changelog_topic(MARKERS_TABLE), 0)
        consumer._active_partitions.add(changelog)
        thread.fetched = {
            TP0: records(0, 100),
            TP(TRADES, 1): [record(offset, 1) for offset in range(10)],
            changelog: [record(offset, 0, changelog.topic) for offset in range(3)],
        }
        items = await fetched_by(consumer)
        assert [(tp, each.offset) for tp, each in items] == [
            (TP0, 99),
            (TP(TRADES, 1), 9),
            (changelog, 2),
        ]
        assert consumer.app.tables[MARKERS_TABLE].rows(0) == {b"k": encode(Marker(2))}
        chunk = items[0][1].value
        assert (chunk.partition, chunk.begin, chunk.end, len(chunk.records)) == (0, 0, 100, 100)
        event = await ChunkSchema().compile(consumer.app)(items[0][1])
        assert event.value is chunk

    asyncio.run(scenario())


# A worker that is dead and does not know


@pytest.mark.parametrize("work", ["chunk", "checkpoint"])
def test_a_worker_that_stood_still_beyond_its_session_ends_before_it_sends_anything(work):
    """Trap: no fencing with at_least_once: a worker that Kafka has declared dead can still write."""

    class LostError(BaseException):
        pass

    def lost() -> None:
        raise LostError

    async def scenario(away_s: float) -> HeldWorker:
        now = [1_000.0]
        broker = Broker(partitions=1)
        broker.publish([trade("binance:A", n * MINUTE, n) for n in range(5)])
        worker = HeldWorker(broker, TIMEFRAMES, RULES)
        worker.pipeline._session_guard = SessionGuard(6_000_000, clock=lambda: now[0], lost=lost)
        await worker.start()
        if work == "checkpoint":
            await worker.read_all(0)
            worker.acknowledge_all()
        now[0] += away_s
        try:
            if work == "chunk":
                await worker.read_all(0)
            else:
                checkpoint = asyncio.create_task(worker.pipeline.checkpoint())
                await ticks()
                if not checkpoint.done():
                    checkpoint.cancel()
                else:
                    await checkpoint
        except LostError:
            assert worker.topics == []
            raise
        return worker

    async def ended(away_s: float) -> bool:
        try:
            worker = await scenario(away_s)
        except LostError:
            return True
        assert worker.topics
        return False

    assert not asyncio.run(ended(5.9))
    assert asyncio.run(ended(6.1))


def test_standing_still_is_measured_from_check_to_check_and_reported_once():
    """Trap: a process that was stopped cannot notice it but by its clock."""
    now = [0.0]
    losses: Counter[str] = Counter()
    session_guard = SessionGuard(6_000_000, clock=lambda: now[0], lost=lambda: losses.update(["lost"]))
    for _ in range(10):
        now[0] += 5.0
        session_guard.check()
    assert not losses
    now[0] += 6.5
    session_guard.check()
    session_guard.check()
    assert losses == {"lost": 1}


# A worker whose agent has died


def test_faust_restarts_an_agent_that_fails_and_ashis_takes_the_application_down():
    """Trap: an agent that dies is restarted, or leaves a worker that looks alive."""
    faust_app = plain_app()
    assert faust_app.conf.agent_supervisor is mode.OneForOneSupervisor
    faust_agent = faust_app.agent(faust_app.channel(), name="plain")(_nothing)
    assert faust_agent._get_supervisor_strategy() is mode.OneForOneSupervisor, "look at agents' supervisors"
    assert our_app().agents["aggregate"]._get_supervisor_strategy() is mode.CrashingSupervisor


async def _nothing(stream: Any) -> None:
    async for _ in stream:
        pass


FAILING_WORKER = """
import sys
from ashi_aggregate.pipeline import Pipeline
from ashi_aggregate.worker import run_aggregate
from ashi.runtime.settings import Settings

async def on_chunk(self, chunk, acknowledge):
    raise RuntimeError("this chunk cannot be folded")

Pipeline.on_chunk = on_chunk
sys.exit(run_aggregate(Settings.from_environment()))
"""


def test_a_worker_whose_recovery_stands_still_does_not_count_as_alive():
    """Trap: a recovery that waits for records that never come waits for ever, and everything else goes on."""
    app = our_app()
    recovery = app.tables.recovery
    markers = TP(changelog_topic(MARKERS_TABLE), 0)
    recovery.active_highwaters[markers], recovery.active_offsets[markers] = 9, 3
    recovery.in_recovery = True
    app.consumer.resume_flow()
    recovering = _progress(app)
    app.pipeline.checkpoints += 1
    assert _progress(app) == recovering
    recovery.active_offsets[markers] = 4
    assert _progress(app) != recovering

    recovery.in_recovery = False
    before = _progress(app)
    assert before == _progress(app)
    app.pipeline.checkpoints += 1
    assert _progress(app) != before


UNFIT_MEMBER = """
import sys
from faust.assignor.partition_assignor import PartitionAssignor
from ashi_aggregate.worker import run_aggregate
from ashi.runtime.settings import Settings

def metadata(self, topics):
    raise RuntimeError("this member cannot describe itself")

PartitionAssignor.metadata = metadata
sys.exit(run_aggregate(Settings.from_environment()))
"""


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (FAILING_WORKER, "this chunk cannot be folded"),
        # Before there is anything to read nobody asks the client how its membership goes.
        (UNFIT_MEMBER, "this member cannot describe itself"),
    ],
)
def test_an_agent_or_a_part_of_the_client_that_fails_ends_the_worker_with_the_reason(
    kafka_settings, tmp_path, program, reason
):
    """Trap: an agent that dies leaves a worker that looks alive; a broken shutdown leaves one that hangs."""
    log = tmp_path / "worker.log"
    with log.open("wb") as output:
        worker = spawn(
            [sys.executable, "-c", program],
            env=os.environ
            | {
                "ASHI_KAFKA_BOOTSTRAP": kafka_settings.kafka_bootstrap,
                "ASHI_SESSION_TIMEOUT": "6s",
                "ASHI_METRICS_PORT": "0",
            },
            stdout=output,
            stderr=output,
            cwd=Path(__file__).parents[2],
        )
    try:

        async def publish() -> None:
            producer = make_producer(kafka_settings)
            await producer.start()
            sent = trade("binance:A", 0)
            await producer.send_and_wait(TRADES, key=sent.symbol.encode(), value=encode_trade(sent))
            await producer.stop()

        asyncio.run(publish())
        status = worker.wait(45)
    finally:
        stop_all([worker], 10)
    text = log.read_text()
    assert status == 1, text[-3000:]
    assert reason in text

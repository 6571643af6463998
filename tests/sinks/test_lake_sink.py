"""The sink of the lake: certified as every store is, whole batches whatever happens, and the real worker."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from lake_stage import DAY, LakeStage, read, table, write
from sink_certification import (
    FIRST_US,
    SinkCertification,
    a_candle,
    a_gap,
    opened,
    oracle,
    stored,
    until,
)
from sink_kafka import many_candles, publish

from ashi.contracts.errors import StorageError
from ashi.contracts.topics import CANDLES, FEED_GAPS
from ashi.runtime.kafka.cluster.offsets import committed_offsets, end_offsets
from ashi_sinks.lake import delta
from ashi_sinks.lake.reader import DAYS_AT_ONCE
from ashi_sinks.protocol import RowsLostError
from ashi_sinks.worker import sink_group
from servers import forked_stages


class TestLakeSink(SinkCertification):
    store = "lake"

    @pytest.fixture
    def new_stage(self, tmp_path):
        numbers = itertools.count()
        return lambda: LakeStage(tmp_path / f"lake {next(numbers)} #'+é")

    @pytest.fixture
    def new_stage_on(self):
        return lambda folder: LakeStage(folder / "lake")


@pytest.fixture
def stage(tmp_path):
    return LakeStage(tmp_path / "lake")


@pytest.fixture
def lake(stage):
    """A lake with one candle in it."""
    write(stage, [a_candle()])
    return stage


# What is guaranteed.


def test_symbols_that_begin_alike_and_times_that_differ_by_microseconds_are_told_apart_in_replays(stage):
    # The log has the least and greatest values of a file, texts cut to 32 characters and times to milliseconds.
    symbols = [f"binance:{'L' * 50}{number}" for number in range(3)]
    candles = [a_candle(minute, symbol=symbol) for symbol in symbols for minute in range(3)]
    gaps = [
        a_gap(symbol=symbol, from_time=FIRST_US + 123_456 + at, to_time=None) for symbol in symbols for at in range(3)
    ]

    async def scenario():
        async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
            for row, gap in zip(candles, gaps, strict=True):
                assert (await sink.write([row]), await sink.write_gaps([gap])) == (1, 1)
            assert (await sink.write(candles), await sink.write_gaps(gaps)) == (0, 0)
            return await stored(reader), [gap for symbol in symbols for gap in await reader.gaps(symbol)]

    assert asyncio.run(scenario()) == (candles, gaps)


def test_a_batch_is_on_the_disk_before_the_offsets_are_committed(stage, monkeypatch):
    synced = []
    monkeypatch.setattr(delta.os, "fsync", lambda number: synced.append(Path(f"/proc/self/fd/{number}").readlink()))
    write(stage, [a_candle()])
    folder = stage.folder / "candles"
    [part] = folder.rglob("part-*.parquet")
    entry = folder / "_delta_log" / f"{1:020d}.json"
    assert synced.index(part) < synced.index(entry)
    after = synced[synced.index(entry) :]
    assert {part.parent, part.parent.parent, entry.parent, folder, stage.folder} <= set(after)


def test_a_worker_reads_its_table_anew_now_and_then_as_what_the_driver_keeps_of_each_commit_adds_up(stage, monkeypatch):
    monkeypatch.setattr(delta, "READ_ANEW_EVERY", 3)
    opened_in = []

    async def scenario():
        async with opened(stage.sink()) as sink:
            known = sink._candles.now
            for minute in range(8):
                assert await sink.write([a_candle(minute)]) == 1
                if sink._candles.now is not known:
                    known = sink._candles.now
                    opened_in.append(known.version())
            await sink.write([a_candle(0, version=2)])
            table(stage).delete("true")
            with pytest.raises(RowsLostError):
                await sink.write([a_candle(9)])

    asyncio.run(scenario())
    # A version is seen when the next one is written.
    assert opened_in == [4, 7]


def test_what_is_read_anew_stands_in_a_checkpoint_of_the_drivers(lake):
    log = lake.folder / "candles" / "_delta_log"
    nothing = json.dumps({"commitInfo": {"timestamp": 0, "operation": "OPTIMIZE"}})
    for version in range(2, delta.READ_ANEW_EVERY - 1):
        (log / f"{version:020d}.json").write_text(nothing)
    write(lake, [a_candle(1)], [a_candle(2)])
    checkpoint = json.loads((log / "_last_checkpoint").read_text())
    assert delta.READ_ANEW_EVERY - 1 <= checkpoint["version"] <= delta.READ_ANEW_EVERY
    assert read(lake) == [a_candle(0), a_candle(1), a_candle(2)]


def test_a_reader_keeps_to_one_state_however_many_partitions_it_reads_one_after_the_other(stage):
    days = range(0, (DAYS_AT_ONCE + 8) * DAY, DAY)
    before, after = ([a_candle(minute, version) for minute in days] for version in (1, 2))

    async def scenario():
        async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
            await sink.write(before)
            reading = reader.read("binance:ETHUSDT", "1m")
            seen = [await anext(reading)]
            await sink.write(after)
            await reader.count()
            seen += [candle async for candle in reading]
            latest = [candle async for candle in reader.read("binance:ETHUSDT", "1m", limit=len(days) - 3)]
            return seen, latest

    seen, latest = asyncio.run(scenario())
    assert seen == before
    assert latest == after[3:]


def test_two_workers_that_begin_at_once_make_one_lake(stage):
    async def scenario():
        sinks = [stage.sink() for _ in range(4)]
        try:
            return await asyncio.gather(*(sink.open() for sink in sinks))
        finally:
            for sink in sinks:
                await sink.close()

    assert asyncio.run(scenario()) == [True] * 4
    assert table(stage).version() == 0


WRITER = """
import asyncio, sys
sys.path.insert(0, {tests!r})
from sink_certification import a_candle
from ashi_sinks.registry import make_sink

async def main():
    sink = make_sink({url!r})
    await sink.open()
    for version in range(1, 10_000):
        await sink.write([a_candle(minute, version=version) for minute in range(0, 3_000, 100)])
        print(version, flush=True)

asyncio.run(main())
"""


@pytest.mark.processes
def test_a_worker_killed_at_any_moment_leaves_whole_batches_only(stage):
    program = WRITER.format(tests=str(Path(__file__).parent), url=stage.url)
    dice = random.Random(1)
    for _ in range(4):
        child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        try:
            acknowledged = int(child.stdout.readline())
            time.sleep(dice.uniform(0, 0.1))  # any moment: there is no condition to wait for
        finally:
            child.kill()
            rest = child.stdout.read().split()
            child.wait()
        candles = read(stage)
        versions = {candle.version for candle in candles}
        assert len(candles) == 30
        assert len(versions) == 1
        assert versions.pop() >= int(rest[-1] if rest else acknowledged)


# The real worker and a real broker.


@contextmanager
def running(stage, settings, log, **environment):
    environment = {
        "ASHI_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "ASHI_SINK_BATCH_INTERVAL": "200ms",
        "ASHI_SESSION_TIMEOUT": "6s",
        "ASHI_LOG_FORMAT": "json",
        **environment,
    }
    command = [sys.executable, "-m", "ashi_cli.main", "sink", "lake", "--storage", stage.url]
    with log.open("ab") as file:
        child = forked_stages.start(
            command, cwd=Path(__file__).parents[2], stdout=file, stderr=file, env=os.environ | environment
        )
    try:
        yield child
    except BaseException as error:
        error.add_note(log.read_text())
        raise
    finally:
        child.kill()
        child.wait()


async def everything_is_committed(settings):
    for topic in (CANDLES, FEED_GAPS):
        committed = await committed_offsets(settings, sink_group("lake"), topic)
        ends = await end_offsets(settings, topic)
        if not all(committed.get(partition, 0) == end for partition, end in ends.items()):
            return False
    return True


async def rows_in(stage):
    try:
        async with opened(stage.reader()) as reader:
            return await reader.count()
    except StorageError:  # not made yet
        return 0


@pytest.mark.kafka
def test_two_workers_of_which_one_is_killed_leave_the_oracles_rows(kafka_settings, stage, tmp_path):
    candles = many_candles(300)
    gaps = [a_gap(minute, symbol=f"binance:S{minute}") for minute in range(5)]

    async def scenario():
        await publish(kafka_settings, [*candles, *gaps])
        with running(stage, kafka_settings, tmp_path / "one.log", ASHI_SINK_BATCH_SIZE="50") as one:

            async def far_enough():
                return await rows_in(stage) > 300

            await until(far_enough)
            upkeep = {"ASHI_LAKE_COMPACT_INTERVAL": "2s", "ASHI_LAKE_VACUUM_INTERVAL": "2s"}
            other_log = tmp_path / "other.log"
            with running(stage, kafka_settings, other_log, ASHI_SINK_BATCH_SIZE="50", **upkeep) as other:
                await until(lambda: "storing candles" in other_log.read_text())
                one.kill()
                await until(lambda: everything_is_committed(kafka_settings))
                await until(lambda: "compact: candles:" in other_log.read_text())
                await until(lambda: "vacuum: feed_status:" in other_log.read_text())
                other.terminate()
                assert other.wait(30) == 0
        async with opened(stage.reader()) as reader:
            found = [gap for number in range(5) for gap in await reader.gaps(f"binance:S{number}")]
            return await stored(reader), found

    assert asyncio.run(scenario()) == (oracle(candles), gaps)


@pytest.mark.kafka
def test_batches_are_large_and_waited_for_unless_told_otherwise(kafka_settings, stage, tmp_path):
    async def scenario():
        await publish(kafka_settings, [a_candle(minute) for minute in range(3_000)])
        unset = {"ASHI_SINK_BATCH_INTERVAL": ""}
        with running(stage, kafka_settings, tmp_path / "worker.log", **unset) as worker:
            await until(lambda: everything_is_committed(kafka_settings))
            worker.terminate()
            assert worker.wait(30) == 0

    asyncio.run(scenario())
    assert table(stage).version() == 1

"""Compaction and vacuum of the lake beside a worker, and what an earlier version had made."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError
from lake_stage import DAY, LakeStage, read, table, write
from sink_certification import (
    a_candle,
    a_gap,
    a_status,
    opened,
    oracle,
    stored,
    stored_gaps,
    until,
)

from ashi.contracts.errors import StorageError
from ashi.contracts.timeframe import HOUR_US
from ashi.contracts.topics import CANDLES, TRADES
from ashi.runtime.settings import Settings
from ashi_sinks import registry
from ashi_sinks.lake import delta, tables
from ashi_sinks.lake.maintenance import compact, vacuum
from ashi_sinks.protocol import RetryableError, RowsLostError


@pytest.fixture
def stage(tmp_path):
    return LakeStage(tmp_path / "lake")


@pytest.fixture
def lake(stage):
    """A lake with one candle in it."""
    write(stage, [a_candle()])
    return stage


# Upkeep.


@pytest.mark.slow
def test_compaction_and_vacuum_while_a_worker_writes_change_no_candle_and_stop_nobody(stage):
    batches, merged = [], 0

    async def write_on(sink):
        """At least 80 batches, and then for as long as little was merged: on a busy machine compaction comes slowly."""
        for version in range(1, 1_001):
            batch = [a_candle(minute, version) for minute in (version % 5, DAY + version % 7, 20 * DAY + version)]
            await sink.write(batch)
            batches.append(batch)
            if version >= 80 and merged > 3:
                return

    async def scenario():
        nonlocal merged
        async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
            writing = asyncio.create_task(write_on(sink))
            rounds = 0
            while not writing.done():
                await until(lambda goal=10 * rounds + 1: len(batches) >= goal or writing.done())
                merged += sum(one.partitions for one in await asyncio.to_thread(lambda: list(compact(stage.lake))))
                await asyncio.to_thread(lambda: list(vacuum(stage.lake, HOUR_US)))
                assert await stored(reader)
                rounds += 1
            await writing
            assert merged > 3
            return await stored(reader)

    assert asyncio.run(scenario()) == oracle(candle for batch in batches for candle in batch)
    [done, gaps, statuses] = compact(stage.lake)
    assert (done.table, done.after, done.busy) == ("candles", 3, 0)
    assert [(each.table, each.partitions, each.before) for each in (gaps, statuses)] == [
        ("feed_gaps", 0, 0),
        ("feed_status", 0, 0),
    ]


def test_vacuum_removes_what_is_out_of_use_and_what_killed_writers_left_and_keeps_what_is_young(stage):
    batches = [[a_candle(minute)] for minute in range(5)]
    write(stage, *batches)
    list(compact(stage.lake))
    folder = stage.folder / "candles" / "venue=binance" / "timeframe=1m" / "day=2022-01-01"
    [used] = [Path(uri) for uri in table(stage).file_uris()]
    abandoned, young = folder / "part-abandoned.parquet", folder / "part-being-written.parquet"
    abandoned.write_bytes(b"PAR1")
    young.write_bytes(b"PAR1")
    two_hours_ago = time.time() - 7_200
    for path in folder.glob("*.parquet"):
        if path != young:
            os.utime(path, (two_hours_ago, two_hours_ago))
    first, *_ = vacuum(stage.lake, 3 * HOUR_US)
    assert first.files == 0
    list(vacuum(stage.lake, HOUR_US))
    assert {used, young} <= set(folder.glob("*.parquet"))
    assert not abandoned.exists()
    assert read(stage) == [candle for batch in batches for candle in batch]


def test_vacuum_refuses_a_retention_that_could_take_files_of_a_running_write(lake):
    with pytest.raises(StorageError, match="at least 1h"):
        list(vacuum(lake.lake, HOUR_US - 1))


def test_a_worker_looks_after_the_tables_that_it_writes_to_as_often_as_it_is_told(stage):
    def chores(topic, **intervals):
        environment = {f"ASHI_LAKE_{name}": text for name, text in intervals.items()}
        settings = Settings.from_environment({"ASHI_STORAGE": stage.url, **environment})
        return {chore.name: chore for chore in registry.upkeep(settings, topic)}

    write(stage, *([a_candle(minute)] for minute in range(3)), gaps=[a_gap()])
    write(stage, gaps=[a_gap(7)])
    assert chores(CANDLES) == {}
    both = chores(CANDLES, COMPACT_INTERVAL="1h", VACUUM_INTERVAL="1d", RETENTION="1h")
    assert {name: chore.interval_s for name, chore in both.items()} == {"compact": 3_600, "vacuum": 86_400}
    going_on, stopping = threading.Event(), threading.Event()
    stopping.set()
    assert both["compact"].do(stopping) == []
    assert both["compact"].do(going_on) == [
        "candles: 3 files are 1 now, 1 partitions merged",
        "feed_gaps: 2 files are 1 now, 1 partitions merged",
    ]
    for path in stage.folder.rglob("*.parquet"):
        os.utime(path, (time.time() - 7_200, time.time() - 7_200))
    assert both["vacuum"].do(going_on)[:2] == ["candles: 0 files removed", "feed_gaps: 0 files removed"]
    assert read(stage) == [a_candle(minute) for minute in range(3)]
    with pytest.raises(StorageError, match="does not exist"):
        chores(TRADES, COMPACT_INTERVAL="1h")["compact"].do(going_on)
    assert list(chores(TRADES, VACUUM_INTERVAL="1h")) == ["vacuum"]


@pytest.mark.parametrize(
    ("call", "error", "kind"),
    [
        ("file_uris", DeltaError, StorageError),
        ("get_add_actions", DeltaError, StorageError),
        ("vacuum", DeltaError, StorageError),
        ("vacuum", CommitFailedError, RetryableError),
    ],
)
def test_whatever_the_driver_says_in_upkeep_does_not_end_the_worker(lake, monkeypatch, call, error, kind):
    def fail(*_, **__):
        raise error("the driver is at a loss")

    monkeypatch.setattr(DeltaTable, call, fail)
    with pytest.raises(kind, match="the driver is at a loss"):
        list(vacuum(lake.lake, HOUR_US) if call == "vacuum" else compact(lake.lake))


@pytest.mark.parametrize("information", [{}, {"operationParameters": None}, {"operation": None}])
@pytest.mark.parametrize("taken", [False, True])
def test_an_entry_of_another_writer_that_does_not_say_what_it_did(stage, caplog, information, taken):
    async def scenario():
        async with opened(stage.sink()) as sink:
            await sink.write([a_candle(0)])
            log = stage.folder / "candles" / "_delta_log"
            entries = sorted(log.glob("*.json"))
            added = [json.loads(line) for line in entries[-1].read_text().splitlines() if '"add"' in line]
            lines = [{"commitInfo": {"timestamp": 0, **information}}]
            if taken:
                lines += [{"remove": {"path": line["add"]["path"], "dataChange": True}} for line in added]
            (log / f"{len(entries):020d}.json").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
            if taken:
                with pytest.raises(RowsLostError, match=f"an operation without a name in version {len(entries)}"):
                    await sink.look("candles")
            await sink.look("candles")
            assert await sink.write([a_candle(0), a_candle(1)]) == (2 if taken else 1)

    asyncio.run(scenario())
    assert ("another writer changed the table" in caplog.text) is not taken
    assert read(stage) == [a_candle(0), a_candle(1)]


def test_upkeep_of_no_lake_says_so(stage):
    for work in (compact(stage.lake), vacuum(stage.lake, HOUR_US)):
        with pytest.raises(StorageError, match="does not exist"):
            list(work)
    assert not stage.folder.exists()


def test_a_lake_of_the_version_without_statuses_is_read_and_gets_what_it_lacks(stage):
    lost = a_gap(1, state="lost", final=True)
    write(stage, [a_candle()])
    shutil.rmtree(stage.folder / "feed_gaps")
    shutil.rmtree(stage.folder / "feed_status")
    kinds = {name: kind for name, kind in tables.FEED_GAPS.kinds.items() if name != "final"}
    before = delta.DeltaTable(stage.lake, replace(tables.FEED_GAPS, kinds=kinds, added=frozenset()))
    before.open_or_make()
    before.merge({name: [getattr(a_gap(), name)] for name in kinds})

    async def scenario():
        async with opened(stage.reader()) as reader:
            found = await stored_gaps(reader), await reader.status(a_status().symbol)
        async with opened(stage.sink()) as sink, opened(stage.sink()) as other:
            await sink.write_gaps([lost])
            await other.write_statuses([a_status()])
        async with opened(stage.reader()) as reader:
            return found, await stored(reader), await stored_gaps(reader), await reader.status(a_status().symbol)

    found, candles, gaps, status = asyncio.run(scenario())
    assert found == ([a_gap()], None)
    assert (candles, gaps, status) == ([a_candle()], [a_gap(), lost], a_status(workers=()))


@pytest.mark.processes
def test_the_command_compacts_and_vacuums_and_prints_a_line_for_each_table(stage):
    write(stage, *([a_candle(minute)] for minute in range(3)))

    def ashi(*arguments):
        command = [sys.executable, "-m", "ashi_cli.main", *arguments, "--storage", stage.url]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    compacted = ashi("lake", "compact")
    assert compacted.stdout.splitlines()[0] == "candles: 3 files are 1 now, 1 partitions merged"
    assert ashi("lake", "vacuum").stdout.splitlines()[0] == "candles: 0 files removed"
    assert ashi("lake", "vacuum", "--retention", "5m").returncode == 2
    assert ashi("sink", "sqlite", "--topic", "trades").returncode == 2
    assert "100" in ashi("candles", "binance:ETHUSDT", "1m").stdout

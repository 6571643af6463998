from __future__ import annotations

import asyncio
import datetime
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import delta_in_duckdb
import duckdb
import polars
import pytest
from deltalake import DeltaTable, Field, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.schema import PrimitiveType
from sink_certification import (
    FIRST_US,
    MINUTE_US,
    SinkCertification,
    a_candle,
    a_gap,
    a_status,
    opened,
    oracle,
    stored,
    stored_gaps,
    until,
)
from sink_kafka import many_candles, publish

from ashi.contracts.candle import DECIMAL_FIELDS, Candle, candle_fields
from ashi.contracts.errors import StorageError, UsageError
from ashi.contracts.feed import FeedGap
from ashi.contracts.timeframe import HOUR_US
from ashi.contracts.topics import CANDLES, FEED_GAPS, TRADES
from ashi.runtime.kafka.cluster.offsets import committed_offsets, end_offsets
from ashi.runtime.logs import configure_logging
from ashi.runtime.settings import Settings
from ashi_sinks import registry
from ashi_sinks.lake import delta, tables
from ashi_sinks.lake.location import lake_of
from ashi_sinks.lake.maintenance import compact, vacuum
from ashi_sinks.lake.reader import DAYS_AT_ONCE, LakeReader
from ashi_sinks.lake.sink import LakeSink
from ashi_sinks.protocol import RefusedError, RetryableError, RowsLostError
from ashi_sinks.registry import remove_store, store_exists, store_name
from ashi_sinks.worker import sink_group
from servers import forked_stages

DAY = 24 * 60


class LakeStage:
    refused = a_candle(9, trade_count=2**63)  # an integer of the message, but not of the table
    refused_gap = a_gap(9, trades_recovered=2**63)

    def __init__(self, folder):
        self.folder = folder
        self.url = f"lake:///{folder}"
        self.lake = lake_of(self.url)
        if os.geteuid() == 0:
            self.read_only = self._read_only

    def sink(self):
        return LakeSink(self.lake)

    def reader(self):
        return LakeReader(self.lake)

    @contextmanager
    def unavailable(self):
        away = self.folder.with_name(f"{self.folder.name} (not mounted)")
        self.folder.rename(away)
        yield
        assert not self.folder.exists(), "a place where nothing is mounted must stay empty"
        away.rename(self.folder)

    def empty(self, table):
        DeltaTable(self.lake.table(table)).delete()

    def alter(self):
        field = Field("mine", PrimitiveType("string"))
        DeltaTable(self.lake.table("candles")).alter.add_columns(field)

    @contextmanager
    def _read_only(self):
        mount = ["mount", "--bind", str(self.folder), str(self.folder)]
        if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
            pytest.skip("this user cannot mount")
        try:
            subprocess.run(["mount", "-o", "remount,ro,bind", str(self.folder)], check=True)
            yield
        finally:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


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


def write(stage, *batches, gaps=()):
    async def scenario():
        async with opened(stage.sink()) as sink:
            for batch in batches:
                await sink.write(batch)
            if gaps:
                await sink.write_gaps(gaps)

    asyncio.run(scenario())


def read(stage):
    async def scenario():
        async with opened(stage.reader()) as reader:
            return await stored(reader)

    return asyncio.run(scenario())


def table(stage, name="candles"):
    return DeltaTable(str(stage.folder / name))


# As users read it: without Ashi.

WIDE = a_candle(
    5,
    price="12345678901234567890.123456789012345678",
    volume=Decimal("0.00000001"),
    taker_buy_volume=Decimal("0.00000001"),
    first_trade_id=None,
)


def test_duckdb_reads_exact_decimals_and_times_and_prunes_by_partition(stage):
    write(stage, [a_candle(), WIDE, a_candle(DAY)], gaps=[a_gap()])
    write(stage, [a_candle(version=2)])  # leaves a file that is out of use
    duck = delta_in_duckdb.connect()
    folder = str(stage.folder / "candles")
    rows = duck.execute(
        "SELECT symbol, epoch_us(open_time), close, CAST(close AS DECIMAL(38, 18)), CAST(volume AS DECIMAL(38, 18)), "
        "first_trade_id, venue, timeframe, CAST(day AS DATE) FROM delta_scan(?) "
        "WHERE day = DATE '2022-01-01' ORDER BY open_time",
        [folder],
    ).fetchall()
    assert [row[:2] for row in rows] == [("binance:ETHUSDT", FIRST_US), ("binance:ETHUSDT", FIRST_US + 5 * MINUTE_US)]
    close, volume = Decimal("12345678901234567890.123456789012345678"), Decimal("0.00000001")
    assert rows[1][2:6] == (str(close), close, volume, None)
    assert [str(value) for value in rows[1][6:]] == ["binance", "1m", "2022-01-01"]
    total = duck.execute("SELECT sum(CAST(volume AS DECIMAL(18, 8))) FROM delta_scan(?)", [folder]).fetchone()
    assert total == (Decimal("3.00000001"),)
    with pytest.raises(duckdb.ConversionException, match="12345678901234567890"):
        duck.execute("SELECT sum(CAST(close AS DECIMAL(18, 8))) FROM delta_scan(?)", [folder]).fetchone()
    product = "CAST(CAST(volume AS DECIMAL(18, 8)) AS DECIMAL(19, 8))"
    squares = duck.execute(f"SELECT sum({product} * {product}) FROM delta_scan(?)", [folder]).fetchone()
    assert squares == (Decimal("4.5000000000000001"),)
    plan = duck.execute(
        "EXPLAIN ANALYZE SELECT * FROM delta_scan(?) WHERE day = DATE '2022-01-01'", [folder]
    ).fetchall()
    assert "Scanning Files: 1/2" in plan[0][1]


def test_polars_reads_every_field_of_candles_and_gaps(stage):
    write(stage, [a_candle(), WIDE], gaps=[a_gap(), a_gap(3, minutes=None)])
    frame = polars.scan_delta(str(stage.folder / "candles")).filter(polars.col("timeframe") == "1m").sort("open_time")
    rows = frame.collect()
    assert rows.schema["open_time"] == polars.Datetime("us", "UTC")
    assert set(rows.columns) == {*Candle.__struct_fields__, "venue", "day"}
    assert rows.schema["close"] == polars.String
    fields = rows.with_columns(polars.col("open_time", "close_time").dt.epoch("us")).select(Candle.__struct_fields__)
    assert fields.to_dicts() == [candle_fields(candle) for candle in (a_candle(), WIDE)]
    exact = rows.select(polars.col("close").cast(polars.Decimal(38, 18)))["close"]
    assert exact[1] == WIDE.close
    gaps = polars.read_delta(str(stage.folder / "feed_gaps"))
    assert set(gaps.columns) == set(FeedGap.__struct_fields__)
    assert gaps["to_time"].null_count() == 1


def test_the_documentation_reads_candles_with_polars_as_it_says(stage):
    later = a_candle((datetime.date(2026, 3, 1) - datetime.date(2022, 1, 1)).days * DAY, symbol="bitflyer:BTC_JPY")
    write(stage, [a_candle(), a_candle(symbol="bitflyer:BTC_JPY"), later])
    text = (Path(__file__).parents[2] / "docs" / "lake.md").read_text()
    snippet = textwrap.dedent(text.partition("    # Polars\n")[2].partition("\n\n")[0])
    assert "/data/lake/candles" in snippet
    names: dict[str, Any] = {}
    exec(snippet.replace("/data/lake/candles", str(stage.folder / "candles")), names)
    [row] = names["candles"].to_dicts()
    assert (row["symbol"], row["close"]) == ("bitflyer:BTC_JPY", later.close)


def test_the_table_is_one_that_any_reader_of_delta_understands(lake):
    protocol = table(lake).protocol()
    assert (protocol.min_reader_version, protocol.reader_features) == (1, None)
    assert table(lake).metadata().partition_columns == ["venue", "timeframe", "day"]
    [uri] = table(lake).file_uris()
    assert "/candles/venue=binance/timeframe=1m/day=2022-01-01/" in uri


def test_a_written_batch_touches_no_other_partition(stage):
    write(stage, [a_candle(minute) for minute in (0, DAY, 2 * DAY)])
    before = {uri for uri in table(stage).file_uris() if "day=2022-01-02" not in uri}
    write(stage, [a_candle(DAY, version=2, price="7")])
    assert before < set(table(stage).file_uris())
    assert [candle.version for candle in read(stage)] == [1, 2, 1]


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


# Trouble.


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("lake://data/lake", "lacks the three or four slashes"),
        ("lake:///", "names no folder"),
        ("lake:////", "names no folder"),
        ("lake:////data/lake?x=1", "cannot have the character '\\?'"),
        ("lake:////data/50%25", "cannot have the character '%'"),
        ("lake+s3://bucket", "names no prefix"),
        ("lake+s3://KEY:HUSH@bucket/x", r"lake\+s3://…: what follows must be a bucket"),
        ("lake+s3://b/p", r"a bucket's name \(3 to 63 characters of a-z, 0-9, . and -"),
        ("lake+s3://HUSH/MORE@bucket/p", "what follows must be a bucket"),
        ("lake+s3://bucket/a#b", "the prefix cannot have"),
        ("sqlite:///x.db", "'sqlite' is not a lake"),
    ],
)
def test_a_wrong_url_is_told_what_to_write_and_never_repeats_a_secret(url, message):
    with pytest.raises(UsageError, match=message) as caught:
        lake_of(url)
    assert "HUSH" not in str(caught.value)


def test_urls_name_a_folder_or_a_prefix(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert lake_of("lake:///data/lake").folder == tmp_path / "data" / "lake"
    assert lake_of("lake:////data/lake/").folder == Path("/data/lake")
    assert lake_of("lake+s3://bucket/a/b/").table("candles") == "s3://bucket/a/b/candles"
    assert store_name("lake:////data/lake") == store_name("lake+s3://bucket/a") == "lake"


def open_and_close(stage):
    async def scenario():
        async with opened(stage.sink()):
            pass

    asyncio.run(scenario())


def test_a_folder_with_files_of_something_else_is_refused_and_left_as_it_was(stage):
    folder = stage.folder / "candles"
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(StorageError, match=r"candles holds thesis.txt and is no Delta table: name another folder"):
        open_and_close(stage)
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


def test_a_table_with_other_columns_is_refused_and_left_as_it_was(stage):
    write_deltalake(str(stage.folder / "candles"), polars.DataFrame({"mine": [1]}))
    for thing in (stage.sink(), stage.reader()):
        with pytest.raises(StorageError, match=r"other columns than Ashi's \(there are: mine\)"):
            asyncio.run(thing.open())
    assert table(stage).version() == 0


def test_a_path_that_is_a_file_is_refused(stage):
    stage.folder.write_text("mine")
    with pytest.raises(StorageError, match=r"cannot be made or read|cannot be opened") as caught:
        open_and_close(stage)
    assert not isinstance(caught.value, RetryableError)


def test_a_lake_replaced_by_another_while_in_use_stops_the_sink_before_the_offsets_are_committed(stage):
    async def scenario():
        async with opened(stage.sink()) as sink:
            await sink.write([a_candle(0)])
            stage.folder.rename(stage.folder.with_name("old"))
            async with opened(stage.sink()) as other:
                await other.write([a_candle(5)])
            with pytest.raises(StorageError, match="replaced by another table while in use") as caught:
                await sink.write([a_candle(1)])
            assert not isinstance(caught.value, RetryableError | RefusedError)

    asyncio.run(scenario())
    assert read(stage) == [a_candle(5)]


def test_a_log_cut_short_is_named_with_the_file_to_remove(lake):
    entry = lake.folder / "candles" / "_delta_log" / f"{1:020d}.json"
    entry.write_bytes(entry.read_bytes()[:100])
    with pytest.raises(StorageError, match="remove the last file of _delta_log"):
        open_and_close(lake)
    entry.unlink()
    write(lake, [a_candle()])
    assert read(lake) == [a_candle()]


def test_commits_that_others_are_faster_than_are_repeated_and_at_last_a_retryable_error(lake, monkeypatch):
    monkeypatch.setattr(delta, "LONGEST_PAUSES_S", (0, 0))
    version = itertools.count(2)

    async def scenario():
        async with opened(lake.sink()) as sink:
            refresh = sink._candles.refresh

            def too_late():
                """Looks at the table, and then another worker changes the same row."""
                seen = refresh()
                asyncio.run(self_made(next(version)))
                return seen

            monkeypatch.setattr(sink._candles, "refresh", too_late)
            with pytest.raises(RetryableError, match="other writers were faster 3 times in a row"):
                await sink.write([a_candle(version=100)])
            monkeypatch.setattr(sink._candles, "refresh", refresh)
            return await sink.write([a_candle(version=100)])

    async def self_made(number):
        async with opened(lake.sink()) as other:
            await other.write([a_candle(version=number)])

    assert asyncio.run(scenario()) == 1
    assert next(version) == 5


def test_a_table_that_was_told_not_to_be_changed_stops_the_sink_instead_of_being_waited_for(lake):
    table(lake).alter.set_table_properties({"delta.appendOnly": "true"})

    with pytest.raises(StorageError, match=r"forbids what the sink does.*append-only") as caught:
        write(lake, [a_candle(version=2)])
    assert not isinstance(caught.value, RetryableError)


def test_a_number_changed_by_hand_is_named_when_it_is_read(lake):
    table(lake).update(updates={"high": "'about 5'"})
    with pytest.raises(
        StorageError, match=r"row binance:ETHUSDT/1m/1640995200000000 of candles was changed by hand: .*'about 5'"
    ):
        read(lake)


def test_every_decimal_is_text_and_only_ids_may_be_missing(lake):
    fields = {field.name: field for field in table(lake).schema().fields}
    assert {fields[name].type.type for name in DECIMAL_FIELDS} == {"string"}
    assert {name for name, field in fields.items() if field.nullable} == {"first_trade_id", "last_trade_id"}


def test_a_lake_is_removed_with_its_folder_and_anything_else_is_not(lake):
    assert store_exists(lake.url)
    stranger = lake.folder / "notes.txt"
    stranger.write_text("mine")
    with pytest.raises(StorageError, match=r"also holds notes\.txt"):
        remove_store(lake.url)
    stranger.unlink()
    remove_store(lake.url)
    assert not lake.folder.exists()
    assert not store_exists(lake.url)
    remove_store(lake.url)


@pytest.mark.processes
def test_a_missing_driver_is_named_with_the_command_that_installs_it():
    program = (
        "import sys; sys.modules['deltalake'] = None\n"
        "from ashi_cli.main import main\n"
        "sys.exit(main(['candles', 'a:B', '1m', '--storage', 'lake:////nowhere']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    install = "pip install 'ashi-candles[lake]'"
    assert (done.returncode, install in done.stderr, "Traceback" in done.stderr) == (2, True, False)


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


@pytest.mark.parametrize("how", ["overwritten", "restored", "restored-by-copy", "deleted-by-a-condition"])
def test_what_another_writer_takes_away_as_a_whole_is_told(stage, how):
    async def scenario():
        async with opened(stage.sink()) as sink:
            await sink.write([a_candle(0)])
            await sink.write([a_candle(1)])
            table = DeltaTable(stage.lake.table("candles"))
            if how == "overwritten":
                write_deltalake(table, polars.read_delta(table.table_uri).head(1), mode="overwrite")
            elif how == "restored":
                table.restore(1)
            elif how == "restored-by-copy":
                log = stage.folder / "candles" / "_delta_log"
                copy = log.with_name("copy")
                shutil.copytree(log, copy)
                (copy / f"{2:020d}.json").unlink()
                shutil.rmtree(log)
                copy.rename(log)
            else:
                table.delete("symbol <> 'x'")
            with pytest.raises(RowsLostError, match=r"candles (was emptied, overwritten|is of an earlier version)"):
                await sink.write([a_candle(2)])
            assert await sink.write([a_candle(0), a_candle(1), a_candle(2)]) >= 1

    asyncio.run(scenario())


def test_rows_that_another_writer_deletes_by_a_condition_are_a_line_in_the_log(stage, capsys):
    configure_logging(Settings.from_environment({}), "sink-test")

    async def scenario():
        async with opened(stage.sink()) as sink:
            await sink.write([a_candle(0), a_candle(1)])
            DeltaTable(stage.lake.table("candles")).delete("close_time <= '2022-01-01T00:01:00Z'")
            assert await sink.write([a_candle(2)]) == 1
            assert await sink.write([a_candle(3)]) == 1

    asyncio.run(scenario())
    assert capsys.readouterr().err.count("another writer changed the table") == 1


def test_upkeep_and_other_workers_take_nothing_away(stage):
    async def scenario():
        async with opened(stage.sink()) as sink, opened(stage.sink()) as other:
            for minute in range(4):
                await sink.write([a_candle(minute)])
                await other.write([a_candle(minute, version=2)])
            list(compact(stage.lake))
            list(vacuum(stage.lake, HOUR_US))
            assert await sink.write([a_candle(4)]) == 1
            await other.look("candles")

    asyncio.run(scenario())


def test_a_table_removed_or_replaced_is_told_while_nothing_is_written(stage):
    async def scenario():
        async with opened(stage.sink()) as sink:
            await sink.write([a_candle()])
            (stage.folder / "candles").rename(stage.folder / "away")
            with pytest.raises(RetryableError, match="candles is not there: mount it, or put it back"):
                await sink.look("candles")
            async with opened(LakeSink(stage.lake)):
                pass
            with pytest.raises(StorageError, match="was replaced by another table while in use") as caught:
                await sink.look("candles")
            assert not isinstance(caught.value, RetryableError)

    asyncio.run(scenario())

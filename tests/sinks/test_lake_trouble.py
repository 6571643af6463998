"""A lake that is not there, damaged, or changed by others: what is told, and what stops the sink."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import polars
import pytest
from deltalake import DeltaTable, write_deltalake
from lake_stage import LakeStage, read, table, write
from sink_certification import (
    a_candle,
    opened,
)

from ashi.contracts.candle import DECIMAL_FIELDS
from ashi.contracts.errors import StorageError, UsageError
from ashi.contracts.timeframe import HOUR_US
from ashi.runtime.logs import configure_logging
from ashi.runtime.settings import Settings
from ashi_sinks.lake import delta
from ashi_sinks.lake.location import lake_of
from ashi_sinks.lake.maintenance import compact, vacuum
from ashi_sinks.lake.sink import LakeSink
from ashi_sinks.protocol import RefusedError, RetryableError, RowsLostError
from ashi_sinks.registry import remove_store, store_exists, store_name


@pytest.fixture
def stage(tmp_path):
    return LakeStage(tmp_path / "lake")


@pytest.fixture
def lake(stage):
    """A lake with one candle in it."""
    write(stage, [a_candle()])
    return stage


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

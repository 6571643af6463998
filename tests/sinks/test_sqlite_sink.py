from __future__ import annotations

import asyncio
import itertools
import resource
import sqlite3
from contextlib import closing, contextmanager
from decimal import Decimal

import msgspec
import pytest
from sink_certification import SinkCertification, a_candle, a_gap, a_status, opened, stored, stored_gaps

from ashi.contracts.candle import Candle
from ashi.contracts.errors import StorageError
from ashi.contracts.feed import FeedGap
from ashi_sinks.protocol import RefusedError, RetryableError
from ashi_sinks.sqlite import file
from ashi_sinks.sqlite.file import remove_file
from ashi_sinks.sqlite.reader import SqliteReader
from ashi_sinks.sqlite.sink import SqliteSink


class SqliteStage:
    refused = a_candle(9, trade_count=2**63)  # an integer of the message, but not of SQLite
    refused_gap = a_gap(9, trades_recovered=2**63)

    def __init__(self, path):
        self.path = path
        self.url = f"sqlite:///{path}"

    def sink(self):
        return SqliteSink(self.path)

    def reader(self):
        return SqliteReader(self.path)

    @contextmanager
    def unavailable(self):
        with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield

    def empty(self, table):
        self.execute(f"DELETE FROM {table}")

    def delete_first(self):
        self.execute("DELETE FROM candles WHERE open_time = (SELECT min(open_time) FROM candles)")

    def alter(self):
        self.execute("ALTER TABLE candles ADD COLUMN mine TEXT")

    def execute(self, statement):
        with closing(sqlite3.connect(self.path, isolation_level=None, timeout=30)) as other:
            other.execute(statement)


class TestSqliteSink(SinkCertification):
    store = "sqlite"

    @pytest.fixture
    def new_stage(self, tmp_path, monkeypatch):
        monkeypatch.setattr(file, "BUSY_TIMEOUT_MS", 1)
        numbers = itertools.count()
        return lambda: SqliteStage(tmp_path / f"store {next(numbers)} %20?#.db")

    @pytest.fixture
    def shared_stage(self, tmp_path):
        return SqliteStage(tmp_path / "shared.db")  # a URL of SQLite has no question mark

    @pytest.fixture
    def new_stage_on(self):
        return lambda folder: SqliteStage(folder / "candles.db")


def open_and_close(path):
    async def scenario():
        sink = SqliteSink(path)
        try:
            return await sink.open()
        finally:
            await sink.close()

    return asyncio.run(scenario())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "candles.db"


@pytest.fixture
def store(path):
    """A store with one candle in it."""

    async def fill():
        async with opened(SqliteSink(path)) as sink:
            await sink.write([a_candle()])

    asyncio.run(fill())
    return path


def test_the_table_has_one_column_for_each_field_decimals_as_text_and_times_in_microseconds(path):
    async def scenario():
        async with opened(SqliteSink(path)) as sink:
            await sink.write([a_candle(price="61837.630", volume=Decimal("1E-8"), quote_volume=Decimal("1E+3"))])

    asyncio.run(scenario())
    with closing(sqlite3.connect(path)) as db:
        db.row_factory = sqlite3.Row
        [row] = db.execute("SELECT * FROM candles").fetchall()
        kinds = dict(db.execute("SELECT name, type FROM pragma_table_info('candles')"))
    assert tuple(row.keys()) == Candle.__struct_fields__
    assert (row["close"], row["volume"], row["quote_volume"]) == ("61837.63", "0.00000001", "1000")
    assert row["open_time"] == 1_640_995_200_000_000
    assert {name for name, kind in kinds.items() if kind == "INTEGER"} == {
        "open_time", "close_time", "trade_count", "version",
    }  # fmt: skip


def test_writes_are_made_durable_before_the_offsets_are_committed(path):
    async def scenario():
        async with opened(SqliteSink(path)) as sink:
            return [sink._file.pragma(name) for name in ("journal_mode", "synchronous")]

    assert asyncio.run(scenario()) == ["wal", 2]  # 2 is FULL


def test_missing_folders_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "candles.db"
    assert open_and_close(path)
    assert path.is_file()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"folder .*/file/sub cannot be made"):
        open_and_close(tmp_path / "file" / "sub" / "candles.db")


def test_a_folder_in_place_of_the_file_is_refused_by_writer_and_reader(tmp_path):
    for open_it in (lambda: open_and_close(tmp_path), lambda: asyncio.run(SqliteReader(tmp_path).open())):
        with pytest.raises(StorageError, match="is a folder: name a file in it") as caught:
            open_it()
        assert not isinstance(caught.value, RetryableError)
    with pytest.raises(StorageError, match="is a folder"):
        remove_file(tmp_path)


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(path):
    path.write_bytes(b"my thesis, " * 1_000)
    with pytest.raises(StorageError, match="is not an SQLite database"):
        open_and_close(path)
    assert path.read_bytes() == b"my thesis, " * 1_000


def test_a_database_of_something_else_is_refused_and_left_as_it_is(path):
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE candles (wax TEXT)")
    before = path.read_bytes()
    with pytest.raises(StorageError, match="is a database of something else"):
        open_and_close(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("ALTER TABLE candles DROP COLUMN volume", r"other columns than Ashi's \(there are: symbol, .*undo the change"),
        ("ALTER TABLE candles ADD COLUMN note TEXT", "other columns than Ashi's"),
        ("DROP TABLE candles", "there are: none"),
        ("ALTER TABLE feed_gaps ADD COLUMN note TEXT", "a table feed_gaps with other columns than Ashi's"),
        ("DROP TABLE feed_gaps", "a table feed_gaps with other columns than Ashi's .there are: none"),
        ("PRAGMA user_version = 99", "has layout 99 and this version of Ashi knows 4: use the version that made it"),
    ],
)
def test_another_layout_is_refused_by_writer_and_reader_with_what_to_do(store, change, message):
    with closing(sqlite3.connect(store)) as db:
        db.execute(change)
    with pytest.raises(StorageError, match=message):
        open_and_close(store)
    with pytest.raises(StorageError, match=message):
        asyncio.run(SqliteReader(store).open())


def test_the_table_of_gaps_has_one_column_for_each_field(path):
    async def scenario():
        async with opened(SqliteSink(path)) as sink:
            await sink.write_gaps([a_gap(minutes=None)])

    asyncio.run(scenario())
    with closing(sqlite3.connect(path)) as db:
        columns = db.execute("SELECT name, type, \"notnull\", pk FROM pragma_table_info('feed_gaps')").fetchall()
        [row] = db.execute("SELECT * FROM feed_gaps").fetchall()
    assert columns == [
        ("symbol", "TEXT", 1, 1),
        ("from_time", "INTEGER", 1, 2),
        ("to_time", "INTEGER", 0, 0),
        ("state", "TEXT", 1, 0),
        ("trades_recovered", "INTEGER", 1, 0),
        ("reason", "TEXT", 1, 0),
        ("updated_at", "INTEGER", 1, 0),
        ("final", "INTEGER", 1, 0),
    ]
    assert [name for name, *_ in columns] == list(FeedGap.__struct_fields__)
    from_time = 1_640_995_200_000_000
    assert row == ("binance:ETHUSDT", from_time, None, "open", 0, "silent for 30 s", from_time + 1, 0)


OLD_TABLE = """CREATE TABLE candles (
  symbol TEXT NOT NULL, timeframe TEXT NOT NULL, open_time INTEGER NOT NULL, close_time INTEGER NOT NULL,
  open TEXT NOT NULL, high TEXT NOT NULL, low TEXT NOT NULL, close TEXT NOT NULL,
  volume TEXT NOT NULL, quote_volume TEXT NOT NULL, trade_count INTEGER NOT NULL,
  taker_buy_volume TEXT NOT NULL, taker_buy_quote_volume TEXT NOT NULL,
  first_trade_id TEXT, last_trade_id TEXT, version INTEGER NOT NULL,
  PRIMARY KEY (symbol, timeframe, open_time)
) STRICT, WITHOUT ROWID"""
OLD_ROW = ("binance:ETHUSDT", "1m", 1_640_995_200_000_000, 1_640_995_260_000_000, "100", "100", "100", "100", "1.5",
           "150", 2, "0.5", "50", "7", "8", 1)  # fmt: skip


@pytest.fixture
def old_store(path):
    """A store as the version without gaps made it, with one candle in it."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(OLD_TABLE)
        db.execute(f"PRAGMA application_id = {0x41534849}")
        db.execute("PRAGMA user_version = 1")
        db.execute(f"INSERT INTO candles VALUES ({', '.join('?' * len(OLD_ROW))})", OLD_ROW)
    return path


def layout_of(path):
    with closing(sqlite3.connect(path)) as db:
        return db.execute("PRAGMA user_version").fetchone()[0], {
            row[0] for row in db.execute("SELECT name FROM sqlite_schema")
        }


def test_a_store_of_the_version_without_gaps_is_upgraded_in_place_and_keeps_its_candles(old_store):
    async def scenario():
        async with opened(SqliteSink(old_store)) as sink, opened(SqliteReader(old_store)) as reader:
            await sink.write_gaps([a_gap()])
            await sink.write([a_candle(1)])
            return await stored(reader), await stored_gaps(reader)

    assert asyncio.run(scenario()) == ([a_candle(0), a_candle(1)], [a_gap()])
    assert layout_of(old_store) == (4, {"candles", "feed_gaps", "feed_status", "venue_candles"})
    assert open_and_close(old_store) is False  # and again


def test_a_reader_of_a_store_without_gaps_finds_none_and_sees_those_that_come_when_it_is_upgraded(old_store):
    async def scenario():
        async with opened(SqliteReader(old_store)) as reader:
            before = await stored(reader), await stored_gaps(reader)
            still = layout_of(old_store)
            async with opened(SqliteSink(old_store)) as sink:
                await sink.write_gaps([a_gap()])
            return before, still, await stored_gaps(reader)

    assert asyncio.run(scenario()) == (([a_candle()], []), (1, {"candles"}), [a_gap()])


OLD_GAPS = """CREATE TABLE feed_gaps (
  symbol TEXT NOT NULL, from_time INTEGER NOT NULL, to_time INTEGER, state TEXT NOT NULL,
  trades_recovered INTEGER NOT NULL, reason TEXT NOT NULL, updated_at INTEGER NOT NULL,
  PRIMARY KEY (symbol, from_time)
) STRICT, WITHOUT ROWID"""


@pytest.fixture
def second_store(old_store):
    """A store as the version before statuses made it, with a candle and a gap in it."""
    with closing(sqlite3.connect(old_store)) as db, db:
        db.execute(OLD_GAPS)
        db.execute("PRAGMA user_version = 2")
        db.execute("INSERT INTO feed_gaps VALUES (?, ?, ?, ?, ?, ?, ?)", msgspec.structs.astuple(a_gap())[:7])
    return old_store


def test_a_store_of_the_version_without_statuses_is_read_and_upgraded_in_place(second_store):
    lost = a_gap(1, state="lost", final=True)

    async def scenario():
        async with opened(SqliteReader(second_store)) as reader:
            before = await stored_gaps(reader), await reader.status("binance:ETHUSDT"), layout_of(second_store)[0]
            async with opened(SqliteSink(second_store)) as sink:
                await sink.write_gaps([lost])
                await sink.write_statuses([a_status()])
            return before, await stored(reader), await stored_gaps(reader), await reader.status("binance:ETHUSDT")

    before, candles, gaps, status = asyncio.run(scenario())
    assert before == ([a_gap()], None, 2)
    assert (candles, gaps, status) == ([a_candle()], [a_gap(), lost], a_status(workers=()))
    assert layout_of(second_store)[0] == 4
    assert open_and_close(second_store) is False


def test_an_upgrade_that_finds_a_table_of_the_users_own_in_its_way_changes_nothing(old_store):
    with closing(sqlite3.connect(old_store)) as db:
        db.execute("CREATE TABLE feed_gaps (mine TEXT)")

    async def read():
        async with opened(SqliteReader(old_store)) as reader:
            return await stored_gaps(reader)

    with pytest.raises(StorageError, match=r"has a table feed_gaps of its own.* rename that table, then start again"):
        open_and_close(old_store)
    assert layout_of(old_store)[0] == 1
    assert asyncio.run(read()) == []


def test_an_upgrade_that_breaks_off_leaves_the_store_as_it_was(old_store):
    with closing(sqlite3.connect(old_store)) as db:
        db.execute("CREATE INDEX feed_gaps ON candles (close_time)")  # in the way of the table, and no table itself
    with pytest.raises(StorageError, match="already an index named feed_gaps"):
        open_and_close(old_store)
    assert layout_of(old_store) == (1, {"candles", "feed_gaps"})


def test_a_gap_changed_by_hand_is_named_when_it_is_read(path):
    async def scenario():
        async with opened(SqliteSink(path)) as sink, opened(SqliteReader(path)) as reader:
            await sink.write_gaps([a_gap()])
            with closing(sqlite3.connect(path)) as db, db:
                db.execute("UPDATE feed_gaps SET state = 'mended'")
            await stored_gaps(reader)

    with pytest.raises(StorageError, match=r"row binance:ETHUSDT/1640995200000000 of feed_gaps .*'mended'"):
        asyncio.run(scenario())


def test_a_table_and_an_index_of_the_users_own_do_no_harm(store):
    with closing(sqlite3.connect(store)) as db:
        db.executescript("CREATE TABLE notes (text); CREATE INDEX mine ON candles (open_time)")
    assert open_and_close(store) is False


def test_opening_waits_for_a_store_that_is_locked(store, monkeypatch):
    monkeypatch.setattr(file, "BUSY_TIMEOUT_MS", 1)
    with SqliteStage(store).unavailable(), pytest.raises(RetryableError, match="locked by another process"):
        open_and_close(store)
    assert open_and_close(store) is False


@contextmanager
def largest_file(size):
    """No file may grow beyond `size` bytes: the nearest to a full disk that a test can have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_takes_no_more_is_retried_and_nothing_is_lost_once_there_is_space(path):
    candles = [a_candle(minute) for minute in range(2_000)]

    async def scenario():
        async with opened(SqliteSink(path)) as sink, opened(SqliteReader(path)) as reader:
            await sink.write([a_candle()])
            with largest_file(100_000), pytest.raises(RetryableError, match="look at its free space"):
                await sink.write(candles)
            assert await stored(reader) == [a_candle()]
            await sink.write(candles)
            return await stored(reader)

    assert asyncio.run(scenario()) == candles


def test_a_disk_that_is_full_at_the_start_is_fatal(path):
    with largest_file(4_096), pytest.raises(StorageError, match="cannot be opened: the disk") as caught:
        open_and_close(path)
    assert not isinstance(caught.value, RetryableError)


@pytest.mark.parametrize("change", ["unlink", "replace"])
def test_a_file_removed_while_in_use_stops_the_sink_before_the_offsets_are_committed(path, change):
    async def scenario():
        async with opened(SqliteSink(path)) as sink:
            await sink.write([a_candle(0)])
            path.rename(path.with_suffix(".old"))
            if change == "replace":
                path.touch()
            with pytest.raises(StorageError, match="was moved or replaced while in use") as caught:
                await sink.write([a_candle(1)])
            assert not isinstance(caught.value, RetryableError | RefusedError)

    asyncio.run(scenario())


def test_a_row_that_a_trigger_of_the_user_refuses_is_a_refused_row(store):
    with closing(sqlite3.connect(store)) as db:
        db.execute(
            "CREATE TRIGGER mine BEFORE INSERT ON candles WHEN new.trade_count > 1000 "
            "BEGIN SELECT RAISE(ABORT, 'too many trades'); END"
        )

    async def scenario():
        async with opened(SqliteSink(store)) as sink:
            with pytest.raises(RefusedError, match="too many trades"):
                await sink.write([a_candle(1), a_candle(2, trade_count=1001)])
            assert await sink.write([a_candle(1)]) == 1

    asyncio.run(scenario())


def test_a_number_changed_by_hand_is_named_when_it_is_read(store):
    with closing(sqlite3.connect(store)) as db, db:
        db.execute("UPDATE candles SET high = 'about 5'")

    async def scenario():
        async with opened(SqliteReader(store)) as reader:
            await stored(reader)

    with pytest.raises(StorageError, match=r"row binance:ETHUSDT/1m/1640995200000000 .*high 'about 5'"):
        asyncio.run(scenario())


def test_a_reader_never_changes_the_file(store):
    before = store.read_bytes()

    async def scenario():
        async with opened(SqliteReader(store)) as reader:
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                reader._file.db.execute("DELETE FROM candles")
            return await reader.count()

    assert asyncio.run(scenario()) == 1
    assert store.read_bytes() == before


def test_removing_a_store_takes_the_files_beside_it_along(store):
    async def scenario():
        async with opened(SqliteSink(store)) as sink:
            await sink.write([a_candle(1)])
            assert len(list(store.parent.iterdir())) == 3
            remove_file(store)

    asyncio.run(scenario())
    assert list(store.parent.iterdir()) == []
    remove_file(store)  # and again


@pytest.mark.parametrize("content", [b"my thesis", None], ids=["no database", "database of something else"])
def test_a_file_that_is_not_ashis_is_not_removed(path, content):
    if content is None:
        with closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TABLE mine (x)")
    else:
        path.write_bytes(content)
    with pytest.raises(StorageError, match="is not a"):
        remove_file(path)
    assert path.exists()


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (lambda path: path.unlink(), "was moved or replaced while in use: put it back, or start again with a new one"),
        (lambda path: path.rename(f"{path}.away"), "was moved or replaced while in use"),
        (lambda path: SqliteStage(path).execute("DROP TABLE candles"), "table candles with other columns .*none"),
    ],
    ids=["removed", "moved", "dropped"],
)
def test_a_file_that_is_gone_or_altered_is_told_while_nothing_is_written(tmp_path, trouble, message):
    stage = SqliteStage(tmp_path / "candles.db")

    async def scenario():
        async with opened(stage.sink()) as sink:
            await sink.write([a_candle()])
            await sink.look("candles")
            trouble(stage.path)
            with pytest.raises(StorageError, match=message) as caught:
                await sink.look("candles")
            assert not isinstance(caught.value, RetryableError)

    asyncio.run(scenario())

from __future__ import annotations

import asyncio
import builtins
import re
import time
from decimal import Decimal

import asyncpg
import pytest
from postgres_stage import PostgresStage, everything_is_committed, migrate, numbers
from sink_certification import SinkCertification, a_candle, a_gap, a_status, opened, oracle, stored, stored_gaps, until
from sink_kafka import many_candles, publish

from ashi.contracts.errors import StorageError, UsageError
from ashi_cli.main import main
from ashi_sinks import registry
from ashi_sinks.postgres import schema
from ashi_sinks.postgres.address import Address
from ashi_sinks.postgres.connection import explain
from ashi_sinks.postgres.reader import SERIES, PostgresReader
from ashi_sinks.postgres.sink import PostgresSink
from ashi_sinks.protocol import RefusedError, RetryableError, RowsLostError
from servers.postgres import PASSWORD, PostgresServer

pytestmark = pytest.mark.postgres


@pytest.fixture
def server(postgres):
    return postgres


@pytest.fixture
def new_stage(server):
    return lambda: PostgresStage(server)


@pytest.fixture
def stage(new_stage):
    return new_stage()


class TestPostgresSink(SinkCertification):
    store = "postgres"

    @pytest.fixture
    def new_stage_on(self):
        servers = []

        def make(folder):
            servers.append(PostgresServer(folder))
            return PostgresStage(servers[-1])

        yield make
        for server in servers:
            server.remove()


def test_the_tables_have_one_column_for_each_field_exact_numbers_and_times(stage):
    async def scenario():
        async with opened(stage.sink()) as sink:
            await sink.write([a_candle(price="61837.630", volume=Decimal("1E-8"), version=7)])
            await sink.write_gaps([a_gap(minutes=None)])

    asyncio.run(scenario())
    kinds = {
        (row["table_name"], row["column_name"]): row["data_type"]
        for row in stage.execute(f"SELECT * FROM information_schema.columns WHERE table_schema = '{stage.schema}'")
    }
    assert len([1 for table, _ in kinds if table == "candles"]) == 16
    assert len([1 for table, _ in kinds if table == "feed_gaps"]) == 8
    assert len([1 for table, _ in kinds if table == "feed_status"]) == 8
    assert kinds["candles", "open_time"] == kinds["feed_gaps", "to_time"] == "timestamp with time zone"
    assert kinds["candles", "quote_volume"] == "numeric"
    assert kinds["candles", "version"] == "bigint"
    [row] = stage.execute("SELECT *, close::text AS shown FROM candles")
    assert row["open_time"].isoformat() == "2022-01-01T00:00:00+00:00"
    assert (row["volume"], row["shown"], row["version"]) == (Decimal("0.00000001"), "61837.630", 7)
    [row] = stage.execute("SELECT * FROM feed_gaps")
    assert (row["to_time"], row["updated_at"].microsecond) == (None, 1)


def test_migrating_applies_each_step_once_and_says_so(stage):
    first = migrate(stage.url)
    assert first[:-1] == [
        "step 1, candles: applied",
        "step 2, feed_gaps: applied",
        "step 3, feed_gaps.final: applied",
        "step 4, feed_status: applied",
        "step 5, index on candles (timeframe, open_time): applied",
        "step 6, latest_candles: applied",
        "step 7, venue_candles: applied",
    ]
    [last] = migrate(stage.url)
    assert last.endswith("has schema 7")
    assert [tuple(row) for row in stage.execute("SELECT number, name FROM ashi_migrations ORDER BY 1")] == [
        (1, "candles"),
        (2, "feed_gaps"),
        (3, "feed_gaps.final"),
        (4, "feed_status"),
        (5, "index on candles (timeframe, open_time)"),
        (6, "latest_candles"),
        (7, "venue_candles"),
    ]


def test_migrations_that_run_at_once_do_not_race(stage):
    async def scenario():
        return await asyncio.gather(*(schema.migrate(stage.url) for _ in range(5)))

    assert sorted(len(said) for said in asyncio.run(scenario())) == [1, 1, 1, 1, 8]


def test_a_migration_that_breaks_off_leaves_nothing_behind(stage):
    stage.execute("CREATE TABLE feed_gaps (mine text)")
    with pytest.raises(StorageError, match=r"has a table feed_gaps of its own: use another database, .*search_path"):
        migrate(stage.url)
    tables = stage.execute(f"SELECT tablename FROM pg_tables WHERE schemaname = '{stage.schema}'")
    assert [row[0] for row in tables] == ["feed_gaps"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("DROP TABLE ashi_migrations", "does not exist there: run `ashi sink postgres --migrate` to make its tables"),
        ("DELETE FROM ashi_migrations WHERE number > 1", "schema 1 and this .* needs 7: run `ashi sink postgres --mig"),
        ("INSERT INTO ashi_migrations VALUES (8, 'x')", "schema 8 and this version of Ashi knows 7: a newer one has"),
        ("ALTER TABLE candles ALTER close TYPE numeric(20, 2)", r"table candles with other columns than .* \(close\)"),
        ("ALTER TABLE candles DROP volume CASCADE", r"\(volume\): undo the change"),
        ("ALTER TABLE feed_gaps ADD note text NOT NULL", r"table feed_gaps with other columns than .* \(note\)"),
        (
            "DROP TABLE candles CASCADE",
            "has no table candles any more: run `ashi sink postgres --migrate`, which makes it anew",
        ),
        ("ALTER TABLE feed_gaps DROP final", r"table feed_gaps with other columns than .* \(final\)"),
        ("DROP TABLE feed_status", "has no table feed_status any more: run `ashi sink postgres --migrate`"),
        ("DROP TABLE feed_gaps", "has no table feed_gaps any more: run `ashi sink postgres --migrate`"),
    ],
)
def test_a_schema_that_is_not_ours_stops_writer_and_reader_with_what_to_do(stage, change, message):
    migrate(stage.url)
    stage.execute(change)
    for thing in (PostgresSink(stage.url), PostgresReader(stage.url)):
        with pytest.raises(StorageError, match=message) as caught:
            asyncio.run(thing.open())
        assert not isinstance(caught.value, RetryableError)


@pytest.mark.parametrize(
    ("dropped", "said"),
    [
        (
            "candles",
            [
                "step 1, candles: applied anew, as its table was gone; `ashi sink postgres --from-beginning` f",
                "step 5, index on candles (timeframe, open_time): applied anew, as its index was gone",
                "step 6, latest_candles: applied anew, as its view was gone",
            ],
        ),
        (
            "feed_gaps",
            ["step 2, feed_gaps: applied anew, as its table was gone", "step 3, feed_gaps.final: app"],
        ),
        (
            "candles, feed_gaps",
            [
                "step 1, candles: applied anew",
                "step 2, feed_gaps: applied anew",
                "step 3, feed_gaps.final: app",
                "step 5, index on candles",
                "step 6, latest_candles: applied anew",
            ],
        ),
        (
            "ashi_migrations",
            [
                "step 1, candles: its table was there already, with",
                "step 2, feed_gaps: its table was there already, with",
                "step 3, feed_gaps.final: its column was there already",
                "step 4, feed_status: its table was there already, with",
                "step 5, index on candles (timeframe, open_time): its index was there already, and is kept",
                "step 6, latest_candles: its view was there already, and is kept",
                "step 7, venue_candles: its table was there already, with",
            ],
        ),
        (
            "candles, ashi_migrations",
            ["step 1, candles: applied", "step 2, feed_gaps: its table was there already"]
            + [f"step {number}" for number in range(3, 8)],
        ),
    ],
)
def test_migrating_makes_tables_anew_that_are_gone_keeps_those_that_are_there_and_says_so(stage, dropped, said):
    rows = {"candles": [a_candle()], "feed_gaps": [a_gap()]}

    async def fill_and_drop():
        async with opened(stage.sink()) as sink:
            await sink.write(rows["candles"])
            await sink.write_gaps(rows["feed_gaps"])
        stage.execute(f"DROP TABLE {dropped} CASCADE")

    asyncio.run(fill_and_drop())
    registry.store_exists(stage.url)  # raises nothing
    lines = migrate(stage.url)
    assert [line.startswith(start) for line, start in zip(lines, said, strict=False)] == [True] * len(said)
    assert len(lines) == len(said) + 1
    assert lines[-1].endswith("has schema 7")
    assert len(migrate(stage.url)) == 1
    kept = [[] if table in dropped else rows[table] for table in rows]
    assert list(asyncio.run(_contents(stage))) == kept


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE candles ALTER close TYPE numeric(20, 2)",
        "ALTER TABLE candles DROP CONSTRAINT candles_pkey",
        "ALTER TABLE candles DROP CONSTRAINT candles_pkey, ADD PRIMARY KEY (symbol, open_time, timeframe)",
    ],
)
def test_a_table_without_a_record_that_is_not_like_ashis_is_the_users_own(stage, change):
    migrate(stage.url)
    stage.execute("DROP TABLE ashi_migrations", "DROP TABLE feed_gaps", change)
    with pytest.raises(StorageError, match="has a table candles of its own"):
        migrate(stage.url)
    assert stage.execute("SELECT to_regclass('feed_gaps'), to_regclass('ashi_migrations')")[0] == (None, None)


def test_migrating_does_not_call_a_schema_good_that_no_worker_starts_on(stage):
    migrate(stage.url)
    stage.execute("DROP TABLE feed_gaps", "ALTER TABLE candles DROP volume CASCADE")
    with pytest.raises(StorageError, match=r"table candles with other columns than Ashi's \(volume\)"):
        migrate(stage.url)
    assert stage.execute("SELECT to_regclass('feed_gaps')")[0][0] is None


def test_columns_and_indexes_of_the_users_own_do_no_harm(stage):
    migrate(stage.url)
    stage.execute(
        "ALTER TABLE candles ADD note text, ADD range numeric GENERATED ALWAYS AS (high - low) STORED",
        "ALTER TABLE candles ADD added_at timestamptz NOT NULL DEFAULT now()",
        "CREATE INDEX ON candles (open_time)",
    )

    async def scenario():
        async with opened(PostgresSink(stage.url)) as sink, opened(stage.reader()) as reader:
            await sink.write([a_candle()])
            return await stored(reader)

    assert asyncio.run(scenario()) == [a_candle()]


def test_writes_are_durable_before_the_offsets_are_committed_whatever_the_database_says(server):
    server.execute("CREATE DATABASE careless", "ALTER DATABASE careless SET synchronous_commit = off")
    url = server.url("careless")
    migrate(url)
    server.execute(
        "CREATE TABLE seen (value text)",
        "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN new; END $$",
        "CREATE TRIGGER see BEFORE INSERT ON candles FOR EACH ROW EXECUTE FUNCTION see()",
        database="careless",
    )

    async def scenario():
        async with opened(PostgresSink(url)) as sink:
            await sink.write([a_candle(0)])
            await sink.write([a_candle(1)])

    asyncio.run(scenario())
    assert [row[0] for row in server.execute("SELECT * FROM seen", database="careless")] == ["on", "on"]


def test_a_server_that_hangs_is_a_retryable_error_and_the_same_write_succeeds_when_it_is_back(stage, monkeypatch):
    async def scenario():
        async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
            monkeypatch.setattr("ashi_sinks.postgres.sink.COMMAND_TIMEOUT_S", 0.2)
            stage.server.freeze()
            try:
                for _ in range(2):  # in the middle of a statement, and on the way to a new connection
                    began = time.monotonic()
                    with pytest.raises(RetryableError, match="does not answer"):
                        await sink.write([a_candle()])
                    assert time.monotonic() < began + 5
            finally:
                stage.server.thaw()
            monkeypatch.undo()
            await sink.write([a_candle()])
            return await stored(reader)

    assert asyncio.run(scenario()) == [a_candle()]


def test_neither_a_look_nor_an_end_waits_for_a_server_that_hangs(stage, monkeypatch):
    """A worker that is told to end has twenty seconds; whatever it takes back there waits for an answer."""

    async def scenario():
        async with opened(stage.sink()) as sink:
            await sink.write([a_candle()])
            stage.server.freeze()
            try:
                began = time.monotonic()
                look = asyncio.create_task(sink.look("candles"))
                await asyncio.sleep(0.2)
                look.cancel()
                await asyncio.wait([look], timeout=5)
                assert look.cancelled()
                monkeypatch.setattr("ashi_sinks.postgres.sink.COMMAND_TIMEOUT_S", 0.2)
                with pytest.raises(RetryableError, match="does not answer"):
                    await sink.look("candles")
                assert time.monotonic() < began + 5
            finally:
                stage.server.thaw()
            monkeypatch.undo()
            await sink.look("candles")

    asyncio.run(scenario())


def test_a_locked_table_is_waited_for(stage, monkeypatch):
    async def scenario():
        async with opened(stage.sink()) as sink:
            other = await asyncpg.connect(stage.url)
            monkeypatch.setattr("ashi_sinks.postgres.sink.COMMAND_TIMEOUT_S", 0.2)
            async with other.transaction():
                await other.execute("LOCK TABLE candles")
                with pytest.raises(RetryableError, match="waits for a lock"):
                    await sink.write([a_candle()])
            await other.close()
            monkeypatch.undo()
            return await sink.write([a_candle()])

    assert asyncio.run(scenario()) == 1


def test_a_connection_that_the_server_has_ended_is_made_anew_without_a_word(stage):
    async def scenario():
        async with opened(stage.sink()) as sink:
            stage.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ashi'")
            await until(sink._connection.is_closed)
            return await sink.write([a_candle()])

    assert asyncio.run(scenario()) == 1


@pytest.mark.parametrize(
    ("role", "message", "kind"),
    [
        (
            "LOGIN PASSWORD 'another'",
            "does not let this user in: look at user and password in ASHI_STORAGE",
            StorageError,
        ),
        (f"LOGIN PASSWORD '{PASSWORD}' CONNECTION LIMIT 0", "has no connection left", RetryableError),
        (
            f"LOGIN PASSWORD '{PASSWORD}'",
            "a right is missing: to read, GRANT SELECT ON candles, feed_gaps",
            StorageError,
        ),
    ],
    ids=["password", "too-many-connections", "rights"],
)
def test_a_user_who_cannot_get_in_is_told_why_and_no_password_is_shown(stage, role, message, kind):
    user = f"user_{next(numbers)}"
    stage.sink()
    stage.execute(f"CREATE ROLE {user} {role}", f"GRANT USAGE ON SCHEMA {stage.schema} TO {user}")
    with pytest.raises(StorageError, match=message) as caught:
        asyncio.run(PostgresSink(stage.url.replace("//ashi:", f"//{user}:")).open())
    assert type(caught.value) is kind
    assert "s3cret" not in str(caught.value)


def test_a_role_with_the_rights_that_the_message_names_can_work(stage):
    stage.sink()
    stage.execute(
        f"CREATE ROLE worker_{stage.schema} LOGIN PASSWORD '{PASSWORD}'",
        f"GRANT USAGE ON SCHEMA {stage.schema} TO worker_{stage.schema}",
        f"GRANT SELECT, INSERT, UPDATE ON candles, feed_gaps, feed_status TO worker_{stage.schema}",
        f"GRANT SELECT ON ashi_migrations TO worker_{stage.schema}",
    )

    async def scenario():
        async with opened(PostgresSink(stage.url.replace("//ashi:", f"//worker_{stage.schema}:"))) as sink:
            return await sink.write([a_candle()]), await sink.write_gaps([a_gap()])

    assert asyncio.run(scenario()) == (1, 1)


def test_a_role_with_the_rights_to_read_that_the_message_names_can_read_and_is_told_what_a_worker_needs(stage):
    stage.sink()
    user = f"reader_{stage.schema}"
    url = stage.url.replace("//ashi:", f"//{user}:")
    stage.execute(
        f"CREATE ROLE {user} LOGIN PASSWORD '{PASSWORD}'",
        f"GRANT USAGE ON SCHEMA {stage.schema} TO {user}",
        f"GRANT SELECT ON candles, feed_gaps, feed_status, ashi_migrations TO {user}",
    )

    async def scenario():
        async with opened(PostgresReader(url)) as reader:
            assert (await stored(reader), await stored_gaps(reader)) == ([], [])
        async with opened(PostgresSink(url)) as sink:
            await sink.write([a_candle()])

    with pytest.raises(
        StorageError, match="to write as a worker, INSERT, UPDATE ON candles, feed_gaps, feed_status and"
    ):
        asyncio.run(scenario())
    tables = ("candles", "feed_gaps", "feed_status")
    assert registry.examine_store(url).lacking == tuple(
        f"{right} on {table}" for table in tables for right in ("INSERT", "UPDATE")
    ), "and TEMPORARY is everybody's unless it was taken away"


def test_a_database_that_is_not_there_is_fatal_and_a_server_that_is_not_is_waited_for(server):
    with pytest.raises(StorageError, match="no such database: make it with `createdb`") as caught:
        asyncio.run(PostgresSink(server.url("nowhere")).open())
    assert not isinstance(caught.value, RetryableError)
    with pytest.raises(RetryableError, match=r"database db at 127\.0\.0\.1:9 cannot be reached"):
        asyncio.run(PostgresSink("postgresql://me:hunter2@127.0.0.1:9/db").open())


def test_what_the_server_refuses_is_a_refused_row_and_the_connection_is_kept(stage):
    async def scenario():
        async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
            stage.execute(
                "CREATE FUNCTION mine() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN IF new.trade_count > 1000 THEN RAISE 'too many trades'; END IF; RETURN new; END $$",
                "CREATE TRIGGER mine BEFORE INSERT ON candles FOR EACH ROW EXECUTE FUNCTION mine()",
            )
            connection = sink._connection
            for poison, words in (
                (a_candle(1, trade_count=1001), "a trigger forbids it .too many trades"),
                (a_candle(1, first_trade_id="nul \0"), "out of the range of its column"),
                (a_candle(1, symbol="x:" + "".join(map(chr, range(33, 4_000)))), "a value is too long"),
            ):
                with pytest.raises(RefusedError, match=words):
                    await sink.write([a_candle(0), poison])
            assert sink._connection is connection
            await sink.write([a_candle(0)])
            return await stored(reader)

    assert asyncio.run(scenario()) == [a_candle(0)]


def test_tables_dropped_under_a_running_worker_stop_it_and_made_anew_are_told_before_the_offsets_are_committed(stage):
    async def scenario():
        async with opened(stage.sink()) as sink:
            stage.execute("DROP TABLE candles, feed_gaps, ashi_migrations CASCADE")
            with pytest.raises(StorageError, match="a table is missing: run `ashi sink postgres --migrate`"):
                await sink.write([a_candle()])
            await schema.migrate(stage.url)
            with pytest.raises(
                StorageError, match="has other tables than before: candles was dropped or renamed"
            ) as caught:
                await sink.write([a_candle()])
            assert not isinstance(caught.value, RetryableError | RefusedError)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "change",
    [
        ["DROP TABLE candles CASCADE"],
        ["DROP TABLE candles, feed_gaps, ashi_migrations CASCADE"],
        ["ALTER TABLE candles RENAME TO old", "CREATE TABLE candles (LIKE old INCLUDING ALL)"],
    ],
    ids=["candles", "all", "by-hand"],
)
@pytest.mark.parametrize("connected", [True, False])
def test_tables_made_anew_between_two_writes_are_told_too(stage, change, connected):
    async def scenario():
        async with opened(stage.sink()) as sink:
            await sink.write([a_candle(0)])
            stage.execute(*change)
            await schema.migrate(stage.url)
            if not connected:
                sink._drop()
            with pytest.raises(
                StorageError, match="has other tables than before: candles was dropped or renamed"
            ) as caught:
                await sink.write([a_candle(1)])
            assert isinstance(caught.value, RowsLostError)
            assert stage.execute("SELECT * FROM candles") == []
            assert await sink.open()  # it is told that the table is empty, and reads the topics from their beginning
            assert await sink.write([a_candle(1)]) == 1

    asyncio.run(scenario())


def test_the_series_are_found_without_reading_the_whole_table(stage):
    async def scenario():
        async with opened(stage.sink()) as sink:
            for symbol in range(20):
                await sink.write([a_candle(minute, symbol=f"binance:S{symbol}") for minute in range(500)])

    asyncio.run(scenario())
    plan = "\n".join(row[0] for row in stage.execute("ANALYZE candles", f"EXPLAIN {SERIES}"))
    assert "Seq Scan" not in plan
    assert plan.count("Index Only Scan") == 3


def test_a_number_changed_by_hand_is_named_when_it_is_read(stage):
    async def scenario():
        async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
            await sink.write([a_candle()])
            await sink.write_gaps([a_gap()])
            stage.execute("UPDATE candles SET high = 'NaN'", "UPDATE feed_gaps SET state = 'mended'")
            with pytest.raises(StorageError, match=r"row binance:ETHUSDT/1m/1640995200000000 of candles .*high is NaN"):
                await stored(reader)
            with pytest.raises(StorageError, match=r"row binance:ETHUSDT/1640995200000000 of feed_gaps .*'mended'"):
                await stored_gaps(reader)

    asyncio.run(scenario())


def test_a_reader_never_changes_the_database(stage):
    async def scenario():
        stage.sink()
        async with opened(stage.reader()) as reader, reader._transaction() as connection:
            with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
                await connection.execute("DELETE FROM candles")

    asyncio.run(scenario())


def test_series_can_be_read_side_by_side_and_left_in_the_middle(stage):
    candles = [a_candle(minute) for minute in range(2_500)]

    async def scenario():
        async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
            await sink.write(candles)
            one, other = reader.read("binance:ETHUSDT", "1m"), reader.read("binance:ETHUSDT", "1m", limit=1)
            first = await anext(one)
            assert [candle async for candle in other] == candles[-1:]
            assert await reader.count() == len(candles)
            await one.aclose()
            return first, [candle async for candle in reader.read("binance:ETHUSDT", "1m")]

    assert asyncio.run(scenario()) == (candles[0], candles)


@pytest.fixture(scope="module")
def timescale():
    """A server with an extension of TimescaleDB's name that notes what is asked of it; the real one is not at hand."""
    server = PostgresServer()
    folder = server.home / "extensions" / "extension"
    folder.mkdir(parents=True)
    (folder / "timescaledb.control").write_text("default_version = '1'\nrelocatable = false\n")
    (folder / "timescaledb--1.sql").write_text(
        """
        CREATE SCHEMA timescaledb_information;
        CREATE TABLE made (relation regclass, dimension text, indexes boolean);
        CREATE VIEW timescaledb_information.hypertables AS
          SELECT relnamespace::regnamespace::text AS hypertable_schema, relname AS hypertable_name
          FROM made JOIN pg_class ON oid = relation;
        CREATE FUNCTION by_range(field name, step interval) RETURNS text
          LANGUAGE sql AS $$ SELECT field || ' ' || step $$;
        CREATE FUNCTION create_hypertable(
          relation regclass, dimension text,
          create_default_indexes boolean DEFAULT true, migrate_data boolean DEFAULT false
        ) RETURNS void LANGUAGE sql
          AS 'INSERT INTO @extschema@.made VALUES (relation, dimension, create_default_indexes)';
        """
    )
    server.execute(f"ALTER SYSTEM SET extension_control_path = '$system:{folder.parent}'")
    server.stop()
    server.start()
    yield server
    server.remove()


def test_candles_become_a_hypertable_where_timescaledb_is_installed_in_the_database(timescale):
    timescale.execute("CREATE DATABASE market")
    timescale.execute('CREATE SCHEMA "Odd"', 'CREATE EXTENSION timescaledb SCHEMA "Odd"', database="market")
    url = timescale.url("market")
    said = migrate(url)
    assert "candles is a hypertable of TimescaleDB now, with chunks of 7 days" in said
    assert len(migrate(url)) == 1
    made = timescale.execute('SELECT relation::text, dimension, indexes FROM "Odd".made', database="market")
    assert [tuple(row) for row in made] == [("candles", "open_time 7 days", False)]
    timescale.execute('DELETE FROM "Odd".made', "DROP TABLE candles CASCADE", database="market")
    said = migrate(url)
    assert said[0].startswith("step 1, candles: applied anew")
    assert "candles is a hypertable of TimescaleDB now, with chunks of 7 days" in said


def test_a_person_decides_where_timescaledb_is_only_available_or_candles_are_stored_already(timescale):
    timescale.execute("CREATE DATABASE later")
    url = timescale.url("later")
    assert any("run CREATE EXTENSION timescaledb there" in line for line in migrate(url))

    async def fill():
        async with opened(PostgresSink(url)) as sink:
            await sink.write([a_candle()])

    asyncio.run(fill())
    timescale.execute("CREATE EXTENSION timescaledb", database="later")
    said = migrate(url)
    assert any("stop the workers and run SELECT public.create_hypertable('candles', public.by_range" in s for s in said)
    assert timescale.execute("SELECT * FROM made", database="later") == []


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (asyncpg.DiskFullError("no space"), RetryableError),
        (asyncpg.TooManyConnectionsError("sorry"), RetryableError),
        (asyncpg.ReadOnlySQLTransactionError("no"), RetryableError),
        (asyncpg.DeadlockDetectedError("deadlock"), RetryableError),
        (asyncpg.SerializationError("again"), RetryableError),
        (asyncpg.CannotConnectNowError("starting up"), RetryableError),
        (asyncpg.AdminShutdownError("bye"), RetryableError),
        (asyncpg.ConnectionDoesNotExistError("gone"), RetryableError),
        (asyncpg.QueryCanceledError("statement timeout"), RetryableError),
        (asyncpg.PostgresIOError("disk"), RetryableError),
        (asyncpg.InterfaceError("connection is closed"), RetryableError),
        (ConnectionResetError("reset"), RetryableError),
        (TimeoutError(), RetryableError),
        (asyncpg.NumericValueOutOfRangeError("22"), RefusedError),
        (asyncpg.CheckViolationError("23"), RefusedError),
        (asyncpg.RaiseError("P0"), RefusedError),
        (OverflowError("too large"), RefusedError),
        (UnicodeEncodeError("utf-8", "x", 0, 1, "surrogates"), RefusedError),
        (asyncpg.InvalidPasswordError("no"), StorageError),
        (asyncpg.InvalidCatalogNameError("no"), StorageError),
        (asyncpg.UndefinedTableError("no"), StorageError),
        (asyncpg.InsufficientPrivilegeError("no"), StorageError),
        (asyncpg.ClientConfigurationError("sslmode"), StorageError),
        (asyncpg.DataCorruptedError("broken page"), StorageError),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_each_error_of_the_driver_is_one_of_the_three_kinds(error, kind):
    assert type(explain(error, Address("postgresql://me:hunter2@host/db"))) is kind


def test_a_setting_of_the_session_that_the_server_refuses_is_fatal_and_no_refused_row(stage):
    stage.sink()

    async def scenario():
        async with opened(PostgresSink(stage.url)) as sink:
            await sink.close()
            sink._address = Address(f"{stage.url}&statement_timeout=soon")
            await sink.write([a_candle()])

    with pytest.raises(StorageError, match="invalid value for parameter") as caught:
        asyncio.run(scenario())
    assert type(caught.value) is StorageError


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://host",
        "postgresql://host/",
        "postgresql:/host/db",
        "postgresql://me:hunter2/x@host/db",
        "postgresql://me:hunter2@x@host/db",
        "postgresql://me:hunter2#@host/db",
        "postgresql://me@host/db?password=hunter2",
        "postgresql://me@host/db?sslmode=require&password=hunter2",
        "postgresql://me:hunter2/db",
        "postgresql://me:hunter2@host:54x2/db",
        "postgresql://me:hunter2@one:5432,two:port/db",
        "postgresql://me:hunter2@host:65536/db",
        "postgresql://me:hunter2@::1/db",
        "postgresql://me:hunter2@/db?host=/run&port=http",
    ],
)
def test_a_wrong_url_says_what_to_write_and_never_shows_a_password(url):
    with pytest.raises(UsageError, match="write postgresql://user:password@host:5432/database") as caught:
        registry.make_sink(url)
    assert "hunter2" not in str(caught.value)


def test_a_port_that_is_no_number_is_said_to_be_one():
    with pytest.raises(UsageError, match="has a port that is not a number from 1 to 65535: write postgresql://"):
        registry.make_sink("postgresql://me@host:http/db")


def test_an_option_that_neither_driver_nor_server_knows_is_said_to_be_wrong(stage):
    for thing in (PostgresSink, PostgresReader):
        with pytest.raises(StorageError, match=r'an option of its URL is wrong \(unrecognized .*"foo"\)') as caught:
            asyncio.run(thing(f"{stage.url}&foo=bar").open())
        assert type(caught.value) is StorageError


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgres://me:hunter2@db.example:6432/market?sslmode=require", "database market at db.example:6432"),
        (
            "postgresql://me:hunter2@one:5432,two:5432/market?target_session_attrs=primary",
            "market at one:5432,two:5432",
        ),
        ("postgresql:///market?host=/run/postgresql", "database market at the local socket"),
        ("postgresql://me:hunter2@[::1]:5432/market?port=6432", "database market at [::1]:5432"),
        ("postgresql://[fe80::1],db:/market", "database market at [fe80::1],db:"),
    ],
)
def test_a_database_is_shown_without_user_and_password(url, shown):
    assert shown in str(Address(url))
    assert "hunter2" not in str(Address(url))


def test_a_driver_that_is_not_installed_is_named(monkeypatch):
    importing = builtins.__import__

    def without(name, *rest):
        if name == "asyncpg":
            raise ModuleNotFoundError("No module named 'asyncpg'")
        return importing(name, *rest)

    monkeypatch.setattr("importlib.import_module", without)
    with pytest.raises(UsageError, match=re.escape("pip install 'ashi-candles[postgres]'")):
        registry.make_sink("postgresql://host/db")


def test_the_command_migrates_prints_what_it_did_and_exits(stage, capsys):
    assert main(["sink", "postgres", "--migrate", "--storage", stage.url]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[:2] == ["step 1, candles: applied", "step 2, feed_gaps: applied"]
    assert "s3cret" not in printed.out + printed.err
    assert main(["sink", "sqlite", "--migrate", "--storage", "sqlite:////tmp/x.db"]) == 2
    assert "needs no --migrate" in capsys.readouterr().err
    assert main(["sink", "postgres", "--migrate", "--storage", "sqlite:////tmp/x.db"]) == 2


def test_a_store_is_there_once_it_holds_something_and_gone_once_it_is_emptied(stage):
    assert not registry.store_exists(stage.url)
    registry.remove_store(stage.url)

    async def fill():
        async with opened(stage.sink()) as sink:
            assert not registry.store_exists(stage.url)  # also in the middle of a loop
            await sink.write_gaps([a_gap()])
            await sink.write([a_candle()])

    asyncio.run(fill())
    assert registry.store_exists(stage.url)
    registry.remove_store(stage.url)
    assert not registry.store_exists(stage.url)


def test_migrating_a_store_of_the_version_without_statuses_keeps_its_gaps(stage):
    lost = a_gap(1, state="lost", final=True)

    async def scenario():
        async with opened(stage.sink()) as sink:
            await sink.write_gaps([a_gap()])
        stage.execute(
            "DROP TABLE feed_status",
            "ALTER TABLE feed_gaps DROP final",
            "DELETE FROM ashi_migrations WHERE number > 2",
        )
        lines = await schema.migrate(stage.url)
        async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
            await sink.write_gaps([lost])
            await sink.write_statuses([a_status()])
            return lines, await stored_gaps(reader), await reader.status(a_status().symbol)

    lines, gaps, status = asyncio.run(scenario())
    assert lines[:2] == ["step 3, feed_gaps.final: applied", "step 4, feed_status: applied"]
    assert (gaps, status) == ([a_gap(), lost], a_status(workers=()))


async def _contents(stage):
    async with opened(stage.reader()) as reader:
        return await stored(reader), await stored_gaps(reader)


@pytest.mark.kafka
def test_a_server_stopped_and_started_five_times_during_a_stream_holds_what_was_sent(
    kafka_settings, start_stage, stage
):
    candles, gaps = many_candles(500), [a_gap(minute) for minute in range(5)]
    parts = [candles[at : at + len(candles) // 5 + 1] for at in range(0, len(candles), len(candles) // 5 + 1)]
    assert len(parts) == 5
    stage.sink()
    worker = start_stage("sink", "postgres", ASHI_STORAGE=stage.url, ASHI_SINK_BATCH_SIZE="50")
    worker.wait_for("storing candles")

    async def scenario():
        for number, part in enumerate(parts):
            publishing = asyncio.create_task(publish(kafka_settings, [*part, gaps[number]]))
            # Killed or stopped, but always in the middle of what it is being sent.
            [[before]] = stage.execute("SELECT count(*) FROM candles")
            await until(lambda before=before: stage.execute("SELECT count(*) FROM candles")[0][0] > before)
            await asyncio.to_thread(stage.server.crash if number % 2 else stage.server.stop)
            await publishing
            if number == 0:
                await asyncio.to_thread(worker.wait_for, "the store is away, trying again")
            await asyncio.to_thread(stage.server.start)
        await until(lambda: everything_is_committed(kafka_settings))
        return await _contents(stage)

    assert asyncio.run(scenario()) == (oracle(candles), gaps)
    assert "s3cret" not in worker.log.read_text()


@pytest.mark.kafka
def test_a_store_is_filled_from_the_beginning_when_told_to(kafka_settings, start_stage, stage):
    candles, gaps = [a_candle(minute) for minute in range(50)], [a_gap(0)]
    stage.sink()

    async def scenario():
        await publish(kafka_settings, [*candles, *gaps])
        for lost, options in (("", []), ("DELETE FROM candles WHERE open_time > '2022-01-01'", ["--from-beginning"])):
            if lost:
                stage.execute(lost, "DELETE FROM feed_gaps")
            worker = start_stage("sink", "postgres", *options, ASHI_STORAGE=stage.url)
            await asyncio.to_thread(worker.wait_for, "storing candles")
            await until(lambda: everything_is_committed(kafka_settings))
            worker.process.terminate()
            assert await asyncio.to_thread(worker.process.wait, 30) == 0
        assert (
            "told to begin anew, reading topics candles, feed.gaps and feed.status from their beginning"
            in worker.log.read_text()
        )
        return await _contents(stage)

    assert asyncio.run(scenario()) == (candles, gaps)


@pytest.mark.kafka
def test_a_worker_on_tables_that_are_not_made_names_the_command_and_exits_with_1(start_stage, stage):
    worker = start_stage("sink", "postgres", ASHI_STORAGE=stage.url)
    assert worker.process.wait(60) == 1
    assert "run `ashi sink postgres --migrate`" in worker.log.read_text()
    assert "s3cret" not in worker.log.read_text()

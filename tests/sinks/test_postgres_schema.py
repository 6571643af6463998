"""The tables in PostgreSQL: made, upgraded, refused when they are not ours; TimescaleDB."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from postgres_stage import PostgresStage, contents, migrate
from sink_certification import a_candle, a_gap, a_status, opened, stored, stored_gaps

from ashi.contracts.errors import StorageError
from ashi_cli.main import main
from ashi_sinks import registry
from ashi_sinks.postgres import schema
from ashi_sinks.postgres.reader import PostgresReader
from ashi_sinks.postgres.sink import PostgresSink
from ashi_sinks.protocol import RetryableError
from servers.postgres import PostgresServer

pytestmark = pytest.mark.postgres


@pytest.fixture
def stage(postgres):
    return PostgresStage(postgres)


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
    assert list(asyncio.run(contents(stage))) == kept


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


def test_the_command_migrates_prints_what_it_did_and_exits(stage, capsys):
    assert main(["sink", "postgres", "--migrate", "--storage", stage.url]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[:2] == ["step 1, candles: applied", "step 2, feed_gaps: applied"]
    assert "s3cret" not in printed.out + printed.err
    assert main(["sink", "sqlite", "--migrate", "--storage", "sqlite:////tmp/x.db"]) == 2
    assert "needs no --migrate" in capsys.readouterr().err
    assert main(["sink", "postgres", "--migrate", "--storage", "sqlite:////tmp/x.db"]) == 2


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

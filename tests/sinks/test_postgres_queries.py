"""What people ask of PostgreSQL (docs/postgres.md): by which index it is answered, what old rows are deleted."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import msgspec
import pytest
from postgres_stage import PostgresStage, migrate
from sink_certification import MINUTE_US, a_candle, a_gap, a_status, opened, stored, stored_gaps

from ashi.contracts.errors import StorageError
from ashi.contracts.feed import is_complete
from ashi_cli.main import main
from ashi_sinks.postgres.retention import delete_older
from ashi_sinks.postgres.sink import PostgresSink
from ashi_sinks.protocol import RetryableError

pytestmark = pytest.mark.postgres

PAGE = Path(__file__).parents[2] / "docs" / "postgres.md"
SYMBOLS, MINUTES, FIRST = 40, 5_000, "2026-11-01"
SYMBOL = "CASE symbol WHEN 7 THEN 'bitflyer:BTC_JPY' ELSE 'binance:S' || symbol END"
HOUR_US, DAY_US = 60 * MINUTE_US, 24 * 60 * MINUTE_US


@pytest.fixture
def stage(postgres):
    return PostgresStage(postgres)


@pytest.fixture(scope="module")
def filled(postgres):
    """Enough rows that reading them all is never the plan: 40 symbols, 5,000 minutes and their hours, some gaps."""
    stage = PostgresStage(postgres)
    migrate(stage.url)
    row = "1, 1, 1, 1, 1, 1, 1, 1, 1, '1', '1', 1"
    for timeframe, minutes in (("1m", 1), ("1h", 60)):
        stage.execute(
            f"INSERT INTO candles SELECT {SYMBOL}, '{timeframe}', opened, opened + interval "
            f"'{minutes} minutes', {row} FROM generate_series(1, {SYMBOLS}) AS symbol, generate_series(timestamptz "
            f"'{FIRST}Z', timestamptz '{FIRST}Z' + interval '{MINUTES - 1} minutes', "
            f"interval '{minutes} minutes') AS opened"
        )
    stage.execute(
        f"INSERT INTO feed_gaps SELECT {SYMBOL}, opened, opened + interval '90 seconds', 'lost', 0, 'x', opened "
        f"FROM generate_series(1, {SYMBOLS}) AS symbol, generate_series(timestamptz '{FIRST}Z', timestamptz "
        f"'{FIRST}Z' + interval '5 days', interval '1 hour') AS opened",
        f"INSERT INTO feed_status SELECT {SYMBOL}, 'live', now(), NULL, NULL, NULL, now(), "
        f"timestamptz '{FIRST}Z' + interval '3 days' FROM generate_series(1, {SYMBOLS}) AS symbol",
    )
    stage.execute("VACUUM ANALYZE candles")
    stage.execute("VACUUM ANALYZE feed_gaps")
    return stage


def documented_queries():
    """The statements of the page, by the comment above each."""
    text = PAGE.read_text().partition("## Queries")[2].partition("\n## ")[0]
    block = "\n".join(line[4:] for line in text.splitlines() if line.startswith("    ") or not line)
    return dict(re.findall(r"^-- (.+)\n((?:[^-\n].*\n)+)", block, re.MULTILINE))


QUERIES = documented_queries()
ROWS_READ = {
    "the latest candle of every symbol": SYMBOLS,
    "all symbols of one hour": SYMBOLS,
    "a range of one symbol": 24 * 60,
    "the same, with what is known of its completeness": 24 * 60,
    "the day's range of every symbol": SYMBOLS * 24,
}


def test_every_documented_query_is_tried_here():
    assert set(QUERIES) == set(ROWS_READ)


@pytest.mark.parametrize("about", ROWS_READ)
def test_a_documented_query_reads_by_an_index_and_hardly_more_rows_than_it_is_about(filled, about):
    [[plan]] = filled.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {QUERIES[about]}")
    nodes = list(walk(msgspec.json.decode(plan)[0]["Plan"]))
    scans = [node for node in nodes if node.get("Relation Name") == "candles"]
    assert scans
    assert not [node for node in scans if node["Node Type"] == "Seq Scan"], plan
    read = sum((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"] for node in scans)
    assert read <= ROWS_READ[about] + 4 * 2 * SYMBOLS, plan


def walk(node):
    yield node
    for inner in node.get("Plans", ()):
        yield from walk(inner)


def test_the_documented_queries_answer_what_they_say(filled):
    rows = {about: filled.execute(statement) for about, statement in QUERIES.items()}
    assert {row["open_time"].isoformat() for row in rows["the latest candle of every symbol"]} == {
        "2026-11-04T11:19:00+00:00"
    }
    assert [len(rows[about]) for about in ROWS_READ] == [SYMBOLS, SYMBOLS, 24 * 60, 24 * 60, SYMBOLS]
    told = [(row["feed_gap"], row["checked"]) for row in rows["the same, with what is known of its completeness"]]
    assert told.count(("lost", True)) == 24 * 2
    assert told.count((None, True)) == 24 * 58


def test_the_view_has_the_newest_candle_of_each_series_whatever_came_last(stage):
    candles = [a_candle(minute, symbol=symbol) for symbol in ("gmo:B", "gmo:A") for minute in (3, 1, 2)]
    hours = [msgspec.structs.replace(a_candle(1), timeframe="1h")]

    async def scenario():
        async with opened(stage.sink()) as sink:
            for candle in [*candles, *hours]:
                await sink.write([candle])

    asyncio.run(scenario())
    rows = stage.execute("SELECT symbol, timeframe, open_time FROM latest_candles ORDER BY symbol, timeframe")
    assert [(row[0], row[1], row[2].minute) for row in rows] == [
        ("binance:ETHUSDT", "1h", 1),
        ("gmo:A", "1m", 3),
        ("gmo:B", "1m", 3),
    ]


def test_a_store_of_schema_4_is_upgraded_in_place(stage):
    async def fill():
        async with opened(stage.sink()) as sink:
            await sink.write([a_candle(minute) for minute in range(3)])

    asyncio.run(fill())
    stage.execute(
        "DROP VIEW latest_candles",
        "DROP INDEX candles_timeframe_open_time_idx",
        "DELETE FROM ashi_migrations WHERE number > 4",
    )
    with pytest.raises(StorageError, match="has schema 4 and this version of Ashi needs 7: run"):
        asyncio.run(PostgresSink(stage.url).open())
    assert migrate(stage.url)[:2] == [
        "step 5, index on candles (timeframe, open_time): applied",
        "step 6, latest_candles: applied",
    ]
    assert stage.execute("SELECT open_time FROM latest_candles")[0][0].minute == 2


def test_an_index_that_was_made_before_the_upgrade_is_kept(stage):
    migrate(stage.url)
    stage.execute(
        "DROP INDEX candles_timeframe_open_time_idx",
        "CREATE INDEX CONCURRENTLY mine ON candles (timeframe, open_time)",
        "DELETE FROM ashi_migrations WHERE number > 4",
    )
    assert migrate(stage.url)[0].endswith("its index was there already, and is kept")
    found = stage.execute(
        "SELECT indexname FROM pg_indexes WHERE tablename = 'candles' AND schemaname = current_schema"
    )
    assert sorted(row[0] for row in found) == ["candles_pkey", "mine"]


@pytest.mark.parametrize(
    "own", ["CREATE TABLE latest_candles (mine text)", "CREATE VIEW latest_candles AS SELECT 1 AS mine"]
)
def test_a_relation_of_the_users_with_the_views_name_is_refused_and_kept(stage, own):
    stage.execute(own)
    with pytest.raises(StorageError, match="has a table latest_candles of its own: use another database"):
        migrate(stage.url)
    assert [list(row) for row in stage.execute("SELECT count(*) FROM pg_attribute WHERE attname = 'mine' AND "
                                               "attrelid = 'latest_candles'::regclass")] == [[1]]  # fmt: skip


def test_a_view_of_a_table_that_was_renamed_is_made_anew(stage):
    migrate(stage.url)
    stage.execute("ALTER TABLE candles RENAME TO old")
    said = migrate(stage.url)
    assert said[-2] == "step 6, latest_candles: applied anew, as its view was gone"

    async def fill():
        async with opened(PostgresSink(stage.url)) as sink:
            await sink.write([a_candle()])

    asyncio.run(fill())
    assert len(stage.execute("SELECT * FROM latest_candles")) == 1


def series(timeframe, ages_us, symbol="binance:ETHUSDT", length=MINUTE_US, now=0):
    return [
        msgspec.structs.replace(
            a_candle(symbol=symbol), timeframe=timeframe, open_time=now - age - length, close_time=now - age
        )
        for age in ages_us
    ]


def test_old_candles_are_deleted_in_batches_but_the_newest_of_each_series_and_all_gaps_stay(stage):
    now = int(stage.execute("SELECT extract(epoch FROM now())::bigint")[0][0]) * 1_000_000
    old = series("1m", [DAY_US + minute * MINUTE_US for minute in range(25)], now=now)
    young = series("1m", [minute * MINUTE_US for minute in range(1, 9)], now=now)
    dead = series("1m", [9 * DAY_US, 8 * DAY_US], symbol="binance:DEAD", now=now)
    days = series("1d", [3 * DAY_US, 2 * DAY_US, DAY_US], length=DAY_US, now=now)
    gap = msgspec.structs.replace(
        a_gap(), from_time=now - 4 * DAY_US + HOUR_US, to_time=now - 4 * DAY_US + 2 * HOUR_US, state="lost"
    )
    status = msgspec.structs.replace(a_status(), complete_until=now - MINUTE_US)

    async def complete(reader, candles):
        gaps = await reader.gaps("binance:ETHUSDT")
        until = (await reader.status("binance:ETHUSDT")).complete_until
        return {candle: is_complete(candle.open_time, candle.close_time, until, gaps) for candle in candles}

    async def scenario():
        async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
            await sink.write([*old, *young, *dead, *days])
            await sink.write_gaps([gap])
            await sink.write_statuses([status])
            before = await complete(reader, days)
            assert list(before.values()) == [False, True, True]
            said = await delete_older(stage.url, 12 * HOUR_US, ["1m"], batch_rows=4)
            assert said == ["1m: 26 candles deleted"]
            assert set(await stored(reader)) == {*young, dead[1], *days}
            assert await complete(reader, days) == before
            assert await stored_gaps(reader) == [gap]
            assert await delete_older(stage.url, 12 * HOUR_US) == ["1m: 0 candles deleted", "1d: 2 candles deleted"]
            assert set(await stored(reader)) == {*young, dead[1], days[2]}

    asyncio.run(scenario())


def test_deleting_beside_a_worker_that_corrects_the_same_rows_neither_stops_it_nor_loses_what_is_young(stage):
    now = int(stage.execute("SELECT extract(epoch FROM now())::bigint")[0][0]) * 1_000_000
    symbols = [f"binance:S{number}" for number in range(3)]
    old = [
        candle
        for symbol in symbols
        for candle in series("1m", [DAY_US + n * MINUTE_US for n in range(60)], symbol, now=now)
    ]
    young = [
        candle for symbol in symbols for candle in series("1m", [n * MINUTE_US for n in range(1, 20)], symbol, now=now)
    ]

    async def scenario():
        async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
            await sink.write([*old, *young])

            async def correct(until):
                version = 1
                while not until.is_set():
                    version += 1
                    await sink.write([msgspec.structs.replace(candle, version=version) for candle in [*old, *young]])
                return version

            done = asyncio.Event()
            correcting = asyncio.create_task(correct(done))
            for _ in range(3):
                await delete_older(stage.url, 12 * HOUR_US, batch_rows=20)
            done.set()
            last = await correcting
            await delete_older(stage.url, 12 * HOUR_US, batch_rows=20)
            return last, await stored(reader)

    last, left = asyncio.run(scenario())
    assert set(left) == {msgspec.structs.replace(candle, version=last) for candle in young}


def test_the_command_deletes_prints_how_many_and_names_what_does_not_go_together(stage, capsys):
    async def fill():
        async with opened(stage.sink()) as sink:
            await sink.write([a_candle(minute) for minute in range(3)])

    asyncio.run(fill())
    assert main(["sink", "postgres", "--delete-older", "90d", "--timeframe", "60s", "--storage", stage.url]) == 0
    assert capsys.readouterr().out == "1m: 2 candles deleted\n"
    assert main(["sink", "postgres", "--timeframe", "1m", "--storage", stage.url]) == 2
    assert "--timeframe goes with --delete-older" in capsys.readouterr().err
    assert main(["sink", "sqlite", "--delete-older", "90d", "--storage", "sqlite:////tmp/x.db"]) == 2
    assert "candles of a store of sqlite are not deleted by Ashi" in capsys.readouterr().err


def test_a_role_without_the_right_to_delete_is_told_so(stage):
    stage.sink()
    user = f"keeper_{stage.schema}"
    stage.execute(
        f"CREATE ROLE {user} LOGIN PASSWORD 's3cret/:@pass'",
        f"GRANT USAGE ON SCHEMA {stage.schema} TO {user}",
        f"GRANT SELECT ON candles, feed_gaps, feed_status, ashi_migrations TO {user}",
    )

    async def fill():
        async with opened(stage.sink()) as sink:
            await sink.write([a_candle()])

    asyncio.run(fill())
    with pytest.raises(StorageError, match="to --delete-older, DELETE ON candles") as caught:
        asyncio.run(delete_older(stage.url.replace("//ashi:", f"//{user}:"), HOUR_US))
    assert not isinstance(caught.value, RetryableError)

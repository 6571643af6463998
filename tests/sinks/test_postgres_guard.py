"""What others do to the tables under a running worker, and what it says; the suite of all stores has the rest."""

from __future__ import annotations

import asyncio

import pytest
from postgres_stage import PostgresStage, everything_is_committed, migrate
from sink_certification import a_candle, a_gap, a_status, opened, oracle, stored, stored_gaps, until
from sink_kafka import many_candles, publish

from ashi.contracts.errors import StorageError
from ashi_sinks.postgres.retention import delete_older
from ashi_sinks.postgres.sink import PostgresSink
from ashi_sinks.protocol import RetryableError, RowsLostError
from servers.stages import get

pytestmark = pytest.mark.postgres

HOUR_US = 3_600_000_000
TABLES = ("candles", "feed_gaps", "feed_status")


@pytest.fixture
def stage(postgres):
    return PostgresStage(postgres)


def test_a_number_is_never_rounded_into_a_column_that_was_altered_a_moment_ago(stage):
    async def scenario():
        async with opened(stage.sink()) as sink:
            await sink.write([a_candle(0, price="1.2345")])
            stage.alter()
            with pytest.raises(StorageError, match=r"table candles with other columns than Ashi's \(close\)"):
                await sink.write([a_candle(1, price="1.2345")])

    asyncio.run(scenario())
    assert stage.execute("SELECT count(*) FROM candles")[0][0] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("ALTER TABLE candles DROP volume CASCADE", r"\(volume\): undo the change"),
        ("ALTER TABLE candles RENAME volume TO amount", r"\(volume, amount\): undo the change"),
        (
            "ALTER TABLE candles ADD mine text NOT NULL DEFAULT 'x'; ALTER TABLE candles ALTER mine DROP DEFAULT",
            r"\(mine\): undo the change",
        ),
        ("ALTER TABLE candles DROP CONSTRAINT candles_pkey", "the primary key of a table is gone: add it again"),
        ("DROP TABLE candles CASCADE", "a table is missing: run `ashi sink postgres --migrate`"),
    ],
)
def test_a_change_that_no_worker_can_work_with_stops_it_at_its_next_batch(stage, change, message):
    async def scenario():
        async with opened(stage.sink()) as sink:
            await sink.write([a_candle(0)])
            stage.execute(*change.split("; "))
            with pytest.raises(StorageError, match=message) as caught:
                await sink.write([a_candle(1)])
            assert not isinstance(caught.value, RetryableError | RowsLostError)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "changes",
    [
        ["ALTER TABLE candles ADD note text"],
        ["CREATE INDEX ON candles (close_time)"],
        ["VACUUM FULL candles"],
        ["CLUSTER candles USING candles_pkey"],
        ["DROP VIEW latest_candles"],
        ["DELETE FROM candles WHERE symbol = 'binance:A'"],
        ["DELETE FROM candles WHERE open_time < '2022-01-01 00:02Z'"],
        ["UPDATE candles SET volume = 0"],
    ],
)
def test_what_does_no_harm_or_takes_single_rows_away_is_not_told(stage, changes):
    symbols = ("binance:A", "binance:B", "binance:C")

    async def scenario():
        async with opened(stage.sink()) as sink:
            await sink.write([a_candle(minute, symbol=symbol) for symbol in symbols for minute in range(4)])
            await sink.look("candles")
            stage.execute(*changes)
            await sink.look("candles")
            assert await sink.write([a_candle(9, symbol="binance:A")]) == 1

    asyncio.run(scenario())


def test_rows_that_a_trigger_drops_are_not_missed(stage):
    async def scenario():
        async with opened(stage.sink()) as sink:
            stage.execute(
                "CREATE FUNCTION drop_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
                "CREATE TRIGGER drop_it BEFORE INSERT ON candles FOR EACH ROW EXECUTE FUNCTION drop_it()",
            )
            for minute in range(4):
                assert await sink.write([a_candle(minute)]) == 0
                await sink.look("candles")

    asyncio.run(scenario())


def test_candles_deleted_for_their_age_are_not_missed_though_nothing_younger_is_written(stage):
    async def scenario():
        async with opened(stage.sink()) as sink:
            for minute in range(0, 40, 10):
                await sink.write([a_candle(minute + n, symbol=symbol) for symbol in ("x:A", "x:B") for n in range(10)])
                await delete_older(stage.url, HOUR_US)
                await sink.look("candles")

    asyncio.run(scenario())
    assert stage.execute("SELECT count(*) FROM candles")[0][0] == 2


def test_each_of_two_workers_is_told_that_a_table_was_truncated_whoever_writes_first_afterwards(stage):
    async def scenario():
        async with opened(stage.sink()) as one, opened(stage.sink()) as other:
            await one.write([a_candle(minute, symbol="x:A") for minute in range(4)])
            await other.write([a_candle(minute, symbol="x:B") for minute in range(4)])
            for sink in (one, other):
                await sink.look("candles")
            stage.execute("TRUNCATE candles")
            with pytest.raises(RowsLostError, match="table candles was truncated or emptied"):
                await one.write([a_candle(5, symbol="x:A")])
            await one.write([a_candle(minute, symbol="x:A") for minute in range(6)])
            with pytest.raises(RowsLostError, match="table candles was truncated or emptied"):
                await other.write([a_candle(5, symbol="x:B")])

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("emptying", "wrote"), [("TRUNCATE candles", True), ("TRUNCATE candles", False), ("DELETE FROM candles", True)]
)
def test_rows_found_at_the_start_and_stored_again_by_another_worker_do_not_hide_the_loss(stage, emptying, wrote):
    others = [a_candle(minute, symbol=symbol) for symbol in ("x:A", "x:Z") for minute in range(4)]

    async def scenario():
        async with opened(stage.sink()) as before:
            await before.write(others)
            await before.write([a_candle(0, symbol="x:M")])
        async with opened(stage.sink()) as one, opened(stage.sink()) as other:
            if wrote:
                assert await other.write([a_candle(1, symbol="x:M")]) == 1
                await other.look("candles")
            stage.execute(emptying)
            with pytest.raises(RowsLostError):
                await one.look("candles")
            await one.write(others)
            with pytest.raises(RowsLostError, match="table candles was truncated or emptied"):
                await other.look("candles")
            await other.look("candles")

    asyncio.run(scenario())


def test_a_table_cannot_be_truncated_between_the_look_and_the_end_of_a_write(stage, monkeypatch):
    copying, go_on = asyncio.Event(), asyncio.Event()

    async def scenario():
        async with opened(stage.sink()) as sink:
            await sink.write([a_candle(0)])
            copy = sink._connection.copy_records_to_table

            async def slow(*arguments, **more):
                copying.set()
                await go_on.wait()
                return await copy(*arguments, **more)

            monkeypatch.setattr(type(sink._connection), "copy_records_to_table", lambda _, *a, **k: slow(*a, **k))
            writing = asyncio.create_task(sink.write([a_candle(1)]))
            await copying.wait()
            truncating = asyncio.create_task(asyncio.to_thread(stage.execute, "TRUNCATE candles"))
            waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"
            await until(lambda: stage.server.execute(waits)[0][0] == 1)
            go_on.set()
            assert await writing == 1
            await truncating
            monkeypatch.undo()
            with pytest.raises(RowsLostError):
                await sink.look("candles")

    asyncio.run(scenario())


def test_another_database_in_its_place_is_told_of_each_table(stage):
    async def scenario():
        async with opened(stage.sink()) as sink:
            await sink.write([a_candle()])
            stage.execute("UPDATE ashi_migrations SET applied_at = now()")  # as made at another time
            sink._drop()
            for table in TABLES:
                with pytest.raises(RowsLostError, match=f"has other tables than before: {table} was"):
                    await sink.look(table)
            for table in TABLES:
                await sink.look(table)

    asyncio.run(scenario())


@pytest.mark.parametrize("by", ["write", "look"])
def test_a_table_that_was_dropped_and_made_anew_is_told_once_and_of_the_others_nothing(stage, by):
    async def scenario():
        async with opened(stage.sink()) as sink:
            await sink.write([a_candle()])
            await sink.write_gaps([a_gap()])
            await sink.write_statuses([a_status()])
            stage.execute("DROP TABLE candles CASCADE")
            await asyncio.to_thread(migrate, stage.url)
            with pytest.raises(RowsLostError, match="has other tables than before: candles was"):
                await (sink.write([a_candle()]) if by == "write" else sink.look("candles"))
            assert await sink.write([a_candle()]) == 1
            for table in TABLES:
                await sink.look(table)

    asyncio.run(scenario())


def test_a_view_made_anew_by_a_migration_is_not_another_store(stage):
    async def scenario():
        async with opened(stage.sink()) as sink:
            await sink.write([a_candle(0)])
            stage.execute("DROP VIEW latest_candles")
            await asyncio.to_thread(migrate, stage.url)
            sink._drop()
            assert await sink.write([a_candle(1)]) == 1

    asyncio.run(scenario())


def test_what_a_worker_found_at_its_start_is_what_it_looks_for(stage):
    async def fill():
        async with opened(stage.sink()) as sink:
            await sink.write([a_candle()])
            await sink.write_gaps([a_gap()])
            await sink.write_statuses([a_status()])

    async def scenario():
        async with opened(PostgresSink(stage.url)) as sink:
            for table in TABLES:
                stage.execute(f"TRUNCATE {table}")
                with pytest.raises(RowsLostError, match=f"table {table} was truncated or emptied"):
                    await sink.look(table)

    asyncio.run(fill())
    asyncio.run(scenario())


@pytest.mark.kafka
@pytest.mark.slow
def test_a_table_truncated_under_a_worker_is_told_within_seconds_and_filled_again(kafka_settings, start_stage, stage):
    candles = many_candles(200)
    migrate(stage.url)

    def rows():
        return stage.execute("SELECT count(*) FROM candles")[0][0]

    async def scenario():
        wanted = oracle(candles)
        await publish(kafka_settings, [*candles, a_gap(0), a_gap(1)])
        worker = start_stage("sink", "postgres", ASHI_STORAGE=stage.url, ASHI_LOG_FORMAT="json")
        await asyncio.to_thread(worker.wait_for, "storing candles")
        address = worker.address
        await until(lambda: rows() == len(wanted))
        await until(lambda: get(f"{address}/ready")[0] == 200)
        stage.execute("TRUNCATE candles")

        await until(lambda: "truncated or emptied" in get(f"{address}/ready")[1] or rows() == len(wanted))
        await until(lambda: 'ashi_rows_lost_total{sink="postgres"} 1.0' in get(f"{address}/metrics")[1])
        assert "stored rows are gone, reading topic candles from its beginning" in worker.log.read_text()
        await until(lambda: get(f"{address}/ready") == (200, "storing candles\n"))
        assert await everything_is_committed(kafka_settings)
        await publish(kafka_settings, [a_gap(2)])  # the other topics go on where they were
        async with opened(stage.reader()) as reader:
            await until(lambda: _has_gaps(reader, 3))
            return await stored(reader) == wanted

    assert asyncio.run(scenario())


async def _has_gaps(reader, wanted):
    return len(await stored_gaps(reader)) == wanted


def test_old_candles_that_were_just_written_again_may_go_while_their_series_has_younger_ones(stage):
    # The first and the last of all, which a worker finds at its start, are not among the latest that it writes.
    symbols = ["x:A", "x:Z", *(f"x:S{number}" for number in range(10))]

    async def scenario():
        async with opened(stage.sink()) as sink:
            await sink.write([a_candle(100, symbol=symbol) for symbol in symbols])
        async with opened(PostgresSink(stage.url)) as sink:
            await sink.write([a_candle(0, symbol=symbol) for symbol in symbols])
            await delete_older(stage.url, HOUR_US)
            await sink.look("candles")

    asyncio.run(scenario())
    assert stage.execute("SELECT count(*) FROM candles")[0][0] == len(symbols)

"""The sink of PostgreSQL: certified as every store is, with servers that hang, end and lose tables."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import pytest
from postgres_stage import PostgresStage, contents, everything_is_committed, migrate
from sink_certification import SinkCertification, a_candle, a_gap, opened, oracle, stored, stored_gaps, until
from sink_kafka import many_candles, publish

from ashi.contracts.errors import StorageError
from ashi_sinks import registry
from ashi_sinks.postgres import schema
from ashi_sinks.postgres.reader import SERIES
from ashi_sinks.postgres.sink import PostgresSink
from ashi_sinks.protocol import RefusedError, RetryableError, RowsLostError
from servers.postgres import PostgresServer

pytestmark = pytest.mark.postgres


@pytest.fixture
def new_stage(postgres):
    return lambda: PostgresStage(postgres)


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


def test_writes_are_durable_before_the_offsets_are_committed_whatever_the_database_says(postgres):
    postgres.execute("CREATE DATABASE careless", "ALTER DATABASE careless SET synchronous_commit = off")
    url = postgres.url("careless")
    migrate(url)
    postgres.execute(
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
    assert [row[0] for row in postgres.execute("SELECT * FROM seen", database="careless")] == ["on", "on"]


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
        return await contents(stage)

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
        return await contents(stage)

    assert asyncio.run(scenario()) == (candles, gaps)


@pytest.mark.kafka
def test_a_worker_on_tables_that_are_not_made_names_the_command_and_exits_with_1(start_stage, stage):
    worker = start_stage("sink", "postgres", ASHI_STORAGE=stage.url)
    assert worker.process.wait(60) == 1
    assert "run `ashi sink postgres --migrate`" in worker.log.read_text()
    assert "s3cret" not in worker.log.read_text()

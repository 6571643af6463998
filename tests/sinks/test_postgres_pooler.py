"""PostgreSQL behind a real PgBouncer: Debian's package, in session and in transaction mode."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager

import asyncpg
import pytest
from postgres_stage import PostgresStage, migrate
from sink_certification import SinkCertification, a_candle, a_gap, a_status, opened, stored, stored_gaps, until
from sink_kafka import publish

from ashi.contracts.errors import StorageError
from ashi_cli.main import main
from ashi_ingest.recording.bundled import BUNDLED
from ashi_sinks.postgres import schema
from ashi_sinks.postgres.reader import PostgresReader
from ashi_sinks.postgres.sink import PostgresSink
from ashi_sinks.protocol import RetryableError
from servers.pgbouncer import PgBouncer, find_pgbouncer
from servers.postgres import PostgresServer, in_thread

pytestmark = [
    pytest.mark.outside,
    pytest.mark.postgres,
    pytest.mark.skipif(find_pgbouncer() is None, reason="NOT TESTED: no pgbouncer here; apt-get install pgbouncer"),
]

both_modes = pytest.mark.parametrize("mode", ["session", "transaction"])


@pytest.fixture(scope="module")
def server():
    server = PostgresServer()
    yield server
    server.remove()


@pytest.fixture(scope="module")
def pooler(server):
    # All clients of transactions share two sessions, so each meets what the others have left there.
    pooler = PgBouncer(server, transaction=2)
    yield pooler
    pooler.remove()


class PooledStage(PostgresStage):
    def __init__(self, server, pooler, mode, option="search_path={schema}"):
        super().__init__(server)
        self.url = pooler.url(mode, option.format(schema=self.schema))

    @contextmanager
    def unavailable(self):
        with super().unavailable():
            yield
        # For a moment the pooler goes on saying that the server is away.
        while not in_thread(self._answers):
            pass

    async def _answers(self):
        try:
            connection = await asyncpg.connect(self.url.partition("?")[0], statement_cache_size=0)
            await connection.execute("SELECT 1")
            await connection.close()
        except asyncpg.PostgresError:
            return False
        return True


class TestPostgresSinkBehindAPoolerOfTransactions(SinkCertification):
    store = "postgres"

    @pytest.fixture
    def new_stage(self, server, pooler):
        return lambda: PooledStage(server, pooler, "transaction")


@both_modes
@pytest.mark.parametrize(
    "option",
    [
        "search_path={schema}",
        "options=-c%20search_path%3D{schema}",
        "options=--search-path%3D{schema}&statement_timeout=9s",
    ],
)
def test_writers_and_readers_work_through_a_pooler_in_the_schema_that_the_url_names(server, pooler, mode, option):
    stage = PooledStage(server, pooler, mode, option)
    candles = [a_candle(minute) for minute in range(2_500)]

    async def scenario():
        async with opened(stage.sink()) as sink, opened(stage.reader()) as reader, opened(stage.reader()) as other:
            assert await sink.write(candles) == len(candles)
            await sink.write_gaps([a_gap()])
            await sink.write_statuses([a_status()])
            series = reader.read("binance:ETHUSDT", "1m")
            first = await anext(series)
            await sink.write([a_candle(9, version=2, price="9")])
            assert await sink.write(candles) == 0
            read = [first, *[candle async for candle in series]]
            return read, await other.count(), await stored_gaps(other), await other.status(a_status().symbol)

    assert asyncio.run(scenario()) == (candles, 2_500, [a_gap()], a_status(workers=()))
    assert stage.execute("SELECT count(*) FROM candles")[0][0] == 2_500


def test_nothing_of_ours_is_left_in_a_session_that_a_pooler_gives_to_others(server, pooler):
    server.execute("ALTER DATABASE postgres SET synchronous_commit = off")
    stage = PooledStage(server, pooler, "transaction")

    async def settings():
        found = set()
        for _ in range(8):
            connection = await asyncpg.connect(pooler.url("transaction"), statement_cache_size=0)
            rows = await connection.fetch(
                "SELECT pg_backend_pid(), current_setting('search_path'), current_setting('synchronous_commit'), "
                "current_setting('transaction_read_only'), (SELECT count(*) FROM pg_prepared_statements)"
            )
            found.add(tuple(rows[0])[1:])
            await connection.close()
        return found

    async def scenario():
        before = await settings()
        async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
            for minute in range(4):
                await sink.write([a_candle(minute)])
                await stored(reader)
        return before, await settings()

    try:
        before, after = asyncio.run(scenario())
    finally:
        server.execute("ALTER DATABASE postgres RESET synchronous_commit")
    assert after == before
    assert len(after) == 1


def test_workers_of_two_schemas_share_the_sessions_of_a_pooler(server, pooler):
    stages = [PooledStage(server, pooler, "transaction") for _ in range(4)]
    sinks = [stage.sink() for stage in stages]

    async def scenario():
        for sink in sinks:
            await sink.open()
        for minute in range(20):
            await asyncio.gather(
                *(sink.write([a_candle(minute, price=str(number + 1))]) for number, sink in enumerate(sinks))
            )
        for sink in sinks:
            await sink.close()

    asyncio.run(scenario())
    for number, stage in enumerate(stages):
        rows = stage.execute("SELECT close::int, count(*)::int FROM candles GROUP BY close")
        assert [tuple(row) for row in rows] == [(number + 1, 20)]


@both_modes
def test_migrations_that_run_at_once_through_a_pooler_do_not_race(server, pooler, mode):
    stage = PooledStage(server, pooler, mode)

    async def scenario():
        return await asyncio.gather(*(schema.migrate(stage.url) for _ in range(4)))

    assert sorted(len(said) for said in asyncio.run(scenario())) == [1, 1, 1, schema.SCHEMA_VERSION + 1]


@pytest.mark.parametrize(
    ("mode", "change", "message"),
    [
        ("statement", ("", ""), "a pooler in statement mode.*set its pool_mode to session or transaction"),
        ("nosuch", ("", ""), r"the pooler has no such database: add it to its \[databases\]"),
        ("nowhere", ("", ""), "no such database behind the pooler: make it with `createdb`"),
        ("session", ("//ashi:", "//ashi:x"), "does not let this user in: look at user and password in ASHI_STORAGE"),
        ("session", ("//ashi:", "//other:"), "does not let this user in: look at user and password in ASHI_STORAGE"),
    ],
)
def test_what_a_pooler_refuses_is_an_error_at_the_start_that_says_what_to_do(pooler, mode, change, message):
    url = pooler.url(mode).replace(*change)
    for thing in (PostgresSink(url), PostgresReader(url)):
        with pytest.raises(StorageError, match=message) as caught:
            asyncio.run(thing.open())
        assert not isinstance(caught.value, RetryableError)
        assert "s3cret" not in str(caught.value)


@both_modes
@pytest.mark.kafka
def test_the_worker_and_the_commands_that_read_work_through_a_pooler(
    kafka_settings, start_stage, server, pooler, mode, capsys
):
    stage = PooledStage(server, pooler, mode)
    migrate(stage.url)
    candles = [a_candle(minute) for minute in range(20)]
    worker = start_stage("sink", "postgres", ASHI_STORAGE=stage.url)
    worker.wait_for("storing candles")

    async def scenario():
        await publish(kafka_settings, [*candles, a_gap()])
        await until(lambda: stage.execute("SELECT count(*) FROM candles")[0][0] == len(candles))

    asyncio.run(scenario())
    assert main(["candles", "binance:ETHUSDT", "1m", "--csv", "--storage", stage.url]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(candles)
    worker.process.terminate()
    assert worker.process.wait(30) == 0


@pytest.mark.kafka
def test_the_demo_runs_through_a_pooler_of_transactions_and_what_it_stored_is_verified(server, pooler, tmp_path, capfd):
    stage = PooledStage(server, pooler, "transaction")
    assert main(["demo", "--storage", stage.url, "--workdir", str(tmp_path)]) == 0
    assert "15 candles stored" in capfd.readouterr().out
    recordings = [text for venue, paths in BUNDLED.items() for p in paths for text in ("--recording", f"{venue}={p}")]
    assert main(["verify", stage.url, "--trades", *recordings]) == 0
    assert "15 candles compared: 0 differ" in capfd.readouterr().out

"""Who may use the database, what a URL and an error say, and that no password is shown."""

from __future__ import annotations

import asyncio
import builtins
import re

import asyncpg
import pytest
from postgres_stage import PostgresStage, numbers
from sink_certification import a_candle, a_gap, opened, stored, stored_gaps

from ashi.contracts.errors import StorageError, UsageError
from ashi_sinks import registry
from ashi_sinks.postgres.address import Address
from ashi_sinks.postgres.connection import explain
from ashi_sinks.postgres.reader import PostgresReader
from ashi_sinks.postgres.sink import PostgresSink
from ashi_sinks.protocol import RefusedError, RetryableError
from servers.postgres import PASSWORD

pytestmark = pytest.mark.postgres


@pytest.fixture
def stage(postgres):
    return PostgresStage(postgres)


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


def test_a_database_that_is_not_there_is_fatal_and_a_server_that_is_not_is_waited_for(postgres):
    with pytest.raises(StorageError, match="no such database: make it with `createdb`") as caught:
        asyncio.run(PostgresSink(postgres.url("nowhere")).open())
    assert not isinstance(caught.value, RetryableError)
    with pytest.raises(RetryableError, match=r"database db at 127\.0\.0\.1:9 cannot be reached"):
        asyncio.run(PostgresSink("postgresql://me:hunter2@127.0.0.1:9/db").open())


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

"""The way to a PostgreSQL database: connections, transactions, and what its errors mean to the worker."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from ashi.contracts.errors import StorageError
from ashi.runtime.descriptors import lack_of_descriptors
from ashi_sinks.protocol import RefusedError, RetryableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from ashi_sinks.postgres.address import Address

CONNECT_TIMEOUT_S: Final = 10.0
COMMAND_TIMEOUT_S: Final = 15.0
"""How long a statement may take before the server counts as hung. Less than what a process has to shut down."""

MIGRATE: Final = "ashi sink postgres --migrate"
FILL: Final = "ashi sink postgres --from-beginning"

POSTGRES_EPOCH_US: Final = 946_684_800_000_000
"""2000-01-01: a timestamptz is the number of µs since then
(https://www.postgresql.org/docs/current/datatype-datetime.html), so ours need no detour over datetime."""

# By the class of an SQLSTATE, its first two characters, or by all five:
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_AWAY: Final = {
    "08": "the connection was lost",
    "25006": "it is read-only: a standby, or default_transaction_read_only; name the primary or make it writable",
    "25P03": "the server ended the transaction for idling",
    "40": "another transaction was in the way",
    "53": "the server is short of something",
    "53100": "the server's disk is full: free some space there",
    "53300": "the server has no connection left: raise max_connections or end other clients",
    "55P03": "a table is locked by another transaction: end that",
    "57": "the server is starting, stopping, or ended the statement",
    "58": "the server's disk or system reports an error: look at the server's log",
}
_REFUSED: Final = {
    "22": "a value is out of the range of its column",
    "23": "a constraint forbids it",
    "44": "a view's check forbids it",
    "54": "a value is too long",
    "P0": "a trigger forbids it",
}
_UNUSABLE: Final = {
    "28": "it does not let this user in: look at user and password in ASHI_STORAGE, and at the server's pg_hba.conf",
    "3D000": "there is no such database: make it with `createdb`, or name another",
    "3F000": f"there is no such schema: make it with CREATE SCHEMA, then run `{MIGRATE}`",
    "42501": "a right is missing: to read, GRANT SELECT ON candles, feed_gaps, feed_status, ashi_migrations; to write "
    "as a worker, INSERT, UPDATE ON candles, feed_gaps, feed_status and TEMPORARY ON the database too; to "
    "--delete-older, DELETE ON candles; to --migrate, "
    "be the owner of the tables and have CREATE ON the schema",
    "42704": "an option of its URL is wrong",
    "42P01": f"a table is missing: run `{MIGRATE}`",
    "42P10": "the primary key of a table is gone: add it again, in candles on (symbol, timeframe, "
    "open_time), in feed_gaps on (symbol, from_time), in feed_status on (symbol)",
    "42703": "a column is missing: undo the change of the table, or fill a new database from the topic",
}

# A pooler's own errors are all of class 08, so only their words tell those that waiting does not help:
# https://github.com/pgbouncer/pgbouncer/blob/master/src/client.c
_OF_POOLER: Final = {
    "statement pooling": "it is a pooler in statement mode, which has no transactions: set its pool_mode to session or "
    "transaction",
    "no such database": "the pooler has no such database: add it to its [databases], or name another",
    "does not exist": "there is no such database behind the pooler: make it with `createdb`, or name another",
    "authentication failed": "the pooler does not let this user in: look at user and password in ASHI_STORAGE, and at "
    "the pooler's auth_file",
}

# What the driver and the system raise, the first that fits; a ValueError of another kind is about a row.
_OF_CLIENT: Final[tuple[tuple[type[Exception] | tuple[type[Exception], ...], type[StorageError], str], ...]] = (
    (ssl.SSLCertVerificationError, StorageError, "has a certificate that is not trusted: look at sslrootcert"),
    (asyncpg.ClientConfigurationError, StorageError, "cannot be used: an option of its URL is wrong"),
    (TimeoutError, RetryableError, "does not answer: look whether the server hangs, or waits for a lock"),
    (OSError, RetryableError, "cannot be reached: look whether the server runs there"),
    ((asyncpg.InterfaceError, asyncpg.InternalClientError), RetryableError, "is away"),
)


async def connect(address: Address) -> Any:
    """A connection with times as integer µs. Raises whatever `store_errors` sorts.

    Every statement belongs into a `transaction`: a pooler may give the next one another session.
    """
    connection = await asyncpg.connect(address.url, command_timeout=COMMAND_TIMEOUT_S, **for_pooler(address))
    try:
        await with_times_as_integers(connection)
    except BaseException:
        connection.terminate()
        raise
    return connection


def for_pooler(address: Address) -> dict[str, Any]:
    """Arguments of the driver that let a pooler be in between, in whatever mode.

    Without a cache of statements the driver names none: a name would stay behind in the pooler's session, where another
    client may use the same.
    """
    return {
        "timeout": CONNECT_TIMEOUT_S,
        "statement_cache_size": 0,
        "server_settings": {"application_name": address.application_name},
    }


@asynccontextmanager
async def transaction(connection: Any, address: Address, *, read_only: bool = False) -> AsyncIterator[None]:
    """A transaction with the settings that the URL asks for; they end with it.

    When whoever is in it is cancelled the connection ends too: a server that hangs would not answer a ROLLBACK either,
    and who stops, or has waited for long enough, must not wait for it once more.
    """
    try:
        await connection.execute(address.begin_read_only if read_only else address.begin)
        yield
    except asyncio.CancelledError:
        connection.terminate()
        raise
    except BaseException:
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            await connection.execute("ROLLBACK")
        raise
    await connection.execute("COMMIT")


async def with_times_as_integers(connection: Any) -> None:
    """Let the connection take and give timestamptz as µs since 1970."""
    await connection.set_type_codec(
        "timestamptz",
        schema="pg_catalog",
        encoder=lambda at: (at - POSTGRES_EPOCH_US,),
        decoder=lambda at: at[0] + POSTGRES_EPOCH_US,
        format="tuple",
    )


@contextmanager
def store_errors(address: Address, *, writing: bool = False) -> Iterator[None]:
    """Turn what the driver raises within into the three kinds of `ashi_sinks.protocol`.

    Only where rows are being written can a row be refused; elsewhere the same error is about the database.
    """
    try:
        yield
    except (
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
        OSError,
        ValueError,
        OverflowError,
    ) as error:
        meaning = explain(error, address)
        if isinstance(meaning, RefusedError) and not writing:
            meaning = StorageError(f"{address} cannot be used: {error}")
        raise meaning from error


def explain(error: Exception, address: Address) -> StorageError:
    """What an error of the driver means; the text never holds the URL."""
    text = str(error).partition("\n")[0] or type(error).__name__  # without the detail, which may hold the row
    if isinstance(error, asyncpg.PostgresError):
        return _of_server(error.sqlstate or "", text, address)
    for kinds, result, meaning in _OF_CLIENT:
        if isinstance(error, OSError) and (lacking := lack_of_descriptors(error)):
            return RetryableError(f"{address} cannot be reached: {lacking} ({text})")
        if isinstance(error, kinds):
            return result(f"{address} {meaning} ({text})")
    # An integer beyond 64 bits, a text that is not Unicode: the driver refuses to encode it.
    return RefusedError(f"{address} refuses the row: {error}")


def _of_server(state: str, text: str, address: Address) -> StorageError:
    if state.startswith("08"):
        for words, meaning in _OF_POOLER.items():
            if words in text:
                return StorageError(f"{address} cannot be used: {meaning} ({text})")
    known = (state, state[:2])
    for key in known:
        if key in _AWAY:
            return RetryableError(f"{address} cannot be written now: {_AWAY[key]} ({text})")
        if key in _REFUSED:
            return RefusedError(f"{address} refuses the row: {_REFUSED[key]} ({text})")
        if key in _UNUSABLE:
            return StorageError(f"{address} cannot be used: {_UNUSABLE[key]} ({text})")
    return StorageError(f"{address} cannot be used: look at the server's log ({state}: {text})")

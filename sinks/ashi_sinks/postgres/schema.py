"""The schema in PostgreSQL: numbered steps that make it (`ashi sink postgres --migrate`), and the check for it.

The worker itself never makes or changes a table: it may run without the right to, and a wrong URL makes no tables.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ashi.contracts.errors import StorageError
from ashi_sinks.postgres.address import Address
from ashi_sinks.postgres.connection import FILL, MIGRATE, connect, store_errors, transaction
from ashi_sinks.postgres.steps import SCHEMA_VERSION, STEPS, Step
from ashi_sinks.postgres.tables import TABLES, VENUE_CANDLES, PostgresTable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

_RECORD: Final = """
CREATE TABLE IF NOT EXISTS ashi_migrations (
  number integer PRIMARY KEY,
  name text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)"""
_NOTE: Final = """
INSERT INTO ashi_migrations (number, name) VALUES ($1, $2)
ON CONFLICT (number) DO UPDATE SET applied_at = clock_timestamp()"""
_KEY: Final = """
SELECT attname::text FROM pg_index, unnest(indkey) WITH ORDINALITY AS place (number, place)
JOIN pg_attribute ON attnum = place.number
WHERE indrelid = to_regclass($1) AND attrelid = indrelid AND indisprimary ORDER BY place.place"""
_INDEX: Final = """
SELECT EXISTS (
  SELECT FROM pg_index WHERE indrelid = to_regclass($1) AND indisvalid AND indpred IS NULL AND $2 = (
    SELECT array_agg(attname::text ORDER BY place) FROM unnest(indkey::int2[]) WITH ORDINALITY AS key (number, place)
    JOIN pg_attribute ON attrelid = indrelid AND attnum = key.number WHERE place <= cardinality($2::text[])))"""
_READS: Final = """
SELECT EXISTS (
  SELECT FROM pg_rewrite JOIN pg_depend ON objid = pg_rewrite.oid
  WHERE ev_class = to_regclass($1) AND refobjid = to_regclass($2))"""
_LOCK: Final = 0x41534849
""" "ASHI": the advisory lock that one migration holds while others wait."""
MIGRATION_TIMEOUT_S: Final = 86_400.0
"""How long a step may take, or wait for another migration: an index of a large table takes a while."""
_TIMESCALE: Final = (
    "SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace "
    "WHERE extname = 'timescaledb'"
)
_IS_HYPERTABLE: Final = (
    "SELECT EXISTS (SELECT FROM timescaledb_information.hypertables "
    "WHERE to_regclass(format('%I.%I', hypertable_schema, hypertable_name)) = to_regclass('candles'))"
)
_CHUNK: Final = "7 days"
"""How much time a chunk of a hypertable holds: TimescaleDB's own default."""


class TableIdentity(NamedTuple):
    """Which table it is: what stays while its rows do.

    Another server may give its tables the same numbers; a table made anew by hand leaves the time as it was.

    Attributes:
        number: the server's own.
        applied: when it was made.

    """

    number: int
    applied: datetime | None


@asynccontextmanager
async def _transaction(address: Address) -> AsyncIterator[Any]:
    with store_errors(address):
        connection = await connect(address)
        try:
            async with transaction(connection, address):
                yield connection
        finally:
            connection.terminate()


async def migrate(url: str) -> list[str]:
    """Apply the steps that are missing or whose work is gone, all or none; sentences that say what was done.

    Raises UsageError for a wrong URL, StorageError (also RetryableError) when it cannot be done.
    """
    address = Address(url)
    async with _transaction(address) as connection:
        await connection.execute(f"SELECT pg_advisory_xact_lock({_LOCK})", timeout=MIGRATION_TIMEOUT_S)
        await connection.execute(_RECORD)
        version = await _version(connection)
        if version > SCHEMA_VERSION:
            raise StorageError(_newer(address, version))
        steps_done = []
        for number, step in enumerate(STEPS, 1):
            if done := await _apply(connection, step, address, recorded=number <= version):
                await connection.execute(_NOTE, number, step.name)
                steps_done.append(f"step {number}, {step.name}: {done}")
        await check_schema(connection, address)
        return [*steps_done, *await _hypertable(connection), f"{address} has schema {SCHEMA_VERSION}"]


async def _apply(connection: Any, step: Step, address: Address, *, recorded: bool) -> str:
    """Make what a step makes where it is missing; what was done, if anything."""
    if not step.makes_table:
        what, there = await _addition(connection, step, address, recorded=recorded)
        if there:
            return "" if recorded else f"its {what} was there already, and is kept"
        await connection.execute(step.statement, timeout=MIGRATION_TIMEOUT_S)
        return f"applied anew, as its {what} was gone" if recorded else "applied"
    if await table_number(connection, step.name) is None:
        await connection.execute(step.statement)
        if recorded:
            return f"applied anew, as its table was gone; {_refill(step)}"
        return "applied"
    if recorded:
        return ""
    key = tuple(row[0] for row in await connection.fetch(_KEY, step.name))
    if key != step.table.key or await changed_columns(connection, step.table):
        raise StorageError(_own(address, step.name))
    # With all of Ashi's columns it is Ashi's, and only the record of it is gone.
    return "its table was there already, with Ashi's columns, and is kept with all its rows"


def _refill(step: Step) -> str:
    if step.table is VENUE_CANDLES:
        return "`ashi history klines` fetches what it had"
    return f"`{FILL}` fills it from the topic"


async def _addition(connection: Any, step: Step, address: Address, *, recorded: bool) -> tuple[str, bool]:
    """What a step adds to its table, and whether it is there."""
    if step.column is not None:
        return "column", step.column in await _columns(connection, step.table)
    if changed := await changed_columns(connection, step.table):
        raise StorageError(altered(address, step.table, changed))
    if step.index:
        return "index", await connection.fetchval(_INDEX, step.table.name, list(step.index))
    assert step.view is not None  # noqa: S101  (the only one left)
    # One that reads a table which was renamed, as for a new one in its place, is no view of ours any more.
    there = await connection.fetchval(_READS, step.view, step.table.name)
    there = there and not await changed_columns(connection, replace(step.table, name=step.view))
    if not there and not recorded and await table_number(connection, step.view) is not None:
        raise StorageError(_own(address, step.view))
    return "view", there


async def _hypertable(connection: Any) -> list[str]:
    """Make `candles` a hypertable where TimescaleDB is installed in the database; say what a person must decide."""
    schema = await connection.fetchval(_TIMESCALE)
    if schema is None:
        # Not installed from here: where it is not preloaded, CREATE EXTENSION ends the session.
        if await connection.fetchval("SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')"):
            return [
                "this server has TimescaleDB and this database does not: for a hypertable run "
                f"CREATE EXTENSION timescaledb there, then `{MIGRATE}` once more"
            ]
        return []
    if await connection.fetchval(_IS_HYPERTABLE):
        return []
    options = f"'candles', {schema}.by_range('open_time', INTERVAL '{_CHUNK}'), create_default_indexes => false"
    if await connection.fetchval("SELECT EXISTS (SELECT FROM candles)"):
        return [
            "candles is a plain table with rows in it; to make it a hypertable stop the workers and run "
            f"SELECT {schema}.create_hypertable({options}, migrate_data => true)"
        ]
    await connection.execute(f"SELECT {schema}.create_hypertable({options})")
    return [f"candles is a hypertable of TimescaleDB now, with chunks of {_CHUNK}"]


async def is_hypertable(connection: Any) -> bool:
    """Whether `candles` is a hypertable of TimescaleDB."""
    return await connection.fetchval(_TIMESCALE) is not None and bool(await connection.fetchval(_IS_HYPERTABLE))


async def check_schema(connection: Any, address: Address) -> dict[str, TableIdentity]:
    """Which tables these are, by name. Raises StorageError when the tables are not those this version knows."""
    if await table_number(connection, "ashi_migrations") is None:
        raise StorageError(f"{address}: a store of candles does not exist there: run `{MIGRATE}` to make its tables")
    version = await _version(connection)
    if version < SCHEMA_VERSION:
        raise StorageError(
            f"{address} has schema {version} and this version of Ashi needs {SCHEMA_VERSION}: run `{MIGRATE}`"
        )
    if version > SCHEMA_VERSION:
        raise StorageError(_newer(address, version))
    numbers = {}
    for table in (*TABLES, VENUE_CANDLES):
        number = await table_number(connection, table.name)
        if number is None:
            raise StorageError(f"{address} has no table {table.name} any more: run `{MIGRATE}`, which makes it anew")
        if changed := await changed_columns(connection, table):
            raise StorageError(altered(address, table, changed))
        numbers[table.name] = number
    making = {number: step.name for number, step in enumerate(STEPS, 1) if step.makes_table}
    applied = await connection.fetch(
        "SELECT number, applied_at FROM ashi_migrations WHERE number = ANY($1::integer[])", list(making)
    )
    times = {making[row["number"]]: row["applied_at"] for row in applied}
    return {name: TableIdentity(number, times.get(name)) for name, number in numbers.items()}


async def table_number(connection: Any, name: str) -> int | None:
    """The server's own number of a table, which a table made anew does not get again; None when there is no table."""
    number: int | None = await connection.fetchval("SELECT to_regclass($1)::oid", name)
    return number


async def changed_columns(connection: Any, table: PostgresTable) -> list[str]:
    """The columns that are not as the worker needs them."""
    columns = await _columns(connection, table)
    # A NUMERIC with a scale would round, and a column of the user's that must be given would refuse every row.
    changed = [name for name, kind in table.types.items() if name not in columns or columns[name]["kind"] != kind]
    return changed + [name for name, column in columns.items() if column["needed"] and name not in table.fields]


async def _columns(connection: Any, table: PostgresTable) -> dict[str, Any]:
    """The columns that the server has, by name: the `kind` of each, and whether a row that leaves it out is refused."""
    columns = await connection.fetch(
        "SELECT attname, format_type(atttypid, atttypmod) AS kind, attnotnull AND NOT atthasdef AND attidentity = '' "
        "AS needed FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped",
        table.name,
    )
    return {column["attname"]: column for column in columns}


async def _version(connection: Any) -> int:
    return int(await connection.fetchval("SELECT coalesce(max(number), 0) FROM ashi_migrations"))


def _own(address: Address, name: str) -> str:
    return (
        f"{address} has a table {name} of its own: use another database, or another schema of this one by "
        "?search_path=name at the end of the URL"
    )


def altered(address: Address, table: PostgresTable, changed: list[str]) -> str:
    """What to say of a table whose columns are not ours."""
    return (
        f"{address} has a table {table.name} with other columns than Ashi's ({', '.join(changed)}): "
        "undo the change, or name another database and fill it from the topic"
    )


def _newer(address: Address, version: int) -> str:
    return (
        f"{address} has schema {version} and this version of Ashi knows {SCHEMA_VERSION}: a newer one has run "
        f"`{MIGRATE}` on it; use that version, or another database"
    )


async def _tables(connection: Any) -> list[str]:
    """Ashi's tables that are there; none where they are not Ashi's."""
    if await table_number(connection, "ashi_migrations") is None:
        return []
    recorded = [step.name for step in STEPS[: await _version(connection)] if step.makes_table]
    return [name for name in recorded if await table_number(connection, name) is not None]


async def holds_rows(url: str) -> bool:
    """Whether there is a candle, a gap or a status. Raises UsageError and StorageError."""
    async with _transaction(Address(url)) as connection:
        for table in await _tables(connection):
            if await connection.fetchval(f"SELECT EXISTS (SELECT FROM {table})"):  # noqa: S608
                return True
        return False


async def empty_tables(url: str) -> None:
    """Remove all rows; the tables stay. Raises UsageError and StorageError."""
    async with _transaction(Address(url)) as connection:
        if tables := await _tables(connection):
            await connection.execute(f"TRUNCATE {', '.join(tables)}")

"""The schema in PostgreSQL: numbered steps that make it (`ashi sink postgres --migrate`), and the check for it.

The worker itself never makes or changes a table: it may run without the right to, and a wrong URL makes no tables.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ashi.contracts.errors import StorageError
from sinks.postgres.link import MIGRATE, Address, connect, store_errors
from sinks.postgres.tables import CANDLES, FEED_GAPS, Table

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclass(frozen=True, slots=True)
class Step:
    """One change of the schema. A step that has been released is never changed; a new one is added after it."""

    name: str
    statement: str


STEPS: Final = (
    Step(
        "candles",
        """
CREATE TABLE candles (
  symbol text COLLATE "C" NOT NULL,
  timeframe text COLLATE "C" NOT NULL,
  open_time timestamptz NOT NULL,
  close_time timestamptz NOT NULL,
  open numeric NOT NULL,
  high numeric NOT NULL,
  low numeric NOT NULL,
  close numeric NOT NULL,
  volume numeric NOT NULL,
  quote_volume numeric NOT NULL,
  trade_count bigint NOT NULL,
  taker_buy_volume numeric NOT NULL,
  taker_buy_quote_volume numeric NOT NULL,
  first_trade_id text,
  last_trade_id text,
  version bigint NOT NULL,
  PRIMARY KEY (symbol, timeframe, open_time)
)""",
    ),
    Step(
        "feed_gaps",
        """
CREATE TABLE feed_gaps (
  symbol text COLLATE "C" NOT NULL,
  from_time timestamptz NOT NULL,
  to_time timestamptz,
  state text NOT NULL,
  trades_recovered bigint NOT NULL,
  reason text NOT NULL,
  updated_at timestamptz NOT NULL,
  PRIMARY KEY (symbol, from_time)
)""",
    ),
)
"""The steps in order; the number of each is its place, from 1."""
SCHEMA_VERSION: Final = len(STEPS)

_RECORD: Final = """
CREATE TABLE IF NOT EXISTS ashi_migrations (
  number integer PRIMARY KEY,
  name text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)"""
_LOCK: Final = 0x41534849
""" "ASHI": the advisory lock that one migration holds while others wait."""
_CHUNK: Final = "7 days"
"""How much time a chunk of a hypertable holds: TimescaleDB's own default."""


@asynccontextmanager
async def _connected(address: Address) -> AsyncIterator[Any]:
    with store_errors(address):
        connection = await connect(address)
        try:
            yield connection
        finally:
            connection.terminate()


async def migrate(url: str) -> list[str]:
    """Apply the steps that are missing, all or none; sentences that say what was done.

    Raises UsageError for a wrong URL, StorageError (also RetryableError) when it cannot be done.
    """
    address = Address(url)
    async with _connected(address) as connection, connection.transaction():
        await connection.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")
        await connection.execute(_RECORD)
        version = await _version(connection)
        if version > SCHEMA_VERSION:
            raise StorageError(_newer(address, version))
        for number, step in list(enumerate(STEPS, 1))[version:]:
            if await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", step.name):
                raise StorageError(
                    f"{address} has a table {step.name} of its own: use another database, or another schema of this "
                    "one by ?search_path=name at the end of the URL"
                )
            await connection.execute(step.statement)
            await connection.execute("INSERT INTO ashi_migrations (number, name) VALUES ($1, $2)", number, step.name)
        said = [f"step {number}, {step.name}: applied" for number, step in list(enumerate(STEPS, 1))[version:]]
        return [*said, *await _hypertable(connection), f"{address} has schema {SCHEMA_VERSION}"]


async def _hypertable(connection: Any) -> list[str]:
    """Make `candles` a hypertable where TimescaleDB is installed in the database; say what a person must decide."""
    schema = await connection.fetchval(
        "SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace "
        "WHERE extname = 'timescaledb'"
    )
    if schema is None:
        # Not installed from here: where it is not preloaded, CREATE EXTENSION ends the session.
        if await connection.fetchval("SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')"):
            return [
                "this server has TimescaleDB and this database does not: for a hypertable run "
                f"CREATE EXTENSION timescaledb there, then `{MIGRATE}` once more"
            ]
        return []
    if await connection.fetchval(
        "SELECT EXISTS (SELECT FROM timescaledb_information.hypertables "
        "WHERE to_regclass(format('%I.%I', hypertable_schema, hypertable_name)) = to_regclass('candles'))"
    ):
        return []
    options = f"'candles', {schema}.by_range('open_time', INTERVAL '{_CHUNK}'), create_default_indexes => false"
    if await connection.fetchval("SELECT EXISTS (SELECT FROM candles)"):
        return [
            "candles is a plain table with rows in it; to make it a hypertable stop the workers and run "
            f"SELECT {schema}.create_hypertable({options}, migrate_data => true)"
        ]
    await connection.execute(f"SELECT {schema}.create_hypertable({options})")
    return [f"candles is a hypertable of TimescaleDB now, with chunks of {_CHUNK}"]


async def check_schema(connection: Any, address: Address) -> object:
    """Which store this is: something that stays while its tables do.

    Raises StorageError when the tables are not those this version knows.
    """
    if not await connection.fetchval("SELECT to_regclass('ashi_migrations') IS NOT NULL"):
        raise StorageError(f"{address}: a store of candles does not exist there: run `{MIGRATE}` to make its tables")
    version = await _version(connection)
    if version < SCHEMA_VERSION:
        raise StorageError(
            f"{address} has schema {version} and this version of Ashi needs {SCHEMA_VERSION}: run `{MIGRATE}`"
        )
    if version > SCHEMA_VERSION:
        raise StorageError(_newer(address, version))
    for table in (CANDLES, FEED_GAPS):
        await _check_columns(connection, table, address)
    return await connection.fetchval("SELECT applied_at FROM ashi_migrations WHERE number = 1")


async def _check_columns(connection: Any, table: Table, address: Address) -> None:
    columns = await connection.fetch(
        "SELECT attname, format_type(atttypid, atttypmod) AS kind, attnotnull AND NOT atthasdef AND attidentity = '' "
        "AS needed FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped",
        table.name,
    )
    kinds = {column["attname"]: column["kind"] for column in columns}
    # A NUMERIC with a scale would round, and a column of the user's that must be given would refuse every row.
    changed = [name for name, kind in table.types.items() if kinds.get(name) != kind]
    changed += [column["attname"] for column in columns if column["needed"] and column["attname"] not in table.fields]
    if changed:
        raise StorageError(
            f"{address} has a table {table.name} with other columns than Ashi's ({', '.join(changed)}): "
            "undo the change, or name another database and fill it from the topic"
        )


async def _version(connection: Any) -> int:
    return int(await connection.fetchval("SELECT coalesce(max(number), 0) FROM ashi_migrations"))


def _newer(address: Address, version: int) -> str:
    return (
        f"{address} has schema {version} and this version of Ashi knows {SCHEMA_VERSION}: a newer one has run "
        f"`{MIGRATE}` on it; use that version, or another database"
    )


async def _tables(connection: Any) -> list[str]:
    """Ashi's tables that are there; none where they are not Ashi's."""
    if not await connection.fetchval("SELECT to_regclass('ashi_migrations') IS NOT NULL"):
        return []
    return [step.name for step in STEPS[: await _version(connection)]]


async def holds_rows(url: str) -> bool:
    """Whether there is a candle or a gap. Raises UsageError and StorageError."""
    async with _connected(Address(url)) as connection:
        for table in await _tables(connection):
            if await connection.fetchval(f"SELECT EXISTS (SELECT FROM {table})"):  # noqa: S608
                return True
        return False


async def empty_tables(url: str) -> None:
    """Remove all candles and gaps; the tables stay. Raises UsageError and StorageError."""
    async with _connected(Address(url)) as connection:
        if tables := await _tables(connection):
            await connection.execute(f"TRUNCATE {', '.join(tables)}")

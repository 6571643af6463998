"""What the doctor asks of a PostgreSQL database."""

from __future__ import annotations

from typing import Final

from ashi_sinks.examination import Examination
from ashi_sinks.postgres.address import Address
from ashi_sinks.postgres.connection import connect, store_errors, transaction
from ashi_sinks.postgres.schema import check_schema
from ashi_sinks.postgres.steps import SCHEMA_VERSION
from ashi_sinks.postgres.tables import CANDLES, FEED_GAPS, FEED_STATUS

_RIGHTS: Final = "SELECT right_on FROM unnest($2::text[]) AS right_on WHERE NOT has_table_privilege($1, right_on)"
_TEMPORARY: Final = "SELECT has_database_privilege(current_database(), 'TEMPORARY')"


async def examine_database(url: str) -> Examination:
    """Look at a database. Raises UsageError for a wrong URL, StorageError when it cannot be used as it is."""
    address = Address(url)
    lacking = []
    with store_errors(address):
        connection = await connect(address)
        try:
            async with transaction(connection, address, read_only=True):
                await check_schema(connection, address)
                for table in (CANDLES, FEED_GAPS, FEED_STATUS):
                    rows = await connection.fetch(_RIGHTS, table.name, ["SELECT", "INSERT", "UPDATE"])
                    lacking += [f"{row['right_on']} on {table.name}" for row in rows]
                if not await connection.fetchval(_TEMPORARY):
                    lacking.append("TEMPORARY on the database")
                if await connection.fetchval("SELECT pg_is_in_recovery()"):
                    lacking.append("write at all: it is a standby")
        finally:
            connection.terminate()
    # How much room its server has no client can ask.
    return Examination(str(address), SCHEMA_VERSION, SCHEMA_VERSION, tuple(lacking), None, None)

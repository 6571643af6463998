"""PostgreSQL: a batch is copied into a table of the session and upserted from there by one statement.

Why `synchronous_commit` is never off: the offsets are committed to Kafka after the write, and without it a crash of the
server takes back transactions that it has reported as committed. Those candles would be missing for good.
"""

from __future__ import annotations

import asyncio
from decimal import Decimal
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from ashi_sinks.postgres.address import Address
from ashi_sinks.postgres.connection import COMMAND_TIMEOUT_S, connect, store_errors, transaction
from ashi_sinks.postgres.guard import TableGuard
from ashi_sinks.postgres.schema import TableIdentity, check_schema
from ashi_sinks.postgres.tables import CANDLES, FEED_GAPS, FEED_STATUS, NAME, TABLES, VENUE_CANDLES, PostgresTable
from ashi_sinks.protocol import RefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashi.contracts.candle import Candle
    from ashi.contracts.feed import FeedGap, FeedStatus
    from ashi.contracts.venue_candle import VenueCandle
    from ashi_sinks.protocol import TableName

# `local` and stricter ones are left as the server has them.
_DURABLE: Final = (
    "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'"
)

_candle_row: Final = attrgetter(*CANDLES.fields)
_gap_row: Final = attrgetter(*FEED_GAPS.fields)
_status_row: Final = attrgetter(*FEED_STATUS.fields)
_venue_candle_row: Final = attrgetter(*VENUE_CANDLES.fields)


class PostgresSink:
    """Writes candles and what is said of feeds to one database; see `ashi_sinks.protocol.Sink`.

    It has one connection. After any failure but a refused row that is thrown away and the next write makes a new one:
    what state a server or network in trouble has left it in is not worth asking.
    """

    name: Final = NAME

    def __init__(self, url: str) -> None:
        """Raises UsageError when `url` is not the URL of a database."""
        self._address = Address(url)
        self._connection: Any = None
        self._store: dict[str, TableIdentity] | None = None
        self._guards = {table.name: TableGuard(table, self._address) for table in TABLES}

    async def open(self) -> bool:
        """Connect and check the tables, which `ashi sink postgres --migrate` makes. See `Sink.open`."""
        await self.close()
        self._store = None
        try:
            with store_errors(self._address):
                async with asyncio.timeout(COMMAND_TIMEOUT_S):
                    connection = await self._connected()
                    async with transaction(connection, self._address, read_only=True):
                        return not await connection.fetchval("SELECT EXISTS (SELECT FROM candles)")
        except BaseException:
            self._drop()
            raise

    async def _connected(self) -> Any:
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        self._connection = connection = await connect(self._address)
        async with transaction(connection, self._address, read_only=True):
            store = await check_schema(connection, self._address)
            for name, guard in self._guards.items():
                now, before = store[name], None if self._store is None else self._store[name]
                if before is None:
                    await guard.begin(connection, now.number)
                elif now.number == before.number and now.applied != before.applied:
                    guard.replace()  # of another number the guard tells, if it has not already
            self._store = store
        return connection

    async def write(self, candles: Sequence[Candle]) -> int:
        """Upsert the batch in one transaction. See `Sink.write`."""
        return await self._write(CANDLES, [_with_text(_candle_row(candle)) for candle in candles])

    async def write_gaps(self, gaps: Sequence[FeedGap]) -> int:
        """Upsert the batch in one transaction. See `Sink.write_gaps`."""
        return await self._write(FEED_GAPS, [_gap_row(gap) for gap in gaps])

    async def write_statuses(self, statuses: Sequence[FeedStatus]) -> int:
        """Upsert the batch in one transaction. See `Sink.write_statuses`."""
        return await self._write(FEED_STATUS, [_status_row(status) for status in statuses])

    async def write_venue_candles(self, candles: Sequence[VenueCandle]) -> int:
        """Upsert the batch in one transaction. See `Sink.write_venue_candles`."""
        return await self._write(VENUE_CANDLES, [_with_text(_venue_candle_row(candle)) for candle in candles])

    async def _write(self, table: PostgresTable, rows: Sequence[tuple[Any, ...]]) -> int:
        if not rows:
            return 0
        try:
            with store_errors(self._address):
                async with asyncio.timeout(COMMAND_TIMEOUT_S):
                    connection = await self._connected()
                    with store_errors(self._address, writing=True):
                        return await self._upsert(connection, table, rows)
        except RefusedError as error:
            await self._roll_back(error)
            raise
        except BaseException:
            self._drop()
            raise

    async def _upsert(self, connection: Any, table: PostgresTable, rows: Sequence[tuple[Any, ...]]) -> int:
        # Each time, in one request: a pooler of transactions may have given us another session.
        await connection.execute(f"{self._address.begin}; {_DURABLE}; {table.create_staging}")
        guard = self._guards.get(table.name)
        if guard is not None:
            await guard.look(connection)
        # In COPY's binary format.
        await connection.copy_records_to_table(table.staging, schema_name="pg_temp", records=rows, columns=table.fields)
        done = await connection.execute(table.upsert)
        await connection.execute("COMMIT")
        changed = int(done.rpartition(" ")[2])  # "INSERT 0 987": the rows added and replaced
        if guard is not None:
            guard.wrote(rows, changed)
        return changed

    async def look(self, table: TableName) -> None:
        """See whether a table is still what was written to. See `Sink.look`."""
        try:
            with store_errors(self._address):
                async with asyncio.timeout(COMMAND_TIMEOUT_S):
                    connection = await self._connected()
                    async with transaction(connection, self._address, read_only=True):
                        await self._guards[table].look(connection)
        except BaseException:
            self._drop()
            raise

    async def _roll_back(self, error: RefusedError) -> None:
        if isinstance(error.__cause__, asyncpg.PostgresError):
            try:
                async with asyncio.timeout(COMMAND_TIMEOUT_S):
                    await self._connection.execute("ROLLBACK")
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                self._drop()
        else:
            # The driver gave up in mid-copy and has asked the server to cancel: that may yet hit what comes next.
            self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def close(self) -> None:
        """Disconnect. See `Sink.close`."""
        self._drop()


def _with_text(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple([str(value) if type(value) is Decimal else value for value in row])

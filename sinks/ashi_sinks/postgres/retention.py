"""Old candles out of a plain table, in small transactions, while workers write and others read.

What stays true: a worker never waits for longer than one batch; of each series the newest candle stays, so that a
market that trades no more is still known by its last price; and every gap and status stays, so that what is left,
such as days whose minutes are gone, is as complete, or not, as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ashi.contracts.errors import StorageError
from ashi.contracts.timeframe import Timeframe
from ashi_sinks.postgres.address import Address
from ashi_sinks.postgres.connection import connect, store_errors, transaction
from ashi_sinks.postgres.reader import SERIES
from ashi_sinks.postgres.schema import check_schema, is_hypertable

if TYPE_CHECKING:
    from collections.abc import Collection

BATCH_ROWS: Final = 5_000

# In the order of the key, as workers write, so that no two wait for each other crosswise.
_DELETE: Final = """
DELETE FROM candles WHERE symbol = $1 AND timeframe = $2 AND open_time IN (
  SELECT open_time FROM candles
  WHERE symbol = $1 AND timeframe = $2 AND close_time <= $3 AND open_time < least($3, (
    SELECT max(open_time) FROM candles WHERE symbol = $1 AND timeframe = $2))
  ORDER BY open_time LIMIT $4)"""
# The server's clock, as a machine's may be off.
_CUT: Final = "SELECT now() - $1 * interval '1 second'"


async def delete_older(
    url: str, age_us: int, timeframes: Collection[str] = (), batch_rows: int = BATCH_ROWS
) -> list[str]:
    """Delete candles that closed more than `age_us` ago, of some timeframes or of all; a sentence for each timeframe.

    Raises UsageError for a wrong URL, StorageError (also RetryableError) when it cannot be done; what was deleted by
    then is deleted.
    """
    address = Address(url)
    deleted: dict[str, int] = dict.fromkeys(timeframes, 0)
    with store_errors(address):
        connection = await connect(address)
        try:
            async with transaction(connection, address, read_only=True):
                await check_schema(connection, address)
                if await is_hypertable(connection):
                    raise StorageError(
                        f"{address}: candles is a hypertable, from which whole chunks go at once: run SELECT "
                        f"drop_chunks('candles', INTERVAL '{age_us // 1_000_000} seconds'), or add_retention_policy "
                        "to have it done daily"
                    )
                cut = await connection.fetchval(_CUT, age_us / 1e6)
                series = await connection.fetch(SERIES)
            for symbol, timeframe, *_ in series:
                if not timeframes or timeframe in timeframes:
                    rows = await _delete(connection, address, (symbol, timeframe, cut, batch_rows))
                    deleted[timeframe] = deleted.get(timeframe, 0) + rows
        finally:
            connection.terminate()
    return [
        f"{timeframe}: {deleted[timeframe]:,} candles deleted" for timeframe in sorted(deleted, key=Timeframe.parse)
    ]


async def _delete(connection: Any, address: Address, parameters: tuple[str, str, int, int]) -> int:
    """Delete from one series, batch by batch; the number of rows."""
    total = 0
    while True:
        async with transaction(connection, address):
            done = await connection.execute(_DELETE, *parameters)
        rows = int(done.rpartition(" ")[2])  # "DELETE 987"
        total += rows
        if rows < parameters[3]:
            return total

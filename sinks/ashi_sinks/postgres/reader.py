"""Reads candles and what is said of feeds from PostgreSQL, while workers write. What writes them is in `sink`."""

from __future__ import annotations

from contextlib import asynccontextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, TypeVar

import asyncpg

from ashi.contracts.candle import DECIMAL_FIELDS, Candle
from ashi.contracts.feed import FeedGap, FeedStatus
from ashi.contracts.venue_candle import VenueCandle
from ashi_sinks.postgres.address import Address
from ashi_sinks.postgres.connection import (
    COMMAND_TIMEOUT_S,
    for_pooler,
    store_errors,
    transaction,
    with_times_as_integers,
)
from ashi_sinks.postgres.schema import check_schema
from ashi_sinks.postgres.tables import CANDLES, FEED_GAPS, FEED_STATUS, VENUE_CANDLES, PostgresTable
from ashi_sinks.protocol import SeriesSpan, by_symbol_and_length
from ashi_sinks.rows import changed_by_hand, message_from

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence


def _declare(table: PostgresTable) -> str:
    """The statement that begins to read one series, in order; of what the bounds leave the latest.

    Cursors of the driver have a named statement, which a pooler of transactions may give to another client.
    """
    latest = (
        f"SELECT {', '.join(table.fields)} FROM {table.name} "  # noqa: S608
        "WHERE symbol = $1 AND timeframe = $2 AND open_time >= $3 AND open_time < $4 ORDER BY open_time DESC LIMIT $5"
    )
    return f"DECLARE candles_read NO SCROLL CURSOR FOR SELECT * FROM ({latest}) AS latest ORDER BY open_time"  # noqa: S608


def _series(table: PostgresTable) -> str:
    """The query for all series, with the first and the last open time of each.

    From one series to the next by the primary key: a look-up for each, where DISTINCT would read the whole table.
    """
    name = table.name
    return f"""
WITH RECURSIVE series AS (
  (SELECT symbol, timeframe, open_time AS first FROM {name} ORDER BY symbol, timeframe, open_time LIMIT 1)
  UNION ALL
  SELECT next.* FROM series CROSS JOIN LATERAL (
    SELECT symbol, timeframe, open_time FROM {name}
    WHERE (symbol, timeframe) > (series.symbol, series.timeframe)
    ORDER BY symbol, timeframe, open_time LIMIT 1) AS next
)
SELECT symbol, timeframe, first, latest.open_time AS last FROM series CROSS JOIN LATERAL (
  SELECT open_time FROM {name} WHERE (symbol, timeframe) <= (series.symbol, series.timeframe)
  ORDER BY symbol DESC, timeframe DESC, open_time DESC LIMIT 1) AS latest"""  # noqa: S608


SERIES: Final = _series(CANDLES)
"""Symbol, timeframe, first and last open time of each series of candles."""
_VENUE_SERIES: Final = _series(VENUE_CANDLES)
_DECLARE: Final = _declare(CANDLES)
_DECLARE_VENUE: Final = _declare(VENUE_CANDLES)
_FETCH: Final = "FETCH 1000 FROM candles_read"
_MAY_READ_VENUE: Final = f"SELECT has_table_privilege('{VENUE_CANDLES.name}', 'SELECT')"
# As `ashi.contracts.feed.overlaps`.
_GAPS: Final = (
    f"SELECT {', '.join(FEED_GAPS.fields)} FROM feed_gaps WHERE symbol = $1 AND from_time < $3 "  # noqa: S608
    "AND (to_time IS NULL OR greatest(to_time, from_time + interval '1 microsecond') > $2) ORDER BY from_time"
)

_STATUSES: Final = f"SELECT {', '.join(FEED_STATUS.fields)} FROM feed_status"  # noqa: S608
_STATUS: Final = f"{_STATUSES} WHERE symbol = $1"

_Candle = TypeVar("_Candle", Candle, VenueCandle)

_CONNECTIONS: Final = 4
"""A series that is being read keeps a connection to itself; the other questions take another."""
_LATEST_TIME_US: Final = 2**53
"""Beyond every time of a message, and within what a timestamptz can hold."""


class PostgresReader:
    """Reads one database and never changes it; see `ashi_sinks.protocol.CandleReader`."""

    def __init__(self, url: str) -> None:
        """Raises UsageError when `url` is not the URL of a database."""
        self._address = Address(url)
        self._pool: Any = None
        self._may_read_venue = False

    async def open(self) -> None:
        """Connect and check the tables. See `CandleReader.open`."""
        try:
            with store_errors(self._address):
                self._pool = await asyncpg.create_pool(
                    self._address.url,
                    min_size=1,
                    max_size=_CONNECTIONS,
                    command_timeout=COMMAND_TIMEOUT_S,
                    init=with_times_as_integers,
                    reset=_leave_as_it_is,
                    **for_pooler(self._address),
                )
                async with self._transaction() as connection:
                    await check_schema(connection, self._address)
                    # A role that was given rights on the tables of an earlier schema has none on this one.
                    self._may_read_venue = bool(await connection.fetchval(_MAY_READ_VENUE))
        except BaseException:
            await self.close()
            raise

    async def read(
        self, symbol: str, timeframe: str, start: int | None = None, end: int | None = None, limit: int | None = None
    ) -> AsyncIterator[Candle]:
        """The candles of one series; see `CandleReader.read`. Raises StorageError."""
        async for row in self._series(_DECLARE, symbol, timeframe, *_bounds(start, end), limit=limit):
            yield _candle(Candle, row, CANDLES, self._address)

    async def venue_candles(
        self, symbol: str, timeframe: str, start: int | None = None, end: int | None = None, limit: int | None = None
    ) -> AsyncIterator[VenueCandle]:
        """The venue's own candles of one series; see `CandleReader.venue_candles`. Raises StorageError.

        To a role without the right to read their table there are none.
        """
        if not self._may_read_venue:
            return
        async for row in self._series(_DECLARE_VENUE, symbol, timeframe, *_bounds(start, end), limit=limit):
            yield _candle(VenueCandle, row, VENUE_CANDLES, self._address)

    async def venue_spans(self) -> list[SeriesSpan]:
        """Each series of a venue's own; see `CandleReader.venue_spans`. Raises StorageError."""
        rows = await self._all(_VENUE_SERIES) if self._may_read_venue else []
        return by_symbol_and_length(SeriesSpan(*row.values()) for row in rows)

    async def _series(self, declare: str, *parameters: object, limit: int | None) -> AsyncIterator[Any]:
        most = None if limit is None else max(limit, 0)
        with store_errors(self._address):
            async with self._transaction() as connection:
                await connection.execute(declare, *parameters, most)
                while rows := await connection.fetch(_FETCH):
                    for row in rows:
                        yield row

    async def spans(self) -> list[SeriesSpan]:
        """Each series in the table; see `CandleReader.spans`. Raises StorageError."""
        return by_symbol_and_length(SeriesSpan(*row.values()) for row in await self._all(SERIES))

    async def count(self, symbol: str | None = None, timeframe: str | None = None) -> int:
        """The number of rows; see `CandleReader.count`. Raises StorageError."""
        filters = {name: value for name, value in (("symbol", symbol), ("timeframe", timeframe)) if value is not None}
        where = " AND ".join(f"{name} = ${place}" for place, name in enumerate(filters, 1)) or "true"
        [row] = await self._all(f"SELECT count(*) AS rows FROM candles WHERE {where}", *filters.values())  # noqa: S608
        return int(row["rows"])

    async def greatest_version(self) -> int | None:
        """See `CandleReader.greatest_version`. Raises StorageError."""
        [row] = await self._all("SELECT max(version) AS version FROM candles")
        return None if row["version"] is None else int(row["version"])

    async def gaps(self, symbol: str, start: int | None = None, end: int | None = None) -> list[FeedGap]:
        """The gaps that overlap a time; see `CandleReader.gaps`. Raises StorageError."""
        rows = await self._all(_GAPS, symbol, *_bounds(start, end))
        return [_gap(row, self._address) for row in rows]

    async def status(self, symbol: str) -> FeedStatus | None:
        """How the feed was when it was said last; see `CandleReader.status`. Raises StorageError."""
        rows = await self._all(_STATUS, symbol)
        return _status(rows[0], self._address) if rows else None

    async def statuses(self) -> list[FeedStatus]:
        """How all feeds were; see `CandleReader.statuses`. Raises StorageError."""
        return [_status(row, self._address) for row in await self._all(_STATUSES)]

    async def _all(self, statement: str, *parameters: object) -> Sequence[Any]:
        with store_errors(self._address):
            async with self._transaction() as connection:
                rows: Sequence[Any] = await connection.fetch(statement, *parameters)
                return rows

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Any]:
        async with self._pool.acquire() as connection, transaction(connection, self._address, read_only=True):
            yield connection

    async def close(self) -> None:
        """Disconnect. See `CandleReader.close`."""
        if self._pool is not None:
            self._pool.terminate()
            self._pool = None


async def _leave_as_it_is(_: Any) -> None:
    """Nothing outlives a transaction here, and in a pooler's session there are settings of others."""


def _bounds(start: int | None, end: int | None) -> tuple[int, int]:
    lower, upper = 0 if start is None else start, _LATEST_TIME_US if end is None else end
    return min(max(lower, 0), _LATEST_TIME_US), min(max(upper, 0), _LATEST_TIME_US)


def _candle(kind: type[_Candle], row: Any, table: PostgresTable, address: Address) -> _Candle:
    """The candle of a row, whose decimals the driver has made. Raises StorageError for NaN, which NUMERIC may be."""
    candle = kind(*row.values())
    for name in DECIMAL_FIELDS:
        value: Decimal | None = getattr(candle, name)
        if value is not None and not value.is_finite():
            key = candle.symbol, candle.timeframe, candle.open_time
            raise changed_by_hand(address, table.name, key, f"{name} is {value}")
    return candle


def _gap(row: Any, address: Address) -> FeedGap:
    return message_from(FeedGap, dict(row), where=address, table=FEED_GAPS.name, key=FEED_GAPS.key)


def _status(row: Any, address: Address) -> FeedStatus:
    return message_from(FeedStatus, dict(row), where=address, table=FEED_STATUS.name, key=FEED_STATUS.key)

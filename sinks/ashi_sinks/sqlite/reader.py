"""Reads candles and what is said of feeds from an SQLite file, while workers write. What writes them is in `sink`."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, Final

from ashi.contracts.candle import Candle
from ashi.contracts.errors import StorageError
from ashi.contracts.feed import FeedGap, FeedStatus
from ashi.contracts.venue_candle import VenueCandle
from ashi_sinks.protocol import SeriesSpan, by_symbol_and_length
from ashi_sinks.rows import candle_from, message_from
from ashi_sinks.sqlite.file import SqliteFile, explain
from ashi_sinks.sqlite.tables import (
    CANDLES,
    FEED_GAPS,
    FEED_STATUS,
    LAYOUTS,
    SCHEMA_VERSION,
    VENUE_CANDLES,
    SqliteTable,
)
from ashi_sinks.sqlite.thread import OneThread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path


def _read(table: SqliteTable) -> str:
    """The query for the rows of one series, in order; of what the bounds leave the latest."""
    latest = (
        f"SELECT {', '.join(table.fields)} FROM {table.name} "  # noqa: S608
        "WHERE symbol = ? AND timeframe = ? AND open_time >= ? AND open_time < ? ORDER BY open_time DESC LIMIT ?"
    )
    return f"SELECT * FROM ({latest}) ORDER BY open_time"  # noqa: S608


def _spans(table: SqliteTable) -> str:
    """The query for all series, with the first and the last open time of each.

    From one series to the next by the primary key: a look-up for each, where DISTINCT would read the whole table.
    """
    name = table.name
    of_series = f"FROM {name} AS c WHERE c.symbol = series.symbol AND c.timeframe = series.timeframe"
    return f"""
WITH RECURSIVE series(symbol, timeframe) AS (
  SELECT * FROM (SELECT symbol, timeframe FROM {name} ORDER BY symbol, timeframe LIMIT 1)
  UNION ALL
  SELECT next.symbol, next.timeframe FROM series JOIN {name} AS next
    ON (next.symbol, next.timeframe, next.open_time) = (
      SELECT symbol, timeframe, open_time FROM {name}
      WHERE (symbol, timeframe) > (series.symbol, series.timeframe)
      ORDER BY symbol, timeframe, open_time LIMIT 1)
)
SELECT symbol, timeframe, (SELECT min(open_time) {of_series}), (SELECT max(open_time) {of_series}) FROM series"""  # noqa: S608


_READ: Final = _read(CANDLES)
_READ_VENUE: Final = _read(VENUE_CANDLES)
_SPANS: Final = _spans(CANDLES)
_VENUE_SPANS: Final = _spans(VENUE_CANDLES)
_COUNT: Final = "SELECT count(*) FROM candles WHERE symbol = ifnull(?, symbol) AND timeframe = ifnull(?, timeframe)"
# As `ashi.contracts.feed.overlaps`. All columns: an older layout has fewer.
_GAPS: Final = (
    "SELECT * FROM feed_gaps WHERE symbol = ? AND from_time < ? "
    "AND (to_time IS NULL OR max(to_time, from_time + 1) > ?) ORDER BY from_time"
)
_STATUSES: Final = f"SELECT {', '.join(FEED_STATUS.fields)} FROM feed_status"  # noqa: S608
_STATUS: Final = f"{_STATUSES} WHERE symbol = ?"

_FETCH_ROWS: Final = 1_000
_LARGEST: Final = 2**63 - 1


class SqliteReader:
    """Reads one SQLite file and never changes it; see `ashi_sinks.protocol.CandleReader`."""

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path)
        self._thread = OneThread()

    async def open(self) -> None:
        """Open an existing file read-only. See `CandleReader.open`."""
        await self._thread.run(self._open)

    def _open(self) -> None:
        try:
            self._file.open_read_only()
            self._file.check_tables()
        except sqlite3.Error as error:
            self._file.close()
            raise explain(error, self._file.path, opening=True) from error
        except StorageError:
            self._file.close()
            raise

    async def read(
        self, symbol: str, timeframe: str, start: int | None = None, end: int | None = None, limit: int | None = None
    ) -> AsyncIterator[Candle]:
        """The candles of one series; see `CandleReader.read`. Raises StorageError."""
        rows = await self._thread.run(self._query, _READ, (symbol, timeframe, *_bounds(start, end, limit)))
        while chunk := await self._thread.run(self._fetch, rows):
            for row in chunk:
                yield candle_from(Candle, row, where=self._file.path, table=CANDLES.name)

    async def venue_candles(
        self, symbol: str, timeframe: str, start: int | None = None, end: int | None = None, limit: int | None = None
    ) -> AsyncIterator[VenueCandle]:
        """The venue's own candles of one series; see `CandleReader.venue_candles`. Raises StorageError."""
        if not await self._thread.run(self._has, VENUE_CANDLES):
            return
        rows = await self._thread.run(self._query, _READ_VENUE, (symbol, timeframe, *_bounds(start, end, limit)))
        while chunk := await self._thread.run(self._fetch, rows):
            for row in chunk:
                yield candle_from(VenueCandle, row, where=self._file.path, table=VENUE_CANDLES.name)

    async def venue_spans(self) -> list[SeriesSpan]:
        """Each series of a venue's own; see `CandleReader.venue_spans`. Raises StorageError."""
        rows = await self._thread.run(self._rows_of, VENUE_CANDLES, _VENUE_SPANS, ())
        return by_symbol_and_length(SeriesSpan(*row) for row in rows)

    async def spans(self) -> list[SeriesSpan]:
        """Each series in the file; see `CandleReader.spans`. Raises StorageError."""
        return by_symbol_and_length(SeriesSpan(*row) for row in await self._thread.run(self._all, _SPANS, ()))

    async def count(self, symbol: str | None = None, timeframe: str | None = None) -> int:
        """The number of rows; see `CandleReader.count`. Raises StorageError."""
        [[rows]] = await self._thread.run(self._all, _COUNT, (symbol, timeframe))
        return int(rows)

    async def greatest_version(self) -> int | None:
        """See `CandleReader.greatest_version`. Raises StorageError."""
        [[version]] = await self._thread.run(self._all, "SELECT max(version) FROM candles", ())
        return None if version is None else int(version)

    async def gaps(self, symbol: str, start: int | None = None, end: int | None = None) -> list[FeedGap]:
        """The gaps that overlap a time; see `CandleReader.gaps`. Raises StorageError."""
        parameters = (symbol, _LARGEST if end is None else end, -_LARGEST if start is None else start)
        rows = await self._thread.run(self._rows_of, FEED_GAPS, _GAPS, parameters)
        return [_gap(row, self._file.path) for row in rows]

    async def status(self, symbol: str) -> FeedStatus | None:
        """How the feed was when it was said last; see `CandleReader.status`. Raises StorageError."""
        rows = await self._thread.run(self._rows_of, FEED_STATUS, _STATUS, (symbol,))
        return _status(rows[0], self._file.path) if rows else None

    async def statuses(self) -> list[FeedStatus]:
        """How all feeds were; see `CandleReader.statuses`. Raises StorageError."""
        rows = await self._thread.run(self._rows_of, FEED_STATUS, _STATUSES, ())
        return [_status(row, self._file.path) for row in rows]

    def _rows_of(self, table: SqliteTable, statement: str, parameters: tuple[object, ...]) -> list[Any]:
        return self._all(statement, parameters) if self._has(table) else []

    def _has(self, table: SqliteTable) -> bool:
        try:
            # Asked each time: a worker may have upgraded the file since it was opened, even to a layout after ours.
            tables = LAYOUTS.get(self._file.layout, LAYOUTS[SCHEMA_VERSION])
        except sqlite3.Error as error:
            raise explain(error, self._file.path) from error
        return table.name in {known.name for known in tables}

    def _query(self, statement: str, parameters: tuple[object, ...]) -> sqlite3.Cursor:
        try:
            return self._file.db.execute(statement, parameters)
        except sqlite3.Error as error:
            raise explain(error, self._file.path) from error

    def _fetch(self, cursor: sqlite3.Cursor) -> list[Any]:
        try:
            return cursor.fetchmany(_FETCH_ROWS)
        except sqlite3.Error as error:
            raise explain(error, self._file.path) from error

    def _all(self, statement: str, parameters: tuple[object, ...]) -> list[Any]:
        cursor = self._query(statement, parameters)
        try:
            return cursor.fetchall()
        except sqlite3.Error as error:
            raise explain(error, self._file.path) from error

    async def close(self) -> None:
        """Close the file. See `CandleReader.close`."""
        await self._thread.end(self._file.close)


def _bounds(start: int | None, end: int | None, limit: int | None) -> tuple[int, int, int]:
    return (
        -_LARGEST if start is None else start,
        _LARGEST if end is None else end,
        -1 if limit is None else max(limit, 0),
    )


def _gap(row: Sequence[Any], path: Path) -> FeedGap:
    fields = dict(zip(FEED_GAPS.fields, row, strict=False))
    fields["final"] = bool(fields.get("final"))
    return message_from(FeedGap, fields, where=path, table=FEED_GAPS.name, key=FEED_GAPS.key)


def _status(row: Sequence[Any], path: Path) -> FeedStatus:
    fields = dict(zip(FEED_STATUS.fields, row, strict=True))
    return message_from(FeedStatus, fields, where=path, table=FEED_STATUS.name, key=FEED_STATUS.key)

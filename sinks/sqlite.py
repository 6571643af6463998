"""SQLite: one file that one worker writes while any number of others read it (`sinks.sqlite_file` has its layout).

Why `synchronous=FULL`: the offsets are committed to Kafka after the write, and with NORMAL a power cut may take back
transactions that a write-ahead log reported as committed. Those candles would be missing for good.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from ashi.contracts.candle import DECIMAL_FIELDS, Candle, candle_fields
from ashi.contracts.decimals import parse_decimal
from ashi.contracts.errors import ContractError, StorageError
from ashi.contracts.feed import FeedGap
from ashi.contracts.timeframe import Timeframe
from sinks.protocol import RefusedError
from sinks.sqlite_file import APPLICATION_ID, NAME, SqliteFile, explain, identity
from sinks.sqlite_tables import CANDLES, FEED_GAPS, LAYOUTS, SCHEMA_VERSION, Table

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence
    from pathlib import Path

_T = TypeVar("_T")

_LATEST: Final = (
    f"SELECT {', '.join(CANDLES.fields)} FROM candles "  # noqa: S608
    "WHERE symbol = ? AND timeframe = ? AND open_time >= ? AND open_time < ? ORDER BY open_time DESC LIMIT ?"
)
_READ: Final = f"SELECT * FROM ({_LATEST}) ORDER BY open_time"  # noqa: S608
_COUNT: Final = "SELECT count(*) FROM candles WHERE symbol = ifnull(?, symbol) AND timeframe = ifnull(?, timeframe)"
# From one series to the next by the primary key: a look-up for each, where DISTINCT would read the whole table.
_SERIES: Final = """
WITH RECURSIVE series(symbol, timeframe) AS (
  SELECT * FROM (SELECT symbol, timeframe FROM candles ORDER BY symbol, timeframe LIMIT 1)
  UNION ALL
  SELECT next.symbol, next.timeframe FROM series JOIN candles AS next
    ON (next.symbol, next.timeframe, next.open_time) = (
      SELECT symbol, timeframe, open_time FROM candles
      WHERE (symbol, timeframe) > (series.symbol, series.timeframe)
      ORDER BY symbol, timeframe, open_time LIMIT 1)
)
SELECT symbol, timeframe FROM series"""

# As `sinks.protocol.overlaps`.
_GAPS: Final = (
    f"SELECT {', '.join(FEED_GAPS.fields)} FROM feed_gaps WHERE symbol = ? AND from_time < ? "  # noqa: S608
    "AND (to_time IS NULL OR max(to_time, from_time + 1) > ?) ORDER BY from_time"
)

CHECKPOINT_PAGES: Final = 10_000
"""The log is folded into the file when it has so many pages of 4 KB. Ten times SQLite's default: a batch of a thousand
symbols touches a thousand pages, and catching up on such a topic is twice as fast (32,000 candles/s, not 15,000)."""

_FETCH_ROWS: Final = 1_000
_LARGEST: Final = 2**63 - 1


class _Thread:
    """The one thread that a connection is used in, so that the event loop never waits for a disk."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    async def run(self, function: Callable[..., _T], *args: object) -> _T:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix=NAME)
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)

    async def end(self, last: Callable[[], None]) -> None:
        if self._pool is not None:
            await self.run(last)
            self._pool.shutdown(wait=False)
            self._pool = None


class SqliteSink:
    """Writes candles and feed gaps to one SQLite file; see `sinks.protocol.Sink`."""

    name: Final = NAME

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path)
        self._thread = _Thread()
        self._identity: tuple[int, int] | None = None

    async def open(self) -> bool:
        """Open the file; make it, its folders and its tables if there are none. See `Sink.open`."""
        return await self._thread.run(self._open)

    def _open(self) -> bool:
        path = self._file.path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"folder {path.parent} cannot be made: {error.strerror}") from error
        try:
            self._file.open_for_writing()
            empty = self._prepare()
        except sqlite3.Error as error:
            self._file.close()
            raise explain(error, path, opening=True) from error
        except StorageError:
            self._file.close()
            raise
        self._identity = identity(path)
        return empty

    def _prepare(self) -> bool:
        file = self._file
        if not file.is_empty():
            # Before anything is changed: a database that is not ours stays as it is.
            file.check_tables()
            file.missing_tables()
        if file.pragma("journal_mode = WAL") != "wal":
            raise StorageError(f"{file.path} is on a file system that cannot keep a write-ahead log: name a local file")
        file.db.execute("PRAGMA synchronous = FULL")
        file.db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        file.db.execute("BEGIN IMMEDIATE")
        if file.is_empty():  # asked again under the lock: another worker may have made or upgraded it meanwhile
            missing: Iterable[Table] = LAYOUTS[SCHEMA_VERSION]
            file.db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        else:
            file.check_tables()
            missing = file.missing_tables()
        for table in missing:
            file.db.execute(table.create)
        # Written each time: a file that can be opened but not written is found now and not with the first candle.
        file.db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        file.db.execute("COMMIT")
        return file.db.execute("SELECT 1 FROM candles LIMIT 1").fetchone() is None

    async def write(self, candles: Sequence[Candle]) -> int:
        """Upsert the batch in one transaction. See `Sink.write`."""
        rows = (tuple(candle_fields(candle).values()) for candle in candles)  # made in the thread too
        return await self._thread.run(self._upsert, CANDLES, rows)

    async def write_gaps(self, gaps: Sequence[FeedGap]) -> int:
        """Upsert the batch in one transaction. See `Sink.write_gaps`."""
        return await self._thread.run(self._upsert, FEED_GAPS, map(msgspec.structs.astuple, gaps))

    def _upsert(self, table: Table, rows: Iterable[tuple[Any, ...]]) -> int:
        db, path = self._file.db, self._file.path
        before = db.total_changes
        try:
            # In the order of the table, so that neighbours go to the same page.
            ordered = sorted(rows, key=lambda row: row[: len(table.key)])
            db.execute("BEGIN IMMEDIATE")
            db.executemany(table.upsert, ordered)
            changed = db.total_changes - before
            db.execute("COMMIT")
        except (sqlite3.Error, OverflowError, UnicodeError) as error:
            if db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise explain(error, path) from error
            # An integer beyond 64 bits, a text that is not Unicode: Python refuses to hand it to SQLite.
            raise RefusedError(f"{path} refuses the row: {error}") from error
        # SQLite would go on writing to a file that has been removed, and the offsets be committed for nothing.
        if identity(path) != self._identity:
            raise StorageError(f"{path} was moved or replaced while in use: put it back, or start again with a new one")
        return changed

    async def close(self) -> None:
        """Close the file; the last one to do so makes SQLite fold the log into it. See `Sink.close`."""
        await self._thread.end(self._file.close)


class SqliteReader:
    """Reads one SQLite file and never changes it; see `sinks.protocol.CandleReader`."""

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path)
        self._thread = _Thread()

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
        parameters = (
            symbol,
            timeframe,
            -_LARGEST if start is None else start,
            _LARGEST if end is None else end,
            -1 if limit is None else max(limit, 0),
        )
        rows = await self._thread.run(self._query, _READ, parameters)
        while chunk := await self._thread.run(self._fetch, rows):
            for row in chunk:
                yield _candle(row, self._file.path)

    async def series(self) -> list[tuple[str, str]]:
        """Each (symbol, timeframe) in the file; see `CandleReader.series`. Raises StorageError."""
        found: list[tuple[str, str]] = await self._thread.run(self._all, _SERIES, ())
        return sorted(found, key=lambda series: (series[0], Timeframe.parse(series[1])))

    async def count(self, symbol: str | None = None, timeframe: str | None = None) -> int:
        """The number of rows; see `CandleReader.count`. Raises StorageError."""
        [[rows]] = await self._thread.run(self._all, _COUNT, (symbol, timeframe))
        return int(rows)

    async def gaps(self, symbol: str, start: int | None = None, end: int | None = None) -> list[FeedGap]:
        """The gaps that overlap a time; see `CandleReader.gaps`. Raises StorageError."""
        parameters = (symbol, _LARGEST if end is None else end, -_LARGEST if start is None else start)
        rows = await self._thread.run(self._gaps, parameters)
        return [_gap(row, self._file.path) for row in rows]

    def _gaps(self, parameters: tuple[object, ...]) -> list[Any]:
        try:
            # Asked each time: a worker may have upgraded the file since it was opened, even to a layout after ours.
            tables = LAYOUTS.get(self._file.layout, LAYOUTS[SCHEMA_VERSION])
        except sqlite3.Error as error:
            raise explain(error, self._file.path) from error
        return self._all(_GAPS, parameters) if FEED_GAPS in tables else []

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


def _candle(row: Sequence[Any], path: Path) -> Candle:
    fields = dict(zip(CANDLES.fields, row, strict=True))
    try:
        for name in DECIMAL_FIELDS:
            fields[name] = parse_decimal(name, fields[name])
    except ContractError as error:
        raise _changed_by_hand(CANDLES, row, path, error) from error
    return Candle(**fields)


def _gap(row: Sequence[Any], path: Path) -> FeedGap:
    try:
        return msgspec.convert(dict(zip(FEED_GAPS.fields, row, strict=True)), FeedGap)
    except msgspec.ValidationError as error:
        raise _changed_by_hand(FEED_GAPS, row, path, error) from error


def _changed_by_hand(table: Table, row: Sequence[Any], path: Path, error: Exception) -> StorageError:
    key = "/".join(str(value) for value in row[: len(table.key)])
    return StorageError(f"{path}: the row {key} of {table.name} was changed by hand: {error}")

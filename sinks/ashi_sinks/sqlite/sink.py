"""SQLite: one file that one worker writes while any number of others read it (`ashi_sinks.sqlite.file` has its layout).

Why `synchronous=FULL`: the offsets are committed to Kafka after the write, and with NORMAL a power cut may take back
transactions that a write-ahead log reported as committed. Those candles would be missing for good.
"""

from __future__ import annotations

import contextlib
import sqlite3
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ashi.contracts.candle import candle_fields
from ashi.contracts.errors import StorageError
from ashi.contracts.json_messages import plain_fields
from ashi_sinks.protocol import RefusedError, RowsLostError
from ashi_sinks.seen_rows import MOST, SeenRows
from ashi_sinks.sqlite.file import APPLICATION_ID, NAME, SqliteFile, explain, identity
from ashi_sinks.sqlite.tables import (
    CANDLES,
    FEED_GAPS,
    FEED_STATUS,
    LAYOUTS,
    SCHEMA_VERSION,
    TABLES,
    VENUE_CANDLES,
    SqliteTable,
)
from ashi_sinks.sqlite.thread import OneThread

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from ashi.contracts.candle import Candle
    from ashi.contracts.feed import FeedGap, FeedStatus
    from ashi.contracts.venue_candle import VenueCandle
    from ashi_sinks.protocol import TableName

CHECKPOINT_PAGES: Final = 10_000
"""The log is folded into the file when it has so many pages of 4 KB. Ten times SQLite's default: a batch of a thousand
symbols touches a thousand pages, and catching up on such a topic is twice as fast (32,000 candles/s, not 15,000)."""


_status_row: Final = attrgetter(*FEED_STATUS.fields)


class SqliteSink:
    """Writes candles and what is said of feeds to one SQLite file; see `ashi_sinks.protocol.Sink`."""

    name: Final = NAME

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path)
        self._thread = OneThread()
        self._identity: tuple[int, int] | None = None
        self._schema: object = None
        self._rows = {table.name: SeenRows() for table in LAYOUTS[SCHEMA_VERSION]}

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

    def _begin_to_look(self) -> None:
        """Take the tables as they are now for those that are written to."""
        self._schema = self._file.pragma("schema_version")
        for table in LAYOUTS[SCHEMA_VERSION]:
            rows = self._rows[table.name] = SeenRows()
            for statement in (table.first_key, table.last_key):
                rows.found(self._file.db.execute(statement).fetchall())

    def _prepare(self) -> bool:
        file = self._file
        if not file.is_empty():
            # Before anything is changed: a database that is not ours stays as it is.
            file.check_tables()
            file.upgrade_statements()
        if file.pragma("journal_mode = WAL") != "wal":
            raise StorageError(f"{file.path} is on a file system that cannot keep a write-ahead log: name a local file")
        file.db.execute("PRAGMA synchronous = FULL")
        file.db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        file.db.execute("BEGIN IMMEDIATE")
        if file.is_empty():  # asked again under the lock: another worker may have made or upgraded it meanwhile
            statements = [table.create for table in LAYOUTS[SCHEMA_VERSION]]
            file.db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        else:
            file.check_tables()
            statements = file.upgrade_statements()
        for statement in statements:
            file.db.execute(statement)
        # Written each time: a file that can be opened but not written is found now and not with the first candle.
        file.db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._begin_to_look()
        file.db.execute("COMMIT")
        return file.db.execute("SELECT 1 FROM candles LIMIT 1").fetchone() is None

    async def write(self, candles: Sequence[Candle]) -> int:
        """Upsert the batch in one transaction. See `Sink.write`."""
        rows = (tuple(candle_fields(candle).values()) for candle in candles)  # made in the thread too
        return await self._thread.run(self._upsert, CANDLES, rows)

    async def write_gaps(self, gaps: Sequence[FeedGap]) -> int:
        """Upsert the batch in one transaction. See `Sink.write_gaps`."""
        return await self._thread.run(self._upsert, FEED_GAPS, map(msgspec.structs.astuple, gaps))

    async def write_statuses(self, statuses: Sequence[FeedStatus]) -> int:
        """Upsert the batch in one transaction. See `Sink.write_statuses`."""
        return await self._thread.run(self._upsert, FEED_STATUS, map(_status_row, statuses))

    async def write_venue_candles(self, candles: Sequence[VenueCandle]) -> int:
        """Upsert the batch in one transaction. See `Sink.write_venue_candles`."""
        rows = (tuple(plain_fields(candle).values()) for candle in candles)
        return await self._thread.run(self._upsert, VENUE_CANDLES, rows)

    def _upsert(self, table: SqliteTable, rows: Iterable[tuple[Any, ...]]) -> int:
        db, path = self._file.db, self._file.path
        before = db.total_changes
        try:
            # In the order of the table, so that neighbours go to the same page.
            ordered = sorted(rows, key=lambda row: row[: len(table.key)])
            db.execute("BEGIN IMMEDIATE")
            self._look(table)
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
        except StorageError:
            db.execute("ROLLBACK")
            raise
        self._require_same_file()
        latest = (row[: len(table.key)] for row in ordered[-MOST:])
        self._rows[table.name].wrote(latest, all_changed=changed == len(ordered))
        return changed

    def _require_same_file(self) -> None:
        """SQLite would go on writing to a file that has been removed, and the offsets be committed for nothing."""
        path = self._file.path
        if identity(path) != self._identity:
            raise StorageError(f"{path} was moved or replaced while in use: put it back, or start again with a new one")

    async def look(self, table: TableName) -> None:
        """See whether a table is still what was written to. See `Sink.look`."""
        await self._thread.run(self._look_alone, TABLES[table])

    def _look_alone(self, table: SqliteTable) -> None:
        try:
            self._look(table)
        except sqlite3.Error as error:
            raise explain(error, self._file.path) from error
        self._require_same_file()

    def _look(self, table: SqliteTable) -> None:
        file = self._file
        schema = file.pragma("schema_version")  # which any change of a table raises
        if schema != self._schema:
            file.check_tables()
            self._schema = schema
        rows = self._rows[table.name]
        if not rows.look([key for key in rows.keys if file.db.execute(table.has_key, key).fetchone()]):
            raise RowsLostError(f"{file.path}: table {table.name} was emptied")

    async def close(self) -> None:
        """Close the file; the last one to do so makes SQLite fold the log into it. See `Sink.close`."""
        await self._thread.end(self._file.close)

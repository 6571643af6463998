"""The SQLite file: its place, its layout, its errors. What writes and reads it is in `ashi_sinks.sqlite.sink`."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final
from urllib.parse import quote

from ashi.contracts.errors import StorageError, UsageError
from ashi.runtime.descriptors import lack_of_descriptors
from ashi_sinks.protocol import RefusedError, RetryableError
from ashi_sinks.sqlite.tables import LAYOUTS, SCHEMA_VERSION, SqliteTable

NAME: Final = "sqlite"

APPLICATION_ID: Final = 0x41534849
"""`PRAGMA application_id` ("ASHI"): the file is one of ours."""

BUSY_TIMEOUT_MS: Final = 1_000
"""How long SQLite itself waits for a lock. Short, since the worker tries again and must be able to stop between."""

_LOCKED: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_UNUSABLE: Final = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space",
    sqlite3.SQLITE_IOERR: "the disk reports an error: look at its free space, quota and the system's log",
    sqlite3.SQLITE_READONLY: "it is read-only: this user must have the right to write the file and its folder",
    sqlite3.SQLITE_CANTOPEN: "the file must be a regular one, and it and its folder must be writable for this user",
    sqlite3.SQLITE_PERM: "access is denied: this user must have the right to write the file and its folder",
    sqlite3.SQLITE_NOMEM: "memory is short",
}
_REFUSED: Final = {sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_RANGE}


def sqlite_path(url: str) -> Path:
    """The file of `sqlite:////absolute/path.db` or `sqlite:///relative/path.db`. Raises UsageError for others."""
    shape = "write sqlite:////absolute/path.db or sqlite:///relative/path.db"
    prefix = f"{NAME}:///"
    if not url.startswith(prefix):
        raise UsageError(f"storage {url!r} lacks the three or four slashes after the colon: {shape}")
    name = url.removeprefix(prefix)
    if not name or name.endswith("/"):
        raise UsageError(f"storage {url!r} names no file: {shape}")
    if name == ":memory:":
        raise UsageError(f"storage {url!r} would vanish with the process: {shape}")
    if "?" in name or "\0" in name:
        raise UsageError(f"storage {url.partition('?')[0]!r} has options, and SQLite takes none here: {shape}")
    return Path(name).absolute()


def identity(path: Path) -> tuple[int, int] | None:
    """Which file this is, whatever its name: device and inode. None when there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def remove_file(path: Path) -> None:
    """Remove a store and the files SQLite keeps beside it. Raises StorageError when it is not one of Ashi's."""
    if not os.path.lexists(path):
        return
    if not path.is_file() or path.stat().st_size:
        connection = SqliteFile(path)
        try:
            connection.open_read_only()
            ours = connection.pragma("application_id") == APPLICATION_ID
        except sqlite3.Error as error:
            raise explain(error, path, opening=True) from error
        finally:
            connection.close()
        if not ours:
            raise StorageError(f"{path} is not a store of candles made by Ashi, so it was not removed: move it away")
    try:
        for beside in ("-wal", "-shm", "-journal", ""):
            Path(f"{path}{beside}").unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path} cannot be removed: {error.strerror}") from error


def explain(error: sqlite3.Error, path: Path, *, opening: bool = False) -> StorageError:
    """Sort an error of SQLite (https://sqlite.org/rescode.html) into the three kinds of `ashi_sinks.protocol`.

    What a person can put right while the worker waits is retryable, except at the start: whoever has just started it
    is still there to read that the path cannot be written.
    """
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in _LOCKED:
        return RetryableError(f"{path} is locked by another process: end its transaction ({error})")
    if code in _UNUSABLE:
        kind = StorageError if opening else RetryableError
        remedy = lack_of_descriptors(error) or _UNUSABLE[code]
        return kind(f"{path} cannot be {'opened' if opening else 'written'}: {remedy} ({error})")
    if code in _REFUSED:
        return RefusedError(f"{path} refuses the row: {error}")
    if code == sqlite3.SQLITE_NOTADB:
        return StorageError(f"{path} is not an SQLite database: name another file")
    if code == sqlite3.SQLITE_CORRUPT:
        return StorageError(f"{path} is damaged: move it away and fill a new one from the topic ({error})")
    return StorageError(f"{path} cannot be used: {error}")


class SqliteFile:
    """A connection with what both sides need: to open it, and to check that the tables are those we know."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: sqlite3.Connection | None = None

    @property
    def db(self) -> sqlite3.Connection:
        """The open connection. Raises StorageError when there is none."""
        if self._opened is None:
            raise StorageError(f"{self.path} is not open: call open() first")
        return self._opened

    def open_for_writing(self) -> None:
        """Open the file, or make it. Raises sqlite3.Error, and StorageError when it is a folder."""
        self._connect("rwc")

    def open_read_only(self) -> None:
        """Open an existing file. Raises sqlite3.Error, and StorageError when there is none."""
        if not self.path.exists():
            raise StorageError(f"{self.path} does not exist: name the file that `ashi sink sqlite` writes")
        self._connect("ro")

    def _connect(self, mode: str) -> None:
        self.close()
        # SQLite calls that an error of the disk. The method of Path raises where this user may not look.
        if os.path.isdir(self.path):  # noqa: PTH112
            raise StorageError(f"{self.path} is a folder: name a file in it")
        # Transactions are begun explicitly; the connection is used by one thread at a time.
        self._opened = sqlite3.connect(
            f"file:{quote(str(self.path))}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False
        )
        self._opened.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")

    def pragma(self, name: str) -> object:
        """The value that a PRAGMA gives."""
        return self.db.execute(f"PRAGMA {name}").fetchone()[0]

    def is_empty(self) -> bool:
        """Whether the file holds nothing at all, as a new one."""
        return not self.pragma("application_id") and self.db.execute("SELECT 1 FROM sqlite_schema").fetchone() is None

    @property
    def layout(self) -> int:
        """The layout of the file as it is now: a worker may have upgraded it since it was opened."""
        return int(str(self.pragma("user_version")))

    def check_tables(self) -> None:
        """Raise StorageError unless the file is ours and of a layout this version knows."""
        if self.pragma("application_id") != APPLICATION_ID:
            raise StorageError(f"{self.path} is a database of something else than Ashi: name a file of its own")
        layout = self.layout
        if layout not in LAYOUTS:
            raise StorageError(
                f"{self.path} has layout {layout} and this version of Ashi knows {SCHEMA_VERSION}: "
                "use the version that made it, or name another file and fill it from the topic"
            )
        for table in LAYOUTS[layout]:
            self._check_table(table)

    def _check_table(self, table: SqliteTable) -> None:
        found = self._columns(table)
        if found != table.columns:
            names = ", ".join(row[0] for row in found) or "none"
            raise StorageError(
                f"{self.path} has a table {table.name} with other columns than Ashi's (there are: {names}): "
                "undo the change, or name another file and fill it from the topic"
            )

    def upgrade_statements(self) -> list[str]:
        """What makes the latest layout of this one. Raises StorageError when a table of the user's has such a name."""
        present = {table.name: table for table in LAYOUTS[self.layout]}
        statements = []
        for table in LAYOUTS[SCHEMA_VERSION]:
            if table.name in present:
                statements += table.additions(present[table.name])
                continue
            if self._columns(table):
                raise StorageError(
                    f"{self.path} has a table {table.name} of its own, a name that this version of Ashi needs: "
                    "rename that table, then start again"
                )
            statements.append(table.create)
        return statements

    def _columns(self, table: SqliteTable) -> list[tuple[str, str, int, int]]:
        statement = 'SELECT name, type, "notnull", pk FROM pragma_table_info(?)'
        return self.db.execute(statement, (table.name,)).fetchall()

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

"""What the doctor asks of an SQLite file."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from ashi_sinks.examination import Examination, room_at, unwritable
from ashi_sinks.sqlite.file import SqliteFile, explain
from ashi_sinks.sqlite.tables import SCHEMA_VERSION

if TYPE_CHECKING:
    from pathlib import Path


def examine_file(path: Path) -> Examination:
    """Look at an existing file. Raises StorageError when there is none, or it is not a store of Ashi's."""
    file = SqliteFile(path)
    try:
        file.open_read_only()
        file.check_tables()
        version = file.layout
    except sqlite3.Error as error:
        raise explain(error, path, opening=True) from error
    finally:
        file.close()
    # Beside the file SQLite makes its log.
    return Examination(str(path), version, SCHEMA_VERSION, unwritable(path, path.parent), *room_at(path.parent))

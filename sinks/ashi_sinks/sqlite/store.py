"""SQLite as one of the stores: what the registry asks of it."""

from __future__ import annotations

import os
from typing import Final

from ashi_sinks.sqlite.examine import examine_file
from ashi_sinks.sqlite.file import NAME, remove_file, sqlite_path
from ashi_sinks.sqlite.reader import SqliteReader
from ashi_sinks.sqlite.sink import SqliteSink
from ashi_sinks.store import Store

STORE: Final = Store(
    name=NAME,
    schemes=("sqlite",),
    sink=lambda url: SqliteSink(sqlite_path(url)),
    reader=lambda url: SqliteReader(sqlite_path(url)),
    exists=lambda url: os.path.lexists(sqlite_path(url)),
    remove=lambda url: remove_file(sqlite_path(url)),
    examine=lambda url: examine_file(sqlite_path(url)),
    takes_driver=True,
)

"""PostgreSQL as one of the stores: what the registry asks of it. Its driver is imported only when it is used.

Whoever stores in SQLite need not install asyncpg.
"""

from __future__ import annotations

import asyncio
import importlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

from ashi.contracts.errors import UsageError
from ashi_sinks.postgres.tables import NAME
from ashi_sinks.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine

    from ashi_sinks.examination import Examination
    from ashi_sinks.protocol import CandleReader, Sink

_T = TypeVar("_T")


def _sink(url: str) -> Sink:
    """The sink of a database, not yet open. Raises UsageError when the URL is wrong or the driver is missing."""
    _require_driver()
    from ashi_sinks.postgres.sink import PostgresSink

    return PostgresSink(url)


def _reader(url: str) -> CandleReader:
    """The reader of a database, not yet open. Raises UsageError when the URL is wrong or the driver is missing."""
    _require_driver()
    from ashi_sinks.postgres.reader import PostgresReader

    return PostgresReader(url)


def _exists(url: str) -> bool:
    """Whether the database holds a candle or a gap; tables that are empty are a new store. Raises StorageError."""
    _require_driver()
    from ashi_sinks.postgres.schema import holds_rows

    return _run(lambda: holds_rows(url))


def _remove(url: str) -> None:
    """Empty Ashi's tables, if they are there; the tables stay. Raises StorageError."""
    _require_driver()
    from ashi_sinks.postgres.schema import empty_tables

    _run(lambda: empty_tables(url))


def _examine(url: str) -> Examination:
    """What the database tells of itself. Raises StorageError."""
    _require_driver()
    from ashi_sinks.postgres.examine import examine_database

    return _run(lambda: examine_database(url))


def _migrate(url: str) -> list[str]:
    """Make the tables, or bring them up to date; sentences that say what was done. Raises StorageError."""
    _require_driver()
    from ashi_sinks.postgres.schema import migrate as apply_steps

    return _run(lambda: apply_steps(url))


def _delete_older(url: str, age_us: int, timeframes: Collection[str]) -> list[str]:
    """Delete candles that closed longer ago; sentences that say what was done. Raises StorageError."""
    _require_driver()
    from ashi_sinks.postgres.retention import delete_older

    return _run(lambda: delete_older(url, age_us, timeframes))


def _require_driver() -> None:
    try:
        importlib.import_module("asyncpg")
    except ImportError as error:
        raise UsageError(f"PostgreSQL needs a driver: pip install 'ashi-candles[postgres]' ({error})") from error


def _run(work: Callable[[], Coroutine[None, None, _T]]) -> _T:
    # In a thread with a loop of its own: some callers are in the middle of one.
    with ThreadPoolExecutor(1, thread_name_prefix=NAME) as pool:
        return pool.submit(lambda: asyncio.run(work())).result()


STORE: Final = Store(
    name=NAME,
    schemes=("postgresql", "postgres"),
    sink=_sink,
    reader=_reader,
    exists=_exists,
    remove=_remove,
    examine=_examine,
    migrate=_migrate,
    delete_older=_delete_older,
    takes_driver=True,
)

"""Which stores there are: from a storage URL, as in SQLAlchemy, to the sink and the reader of that store."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import UsageError
from ashi.contracts.topics import CANDLES, TRADES
from ashi_sinks.lake import store as lake
from ashi_sinks.lake.location import NAME as LAKE
from ashi_sinks.postgres import store as postgres
from ashi_sinks.postgres.tables import NAME as POSTGRES
from ashi_sinks.sqlite.file import NAME as SQLITE
from ashi_sinks.sqlite.file import remove_file, sqlite_path
from ashi_sinks.sqlite.reader import SqliteReader
from ashi_sinks.sqlite.sink import SqliteSink
from ashi_sinks.streams import CandleContents

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from ashi_sinks.protocol import CandleReader, Sink
    from ashi_sinks.streams import Contents


@dataclass(frozen=True, slots=True)
class Store:
    """One kind of store: what makes of a URL its sink, its reader; whether it is there; how to remove it.

    `migrate` makes or upgrades its tables and says in sentences what it did; None where the sink does so when it opens.
    `trades` makes what keeps topic `trades` there; None where only candles are kept.
    `settings` are the values of settings that suit the store where they are not set.
    """

    sink: Callable[[str], Sink]
    reader: Callable[[str], CandleReader]
    exists: Callable[[str], bool]
    remove: Callable[[str], None]
    migrate: Callable[[str], list[str]] | None = None
    trades: Callable[[str], Contents] | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


STORES: Final[dict[str, Store]] = {
    SQLITE: Store(
        sink=lambda url: SqliteSink(sqlite_path(url)),
        reader=lambda url: SqliteReader(sqlite_path(url)),
        exists=lambda url: os.path.lexists(sqlite_path(url)),
        remove=lambda url: remove_file(sqlite_path(url)),
    ),
    POSTGRES: Store(
        sink=postgres.sink,
        reader=postgres.reader,
        exists=postgres.exists,
        remove=postgres.remove,
        migrate=postgres.migrate,
    ),
    LAKE: Store(
        sink=lake.sink,
        reader=lake.reader,
        exists=lake.exists,
        remove=lake.remove,
        trades=lake.trades,
        settings=lake.DEFAULTS,
    ),
}
SCHEMES: Final = {
    "sqlite": SQLITE,
    "postgresql": POSTGRES,
    "postgres": POSTGRES,
    "lake": LAKE,
    "lake+s3": LAKE,
}
"""The store of each URL's scheme."""


def store_name(url: str) -> str:
    """The name of the URL's store, such as `sqlite`. Raises UsageError listing the stores there are.

    The message never holds the URL, which may hold a password.
    """
    scheme, colon, _ = url.partition(":")
    base, plus, driver = scheme.partition("+")
    if plus and colon and scheme not in SCHEMES and SCHEMES.get(base) in (SQLITE, POSTGRES):
        # As SQLAlchemy names a driver.
        raise UsageError(f"store {scheme[:40]!r}: leave out {'+' + driver[:30]!r}, and write a URL such as {base}://…")
    if not colon or scheme not in SCHEMES:
        shown = f"store {scheme[:40]!r}" if colon else "storage without a scheme"
        raise UsageError(f"{shown}: there is {', '.join(STORES)}; write a URL such as sqlite:////absolute/path.db")
    return SCHEMES[scheme]


def make_sink(url: str) -> Sink:
    """The sink of a storage URL, not yet open. Raises UsageError when the URL is wrong."""
    return STORES[store_name(url)].sink(url)


def make_contents(url: str, topic: str = CANDLES) -> Contents:
    """What a worker keeps at a storage URL, not yet open: candles with the feeds' gaps, or topic `trades`.

    Raises UsageError when the URL is wrong or the store does not keep the topic.
    """
    name = store_name(url)
    store = STORES[name]
    if topic == CANDLES:
        return CandleContents(store.sink(url))
    if store.trades is None:
        keep = [other for other, one in STORES.items() if one.trades is not None]
        raise UsageError(f"a store of {name} keeps candles only: topic {TRADES} goes to {' or '.join(keep)}")
    return store.trades(url)


@asynccontextmanager
async def open_reader(url: str) -> AsyncIterator[CandleReader]:
    """The reader of a storage URL, open. Raises UsageError for a wrong URL, StorageError when there is no store."""
    reader = STORES[store_name(url)].reader(url)
    try:
        await reader.open()
        yield reader
    finally:
        await reader.close()


def store_exists(url: str) -> bool:
    """Whether something is stored at the URL (even something else than candles). Raises UsageError."""
    return STORES[store_name(url)].exists(url)


def remove_store(url: str) -> None:
    """Remove the store and all its candles, if it exists. Raises UsageError, and StorageError if it is not Ashi's."""
    STORES[store_name(url)].remove(url)


def migrate_store(url: str) -> list[str]:
    """Make or upgrade the tables of a store; sentences that say what was done. Raises UsageError and StorageError."""
    name = store_name(url)
    migrate = STORES[name].migrate
    if migrate is None:
        raise UsageError(f"a store of {name} needs no --migrate: its worker makes and upgrades what it writes to")
    return migrate(url)

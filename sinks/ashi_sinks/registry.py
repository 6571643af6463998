"""Which stores there are: from a storage URL, as in SQLAlchemy, to the sink and the reader of that store."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import UsageError
from ashi.contracts.topics import CANDLES, TRADES
from ashi_sinks.lake.store import STORE as LAKE
from ashi_sinks.postgres.store import STORE as POSTGRES
from ashi_sinks.sqlite.store import STORE as SQLITE
from ashi_sinks.streams import CandleStreams

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

    from ashi.runtime.settings import Settings
    from ashi_sinks.examination import Examination
    from ashi_sinks.protocol import CandleReader, Sink
    from ashi_sinks.store import Store
    from ashi_sinks.streams import Streams
    from ashi_sinks.upkeep import Chore

STORES: Final[dict[str, Store]] = {store.name: store for store in (SQLITE, POSTGRES, LAKE)}
"""Every kind of store by its name."""
_SCHEMES: Final = {scheme: store for store in STORES.values() for scheme in store.schemes}


def store_name(url: str) -> str:
    """The name of the URL's store, such as `sqlite`. Raises UsageError listing the stores there are.

    The message never holds the URL, which may hold a password.
    """
    scheme, colon, _ = url.partition(":")
    base, plus, driver = scheme.partition("+")
    if plus and colon and scheme not in _SCHEMES and base in _SCHEMES and _SCHEMES[base].takes_driver:
        raise UsageError(f"store {scheme[:40]!r}: leave out {'+' + driver[:30]!r}, and write a URL such as {base}://…")
    if not colon or scheme not in _SCHEMES:
        shown = f"store {scheme[:40]!r}" if colon else "storage without a scheme"
        raise UsageError(
            f"{shown}: known stores are {', '.join(STORES)}; write a URL such as sqlite:////absolute/path.db"
        )
    return _SCHEMES[scheme].name


def make_sink(url: str) -> Sink:
    """The sink of a storage URL, not yet open. Raises UsageError when the URL is wrong."""
    return STORES[store_name(url)].sink(url)


def make_streams(url: str, topic: str = CANDLES) -> Streams:
    """What a worker moves to a storage URL, not yet open: candles with the feeds' gaps, or topic `trades`.

    Raises UsageError when the URL is wrong or the store does not keep the topic.
    """
    name = store_name(url)
    store = STORES[name]
    if topic == CANDLES:
        return CandleStreams(store.sink(url))
    if store.trades is None:
        able = [other.name for other in STORES.values() if other.trades is not None]
        raise UsageError(f"a store of {name} keeps candles only: topic {TRADES} goes to {' or '.join(able)}")
    return store.trades(url)


def upkeep(settings: Settings, topic: str) -> Sequence[Chore]:
    """What a worker that keeps `topic` in `settings.storage` does beside writing. Raises UsageError for a wrong URL."""
    of_store = STORES[store_name(settings.storage)].upkeep
    return () if of_store is None else of_store(settings, topic)


@asynccontextmanager
async def open_reader(url: str) -> AsyncIterator[CandleReader]:
    """The reader of a storage URL, open.

    Raises UsageError for a wrong URL and where what reads that store is not installed, StorageError when there is none.
    """
    name = store_name(url)
    try:
        reader = STORES[name].reader(url)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("ashi"):
            raise
        raise UsageError(f"the store needs the extra {name!r}: pip install 'ashi-candles[{name}]'") from error
    try:
        await reader.open()
        yield reader
    finally:
        await reader.close()


def examine_store(url: str) -> Examination:
    """What a store tells of itself; nothing is changed.

    Raises UsageError, and StorageError when there is none, or it cannot be used as it is.
    """
    return STORES[store_name(url)].examine(url)


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


def delete_older(url: str, age_us: int, timeframes: Collection[str] = ()) -> list[str]:
    """Delete candles that closed more than `age_us` ago, of some timeframes or of all; sentences that say how many.

    Of each series the newest candle stays. Raises UsageError and StorageError.
    """
    name = store_name(url)
    delete = STORES[name].delete_older
    if delete is None:
        able = [other.name for other in STORES.values() if other.delete_older is not None]
        raise UsageError(f"candles of a store of {name} are not deleted by Ashi, but those of {' and '.join(able)} are")
    return delete(url, age_us, timeframes)

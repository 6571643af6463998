"""The lake as one of the stores: what the registry asks of it. Its driver is imported only when it is used.

Whoever stores in SQLite need not install deltalake.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import StorageError
from ashi_sinks.lake.location import NAME, S3_SCHEME, lake_of
from ashi_sinks.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashi.runtime.settings import Settings
    from ashi_sinks.examination import Examination
    from ashi_sinks.protocol import CandleReader, Sink
    from ashi_sinks.streams import Streams
    from ashi_sinks.upkeep import Chore


def _sink(url: str) -> Sink:
    """The sink of a storage URL, not yet open. Raises UsageError for a wrong URL or a missing driver."""
    from ashi_sinks.lake.sink import LakeSink

    return LakeSink(lake_of(url))


def _reader(url: str) -> CandleReader:
    """The reader of a storage URL, not yet open. Raises UsageError for a wrong URL or a missing driver."""
    from ashi_sinks.lake.reader import LakeReader

    return LakeReader(lake_of(url))


def _trades(url: str) -> Streams:
    """What moves topic `trades` there, not yet open. Raises UsageError for a wrong URL or a missing driver."""
    from ashi_sinks.lake.trade_streams import TradeStreams

    return TradeStreams(lake_of(url))


def _upkeep(settings: Settings, topic: str) -> Sequence[Chore]:
    """Compaction and vacuum of the tables that the worker of `topic` writes to. See `Store.upkeep`."""
    from ashi_sinks.lake.maintenance import chores

    return chores(lake_of(settings.storage), topic, settings)


def _exists(url: str) -> bool:
    """Whether there is anything in the root (on S3: a table of candles). Raises UsageError, StorageError."""
    lake = lake_of(url)
    if lake.folder is not None:
        return os.path.lexists(lake.folder) and not (lake.folder.is_dir() and not any(lake.folder.iterdir()))
    from ashi_sinks.lake.delta import DeltaTable
    from ashi_sinks.lake.tables import CANDLES

    return DeltaTable(lake, CANDLES).exists()


def _examine(url: str) -> Examination:
    """What the tables of candles tell of themselves. Raises UsageError, and StorageError."""
    from ashi_sinks.lake.examine import examine_lake

    return examine_lake(lake_of(url))


def _remove(url: str) -> None:
    """Remove the tables of a lake and its folder, if that is empty then. Raises UsageError, and StorageError.

    Only a folder of this machine is removed, and only tables that have Ashi's columns.
    """
    lake = lake_of(url)
    if not _exists(url):
        return
    if lake.folder is None:
        raise StorageError(f"{lake.location} is not removed by Ashi: remove the prefix with a tool for S3")
    from ashi_sinks.lake.delta import DeltaTable
    from ashi_sinks.lake.tables import TABLES

    if not lake.folder.is_dir():
        raise StorageError(f"{lake.folder} is not a lake of candles made by Ashi, so it was not removed: move it away")
    found = {path.name for path in lake.folder.iterdir()}
    if others := found - {table.name for table in TABLES}:
        raise StorageError(f"{lake.folder} also holds {min(others)}, so it was not removed: move it away")
    for table in TABLES:
        if table.name in found:
            DeltaTable(lake, table).open()  # raises when it is not ours
    try:
        shutil.rmtree(lake.folder)
    except OSError as error:
        raise StorageError(f"{lake.folder} cannot be removed: {error.strerror}") from error


STORE: Final = Store(
    name=NAME,
    schemes=(NAME, S3_SCHEME),
    sink=_sink,
    reader=_reader,
    exists=_exists,
    remove=_remove,
    examine=_examine,
    trades=_trades,
    upkeep=_upkeep,
    # Each batch makes files, and a few large ones read faster.
    settings={"ASHI_SINK_BATCH_SIZE": "20000", "ASHI_SINK_BATCH_INTERVAL": "10s"},
)

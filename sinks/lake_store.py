"""Where a lake is: its storage URL, and what the registry needs of it. The driver is imported with the first use.

lake:////absolute/folder, lake:///relative/folder    a folder of this machine, as with SQLite
lake+s3://bucket/prefix                              S3 or what speaks like it; the usual AWS_… variables say how
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import StorageError, UsageError

if TYPE_CHECKING:
    from sinks.protocol import CandleReader, Sink

NAME: Final = "lake"
S3_SCHEME: Final = "lake+s3"

DEFAULTS: Final = {"ASHI_SINK_BATCH_SIZE": "20000", "ASHI_SINK_BATCH_INTERVAL": "10s"}
"""The settings of this sink where they are not set: each batch makes files, and a few large ones read faster."""

_SHAPE: Final = "write lake:////absolute/folder, lake:///relative/folder or lake+s3://bucket/prefix"
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)

_S3_PATIENCE: Final = {"connect_timeout": "5s", "timeout": "20s", "max_retries": "2", "retry_timeout": "20s"}
"""How long the driver itself tries. Short, since the worker tries again for ever and must be able to stop between."""


@dataclass(frozen=True, slots=True)
class Lake:
    """A root folder or prefix; each table is a folder in it.

    Attributes:
        folder: the folder, absolute; None for S3.
        location: the same, or the `s3://` address without a slash at its end.

    """

    folder: Path | None
    location: str

    @property
    def options(self) -> dict[str, str] | None:
        """What the driver is told besides the environment."""
        return None if self.folder is not None else dict(_S3_PATIENCE)

    def table(self, name: str) -> str:
        """Where a table is, as the driver takes it."""
        return f"{self.location}/{name}"


def lake_of(url: str) -> Lake:
    """Read a storage URL. Raises UsageError saying what to write."""
    scheme, _, rest = url.partition("://")
    if scheme == S3_SCHEME:
        return _s3(rest)
    if scheme != NAME:
        raise UsageError(f"storage with the scheme {scheme[:40]!r} is no lake: {_SHAPE}")
    if not rest.startswith("/"):
        raise UsageError(f"storage {url!r} lacks the three or four slashes after the colon: {_SHAPE}")
    name = rest[1:]
    if not name.strip("/"):
        raise UsageError(f"storage {url!r} names no folder: {_SHAPE}")
    # The driver decodes `%41` in paths, so that it would write to another folder than it then looks at.
    if wrong := next((sign for sign in "?%\\\0" if sign in name), None):
        raise UsageError(
            f"storage {url!r}: the path of a lake cannot have the character {wrong!r}: name another folder"
        )
    folder = Path(name).absolute()
    return Lake(folder, str(folder))


def _s3(rest: str) -> Lake:
    bucket, _, prefix = rest.partition("/")
    if _BUCKET.fullmatch(bucket) is None:
        # Not repeated: someone may have written a key and a secret before an `@`.
        raise UsageError(
            "storage lake+s3://…: what follows must be a bucket's name and a prefix, such as lake+s3://bucket/prefix; "
            "keys and the endpoint are given as AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL"
        )
    if wrong := next((sign for sign in "?%#\\\0" if sign in prefix), None):
        raise UsageError(f"storage lake+s3://{bucket}/…: the prefix cannot have the character {wrong!r}: name another")
    parts = [part for part in prefix.split("/") if part]
    if not parts:
        raise UsageError(f"storage lake+s3://{bucket} names no prefix: {_SHAPE}")
    return Lake(None, "/".join([f"s3://{bucket}", *parts]))


def sink(url: str) -> Sink:
    """The sink of a storage URL, not yet open. Raises UsageError for a wrong URL or a missing driver."""
    from sinks.lake import LakeSink

    return LakeSink(lake_of(url))


def reader(url: str) -> CandleReader:
    """The reader of a storage URL, not yet open. Raises UsageError for a wrong URL or a missing driver."""
    from sinks.lake import LakeReader

    return LakeReader(lake_of(url))


def exists(url: str) -> bool:
    """Whether there is anything in the root (on S3: a table of candles). Raises UsageError, StorageError."""
    lake = lake_of(url)
    if lake.folder is not None:
        return os.path.lexists(lake.folder) and not (lake.folder.is_dir() and not any(lake.folder.iterdir()))
    from sinks.lake_delta import DeltaTable
    from sinks.lake_tables import CANDLES

    return DeltaTable(lake, CANDLES).exists()


def remove(url: str) -> None:
    """Remove the tables of a lake and its folder, if that is empty then. Raises UsageError, and StorageError.

    Only a folder of this machine is removed, and only tables that have Ashi's columns.
    """
    lake = lake_of(url)
    if not exists(url):
        return
    if lake.folder is None:
        raise StorageError(f"{lake.location} is not removed by Ashi: remove the prefix with a tool for S3")
    from sinks.lake_delta import DeltaTable
    from sinks.lake_tables import TABLES

    if not lake.folder.is_dir():
        raise StorageError(f"{lake.folder} is not a lake of candles made by Ashi, so it was not removed: move it away")
    here = {path.name for path in lake.folder.iterdir()}
    if others := here - {table.name for table in TABLES}:
        raise StorageError(f"{lake.folder} also holds {min(others)}, so it was not removed: move it away")
    for table in TABLES:
        if table.name in here:
            DeltaTable(lake, table).open()  # raises when it is not ours
    try:
        shutil.rmtree(lake.folder)
    except OSError as error:
        raise StorageError(f"{lake.folder} cannot be removed: {error.strerror}") from error

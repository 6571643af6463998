"""Where a lake is: its storage URL.

lake:////absolute/folder, lake:///relative/folder    a folder of this machine, as with SQLite
lake+s3://bucket/prefix                              S3 or what speaks like it; the usual AWS_… variables say how
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ashi.contracts.errors import UsageError

NAME: Final = "lake"
S3_SCHEME: Final = "lake+s3"

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
        raise UsageError(f"storage with the scheme {scheme[:40]!r} is not a lake: {_SHAPE}")
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
            "storage lake+s3://…: what follows must be a bucket's name (3 to 63 characters of a-z, 0-9, . and -, the "
            "first and the last no . or -) and a prefix, such as lake+s3://bucket/prefix; keys and the endpoint are "
            "given as AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL"
        )
    if wrong := next((sign for sign in "?%#\\\0" if sign in prefix), None):
        raise UsageError(f"storage lake+s3://{bucket}/…: the prefix cannot have the character {wrong!r}: name another")
    parts = [part for part in prefix.split("/") if part]
    if not parts:
        raise UsageError(f"storage lake+s3://{bucket} names no prefix: {_SHAPE}")
    return Lake(None, "/".join([f"s3://{bucket}", *parts]))

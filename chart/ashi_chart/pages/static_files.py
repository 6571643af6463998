"""The files of the pages: read once at the start, and served by their names alone.

A path that a client sends is looked up and never opened, so there is none that leads out of the folder.
"""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER: Final = Path(__file__).parents[1] / "static"
WORTH_COMPRESSING: Final = 1_024
"""Smaller files are sent as they are, bytes."""

TYPES: Final[Mapping[str, str]] = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
"""What may be served. Others (licences, checksums) lie in the folder and are not."""
_COMPRESSED: Final = {".html", ".js", ".css", ".json", ".svg", ".webmanifest"}


class StaticFile(NamedTuple):
    """A file as it is sent; `compressed` (gzip) where that is worth it."""

    content: bytes
    compressed: bytes | None
    content_type: str
    etag: str


def read_static_files(folder: Path = FOLDER) -> dict[str, StaticFile]:
    """The files below a folder, by their paths in it, with slashes."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in TYPES:
            content = path.read_bytes()
            compressed = None
            if path.suffix in _COMPRESSED and len(content) >= WORTH_COMPRESSING:
                compressed = gzip.compress(content, mtime=0)
            etag = hashlib.sha256(content).hexdigest()[:32]
            name = path.relative_to(folder).as_posix()
            files[name] = StaticFile(content, compressed, TYPES[path.suffix], etag)
    return files


def respond_with(file: StaticFile, request: web.Request) -> web.Response:
    """The file, or that the client has it already. It is asked for each time, so that all files are of one version."""
    headers = {"ETag": f'"{file.etag}"', "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    known = request.if_none_match
    if known is not None and any(each.value in {file.etag, "*"} for each in known):
        return web.Response(status=304, headers=headers)
    headers["Content-Type"] = file.content_type
    if file.compressed is not None and "gzip" in request.headers.get("Accept-Encoding", "").lower():
        return web.Response(body=file.compressed, headers=headers | {"Content-Encoding": "gzip"})
    return web.Response(body=file.content, headers=headers)

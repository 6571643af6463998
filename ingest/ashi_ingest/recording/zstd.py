"""Files compressed with zstd, in pieces.

The library that decompresses Kafka's messages takes whole files only. So it decompresses into a pipe, in a thread: what
is not read from it yet holds it up, and nothing is held in memory but the pipe. The file is mapped.
"""

from __future__ import annotations

import mmap
import os
import threading
from typing import TYPE_CHECKING, Any, Final

import cramjam

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

_PIECE: Final = 64 * 1024


class ZstdError(Exception):
    """Data is damaged."""


def unzstd(file: BinaryIO, on_read: Callable[[int], None]) -> Iterator[bytes]:
    """The decompressed bytes of a whole file, one frame or several.

    How far it has come in the file is not known: `on_read` is told of all of it at the end.

    Raises:
        EOFError: it ends early.
        ZstdError: it is damaged.
        OSError: it cannot be read.

    """
    reading, writing = os.pipe()
    failures: list[Exception] = []

    def decompress() -> None:
        try:
            pipe: Any = cramjam.File(f"/dev/fd/{writing}", read=False, write=True, truncate=False)
        except Exception as error:  # told by whoever reads
            failures.append(error)
            return
        finally:
            os.close(writing)
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                cramjam.zstd.decompress_into(data, pipe)
        except Exception as error:
            failures.append(error)
        finally:
            del pipe  # closes it

    thread = threading.Thread(target=decompress, name="zstd", daemon=True)
    thread.start()
    try:
        with os.fdopen(reading, "rb", buffering=0) as pieces:
            while piece := pieces.read(_PIECE):
                yield piece
    finally:
        thread.join()  # a pipe that nobody reads any more ends it
    on_read(os.fstat(file.fileno()).st_size)
    if failures:
        raise _told(failures[0])


def _told(error: Exception) -> Exception:
    if isinstance(error, cramjam.DecompressionError):
        return EOFError() if "incomplete frame" in str(error) else ZstdError(str(error))
    return error

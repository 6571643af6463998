"""What is in a file: itself, or the members of a zip, each as blocks of whole lines, never all of it in memory."""

from __future__ import annotations

import struct
import zipfile
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final, NamedTuple

from ashi.contracts.errors import RecordingError, UsageError
from ashi_ingest.recording.format import DAMAGED, damage, decompressed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

BLOCK: Final = 192 * 1024
"""Bytes of lines at least that are looked at together: some 2,500 rows of Binance, which are one batch."""
MAX_ROW: Final = 1024 * 1024
"""A longer line is none of a table."""

ZIP_MAGIC: Final = b"PK"
_PIECE: Final = 192 * 1024
_ENCRYPTED: Final = 0x1
BAD_ARCHIVE: Final = (*DAMAGED, zipfile.BadZipFile, struct.error, NotImplementedError, RuntimeError, ValueError)
"""What reading a zip may raise: one that is damaged, encrypted, or packed in a way that Python does not know."""
_UNREADABLE: Final = (zipfile.BadZipFile, *DAMAGED)
_OTHERS_FILES: Final = ("__MACOSX", ".DS_Store")
"""What archiving programs put beside the files that somebody wanted to pack."""


class Block(NamedTuple):
    """Whole lines, the last perhaps without its newline. `cut`: the last before a place that cannot be read."""

    text: bytes
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Content:
    """A text: a file, or a member of a zip.

    Attributes:
        place: `path`, or `path!member`.
        name: the file's own, or the member's, by which its market may be told.
        archive: the zip's, which tells where the member's does not; empty for a file.

    """

    place: str
    name: str
    pieces: Callable[[], Iterator[bytes]]
    archive: str = ""

    def blocks(self) -> Iterator[Block]:
        """All of it. A byte order mark of UTF-8 is left out.

        Raises RecordingError when it can be read no further; all that stands before that has been given by then.
        """
        rest = b""
        is_first = True
        pieces = self.pieces()
        lines = 0
        while True:
            try:
                piece = next(pieces, None)
            except (*BAD_ARCHIVE, OSError, RecordingError) as error:
                lines += rest.count(b"\n")
                if rest:
                    yield Block(rest, cut=True)
                if isinstance(error, RecordingError):
                    raise
                raise RecordingError(self._damaged(error, lines)) from error
            if piece is None:
                break
            rest += piece
            if is_first and len(rest) >= 3:
                rest, is_first = rest.removeprefix(b"\xef\xbb\xbf"), False
            end = rest.rfind(b"\n") + 1
            if len(rest) >= BLOCK and end:
                lines += rest.count(b"\n")
                yield Block(rest[:end])
                rest = rest[end:]
            elif not end and len(rest) > MAX_ROW:
                ends = ": its lines end with \\r alone; convert it, with `tr '\\r' '\\n'`" if b"\r" in rest else ""
                raise RecordingError(
                    f"{self.place}: line {lines + 1} is longer than {MAX_ROW:,} bytes, so this is not a table of trades"
                    f"{ends}; everything before was read"
                )
        if rest:
            yield Block(rest)

    def _damaged(self, error: Exception, lines: int) -> str:
        if isinstance(error, _UNREADABLE):
            what = f"the compressed data after line {lines} is {damage(error)}"
            return f"{self.place}: {what}; everything before was read. Get a complete copy, or go on without the rest"
        return f"{self.place}: reading failed after line {lines}: {error}; everything before was read"


def contents_of(path: Path, on_read: Callable[[int], None] = lambda _: None) -> Sequence[Content]:
    """The texts in a file; those of a zip in the order of their names, which in published files is that of time.

    `on_read` is told how many bytes of the file have been read since it was told last.

    Raises:
        UsageError: a zip is cut off, damaged or encrypted, or has nothing in it.
        OSError: the file cannot be read.

    """
    with path.open("rb") as file:
        is_zip = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
    if not is_zip:
        return [Content(str(path), path.name, lambda: decompressed(path, on_read))]
    try:
        with zipfile.ZipFile(path) as archive:
            members = sorted(
                (member for member in archive.infolist() if _is_wanted(member)), key=lambda member: member.filename
            )
    except BAD_ARCHIVE as error:
        raise UsageError(
            f"{path} is a zip that is cut off or damaged ({error}): its table of contents, which stands at its end, "
            "cannot be read. Get a complete copy"
        ) from error
    if not members:
        raise UsageError(f"{path} is a zip with no file in it")
    for member in members:
        if member.flag_bits & _ENCRYPTED:
            raise UsageError(
                f"{path}: member {member.filename} is encrypted: unpack it with its password, and name the file"
            )
    return [_member(path, member, on_read) for member in members]


def _is_wanted(member: zipfile.ZipInfo) -> bool:
    parts = PurePosixPath(member.filename).parts
    return not member.filename.endswith("/") and not any(part in _OTHERS_FILES for part in parts)


def _member(path: Path, member: zipfile.ZipInfo, on_read: Callable[[int], None]) -> Content:
    share = member.compress_size / member.file_size if member.file_size else 0.0

    def pieces() -> Iterator[bytes]:
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
            while piece := file.read(_PIECE):
                on_read(round(len(piece) * share))
                yield piece

    return Content(f"{path}!{member.filename}", PurePosixPath(member.filename).name, pieces, path.name)

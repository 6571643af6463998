"""Recordings: what a venue sent, a frame per line. The format is described in docs/recordings.md.

    <receive time in ns since the epoch> <frame>

plain, gzip or zstd (told by the first bytes, not by the name). Everything that can be read is given before an error is.
"""

from __future__ import annotations

import zlib
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from ashi.contracts.errors import RecordingError, UsageError
from ashi.contracts.trade import EARLIEST_US, LATEST_US
from ashi_ingest.recording.zstd import ZstdError, unzstd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

MAX_LINE: Final = 16 * 1024 * 1024
"""A longer line is given as a bad line, cut to this length. No venue sends frames of a tenth of it."""

PREFLIGHT_LINES: Final = 100

BYTE_ORDER_MARKS: Final = {b"\xef\xbb\xbf": "UTF-8", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
"""What some programs put before a text that they save, and the encoding they save it in."""

DAMAGED: Final = (zlib.error, EOFError, ZstdError)
"""What reading compressed data raises when it is cut or damaged."""

_CHUNK: Final = 64 * 1024
_GZIP_MAGIC: Final = b"\x1f\x8b"
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_GZIP_WINDOW: Final = 31
"""zlib's way to say: expect a gzip header and check the checksum at the end."""


class Line(NamedTuple):
    """A line of the form of a recording; the frame itself is not looked into. `received_at` is in µs."""

    number: int
    received_at: int
    frame: bytes


class BadLine(NamedTuple):
    """A line that is not of that form, whole (or its first 16 MiB), and why."""

    number: int
    line: bytes
    reason: str


def read_recording(path: Path, on_read: Callable[[int], None] = lambda _: None) -> Iterator[Line | BadLine]:
    """Give the lines of a recording, numbered from 1; blank ones are left out.

    `on_read` is told how many bytes of the file have been read since it was told last.

    Raises:
        RecordingError: it can be read no further (a cut or damaged .gz, a failing disk). By then all lines before
            that place have been given.

    """
    for first, texts in read_lines(path, on_read):
        for number, text in enumerate(texts, first):
            if text.strip():
                yield parse_line(number, text)


def read_lines(path: Path, on_read: Callable[[int], None] = lambda _: None) -> Iterator[tuple[int, list[bytes]]]:
    """The same as texts, blank ones among them: some at a time, with the number of the first."""
    number = 0
    pieces = _split(decompressed(path, on_read))
    while True:
        try:
            texts = next(pieces, None)
        except DAMAGED as error:
            raise RecordingError(
                f"{path}: the compressed data after line {number} is {damage(error)}; everything before was read. "
                "Get a complete copy of the file, or go on without the rest of it"
            ) from error
        except OSError as error:
            raise RecordingError(
                f"{path}: reading failed after line {number}: {error.strerror or error}; everything before was read. "
                "Check the disk or mount the file is on"
            ) from error
        if texts is None:
            return
        yield number + 1, texts
        number += len(texts)


def preflight_file(path: Path) -> None:
    """Raise UsageError when nothing is there, or something that is no file."""
    if path.is_dir():
        raise UsageError(f"{path} is a directory: name the recordings in it, such as {path}/*.gz")
    if not path.exists():
        raise UsageError(f"{path}: there is no such file")
    if not path.is_file():
        raise UsageError(f"{path} is not a regular file: a recording is looked at before it is replayed")


def preflight(path: Path) -> None:
    """Refuse a path before anything is started for it.

    Raises:
        UsageError: nothing is there, it is a directory, may not be read, is empty, is in another encoding than UTF-8
            (or has a byte order mark), or is no recording: none of its first 100 lines has the form of one.

    """
    preflight_file(path)
    first: BadLine | None = None
    try:
        with path.open("rb") as file:
            file.read(1)
        for line in islice(read_recording(path), PREFLIGHT_LINES):
            if isinstance(line, Line):
                return
            if not line.line.startswith((_GZIP_MAGIC, _ZSTD_MAGIC)):
                _check_encoding(path, line)
            first = first or line
    except PermissionError as error:
        raise UsageError(f"{path} may not be read by this user ({error.strerror}): change its permissions") from error
    except (RecordingError, OSError) as error:
        if first is None:
            raise UsageError(f"{path} cannot be read at all: {error}") from error
    if first is None:
        raise UsageError(f"{path} is empty: there is nothing to replay")
    if first.line.startswith((_GZIP_MAGIC, _ZSTD_MAGIC)):
        raise UsageError(f"{path} is a compressed file within a compressed one: unpack the outer one, and name that")
    if ".csv" in path.suffixes:
        raise UsageError(
            f"{path} is not a file of trades: its first line has fewer than five cells with commas between them: "
            f"{_shown(first.line)}. Cells are separated by commas, and nothing stands before the header or the first "
            "row (docs/trade-files.md)"
        )
    raise UsageError(
        f"{path} is not a recording: none of its first {PREFLIGHT_LINES} lines is a receive time in nanoseconds, "
        f"a space and a frame. Line {first.number}: {first.reason}. The format is described in docs/recordings.md"
    )


def _check_encoding(path: Path, line: BadLine) -> None:
    for mark, encoding in BYTE_ORDER_MARKS.items() if line.number == 1 else ():
        if line.line.startswith(mark):
            raise UsageError(
                f"{path}, line 1: it begins with a byte order mark (bytes {mark.hex(' ')}), so a program has saved it "
                f"as {encoding} text with one: save it as UTF-8 without, or use the file as it was recorded"
            )
    if line.number == 1 and b"\0" in line.line[:8]:
        encoding = "UTF-16BE" if line.line.startswith(b"\0") else "UTF-16LE"
        raise UsageError(
            f"{path}, line 1: there are NUL bytes between the digits, so a program has saved it as {encoding}: "
            f"convert it to UTF-8, with `iconv -f {encoding} -t UTF-8`, or use the file as it was recorded"
        )


def parse_line(number: int, text: bytes) -> Line | BadLine:
    """A line that is not blank."""
    if len(text) > MAX_LINE:
        return BadLine(number, text[:MAX_LINE], f"the line is longer than {MAX_LINE} bytes")
    time, _, frame = text.rstrip(b"\r").partition(b" ")
    if not time.isdigit() or len(time) > 20:
        return BadLine(number, text, f"{_shown(text)} does not begin with a receive time in nanoseconds and a space")
    received_at = int(time) // 1000
    if not EARLIEST_US <= received_at <= LATEST_US:
        return BadLine(number, text, f"receive time {time.decode()} {_unit(int(time))}, not nanoseconds")
    if not frame.strip():
        return BadLine(number, text, "there is no frame after the receive time")
    return Line(number, received_at, frame)


def _shown(text: bytes) -> str:
    return repr(text[:30].decode(errors="replace"))


def _unit(time: int) -> str:
    for unit, factor in (("seconds", 10**6), ("milliseconds", 10**3), ("microseconds", 1)):
        if EARLIEST_US <= time * factor <= LATEST_US:
            return f"looks like {unit}"
    return "is out of range"


_TIME: Final = 20
"""How many bytes the receive time of our days has, with the space behind it."""
_US_DIGITS: Final = 16
_EARLIEST: Final = b"%d" % EARLIEST_US
_LATEST: Final = b"%d" % LATEST_US


def parse_lines(texts: Sequence[bytes]) -> tuple[list[bytes], list[bytes]] | None:
    """Receive times, µs, and frames of lines that all begin as nearly all do; None: look at each."""
    times = [text[:_TIME] for text in texts]
    joined, count = b"".join(times), len(times)
    if joined[_TIME - 1 :: _TIME].count(b" ") != count or joined.count(b" ") != count:
        return None
    if not joined.replace(b" ", b"").isdigit():
        return None
    received_us = [text[:_US_DIGITS] for text in texts]
    if min(received_us) < _EARLIEST or max(received_us) > _LATEST:
        return None
    return received_us, [text[_TIME:] for text in texts]


def _split(chunks: Iterator[bytes]) -> Iterator[list[bytes]]:
    """Lines without their newline; the last may lack one. Of a line longer than MAX_LINE only its head is kept."""
    rest: list[bytes] = []
    size = 0
    error: Exception | None = None
    while True:
        try:
            chunk = next(chunks, None)
        except (*DAMAGED, OSError) as reason:
            chunk, error = None, reason
        if chunk is None:
            break
        head, *lines = chunk.split(b"\n")
        if size <= MAX_LINE:
            rest.append(head)
            size += len(head)
        if lines:
            yield [b"".join(rest), *lines[:-1]]
            rest, size = [lines[-1]], len(lines[-1])
    if size:
        # A line cut mid-way is handed on as well: what is left of it is rejected by whoever reads it, and so counted.
        yield [b"".join(rest)]
    if error is not None:
        raise error


def decompressed(path: Path, on_read: Callable[[int], None] = lambda _: None) -> Iterator[bytes]:
    """The bytes of the file, in pieces. `on_read`: see `read_recording`.

    Raises:
        EOFError, zlib.error, ZstdError: compressed data ends early or is damaged (`DAMAGED`).
        OSError: the file cannot be read.

    """
    with path.open("rb") as file:
        magic = file.read(len(_ZSTD_MAGIC))
        file.seek(0)
        if magic == _ZSTD_MAGIC:
            yield from unzstd(file, on_read)
        elif magic.startswith(_GZIP_MAGIC):
            yield from _gunzip(file, on_read)
        else:
            while chunk := file.read(_CHUNK):
                on_read(len(chunk))
                yield chunk


def _gunzip(file: BinaryIO, on_read: Callable[[int], None]) -> Iterator[bytes]:
    """Like gzip.GzipFile, which drops up to a buffer of good data in front of a damaged place; this gives all of it."""
    stream: zlib._Decompress | None = None
    while data := file.read(_CHUNK):
        on_read(len(data))
        while data:
            if stream is None:
                # Another member may follow (of files that were appended to), or padding with zeros.
                data = data.lstrip(b"\0")
                stream = zlib.decompressobj(_GZIP_WINDOW) if data else None
                continue
            before = stream.copy()
            try:
                piece = stream.decompress(data)
            except zlib.error:
                yield _readable(before, data)
                raise
            yield piece
            data = stream.unused_data
            if stream.eof:
                stream = None
    if stream is not None:
        raise EOFError


def _readable(stream: zlib._Decompress, data: bytes) -> bytes:
    """What can be got out of `data` before the place where it is damaged, byte by byte."""
    readable = bytearray()
    try:
        for place in range(len(data)):
            readable += stream.decompress(data[place : place + 1])
    except zlib.error:
        pass
    return bytes(readable)


def damage(error: Exception) -> str:
    """What one of `DAMAGED` says of compressed data."""
    return "cut off" if isinstance(error, EOFError) else f"damaged ({error})"

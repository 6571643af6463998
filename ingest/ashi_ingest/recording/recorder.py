"""Recording what a venue sends, in the format of docs/recordings.md, beside a live feed that it must never hold up.

Frames are put into a queue; a thread compresses and writes them, once a second or when there are many. Every write ends
at the end of a line and of a block of gzip, so a process that is killed loses about a second, and what it has written
can be read up to its last line.
"""

from __future__ import annotations

import errno
import os
import threading
import time
import zlib
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import UsageError
from ashi.runtime.logs import get_logger

if TYPE_CHECKING:
    from pathlib import Path

ROTATE_BYTES: Final = 128 * 1024 * 1024
"""Size of a file, compressed, from which on the next one is begun."""
ROTATE_S: Final = 3600.0
WRITE_EVERY_S: Final = 1.0
WRITE_BYTES: Final = 256 * 1024
"""So much is written at once, without waiting for the second to be over."""
MAX_WAITING_BYTES: Final = 64 * 1024 * 1024
"""With more waiting for a disk that is slow or hangs, frames are left out of the recording."""
CLOSE_TIMEOUT_S: Final = 5.0

_LEVEL: Final = 6
_GZIP: Final = 31
"""zlib's way to say: with a gzip header and a checksum at the end."""

_log = get_logger(__name__)


class Recorder:
    """Writes the frames of one venue to files `<venue>-<start, UTC>-<n>.txt.gz` in a directory.

    A file that is being written, or was when the process was killed, ends with `.part`. None is ever written over.
    When a file cannot be written, that is logged, frames are left out, and after `rotate_s` it is tried again.

    Attributes:
        failing: why nothing is being recorded; None when all is well.
        altered: frames that had line breaks in them, which became spaces.

    """

    def __init__(
        self, directory: Path, venue: str, *, rotate_bytes: int = ROTATE_BYTES, rotate_s: float = ROTATE_S
    ) -> None:
        """Raises UsageError when `directory` is something else. It is made if it is not there."""
        with suppress(OSError):  # whether it can be used shows when the first file is made, and again later
            if directory.exists() and not directory.is_dir():
                raise UsageError(f"{directory} is not a directory: name the one that recordings shall be written to")
        self.failing: str | None = None
        self.altered = 0
        self._directory = directory
        self._venue = venue
        self._rotate_bytes = rotate_bytes
        self._rotate_s = rotate_s
        self._lines: deque[bytes] = deque()
        # Each number is changed by one thread only: `put` and `overflowed` by the feed's, the others by the writer's.
        self._put = 0
        self._taken = 0
        self._overflowed = 0
        self._dropped = 0
        self._overflow_told = 0
        self._file: _File | None = None
        self._rotate_at = 0.0
        self._retry_at = 0.0
        self._closing = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Frames that were left out because they could not be written, or not fast enough."""
        return self._overflowed + self._dropped

    def write(self, received_ns: int, frame: bytes) -> None:
        """Record a frame that was received at this time, ns since the epoch. Returns at once and never fails."""
        if b"\n" in frame:
            frame = frame.replace(b"\n", b" ")
            self.altered += 1
        waiting = self._put - self._taken
        if waiting > MAX_WAITING_BYTES:
            self._overflowed += 1
            return
        line = b"%d %b\n" % (received_ns, frame)
        self._lines.append(line)
        self._put += len(line)
        if waiting > WRITE_BYTES and not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Write what is left and complete the file. A disk that hangs is waited for no longer than 5 s."""
        self._closing = True
        self._wake.set()
        self._thread.join(CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            _log.error(
                "the recording is not complete: the disk does not take it; look at the disk or mount",
                directory=str(self._directory),
                bytes=self._put - self._taken,
            )

    def _run(self) -> None:
        closing = False
        while not closing:
            self._wake.wait(WRITE_EVERY_S)
            self._wake.clear()
            closing = self._closing
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            try:
                self._record(lines)
                if closing:
                    self._finish()
            except Exception as error:  # whatever it is, the feed goes on, and it is tried again
                self._fail(error)
                self._dropped += len(lines)
            self._taken += sum(map(len, lines))
            self._tell_overflow()
        if self.altered or self.lost:
            _log.warning("frames are not recorded as they came", left_out=self.lost, with_line_breaks=self.altered)

    def _record(self, lines: list[bytes]) -> None:
        if self._file is not None and (self._file.size >= self._rotate_bytes or time.monotonic() >= self._rotate_at):
            self._finish()
        if not lines:
            return
        if self._file is None:
            if time.monotonic() < self._retry_at:
                self._dropped += len(lines)
                return
            self._file = _create(self._directory, self._venue, int(lines[0].split(b" ", 1)[0]))
            self._rotate_at = time.monotonic() + self._rotate_s
        self._file.write(b"".join(lines))
        if self.failing is not None:
            self.failing = None
            _log.info("recording again", file=str(self._file.part), left_out=self.lost)

    def _finish(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            path = file.finish()
            _log.info("recorded", file=str(path), bytes=file.size)

    def _fail(self, error: Exception) -> None:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        self.failing = reason
        self._retry_at = time.monotonic() + self._rotate_s
        if self._file is not None:
            self._file.abandon()
            self._file = None
        _log.error(
            "recording has stopped, the feed goes on; "
            + ("free space there" if full else "look at the disk, and make the directory writable for this user"),
            directory=str(self._directory),
            reason=reason,
            tried_again_in_s=self._rotate_s,
        )

    def _tell_overflow(self) -> None:
        if self._overflowed > self._overflow_told:
            _log.error(
                "frames are left out of the recording: the disk is too slow for them",
                directory=str(self._directory),
                left_out=self._overflowed - self._overflow_told,
            )
            self._overflow_told = self._overflowed


class _File:
    """A file being written. `size` is what is in it, in bytes."""

    def __init__(self, part: Path, final: Path) -> None:
        """Raises FileExistsError when `part` is there already, and other kinds of OSError."""
        self.part = part
        self.size = 0
        self._final = final
        self._file = part.open("xb", buffering=0)
        self._gzip = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)

    def write(self, lines: bytes) -> None:
        """Write whole lines, so that they can be read whatever happens next. Raises OSError."""
        self._write(self._gzip.compress(lines) + self._gzip.flush(zlib.Z_SYNC_FLUSH))

    def finish(self) -> Path:
        """End the file and give it its own name. Raises OSError."""
        with self._file:
            self._write(self._gzip.flush())
            os.fsync(self._file.fileno())
        return self.part.rename(self._final)

    def abandon(self) -> None:
        """Leave the file as it is, under the name of one that is not complete."""
        self._file.close()

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:  # a disk that is nearly full takes a part, and fails the next time
            written = self._file.write(left)
            self.size += written
            left = left[written:]


def _create(directory: Path, venue: str, received_ns: int) -> _File:
    """A new file for frames from this time on, under the first name that no other has or had. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    start = datetime.fromtimestamp(received_ns // 10**9, UTC).strftime("%Y%m%dT%H%M%SZ")
    number = 0
    while True:
        number += 1
        final = directory / f"{venue}-{start}-{number}.txt.gz"
        part = final.with_name(f"{final.name}.part")
        try:
            file = _File(part, final)
        except FileExistsError:
            continue
        # Only now: as long as we have `part`, no other recorder can complete a file of that name.
        if not final.exists():
            return file
        file.abandon()
        part.unlink()

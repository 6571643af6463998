"""The recordings that a fetch or an export writes, and what it has to know to go on after it was killed.

Each page of trades is appended as a gzip member of its own, then the state is replaced, which tells how many bytes of
the file count. So whatever is cut off was not counted: it is cut away, and fetched again.
"""

from __future__ import annotations

import fcntl
import os
import zlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import quote

import msgspec

from ashi.contracts.errors import ContractError, UsageError
from ashi.contracts.symbol import split_symbol
from ashi.contracts.timeframe import DAY_US
from ashi.contracts.trade import Trade, check_trade
from ashi_ingest.history.fetch import Short
from ashi_ingest.history.progress import time_in_words
from ashi_ingest.recording.own_lines import repaired_lines

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

STAMP: Final = "%Y%m%dT%H%M%SZ"
"""How a file's name tells when it begins."""
SUFFIX: Final = ".txt.gz"
LEVEL: Final = 6
GZIP: Final = 31
"""zlib's way to say: with a gzip header and a checksum at the end."""
STATE_SUFFIX: Final = ".fetch.json"
FETCH: Final = "fetch"
EXPORT: Final = "export"


class FetchState(msgspec.Struct, forbid_unknown_fields=True):
    """How far a fetch, or an export, has come. Times in µs.

    Attributes:
        symbol: whose trades, from `from_us` to `to_us`, exclusive.
        files: the names of those that are begun, the last of which may not be complete.
        size: bytes of the last file that count.
        day: the day it is of, since the epoch.
        last: the trade written last.
        trades: how many are written, each counted once.
        shorts: what the venue does not give, or the source of an export does not have.
        is_whole: all is written but for `shorts`.
        command: what writes it: `fetch` or `export`, in whose files each trade stands once, in the order of the times.

    """

    symbol: str
    from_us: int
    to_us: int
    files: list[str] = []
    size: int = 0
    day: int = 0
    last: Trade | None = None
    trades: int = 0
    shorts: list[Short] = []
    is_whole: bool = False
    version: int = 1
    command: str = FETCH


def state_path(directory: Path, symbol: str) -> Path:
    """Where a directory keeps how far the fetch, or export, of a symbol has come."""
    return directory / f"{_prefix_of(symbol)}{STATE_SUFFIX}"


def read_state(path: Path) -> FetchState | None:
    """How far a fetch or an export has come, if there is one. Raises UsageError for a file that does not tell."""
    try:
        state = msgspec.json.decode(path.read_bytes(), type=FetchState)
        if state.last is not None:
            check_trade(state.last)
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, ContractError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} does not tell how far a fetch or an export has come ({error}): write into another directory"
        ) from error
    return state


def _prefix_of(symbol: str) -> str:
    venue, market = split_symbol(symbol)
    return f"{venue}-{quote(market, safe='')}"


def shorts_around(path: Path, symbol: str, first: int, last: int) -> list[tuple[int, int | None]]:
    """What the venue did not give of the time that a file of a fetch is of, as `FileReader.unread` tells of it.

    Within the file, and after it up to the next one; before it, if it is the first one. Nothing for other files.
    `first` and `last`: `traded_at` of its first and last trade, µs. Raises UsageError for a state that cannot be read.
    """
    prefix = _prefix_of(symbol)
    name = path.name.removesuffix(".part")
    if not name.startswith(f"{prefix}-"):
        return []
    state = read_state(state_path(path.parent, symbol))
    if state is None or state.symbol != symbol or name not in state.files:
        return []
    place = state.files.index(name)
    found: list[tuple[int, int | None]] = []
    for short in sorted(state.shorts, key=lambda short: short.from_us):
        if short.to_us <= first:
            if not place:
                found.append((0, first))
        elif short.from_us < last:
            found.append((max(short.from_us - 1, first), min(short.to_us, last)))
        elif _begins_before_next(state, place, short):
            found.append((last, None))
    return found


def _begins_before_next(state: FetchState, place: int, short: Short) -> bool:
    """Whether what is missing begins before the next file does, by the time in that one's name."""
    if place + 1 == len(state.files):
        return True
    stamp = state.files[place + 1].removesuffix(SUFFIX).rpartition("-")[2]
    begins = datetime.strptime(stamp, STAMP).replace(tzinfo=UTC)
    return short.from_us < (round(begins.timestamp()) + 1) * 1_000_000


class FetchedFiles:
    """The files of one fetch or export: one for each day, UTC, and another after what the venue does not give.

    A context manager; no other process writes to the directory meanwhile.
    """

    def __init__(
        self,
        directory: Path,
        symbol: str,
        from_us: int,
        to_us: int | None,
        *,
        newest_us: int,
        overlap: bool,
        command: str = FETCH,
    ) -> None:
        """Begin, or go on where the same fetch was broken off.

        `to_us`: None for that of the fetch that was broken off, or `newest_us`. `overlap`: a file begins with the last
        trade of the one before unless something is missing in between, as ids do not tell that nothing is. `command`:
        which one writes.

        Raises:
            UsageError: the directory cannot be used: another process does, or another fetch has.

        """
        self._directory = directory
        self._prefix = _prefix_of(symbol)
        self._path = state_path(directory, symbol)
        self._overlap = overlap
        self._command = command
        self._is_gap = False
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise UsageError(f"{directory} cannot be written to: {error.strerror}. Name another directory") from error
        try:
            self._claim()
            self.state = read_state(self._path) or FetchState(
                symbol, from_us, newest_us if to_us is None else to_us, command=command
            )
            self._check(symbol, from_us, to_us)
            self._shorts_before = len(self.state.shorts)
            self._cut()
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._lock)

    @property
    def names(self) -> list[str]:
        """The files as they stand in the directory, oldest first."""
        files = self.state.files
        return [*files[:-1], *(name if self._is_complete(name) else f"{name}.part" for name in files[-1:])]

    def write(self, trades: Sequence[Trade]) -> None:
        """Append trades that come after all others. Raises OSError."""
        first = 0
        while first < len(trades):
            day = trades[first].traded_at // DAY_US
            if not self._is_open or self._is_gap or day > self.state.day:
                self._begin(trades[first])
            end = first + 1
            while end < len(trades) and trades[end].traded_at // DAY_US <= self.state.day:
                end += 1
            self._append(trades[first:end])
            first = end

    def note_short(self, number: int, short: Short) -> None:
        """The venue does not give this; `number`: of this run's, from 0. It is kept with what is written next."""
        place = number + self._shorts_before
        if place == len(self.state.shorts):
            self.state.shorts = [*self.state.shorts, short]
            self._is_gap = True
        else:
            self.state.shorts[place] = short

    def finish(self) -> None:
        """All is written. Raises OSError."""
        if self.state.files:
            self._complete(self.state.files[-1])
        self.state.is_whole = True
        self._save()

    def note_shorts(self, shorts: Sequence[Short]) -> None:
        """The source does not have these; they take the place of all that was noted. Kept with what is written next."""
        self.state.shorts = list(shorts)

    def _claim(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"another `ashi history {self._command}` writes to {self._directory}: wait for it, or name another "
                "directory"
            ) from None

    def _check(self, symbol: str, from_us: int, to_us: int | None) -> None:
        state = self.state
        begun = (state.symbol, state.from_us, state.to_us, state.command)
        if begun != (symbol, from_us, state.to_us if to_us is None else to_us, self._command):
            raise UsageError(
                f"{self._directory} has the {state.command} of {state.symbol} from {time_in_words(state.from_us)} to "
                f"{time_in_words(state.to_us)}: give the same times to go on with it, or name another directory"
            )

    def _cut(self) -> None:
        """Cut away what was written and not counted."""
        if not self._is_open:
            return
        part = self._directory / f"{self.state.files[-1]}.part"
        size = part.stat().st_size if part.exists() else 0
        if size < self.state.size:
            raise UsageError(
                f"{part} should have {self.state.size} bytes and has {size}: put it back, or name another directory"
            )
        os.truncate(part, self.state.size)

    @property
    def _is_open(self) -> bool:
        return bool(self.state.files) and not self._is_complete(self.state.files[-1])

    def _is_complete(self, name: str) -> bool:
        return (self._directory / name).exists()

    def _complete(self, name: str) -> None:
        if not self._is_complete(name):
            (self._directory / f"{name}.part").rename(self._directory / name)

    def _begin(self, trade: Trade) -> None:
        """Go on in another file."""
        state = self.state
        if state.files:
            self._complete(state.files[-1])
        at = datetime.fromtimestamp(trade.traded_at // 1_000_000, UTC).strftime(STAMP)
        name = f"{self._prefix}-{len(state.files) + 1:05}-{at}{SUFFIX}"
        (self._directory / f"{name}.part").write_bytes(b"")  # perhaps one was begun before, and not counted
        state.files, state.size, state.day = [*state.files, name], 0, trade.traded_at // DAY_US
        if self._overlap and state.last is not None and not self._is_gap:
            state.size = self._write_member([state.last])
        self._is_gap = False

    def _append(self, trades: Sequence[Trade]) -> None:
        state = self.state
        state.size += self._write_member(trades)
        state.trades += len(trades)
        state.last = trades[-1]
        self._save()

    def _write_member(self, trades: Sequence[Trade]) -> int:
        """Append to the last file; how many bytes."""
        gzip = zlib.compressobj(LEVEL, zlib.DEFLATED, GZIP)
        lines = b"".join(b"%d %b\n" % line for line in repaired_lines(trades))
        member = gzip.compress(lines) + gzip.flush()
        with (self._directory / f"{self.state.files[-1]}.part").open("ab") as file:
            file.write(member)
            file.flush()
            os.fsync(file.fileno())
        return len(member)

    def _save(self) -> None:
        new = self._path.with_name(f"{self._path.name}.new")
        with new.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(self.state)))
            file.flush()
            os.fsync(file.fileno())
        new.rename(self._path)

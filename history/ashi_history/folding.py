"""Files folded side by side, each in a process of its own, and what they come to, on disk until it is wanted."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, connection, get_context, parent_process
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ashi.contracts.errors import StateError
from ashi_history.fetched_files import shorts_around
from ashi_history.file_fold import FileFolder, unpack_parts
from ashi_history.reading import FileReader

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path
    from typing import IO

    from ashi.contracts.timeframe import Timeframe
    from ashi.contracts.trade import Trade
    from ashi_history.file_fold import FileFold, WindowPart


_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class FoldRequest:
    """What is wanted of each file: the trades of `symbol` from before `until`, µs; windows to `keep`."""

    symbol: str
    finest: Timeframe
    until: int
    keep: frozenset[int]


class FoldedFile(NamedTuple):
    """A file that was folded; its parts are on disk. The rest as of `FileFold`."""

    number: int
    path: Path
    place: int
    size: int
    fold: FileFold


def fold_file(request: FoldRequest, path: Path) -> FileFold:
    """Read a file and fold it. Raises UsageError where what a fetch has noted of it cannot be read."""
    reader = FileReader(path, request.symbol)
    folder = FileFolder(request.finest, until=request.until, keep=request.keep)
    for batch in reader.batches():
        folder.add(batch)
    fold = folder.finish(reader.notes, reader.symbols, reader.unread)
    if not fold.trades:
        return fold
    shorts = shorts_around(path, request.symbol, fold.first, fold.last)
    return fold._replace(unread=sorted([*fold.unread, *shorts], key=lambda span: span[0])) if shorts else fold


def trades_of_windows(request: FoldRequest, path: Path, windows: Collection[int]) -> dict[int, list[Trade]]:
    """The trades of some finest windows (by open time, µs), as they stand in a file."""
    open_time = request.finest.open_time
    found: dict[int, list[Trade]] = {}
    for batch in FileReader(path, request.symbol).batches():
        for trade in batch:
            start = open_time(trade.traded_at)
            if start in windows and trade.traded_at < request.until:
                found.setdefault(start, []).append(trade)
    return found


class FoldedFiles:
    """Takes in what files have come to, and gives it by the times of their first trades."""

    def __init__(self, spool: IO[bytes]) -> None:
        """`spool`: an empty file to write to and read from."""
        self.files: list[FoldedFile] = []
        self._spool = spool
        self._size = 0

    def add(self, path: Path, fold: FileFold) -> None:
        """The next file."""
        self._spool.write(fold.parts)
        packed = fold._replace(parts=b"")
        self.files.append(FoldedFile(len(self.files), path, self._size, len(fold.parts), packed))
        self._size += len(fold.parts)

    def with_trades(self) -> list[FoldedFile]:
        """Those that have some, in the order of their first ones."""
        return sorted((file for file in self.files if file.fold.trades), key=lambda file: file.fold.first)

    def parts(self, file: FoldedFile) -> list[WindowPart]:
        """What a file has of each window."""
        self._spool.seek(file.place)
        return unpack_parts(self._spool.read(file.size))


class Folding:
    """Folds files, so many at once; where that is one, in this process."""

    def __init__(self, executor: Executor | None, jobs: int, request: FoldRequest) -> None:
        self.request = request
        self._executor = executor
        self._jobs = jobs

    def folds(self, paths: Sequence[Path]) -> Iterator[FileFold]:
        """Each file folded, in the order given. No more than `jobs` and one are in hand. Raises StateError."""
        if self._executor is None:
            for path in paths:
                yield fold_file(self.request, path)
            return
        running: list[Future[FileFold]] = []
        for path in paths:
            running.append(self._executor.submit(fold_file, self.request, path))
            if len(running) > self._jobs:
                yield self._result(running.pop(0))
        while running:
            yield self._result(running.pop(0))

    def trades(
        self, paths: Mapping[int, Path], windows: Mapping[int, Collection[int]]
    ) -> dict[int, dict[int, list[Trade]]]:
        """The trades of some windows of each file, by open time (µs) and number of the file. Raises StateError."""
        found: dict[int, dict[int, list[Trade]]] = {}
        ordered = sorted(windows)
        for place in range(0, len(ordered), self._jobs):
            numbers = ordered[place : place + self._jobs]
            arguments = [(self.request, paths[number], windows[number]) for number in numbers]
            if self._executor is None:
                each = [trades_of_windows(*given) for given in arguments]
            else:
                futures = [self._executor.submit(trades_of_windows, *given) for given in arguments]
                each = [self._result(future) for future in futures]
            for number, of_file in zip(numbers, each, strict=True):
                for start, trades in of_file.items():
                    found.setdefault(start, {})[number] = trades
        return found

    @staticmethod
    def _result(future: Future[_Result]) -> _Result:
        try:
            return future.result()
        except BrokenExecutor as error:
            raise StateError(
                "a process that folded a file was ended, as by the system when memory is short: give it more, or fold "
                "fewer files at once (--jobs)"
            ) from error


@contextmanager
def folding_processes(jobs: int) -> Iterator[Executor | None]:
    """So many processes, None for a single one. They end with this one, however it ends, and at once on an error."""
    if jobs == 1:
        yield None
        return
    executor = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_begin)
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        for process in active_children():
            process.terminate()
        raise
    executor.shutdown()


@contextmanager
def folded_files() -> Iterator[FoldedFiles]:
    """With a file on disk that has no name, so that nothing is left of it however this process ends."""
    with TemporaryFile() as spool:
        yield FoldedFiles(spool)


def _begin() -> None:
    """A process of the pool waits for work for ever, also where who gives it was killed; Ctrl-C is for that one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None  # noqa: S101

    def wait() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()

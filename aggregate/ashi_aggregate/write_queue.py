"""Which rows a checkpoint writes: all that have changed, while they are few; else those that have waited longest.

A row is written whole, so one of a symbol that trades all the time costs as much at each checkpoint, whatever has come
since the last one. Where a great many symbols trade, most of what is written is written again half a second later. So a
checkpoint writes a bounded number of rows, the partition's marker stays before the first record that a row still lacks
in the changelogs, and after a crash the log is read again from there. See docs/decisions/0009-rows-that-wait.md.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping
from math import ceil
from typing import Final, NamedTuple

ROWS_PER_CHECKPOINT: Final = 1_000
"""Up to so many rows all that have changed are written."""
BYTES_PER_CHECKPOINT: Final = 4 * 1024 * 1024
"""And up to so many bytes of them, as far as the last ones tell. The row of a busy market whose ids are texts may have
some hundred kilobytes, as nothing shorter says which have been counted."""
LONGEST_WAIT_S: Final = 20.0
"""A row that has changed so long ago is written, however many are. It bounds what is read again after a crash."""
REWRITE_AFTER_S: Final = 120.0
"""Every row is written at least this often, but for the time it then waits. Less than half of the changelogs'
min.compaction.lag.ms: so compaction cannot leave an older row, written late by a worker that was declared dead, as the
only one."""


class WriteBudget(NamedTuple):
    """How many rows a checkpoint writes.

    Attributes:
        rows: as ROWS_PER_CHECKPOINT, of all partitions and timeframes together; one symbol's at least.
        longest_wait_s: as LONGEST_WAIT_S.
        size: as BYTES_PER_CHECKPOINT.

    """

    rows: int = ROWS_PER_CHECKPOINT
    longest_wait_s: float = LONGEST_WAIT_S
    size: int = BYTES_PER_CHECKPOINT


BUDGET: Final = WriteBudget()


class _Change(NamedTuple):
    since_s: float
    offset: int | None


class WriteQueue:
    """The symbols of a partition whose rows wait to be written, and when those of each were written last.

    Times are monotonic, s. The rows of a symbol, one in each timeframe, change and are written together.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, _Change] = {}
        self._written: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[tuple[float, str]]:
        """Since when each waits, the one that has waited longest first."""
        return ((change.since_s, symbol) for symbol, change in self._waiting.items())

    def changed(self, symbol: str, now_s: float, offset: int | None = None) -> None:
        """The rows of a symbol have taken in records of the log from `offset` on; None: they have changed otherwise."""
        before = self._waiting.get(symbol)
        if before is None:
            self._waiting[symbol] = _Change(now_s, offset)
        elif before.offset is None and offset is not None:
            self._waiting[symbol] = before._replace(offset=offset)

    def written(self, symbols: Collection[str], now_s: float) -> None:
        """The rows of these symbols have been written as they are."""
        for symbol in symbols:
            self._waiting.pop(symbol, None)
            self._written.pop(symbol, None)  # so that it is behind all that were written before
            self._written[symbol] = now_s

    def was_written(self, symbols: Collection[str], now_s: float) -> None:
        """The rows of these symbols stand in the changelogs, written at some time.

        The times are spread over that within which they are due: else all would be written again at once.
        """
        count = len(symbols)
        for place, symbol in enumerate(symbols, 1):
            self._written[symbol] = now_s - REWRITE_AFTER_S * (count - place) / count

    def find_due(self, now_s: float) -> None:
        """Let the rows wait that were last written too long ago, though they have not changed."""
        for symbol, at in self._written.items():
            if now_s - at <= REWRITE_AFTER_S:
                break
            self.changed(symbol, now_s)

    def durable_end(self, end: int) -> int:
        """Up to where (exclusive) the rows that are written lack nothing, when all have been read up to `end`."""
        return min((change.offset for change in self._waiting.values() if change.offset is not None), default=end)


class WritePace:
    """Chooses the rows of each checkpoint: within the budget, but for what keeps any row from waiting for too long."""

    def __init__(self, budget: WriteBudget, timeframes: int, now_s: float) -> None:
        """So many timeframes has each symbol; now is monotonic, s."""
        self._budget = budget
        self._timeframes = timeframes
        self._rows = budget.rows
        self._longest_wait_s = budget.longest_wait_s
        self._chosen_at = now_s

    def wrote(self, rows: int, size: int) -> None:
        """So many rows, of so many bytes together, have been written: the next ones will be about as large."""
        if size:
            self._rows = min(self._budget.rows, self._budget.size * rows // size)

    def choose(self, queues: Mapping[int, WriteQueue], now_s: float) -> dict[int, list[str]]:
        """Which symbols' rows to write now (monotonic, s), by partition: those that have waited longest.

        Where the budget is too little for all that wait, as many more as let them all have their turn in time, rather
        than all at once when they are due. Those that are due are written in any case.
        """
        share = sum(map(len, queues.values())) * (now_s - self._chosen_at) / self._longest_wait_s
        count = max(self._rows // self._timeframes, ceil(share), 1)
        self._chosen_at = now_s
        chosen: dict[int, list[str]] = {number: [] for number in queues}
        longest_first = heapq.merge(*(_numbered(number, queue) for number, queue in queues.items()))
        for place, (since_s, number, symbol) in enumerate(longest_first):
            if place >= count and now_s - since_s < self._longest_wait_s:
                break
            chosen[number].append(symbol)
        return chosen


def _numbered(number: int, queue: WriteQueue) -> Iterator[tuple[float, int, str]]:
    return ((since_s, number, symbol) for since_s, symbol in queue)

"""The symbols of one partition. What a resumed state has of one is decoded when it is first needed."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from heapq import heappop, heappush
from typing import Final

from ashi.contracts.candle import Candle
from ashi.contracts.timeframe import Timeframe
from ashi_aggregate.core.codec import RowHead, StoredRow, decode_row
from ashi_aggregate.core.symbol import SymbolAggregator
from ashi_aggregate.core.window_state import StateRow, WindowRules

QUANTUM_US: Final = 50_000
"""Each trade of a symbol changes a little when it is due. So much sooner at most it is looked at, and so it keeps its
place in the queue mostly."""


class Symbols(MutableMapping[str, SymbolAggregator]):
    """Aggregators by symbol. To look one up, or to go through the values, decodes its rows; all else does not."""

    def __init__(self, timeframes: Sequence[Timeframe], rules: WindowRules) -> None:
        self._timeframes = timeframes
        self._rules = rules
        self._stored: dict[str, Sequence[StoredRow]] = {}
        self._decoded: dict[str, SymbolAggregator] = {}
        # Each symbol, but for those looked up since, by the earliest time at which it can be due. That stands in the
        # queue and in the dictionary; in the queue alone it is of before, and counts no more. The queue has those of
        # one time together, as at the end of a minute it is one time for thousands, and the times in a heap.
        self._queue: dict[int, list[str]] = {}
        self._times: list[int] = []
        self._earliest: dict[str, int] = {}
        self._looked_up: dict[str, None] = {}  # a set in which they stand as they came
        # Those that were found due stand in neither, until they have been closed: then they are due at another time.
        self._were_due: dict[str, None] = {}
        # It is asked whether something is due, and soon after, with nothing in between, what.
        self._found: tuple[int, list[tuple[str, int]]] | None = None

    def take_up(self, symbol: str, rows: Sequence[StoredRow | None]) -> None:
        """Take up a symbol from its rows, in the order of the timeframes. Raises StateError where one is no row.

        One that is missing beside others was not written before a crash; it reads what they have read.
        """
        self._found = None
        known = [row for row in rows if row is not None]
        if len(known) == len(rows):
            self._stored[symbol] = known
        else:
            self._decoded[symbol] = self._decode(rows)
        self._looked_up[symbol] = None

    def find_due(self, now: int) -> list[tuple[str, int]]:
        """The symbols that have windows to close at `now` (µs), each with the time (µs) that they close by.

        Only those are looked at that may be due: ten thousand are too many for each look.
        """
        if self._found is not None and self._found[0] == now and not self._looked_up:
            return self._found[1]
        for symbol in {**self._were_due, **self._looked_up}:
            self._enqueue(symbol, _due_at(*self._next_close(symbol)))
        self._looked_up.clear()
        found, later = [], []
        while self._times and self._times[0] <= now:
            time = heappop(self._times)
            for symbol in self._queue.pop(time):
                if self._earliest.get(symbol) != time:
                    continue
                del self._earliest[symbol]  # so that one that is in the queue twice is looked at once
                next_close, head = self._next_close(symbol)
                due = _due_at(next_close, head)
                if due <= now:
                    found.append((symbol, _clock(head, now)))
                else:
                    later.append((symbol, due))
        for symbol, due in later:
            self._enqueue(symbol, due)
        self._were_due = dict.fromkeys([symbol for symbol, _ in found])
        self._found = now, found
        return found

    def close_due(self, symbol: str, clock: int) -> list[Candle]:
        """Close what is due of a symbol at `clock` (µs): its candles. Raises as looking it up does.

        It is put into the queue at once, as all of it is in the processor's cache now.
        """
        aggregator = self.look_at(symbol)
        candles = aggregator.close_due(clock)
        self._found = None
        self._were_due.pop(symbol, None)
        self._enqueue(symbol, _due_at(aggregator.next_close, aggregator.rows[0].row))
        return candles

    def soon_due(self, begin: int, end: int) -> list[str]:
        """Of the symbols that nothing has come of since the last look those that may be due in [begin, end), µs."""
        first = begin - begin % QUANTUM_US
        return [
            symbol
            for time in range(first, end, QUANTUM_US)
            for symbol in self._queue.get(time, ())
            if self._earliest.get(symbol) == time
        ]

    def _enqueue(self, symbol: str, due: int) -> None:
        """Put it where it belongs, unless it stands before that; it is due at that time, µs."""
        earliest = due - due % QUANTUM_US
        before = self._earliest.get(symbol)
        if before is None or earliest < before:
            self._earliest[symbol] = earliest
            queued = self._queue.get(earliest)
            if queued is None:
                self._queue[earliest] = [symbol]
                heappush(self._times, earliest)
            else:
                queued.append(symbol)

    def _next_close(self, symbol: str) -> tuple[int, StateRow | RowHead]:
        """The clock (µs) at which its next window closes, in whichever timeframe, and what its finest row has read."""
        aggregator = self._decoded.get(symbol)
        if aggregator is not None:
            return aggregator.next_close, aggregator.rows[0].row
        rows = self._stored[symbol]
        closes_at = min(
            row.head.closes_from + timeframe.length_us for row, timeframe in zip(rows, self._timeframes, strict=True)
        )
        return closes_at + self._rules.lateness_us, rows[0].head

    def look_at(self, symbol: str) -> SymbolAggregator:
        """Its aggregator, into which nothing is put. Raises as looking it up does."""
        aggregator = self._decoded.get(symbol)
        return self[symbol] if aggregator is None else aggregator

    def append_times(self) -> dict[str, int]:
        """When the last record of each that the state has read was appended, µs."""
        times = {symbol: aggregator.rows[0].row.appended_at for symbol, aggregator in self._decoded.items()}
        return times | {symbol: rows[0].head.appended_at for symbol, rows in self._stored.items()}

    def times(self) -> tuple[int, int]:
        """The greatest stream time of all, and when the last record that any has read was appended, µs; 0 for none."""
        decoded = [aggregator.rows[0].row for aggregator in self._decoded.values()]
        stored = [rows[0].head for rows in self._stored.values()]
        times = [(row.stream_time, row.appended_at) for row in decoded]
        times += [(head.stream_time, head.appended_at) for head in stored]
        return max((event for event, _ in times), default=0), max((appended for _, appended in times), default=0)

    def __getitem__(self, symbol: str) -> SymbolAggregator:
        """Its aggregator, into which trades may be put. Raises KeyError when there is none.

        StateError when its rows cannot be read.
        """
        aggregator = self._decoded.get(symbol)
        if aggregator is None:
            aggregator = self._decoded[symbol] = self._decode(self._stored[symbol])
            del self._stored[symbol]
        self._looked_up[symbol] = None
        return aggregator

    def __setitem__(self, symbol: str, aggregator: SymbolAggregator) -> None:
        self._stored.pop(symbol, None)
        self._decoded[symbol] = aggregator
        self._looked_up[symbol] = None

    def __delitem__(self, symbol: str) -> None:
        self._looked_up.pop(symbol, None)
        self._earliest.pop(symbol, None)
        self._were_due.pop(symbol, None)
        self._found = None
        if self._stored.pop(symbol, None) is None:
            del self._decoded[symbol]

    def __contains__(self, symbol: object) -> bool:
        return symbol in self._decoded or symbol in self._stored

    def __iter__(self) -> Iterator[str]:
        yield from [*self._decoded, *self._stored]

    def __len__(self) -> int:
        return len(self._decoded) + len(self._stored)

    def _decode(self, rows: Sequence[StoredRow | None]) -> SymbolAggregator:
        complete_from = max(row.head.complete_from for row in rows if row is not None)
        decoded = [None if row is None else decode_row(row.value) for row in rows]
        return SymbolAggregator(self._timeframes, self._rules, decoded, complete_from)


def _due_at(next_close: int, head: StateRow | RowHead) -> int:
    """From when on (µs) the clock of a quiet symbol, as `_clock` has it, is at its next close or beyond."""
    stream_time, appended_at = head.stream_time, head.appended_at
    if stream_time >= next_close:
        return 0
    return next_close + appended_at - stream_time if appended_at > stream_time else next_close


def _clock(head: StateRow | RowHead, now: int) -> int:
    """The time (µs) that windows of a quiet symbol close by: its stream time, and what has passed since its read.

    Never beyond now: an append time that is wrong must not close windows of the future.
    """
    return max(min(head.stream_time + now - head.appended_at, now), head.stream_time)

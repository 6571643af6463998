"""The symbols of one partition. What a resumed state has of one is decoded when it is first needed."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence

from ashi.contracts.timeframe import Timeframe
from ashi_aggregate.core.codec import StoredRow, decode_row
from ashi_aggregate.core.symbol import SymbolAggregator
from ashi_aggregate.core.window_state import NO_WINDOW, WindowRules


class Symbols(MutableMapping[str, SymbolAggregator]):
    """Aggregators by symbol. To look one up, or to go through the values, decodes its rows; all else does not."""

    def __init__(self, timeframes: Sequence[Timeframe], rules: WindowRules) -> None:
        self._timeframes = timeframes
        self._rules = rules
        self._stored: dict[str, Sequence[StoredRow]] = {}
        self._decoded: dict[str, SymbolAggregator] = {}
        # Of all symbols but those that were looked up since, nothing is due before.
        self._first_due = 0
        self._looked_up: set[str] = set()
        # It is asked whether something is due, and soon after, with nothing in between, what.
        self._found: tuple[int, list[tuple[str, int]]] | None = None

    def take_up(self, symbol: str, rows: Sequence[StoredRow | None]) -> None:
        """Take up a symbol from its rows, in the order of the timeframes. Raises StateError where one is no row.

        One that is missing beside others was not written before a crash; it reads what they have read.
        """
        self._first_due, self._found = 0, None
        known = [row for row in rows if row is not None]
        if len(known) == len(rows):
            self._stored[symbol] = known
        else:
            self._decoded[symbol] = self._decode(rows)

    def find_due(self, now: int) -> list[tuple[str, int]]:
        """The symbols that have windows to close at `now` (µs), each with the time (µs) that they close by.

        They are looked at only when one may be due: ten thousand are too many for each checkpoint.
        """
        if self._found is not None and self._found[0] == now and not self._looked_up:
            return self._found[1]
        self._found = None
        for symbol in self._looked_up:
            self._first_due = min(self._first_due, _due_of(self._decoded[symbol]))
        self._looked_up.clear()
        if now < self._first_due:
            return []
        due_at = {symbol: _due_of(aggregator) for symbol, aggregator in self._decoded.items()}
        for symbol, rows in self._stored.items():
            closes_from = min(
                row.head.closes_from + timeframe.length_us
                for row, timeframe in zip(rows, self._timeframes, strict=True)
            )
            head = rows[0].head
            due_at[symbol] = _due_at(closes_from + self._rules.lateness_us, head.stream_time, head.appended_at)
        self._first_due = min(due_at.values(), default=NO_WINDOW)
        found = [(symbol, self._clock(symbol, now)) for symbol, due in due_at.items() if due <= now]
        self._found = now, found
        return found

    def _clock(self, symbol: str, now: int) -> int:
        """The time (µs) that windows of a quiet symbol close by: its stream time, and what has passed since its read.

        Never beyond now: an append time that is wrong must not close windows of the future.
        """
        aggregator = self._decoded.get(symbol)
        row = self._stored[symbol][0].head if aggregator is None else aggregator.rows[0].row
        return max(min(row.stream_time + now - row.appended_at, now), row.stream_time)

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
        self._looked_up.add(symbol)
        return aggregator

    def __setitem__(self, symbol: str, aggregator: SymbolAggregator) -> None:
        self._stored.pop(symbol, None)
        self._decoded[symbol] = aggregator
        self._looked_up.add(symbol)

    def __delitem__(self, symbol: str) -> None:
        self._looked_up.discard(symbol)
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


def _due_of(aggregator: SymbolAggregator) -> int:
    row = aggregator.rows[0].row
    return _due_at(aggregator.next_close, row.stream_time, row.appended_at)


def _due_at(next_close: int, stream_time: int, appended_at: int) -> int:
    """From when on (µs) the clock of a quiet symbol, as `Symbols._clock` has it, is at `next_close` or beyond."""
    return 0 if stream_time >= next_close else next_close + max(appended_at - stream_time, 0)

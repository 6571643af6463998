"""The symbols of one partition. What a resumed state has of one is decoded when it is first needed."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence

from ashi.contracts.timeframe import Timeframe
from ashi_aggregate.core.codec import StoredRow, decode_row
from ashi_aggregate.core.symbol import SymbolAggregator
from ashi_aggregate.core.window_state import WindowRules


class Symbols(MutableMapping[str, SymbolAggregator]):
    """Aggregators by symbol. To look one up, or to go through the values, decodes its rows; all else does not."""

    def __init__(self, timeframes: Sequence[Timeframe], rules: WindowRules) -> None:
        self._timeframes = timeframes
        self._rules = rules
        self._stored: dict[str, Sequence[StoredRow]] = {}
        self._decoded: dict[str, SymbolAggregator] = {}

    def take_up(self, symbol: str, rows: Sequence[StoredRow | None]) -> None:
        """Take up a symbol from its rows, in the order of the timeframes. Raises StateError where one is no row.

        One that is missing beside others was not written before a crash; it reads what they have read.
        """
        known = [row for row in rows if row is not None]
        if len(known) == len(rows):
            self._stored[symbol] = known
        else:
            self._decoded[symbol] = self._decode(rows)

    def find_due(self, now: int) -> list[tuple[str, int]]:
        """The symbols that have windows to close at `now` (µs), each with the time (µs) that they close by."""
        due = []
        for symbol, aggregator in self._decoded.items():
            row = aggregator.rows[0].row
            clock = _clock_of(row.stream_time, row.appended_at, now)
            if aggregator.is_due(clock):
                due.append((symbol, clock))
        for symbol, rows in self._stored.items():
            clock = _clock_of(rows[0].head.stream_time, rows[0].head.appended_at, now)
            closed_by = clock - self._rules.lateness_us
            if any(
                row.head.closes_from + timeframe.length_us <= closed_by
                for row, timeframe in zip(rows, self._timeframes, strict=True)
            ):
                due.append((symbol, clock))
        return due

    def __getitem__(self, symbol: str) -> SymbolAggregator:
        """Its aggregator. Raises KeyError when there is none, StateError when its rows cannot be read."""
        aggregator = self._decoded.get(symbol)
        if aggregator is None:
            aggregator = self._decoded[symbol] = self._decode(self._stored[symbol])
            del self._stored[symbol]
        return aggregator

    def __setitem__(self, symbol: str, aggregator: SymbolAggregator) -> None:
        self._stored.pop(symbol, None)
        self._decoded[symbol] = aggregator

    def __delitem__(self, symbol: str) -> None:
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


def _clock_of(stream_time: int, appended_at: int, now: int) -> int:
    """The time (µs) that windows of a quiet symbol close by: its stream time, and what has passed since it was read.

    Never beyond now: an append time that is wrong must not close windows of the future.
    """
    return max(min(stream_time + now - appended_at, now), stream_time)

"""What a state must hold at its marker: how many symbols, which, and how far each has come.

All rows of a symbol stand at one position when a marker is written, so one census serves all tables. It costs two
hashes for each symbol whose rows are written.

Rows are written before the marker, and a crash may leave any of them. A row therefore says where its symbol stood at
the last marker and where it began; whatever is ahead of the marker is counted by that. A row that another worker wrote,
one that was declared dead, may be ahead of a marker it knows nothing of. How far it had come at that marker nobody
can tell then: such a state is checked for missing rows only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Final

import msgspec

from ashi_aggregate.core.window_state import StateRow

UNKNOWN: Final = -1


class Census(msgspec.Struct, frozen=True, array_like=True):
    """How many symbols a state has, and sums that depend on no order; `positions` is None where rows were ahead."""

    symbols: int
    names: int
    positions: int | None


def take_census(rows: Iterable[StateRow], durable_offset: int) -> Census | None:
    """The census of a table's rows as of the marker at `durable_offset`, whatever has been written since.

    None when it cannot be told: an earlier version of Ashi wrote a row since.
    """
    count = names = positions = 0
    exact = True
    for row in rows:
        ahead = row.applied_offset > durable_offset
        if ahead and row.first_offset is None:
            return None
        if ahead and (row.first_offset or 0) > durable_offset:
            continue
        count += 1
        names ^= _hash(row.symbol)
        if not ahead:
            positions ^= _hash(row.symbol, row.applied_offset)
        elif row.at_marker[0] == durable_offset and row.at_marker[1] != UNKNOWN:
            positions ^= _hash(row.symbol, row.at_marker[1])
        else:
            exact = False
    return Census(count, names, positions if exact else None)


def agrees(found: Census, wanted: Census) -> bool:
    """Whether a table has what its marker says, as far as that can be told."""
    if (found.symbols, found.names) != (wanted.symbols, wanted.names):
        return False
    return None in (found.positions, wanted.positions) or found.positions == wanted.positions


class Positions:
    """Where each symbol of a partition stood at the last marker, and the census that follows from it."""

    def __init__(self, durable_offset: int, symbols: Mapping[str, Iterable[StateRow]]) -> None:
        """`durable_offset`: of the marker the state was taken up from; -1 without one."""
        self._durable_offset = durable_offset
        self._at_marker: dict[str, int] = {}
        self._ahead: set[str] = set()
        self._names = self._positions = 0
        for symbol, rows in symbols.items():
            self._count(symbol, rows)

    def at_marker(self, symbol: str) -> tuple[int, int]:
        """The last marker's position, and the symbol's then: what its rows say when they are written."""
        if self._durable_offset == UNKNOWN or symbol in self._ahead:
            return UNKNOWN, UNKNOWN
        return self._durable_offset, self._at_marker.get(symbol, UNKNOWN)

    def mark(self, durable_offset: int, changed: Mapping[str, Iterable[StateRow]]) -> Census:
        """The census for a marker at `durable_offset`, before which the rows of these symbols were written."""
        self._durable_offset = durable_offset
        for symbol, rows in changed.items():
            self._count(symbol, rows)
        return Census(len(self._at_marker), self._names, None if self._ahead else self._positions)

    def _count(self, symbol: str, rows: Iterable[StateRow]) -> None:
        """Bring in where a symbol stands now, unless its rows are ahead of the marker: then it is not known."""
        known = list(rows)
        position = max(row.applied_offset for row in known)
        before = self._at_marker.get(symbol)
        if position > self._durable_offset:
            self._ahead.add(symbol)
            if before is None and (known[0].first_offset or 0) <= self._durable_offset:
                self._at_marker[symbol] = UNKNOWN
                self._names ^= _hash(symbol)
            return
        self._ahead.discard(symbol)
        if before is None:
            self._names ^= _hash(symbol)
        elif before != UNKNOWN:
            self._positions ^= _hash(symbol, before)
        self._positions ^= _hash(symbol, position)
        self._at_marker[symbol] = position


def _hash(symbol: str, position: int | None = None) -> int:
    """64 bits of a symbol, or of a symbol at a position; the same in every process."""
    text = symbol if position is None else f"{symbol}@{position}"
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")

"""Trades of a lake added up by the native library, for `ashi rebuild`: as a recount would, or not at all.

`ashi verify` has no part in it: what the workers fold with may not be what their candles are held against.
"""

from __future__ import annotations

from math import lcm
from typing import TYPE_CHECKING, Any, Final

from ashi_aggregate.native.library import load_kernel
from ashi_aggregate.native.rows import COLUMNS, TradeRows, UnknownColumnsError
from ashi_audit.recomputed import Totals
from ashi_audit.rules import COPIES_APART_US
from ashi_audit.sources.base import AddedUp

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ashi.contracts.timeframe import Timeframe
    from ashi_aggregate.native.rows import Recounted, WindowSums
    from ashi_audit.sources.lake import Piece

NO_LIBRARY: Final = "Python adds the trades up, some times slower"


class NativeAddition:
    """An `ashi_audit.sources.lake.Addition`. Not for use by two threads at once.

    Attributes:
        counted: how many trades the library has added up.
        left: about how many it has not, as they are not written as Ashi writes them.

    """

    columns: Sequence[str] = COLUMNS

    def __init__(self, rows: TradeRows, finest: Timeframe, cell_us: int) -> None:
        """`finest`: of the windows. `cell_us`: a multiple of its length that divides a day, µs."""
        self.cell_us = cell_us
        self.counted = self.left = 0
        self._rows = rows
        self._finest_us = finest.length_us

    def add_up(self, piece: Piece, columns: Iterator[Any]) -> AddedUp | None:
        """See `ashi_audit.sources.lake.Addition`."""
        added_up = self._add_up(piece, columns)
        if added_up is None:
            self.left += piece.records
        return added_up

    def _add_up(self, piece: Piece, columns: Iterator[Any]) -> AddedUp | None:
        rows = self._rows
        try:
            rows.begin(piece.records)
            for batch in columns:
                rows.add(batch)
        except UnknownColumnsError:
            return None
        if not len(rows):
            return AddedUp(piece.symbol, [], {}, 0, 0)
        of_partition = piece.letters.get(rows.partition, {})
        late = sorted(offset for offset, (_, trade) in of_partition.items() if trade.symbol == piece.symbol)
        while True:
            found = rows.recount(
                piece.symbol,
                finest_us=self._finest_us,
                copies_apart_us=COPIES_APART_US,
                begin=piece.begin,
                end=piece.end,
                unread=piece.unread.get(rows.partition, range(0)),
                late=late,
            )
            if found is None:
                return None
            # A letter is of another topic where something else stands at its place.
            others = {offset for offset, trade in found.late if trade != of_partition[offset][1]}
            if not others:
                break
            late = [offset for offset in late if offset not in others]
        self.counted += found.counted + len(found.late)
        return _added_up(piece.symbol, found)


def native_addition(finest: Timeframe) -> NativeAddition | str:
    """What adds up windows of that length and multiples of it; or why the library cannot, in words."""
    kernel = load_kernel()
    if kernel is None:
        return f"there is no native fold of this version for this machine: {NO_LIBRARY}"
    from ashi_sinks.lake.trades import CELL_US

    # Of each window all trades must be in one piece, or copies of them would not meet; and counts are made by days,
    # which a common multiple of two parts of a day divides.
    return NativeAddition(TradeRows(kernel), finest, lcm(finest.length_us, CELL_US))


def _added_up(symbol: str, found: Recounted) -> AddedUp:
    return AddedUp(symbol, [_totals(window) for window in found.windows], dict(found.late), found.clock, found.first)


def _totals(window: WindowSums) -> Totals:
    return Totals(*window[1:])

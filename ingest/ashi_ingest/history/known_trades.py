"""Which trades of one symbol topic `trades` has, of a stretch of time: compact enough for a month of a busy market.

Pure. Ids that follow each other are kept as ranges, so a hundred million trades of Binance are a few numbers. Others
are kept as 8 bytes each, in sorted runs: ten million trades, more than such a market has in a month, take some 80 MB.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ashi.contracts.trade import Trade

RUN: Final = 500_000
"""So many ids are kept in a set before they become a sorted run."""


class KnownTrades:
    """The ids of trades; where they do not follow each other, hashes of 64 bits, which are taken for different."""

    def __init__(self, *, contiguous: bool) -> None:
        """`contiguous`: `sequence` is an id, and most of them follow each other."""
        self._contiguous = contiguous
        self._begins: list[int] = []
        self._ends: list[int] = []
        self._recent: set[int] = set()
        self._runs: list[array[int]] = []

    def __contains__(self, trade: Trade) -> bool:
        if self._contiguous:
            place = bisect_right(self._begins, trade.sequence) - 1
            return place >= 0 and trade.sequence < self._ends[place]
        key = hash(trade.trade_id)
        return key in self._recent or any(_has(run, key) for run in self._runs)

    def add(self, trade: Trade) -> None:
        """The topic has this one."""
        if self._contiguous:
            self._add_sequence(trade.sequence)
            return
        self._recent.add(hash(trade.trade_id))
        if len(self._recent) >= RUN:
            self._runs.append(array("q", sorted(self._recent)))
            self._recent.clear()

    def _add_sequence(self, sequence: int) -> None:
        place = bisect_right(self._begins, sequence)
        before = place - 1
        if before >= 0 and sequence < self._ends[before]:
            return
        joins_before = before >= 0 and self._ends[before] == sequence
        joins_after = place < len(self._begins) and self._begins[place] == sequence + 1
        if joins_before and joins_after:
            self._ends[before] = self._ends.pop(place)
            del self._begins[place]
        elif joins_before:
            self._ends[before] = sequence + 1
        elif joins_after:
            self._begins[place] = sequence
        else:
            self._begins.insert(place, sequence)
            self._ends.insert(place, sequence + 1)


def _has(run: array[int], key: int) -> bool:
    place = bisect_left(run, key)
    return place < len(run) and run[place] == key

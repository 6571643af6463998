"""The finest windows of several files, oldest first, with each trade once however the files overlap. Pure."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Final, NamedTuple

from ashi_aggregate.core.fold import fold_trades
from ashi_aggregate.core.trade_ids import COPIES_APART_US, TradeIds, WindowIds
from ashi_history.file_fold import NO_LIMIT, WindowPart, holds_ids, share_ids

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from ashi.contracts.timeframe import Timeframe
    from ashi.contracts.trade import Trade
    from ashi_aggregate.core.fold import Fold

_REPLACED: Final = -1
"""In place of a file's number: of the trades of several."""


class MergedWindow(NamedTuple):
    """A finest window with the trades of all files.

    Attributes:
        fold: their sums.
        trades: themselves, only where they are kept.
        ids: those of their ids that are numbers, as disjoint ascending intervals: start, end (exclusive), start, …

    """

    fold: Fold
    trades: Sequence[Trade] = ()
    ids: Sequence[int] = ()


class FileMerge:
    """Takes in files in the order of their first trades, and gives away windows that no file to come can have.

    Which those are says `free_before`; of them `overlaps` tells those to `replace` before they are taken, all at once.
    """

    def __init__(self, finest: Timeframe, keep: Collection[int] = ()) -> None:
        """`keep`: the windows (µs) whose trades are kept."""
        self._length_us = finest.length_us
        self._keep = frozenset(keep)
        self._parts: dict[int, list[tuple[int, WindowPart]]] = {}
        self._kept: dict[int, dict[int, list[Trade]]] = {}

    def add(self, number: int, parts: Sequence[WindowPart], kept: Sequence[Trade] = ()) -> None:
        """The next file, with its number: what it has of each window, and the trades of those to be kept."""
        for part in parts:
            self._parts.setdefault(part.fold.open_time, []).append((number, part))
        for trade in kept:
            start = trade.traded_at - trade.traded_at % self._length_us
            self._kept.setdefault(start, {}).setdefault(number, []).append(trade)

    def free_before(self, first: int) -> int:
        """Windows that began before this (µs) can be taken, if no file to come has a trade from before `first`, µs.

        Copies of a trade may be stamped a second apart: windows that share one in different files are taken together.
        """
        edge = first - COPIES_APART_US
        before = edge - edge % self._length_us - self._length_us
        while self._are_tied(before - self._length_us):
            before -= self._length_us
        return before

    def overlaps(self, before: int) -> dict[int, set[int]]:
        """Of the windows that began before a time (µs): those in which files share some trades, by number of the file.

        What one file has of a window whole, another need not have.
        """
        for start, parts in self._parts.items():
            if start < before and len(parts) > 1:
                self._parts[start] = _without_contained(parts)
        again: set[int] = set()
        for start in self._parts:
            if start >= before:
                continue
            if any(share_ids(one.ids, other.ids) for (_, one), (_, other) in combinations(self._parts[start], 2)):
                again.add(start)
            if start + self._length_us < before and self._are_tied(start):
                again |= {start, start + self._length_us}
        files: dict[int, set[int]] = {}
        for start in again:
            for number, _ in self._parts[start]:
                files.setdefault(number, set()).add(start)
        return files

    def _are_tied(self, start: int) -> bool:
        """Whether the window that began then (µs) and the next one share a trade, in different files."""
        following = self._parts.get(start + self._length_us, ())
        return any(
            number != other and share_ids(part.ids, each.ids)
            for number, part in self._parts.get(start, ())
            for other, each in following
        )

    def replace(self, windows: Mapping[int, Mapping[int, Sequence[Trade]]]) -> None:
        """Fold windows anew of their trades: by open time (µs) and number of the file."""
        ids = TradeIds({}, self._length_us, most=NO_LIMIT)
        for start in sorted(windows):
            counted = [
                trade
                for _, trades in sorted(windows[start].items())
                for trade in trades
                if ids.admit(trade.trade_id, trade.traded_at)
            ]
            if counted:
                self._parts[start] = [(_REPLACED, WindowPart(fold_trades(counted, start, 0), ids.windows[start]))]
                if start in self._keep:
                    self._kept[start] = {_REPLACED: counted}
            else:
                del self._parts[start]

    def take(self, before: int) -> Iterator[MergedWindow]:
        """Give away the windows that began before a time (µs), oldest first, when none of them overlaps."""
        for start in sorted(start for start in self._parts if start < before):
            parts = self._parts.pop(start)
            fold = parts[0][1].fold
            for _, part in parts[1:]:
                fold.merge(part.fold)
            kept = self._kept.pop(start, {})
            trades = [trade for number, _ in parts for trade in kept.get(number, ())]
            yield MergedWindow(fold, trades, _union([part.ids for _, part in parts]))


def _union(ids: Sequence[WindowIds]) -> Sequence[int]:
    """The numbers of all, none of which is in two of them."""
    if len(ids) == 1:
        return ids[0].numbers
    pairs = sorted(pair for each in ids for pair in zip(each.numbers[::2], each.numbers[1::2], strict=True))
    return [number for pair in pairs for number in pair]


def _without_contained(parts: list[tuple[int, WindowPart]]) -> list[tuple[int, WindowPart]]:
    """Without those whose trades another part has, all of them; of equal ones the first stays."""
    left: list[tuple[int, WindowPart]] = []
    for number, part in parts:
        if any(holds_ids(other.ids, part.ids) for _, other in left):
            continue
        left = [(of, other) for of, other in left if not holds_ids(part.ids, other.ids)]
        left.append((number, part))
    return left

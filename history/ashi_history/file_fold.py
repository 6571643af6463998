"""What the trades of one file add up to: a partial fold for each finest window, with the ids that are in it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from ashi_aggregate.core.fold import Fold, fold_trades
from ashi_aggregate.core.trade_ids import TradeIds, WindowIds, as_numbers

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ashi.contracts.timeframe import Timeframe
    from ashi.contracts.trade import Trade

NO_LIMIT: Final = 2**62
"""More ids than there are, and later than all times, µs."""


class WindowPart(msgspec.Struct, array_like=True, gc=False):
    """What one file has of one finest window: the sums of its trades, and their ids."""

    fold: Fold
    ids: WindowIds


class FileFold(NamedTuple):
    """What one file has of a symbol.

    Attributes:
        parts: the list of WindowPart as msgpack, by open time: it is handed from process to process, and kept packed.
        kept: the trades of the windows that were to be kept; their parts are in `parts` as well.
        trades: how many were counted; `copies`: how many not, as their id had come before.
        first: the least `traded_at`, µs; `last` the greatest.
        notes: what could not be read, a sentence each.
        symbols: all that the file has trades of.
        unread: as of `FileReader`.

    """

    parts: bytes
    kept: list[Trade]
    trades: int
    copies: int
    first: int
    last: int
    notes: Sequence[str] = ()
    symbols: Collection[str] = ()
    unread: Sequence[tuple[int, int | None]] = ()


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[WindowPart])


def unpack_parts(parts: bytes) -> list[WindowPart]:
    """The parts of a FileFold."""
    return _decoder.decode(parts)


class FileFolder:
    """Takes in the trades of one file, in any order, and counts each id once within a second of its time."""

    def __init__(self, finest: Timeframe, *, until: int | None = None, keep: Collection[int] = ()) -> None:
        """`until`: trades from then on do not count, µs. `keep`: finest windows (µs) whose trades are kept as well."""
        self._length_us = finest.length_us
        self._until = NO_LIMIT if until is None else until
        self._keep = frozenset(keep)
        self._ids = TradeIds({}, finest.length_us, most=NO_LIMIT)
        self._folds: dict[int, Fold] = {}
        self._kept: list[Trade] = []
        self._trades = self._copies = 0
        self._first, self._last = NO_LIMIT, 0

    def add(self, trades: Sequence[Trade]) -> None:
        """Count trades of one symbol."""
        if self._until != NO_LIMIT:
            trades = [trade for trade in trades if trade.traded_at < self._until]
        if not trades:
            return
        numbers = as_numbers([trade.trade_id for trade in trades])
        is_new = numbers is not None and self._ids.all_new(numbers)
        if not is_new:
            admit = self._ids.admit
            given = len(trades)
            trades = [trade for trade in trades if admit(trade.trade_id, trade.traded_at)]
            self._copies += given - len(trades)
        length_us = self._length_us
        groups: dict[int, list[Trade]] = {}
        start = end = 0  # the window of the trade before: most trades fall into the same one
        group: list[Trade] = []
        for trade in trades:
            if not start <= trade.traded_at < end:
                start = trade.traded_at - trade.traded_at % length_us
                end = start + length_us
                group = groups.setdefault(start, [])
            group.append(trade)
        for start, group in groups.items():
            if is_new:
                self._ids.add_ascending(start, [int(trade.trade_id) for trade in group])
            self._add_window(start, group)
        self._trades += len(trades)

    def _add_window(self, start: int, trades: list[Trade]) -> None:
        fold = fold_trades(trades, start, 0)
        self._first, self._last = min(self._first, fold.first[0]), max(self._last, fold.last[0])
        known = self._folds.get(start)
        if known is None:
            self._folds[start] = fold
        else:
            known.merge(fold)
        if start in self._keep:
            self._kept += trades

    def finish(
        self,
        notes: Sequence[str] = (),
        symbols: Collection[str] = (),
        unread: Sequence[tuple[int, int | None]] = (),
    ) -> FileFold:
        """What it has come to; `notes`, `symbols` and `unread` as of FileFold."""
        ids = self._ids.windows
        parts = [WindowPart(self._folds[start], ids[start]) for start in sorted(self._folds)]
        return FileFold(
            _encoder.encode(parts),
            self._kept,
            self._trades,
            self._copies,
            self._first,
            self._last,
            list(notes),
            sorted(symbols),
            list(unread),
        )


def share_ids(these: WindowIds, others: WindowIds) -> bool:
    """Whether an id is in both."""
    if not these.texts.isdisjoint(others.texts):
        return True
    mine, theirs = these.numbers, others.numbers
    i = j = 0
    while i < len(mine) and j < len(theirs):
        if mine[i] < theirs[j + 1] and theirs[j] < mine[i + 1]:
            return True
        if mine[i + 1] <= theirs[j + 1]:
            i += 2
        else:
            j += 2
    return False


def holds_ids(these: WindowIds, others: WindowIds) -> bool:
    """Whether `these` has every id of `others`."""
    if not others.texts <= these.texts:
        return False
    mine, place = these.numbers, 0
    for start, end in zip(others.numbers[::2], others.numbers[1::2], strict=True):
        while place < len(mine) and mine[place + 1] < end:
            place += 2
        if place >= len(mine) or not mine[place] <= start:
            return False
    return True

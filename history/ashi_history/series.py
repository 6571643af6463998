"""From finest windows to closed candles in every timeframe, up to where the live series begins. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ashi_aggregate.core.candles import candle_of, flat_candles
from ashi_history.seam import folds_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ashi.contracts.candle import Candle
    from ashi.contracts.timeframe import Timeframe
    from ashi.contracts.trade import Trade
    from ashi_aggregate.core.fold import Fold, Rank
    from ashi_history.merge import MergedWindow
    from ashi_history.seam import LeftEdge


class Cut(NamedTuple):
    """A live candle that the edge cuts, and what files have of its window from before the edge."""

    live: Candle
    earlier: Fold


class _Series:
    """The candles of one timeframe."""

    def __init__(self, symbol: str, timeframe: Timeframe, *, max_flat: int, version: int, limit: int) -> None:
        self.timeframe = timeframe
        self.limit = limit
        self.of_cut_window: Fold | None = None
        self._symbol = symbol
        self._max_flat = max_flat
        self._version = version
        self._open: Fold | None = None

    def add(self, fold: Fold, *, after_hole: bool) -> Iterator[Candle]:
        """Take in the next finest window, and give the candles that it ends.

        `after_hole`: trades may be missing before it, so that windows without any are not known to be quiet.
        """
        open_time = self.timeframe.open_time(fold.open_time)
        if open_time > self.limit:
            return
        if self._open is not None and self._open.open_time < open_time:
            yield from self._close(self._open.open_time if after_hole else open_time)
        if open_time == self.limit:
            self.of_cut_window = _joined(self.of_cut_window, fold, open_time)
        else:
            self._open = _joined(self._open, fold, open_time)

    def close_until(self, time: int) -> Iterator[Candle]:
        """Close the windows that end by a time, µs."""
        until = self.timeframe.open_time(min(time, self.limit))
        if self._open is not None and self._open.open_time < until:
            yield from self._close(until)

    def _close(self, until: int) -> Iterator[Candle]:
        assert self._open is not None  # noqa: S101
        candle = candle_of(
            self._open,
            symbol=self._symbol,
            timeframe=str(self.timeframe),
            length_us=self.timeframe.length_us,
            version=self._version,
        )
        self._open = None
        yield candle
        yield from flat_candles(candle, candle.close_time, until, self._max_flat)


def _joined(known: Fold | None, fold: Fold, open_time: int) -> Fold:
    if known is None:
        return msgspec.structs.replace(fold, open_time=open_time)
    known.merge(fold)
    return known


class HistorySeries:
    """The candles of one symbol, made of finest windows that come oldest first.

    Attributes:
        reaches_edge: whether the files have all up to the first live trade: they hold it, or its number is the next
            one. Known when all windows are in.
        edge_time: `traded_at` of the first live trade as a file has it, µs; None where none has it.
        first: the rank of the first trade; `last` that of the last one from before the edge. None where there is none.

    """

    def __init__(
        self, symbol: str, timeframes: Sequence[Timeframe], edge: LeftEdge, *, max_flat: int, version: int
    ) -> None:
        """Make candles of this `version`."""
        self.reaches_edge = False
        self.edge_time: int | None = None
        self.first: Rank | None = None
        self.last: Rank | None = None
        self._finest = min(timeframes)
        self._edge = edge
        self._near = frozenset(edge.near())
        self._held: list[MergedWindow] = []
        self._end = 0  # the last trade of the files, also from after the edge
        self._after_hole: set[int] = set()
        self._series = [
            _Series(symbol, timeframe, max_flat=max_flat, version=version, limit=edge.limit(timeframe))
            for timeframe in timeframes
        ]

    def add(self, window: MergedWindow, *, after_hole: bool = False) -> Iterator[Candle]:
        """Take in the next finest window, and give the candles that it ends.

        `after_hole`: trades may be missing between it and the one before.
        """
        open_time = window.fold.open_time
        if after_hole:
            self._after_hole.add(open_time)
        if open_time in self._near:
            self._end = max(self._end, window.fold.last[0])
            self._held.append(window)
            return
        is_after = open_time > max(self._near)
        if is_after:
            yield from self._add_held()
        self._end = max(self._end, window.fold.last[0])
        yield from self._add(window.fold, self._whole() if is_after else self._series)
        if not is_after:
            self._note(window.fold)

    def finish(self) -> Iterator[Candle]:
        """No window follows: give the other candles, up to the edge, or to the last trade where it is not reached."""
        yield from self._add_held()
        if self.last is None:
            return
        self.reaches_edge = self.reaches_edge or self._edge.follows(self.last[2])
        for series in self._series:
            is_whole = self._edge.begins_whole(series.timeframe)
            yield from series.close_until(series.limit if self.reaches_edge and not is_whole else self._end)

    def cuts(self) -> list[Cut]:
        """When it is finished: the live candles that lack what the files have of their windows."""
        if not self.reaches_edge:
            return []
        found = []
        for series in self._series:
            live = self._edge.cut_candle(series.timeframe)
            if live is not None and series.of_cut_window is not None:
                found.append(Cut(live, series.of_cut_window))
        return found

    def _note(self, fold: Fold) -> None:
        self.first = fold.first if self.first is None else min(self.first, fold.first)
        self.last = fold.last if self.last is None else max(self.last, fold.last)

    def _whole(self) -> list[_Series]:
        """Those whose first live candle is a whole one: what is before it may be from after the edge."""
        return [series for series in self._series if self._edge.begins_whole(series.timeframe)]

    def _add(self, fold: Fold, to: Sequence[_Series]) -> Iterator[Candle]:
        for series in to:
            yield from series.add(fold, after_hole=fold.open_time in self._after_hole)

    def _add_held(self) -> Iterator[Candle]:
        """What is near the edge: to the series that it cuts only what came before the first live trade."""
        held, self._held = self._held, []
        trades: list[Trade] = [trade for window in held for trade in window.trades]
        before, first_live = self._edge.before(trades)
        if first_live is not None:
            self.reaches_edge, self.edge_time = True, first_live.traded_at
        whole = self._whole()
        for window in held:
            yield from self._add(window.fold, whole)
        for fold in folds_of(before, self._finest):
            yield from self._add(fold, [series for series in self._series if series not in whole])
            self._note(fold)

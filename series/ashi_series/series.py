"""The candles of one symbol in one timeframe, as whoever looks at a market wants them: in order, bounded, corrected."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from numbers import Integral
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, overload

from ashi.contracts.candle import Candle
from ashi.contracts.errors import ContractError, UsageError
from ashi.contracts.timeframe import Timeframe
from ashi_series.chunk import COLUMNS, Chunk, to_pandas, to_polars
from ashi_series.events import Closed, Corrected, InProgress

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import polars as pl
    from numpy.typing import NDArray

LIMIT: Final = 500
"""So many closed candles a series keeps, unless told otherwise."""

_open_time = attrgetter("open_time")
_close_time = attrgetter("close_time")
_TIMES: Final = ("open_time", "close_time")


def check_limit(limit: int) -> None:
    """Raise UsageError where a series would hold nothing."""
    if isinstance(limit, bool) or not isinstance(limit, Integral):
        raise UsageError(f"limit {limit!r} is not a whole number: a series keeps so many candles")
    if limit < 1:
        raise UsageError(f"a series of {limit} candles holds none: its limit must be at least 1")


class SeriesView(Sequence[Candle]):
    """Closed candles of one symbol in one timeframe, the oldest first; read-only.

    A view that was taken of a series never changes, whatever comes later; nor does an array that was taken of one.
    `series[-20:]` is a view again.

    Attributes:
        symbol: whose candles.
        timeframe: of which length.

    """

    __slots__ = ("_chunk", "_end", "_start", "symbol", "timeframe")

    def __init__(self, symbol: str, timeframe: Timeframe, chunk: Chunk, start: int, end: int) -> None:
        self.symbol = symbol
        self.timeframe = timeframe
        self._chunk = chunk
        self._start = start
        self._end = end

    def __len__(self) -> int:
        return self._end - self._start

    @overload
    def __getitem__(self, place: int) -> Candle: ...
    @overload
    def __getitem__(self, place: slice) -> SeriesView: ...
    def __getitem__(self, place: int | slice) -> Candle | SeriesView:
        """A candle, from 0 for the oldest or from -1 for the newest; or a view of some that stand together.

        Raises IndexError, and UsageError for a slice with a step, whose candles would not follow each other.
        """
        if isinstance(place, slice):
            start, stop, step = place.indices(len(self))
            if step != 1:
                raise UsageError(f"a series has no slice with the step {step}: its candles would not follow each other")
            return self._view(self._start + start, self._start + max(start, stop))
        length = self._end - self._start
        if not -length <= place < length:
            raise IndexError(f"the series {self.name} has {length} candles and none at {place}")
        return self._chunk.candles[place + (self._start if place >= 0 else self._end)]

    def __iter__(self) -> Iterator[Candle]:
        candles = self._chunk.candles
        return (candles[place] for place in range(self._start, self._end))

    def __repr__(self) -> str:
        ends = f" until {self[-1].close_time} µs" if self else ""
        return f"<{type(self).__name__} {self.name}: {len(self)} candles{ends}>"

    @property
    def name(self) -> str:
        """`bitflyer:BTC_JPY 1m`."""
        return f"{self.symbol} {self.timeframe}"

    @property
    def last(self) -> Candle | None:
        """The newest candle, or None where there is none."""
        return self._chunk.candles[self._end - 1] if self._end > self._start else None

    def at(self, open_time: int) -> Candle | None:
        """The candle that opened at `open_time` (µs), or None."""
        candles = self._chunk.candles
        place = bisect_left(candles, open_time, self._start, self._end, key=_open_time)
        return candles[place] if place < self._end and candles[place].open_time == open_time else None

    def until(self, close_time: int, count: int | None = None) -> SeriesView:
        """A view that ends with the last candle that closed at or before `close_time` (µs); nothing later is in it.

        `count`: with no more candles than that, the newest; None for all that are kept.
        """
        end = bisect_right(self._chunk.candles, close_time, self._start, self._end, key=_close_time)
        return self._view(self._start if count is None else max(self._start, end - max(count, 0)), end)

    def column(self, field: str) -> NDArray[np.float64] | NDArray[np.int64]:
        """One field of all candles, the oldest first, as a read-only array that never changes; see `COLUMNS`.

        Times (µs), counts and versions are int64. Prices (quote currency), volumes (base currency) and sums are float64
        and so are rounded to some 16 digits: the exact ones are in the candles. Raises UsageError for a field
        that is no column, and where NumPy is not installed.
        """
        array: NDArray[np.float64] | NDArray[np.int64] = self._chunk.column(field, self._start, self._end)
        return array

    def opens(self) -> NDArray[np.float64]:
        """The opening prices, quote currency; see `column`, as for the next four."""
        return self._chunk.column("open", self._start, self._end)  # type: ignore[no-any-return]

    def highs(self) -> NDArray[np.float64]:
        """The greatest prices, quote currency."""
        return self._chunk.column("high", self._start, self._end)  # type: ignore[no-any-return]

    def lows(self) -> NDArray[np.float64]:
        """The least prices, quote currency."""
        return self._chunk.column("low", self._start, self._end)  # type: ignore[no-any-return]

    def closes(self) -> NDArray[np.float64]:
        """The closing prices, quote currency."""
        return self._chunk.column("close", self._start, self._end)  # type: ignore[no-any-return]

    def volumes(self) -> NDArray[np.float64]:
        """The volumes, base currency."""
        return self._chunk.column("volume", self._start, self._end)  # type: ignore[no-any-return]

    def to_numpy(self) -> dict[str, NDArray[np.float64] | NDArray[np.int64]]:
        """All columns by their names; see `column`."""
        return {field: self.column(field) for field in COLUMNS}

    def to_pandas(self) -> pd.DataFrame:
        """A DataFrame of all columns, indexed by `open_time`; times are in UTC. Raises UsageError without pandas."""
        return to_pandas(self.to_numpy(), _TIMES)

    def to_polars(self) -> pl.DataFrame:
        """A DataFrame of all columns; times are in UTC. Raises UsageError without Polars."""
        frame: Any = to_polars(self.to_numpy(), _TIMES)
        return frame  # type: ignore[no-any-return]

    def _view(self, start: int, end: int) -> SeriesView:
        return SeriesView(self.symbol, self.timeframe, self._chunk, start, end)


class Series(SeriesView):
    """The series itself, which goes on: the newest closed candles, at most `limit`, and what is in progress.

    Of each window it keeps the greatest version that has come, so the order in which candles come, and how often, makes
    no difference to what it holds. Not for several threads at once.
    """

    __slots__ = ("_open", "limit")

    def __init__(self, symbol: str, timeframe: Timeframe | str, limit: int = LIMIT) -> None:
        """`limit`: so many closed candles are kept. Raises UsageError unless it is at least 1, and ContractError."""
        check_limit(limit)
        length = Timeframe.parse(timeframe) if isinstance(timeframe, str) else timeframe
        super().__init__(symbol, length, Chunk([], 2 * limit), 0, 0)
        self.limit = limit
        self._open: dict[int, Candle] = {}

    def apply(self, candle: Candle) -> Closed | Corrected | None:
        """Take a closed candle in, and tell what became of the series.

        None where nothing did: that version or a later one is known, or the candle is older than all of a full series.
        Raises ContractError for a candle of another symbol or timeframe.
        """
        self._check(candle)
        newest = self.last
        if newest is None or candle.open_time > newest.open_time:
            self._append(candle)
            if self._open:
                self._open = {time: open_ for time, open_ in self._open.items() if time > candle.open_time}
            return Closed(candle)
        candles = self._chunk.candles
        place = bisect_left(candles, candle.open_time, self._start, self._end, key=_open_time)
        known = candles[place] if candles[place].open_time == candle.open_time else None
        if known is not None and candle.version <= known.version:
            return None
        is_full = len(self) == self.limit
        if known is None and is_full and place == self._start:
            return None
        start = self._start + (known is None and is_full)  # one that comes in between takes the place of the oldest
        self._chunk = self._chunk.changed(start, place, 0 if known is None else 1, candle)
        self._start, self._end = 0, len(self._chunk.candles)
        return Corrected(candle, known)

    def update(self, candle: Candle) -> InProgress | None:
        """Take in how far the candle of an open window has come.

        None where that is no news: its window, or a later one, has closed, or that version or a later one is known.
        Raises ContractError for a candle of another symbol or timeframe.
        """
        self._check(candle)
        newest = self.last
        if newest is not None and candle.open_time <= newest.open_time:
            return None
        known = self._open.get(candle.open_time)
        if known is not None and candle.version <= known.version:
            return None
        self._open[candle.open_time] = candle
        if len(self._open) > self.limit:
            del self._open[min(self._open)]
        return InProgress(candle)

    @property
    def in_progress(self) -> Candle | None:
        """The candle of the newest open window, as far as it has come, or None."""
        return self._open[max(self._open)] if self._open else None

    def open_candles(self) -> list[Candle]:
        """The candles of all open windows, the oldest first: two where a window may still wait for late trades."""
        return [self._open[time] for time in sorted(self._open)]

    def _append(self, candle: Candle) -> None:
        if self._end == self._chunk.capacity:
            self._chunk = self._chunk.rest(self._start)
            self._start, self._end = 0, self._end - self._start
        self._chunk.candles.append(candle)
        self._end += 1
        self._start = max(self._start, self._end - self.limit)

    def _check(self, candle: Candle) -> None:
        if candle.symbol != self.symbol or candle.close_time - candle.open_time != self.timeframe.length_us:
            raise ContractError(
                f"a candle of {candle.symbol} {candle.timeframe} is not of the series {self.name}: "
                "each symbol and timeframe has a series of its own"
            )

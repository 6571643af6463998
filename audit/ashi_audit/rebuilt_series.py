"""What the candles of one series must be when all trades count, also those that came too late for the workers."""

from __future__ import annotations

from collections.abc import Iterator

from ashi.contracts.candle import Candle, make_version
from ashi_audit.recomputed import flat_candles
from ashi_audit.recount import SeriesRange


class RebuiltSeries:
    """The candles of one series, range by range."""

    def __init__(self, *, epoch: int, max_flat: int) -> None:
        """`epoch`: of the versions of these candles. `max_flat`: at most so many flat candles in a row."""
        self._epoch = epoch
        self._max_flat = max_flat
        self._carried: Candle | None = None

    def candles(self, windows: SeriesRange) -> Iterator[Candle]:
        """The candles of settled windows, oldest first; the flat ones before the first trade are not known.

        The version's offset is that of the last trade counted, and in a flat candle that of the close it carries.
        """
        next_open = windows.begin
        for window in windows.windows:
            totals = window.everything()
            if totals is None:
                continue
            yield from self._flat(next_open, window.open_time)
            self._carried = totals.candle(windows.timeframe, make_version(self._epoch, totals.offset))
            yield self._carried
            next_open = self._carried.close_time
        yield from self._flat(next_open, windows.until)

    def _flat(self, begin: int, until: int) -> Iterator[Candle]:
        if self._carried is not None:
            yield from flat_candles(self._carried, begin, until, self._max_flat)

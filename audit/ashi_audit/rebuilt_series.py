"""What the candles of one series must be when all trades count, also those that came too late for the workers."""

from __future__ import annotations

from collections.abc import Iterator

from ashi.contracts.candle import Candle, make_version
from ashi_aggregate.core.candles import candle_of, flat_candles
from ashi_audit.recount import Stretch


class Rebuild:
    """The candles of one series, stretch by stretch."""

    def __init__(self, *, epoch: int, max_flat: int) -> None:
        """`epoch`: of the versions of these candles. `max_flat`: at most so many flat candles in a row."""
        self._epoch = epoch
        self._max_flat = max_flat
        self._carried: Candle | None = None

    def candles(self, stretch: Stretch) -> Iterator[Candle]:
        """The candles of a settled stretch, oldest first; the flat ones before the first trade are not known.

        The version's offset is that of the last trade counted, and in a flat candle that of the close it carries.
        """
        length_us = stretch.timeframe.length_us
        next_open = stretch.begin
        for window in stretch.windows:
            fold = window.everything()
            if fold is None:
                continue
            yield from self._flat(next_open, window.open_time)
            self._carried = candle_of(
                fold,
                symbol=stretch.symbol,
                timeframe=str(stretch.timeframe),
                length_us=length_us,
                version=make_version(self._epoch, fold.offset),
            )
            yield self._carried
            next_open = self._carried.close_time
        yield from self._flat(next_open, stretch.until)

    def _flat(self, begin: int, until: int) -> Iterator[Candle]:
        if self._carried is not None:
            yield from flat_candles(self._carried, begin, until, self._max_flat)

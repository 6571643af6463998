"""Where what was stored and what is streamed meet: each candle in the series, each event told once. Pure.

A store lags behind the topic that it is filled from, so that what closed just now may be in neither. So the stream is
read from before the store's newest candle on, and what comes twice is told by its version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from ashi.contracts.timeframe import HOUR_US
from ashi_series.events import Corrected
from ashi_series.order import step_order

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from ashi.contracts.candle import Candle
    from ashi_series.events import Closed
    from ashi_series.store import OhlcvStore

APPENDED_BEFORE_US: Final = HOUR_US
"""A candle may have been appended so long before its window was over, µs, by the broker's clock: a venue's clock, a
worker's and the broker's need not agree. An hour of candles is soon read."""


class NewestStored(NamedTuple):
    """The newest candle of a series in a store: whose, and when it closed, µs."""

    symbol: str
    close_time: int


def read_from(
    stored: Iterable[NewestStored], symbols: Collection[str], partition_of: Callable[[str], int]
) -> int | None:
    """The time (µs) from which on topic `candles` has all candles of these symbols that a store lacks.

    `stored`: of all series in the store, of other symbols too. Of a partition the store has everything that stands
    before the newest candle it has of it, as it is filled in the topic's order. What comes after it was appended after
    that candle closed. None where nothing of a partition is stored: then the topic is to be read from its beginning.
    """
    newest: dict[int, int] = {}
    for symbol, close_time in stored:
        partition = partition_of(symbol)
        newest[partition] = max(newest.get(partition, 0), close_time)
    wanted = {partition_of(symbol) for symbol in symbols}
    return min(newest[each] for each in wanted) - APPENDED_BEFORE_US if wanted <= newest.keys() else None


class Join:
    """Fills a store's series with what was, tells what is to be told of it, and goes on with what comes.

    First `take` whatever there is, in any order and however often; then deal with `begin`; then `stream`.
    """

    def __init__(self, store: OhlcvStore, since: int | None = None) -> None:
        """`since`: what was there and closed after this time (µs) is told as well; None: only what is new."""
        self._store = store
        self._since = since
        self._to_tell: dict[tuple[str, str, int], Candle] = {}

    def take(self, candle: Candle) -> None:
        """Take in a candle that was there before the beginning."""
        if self._since is None or candle.close_time <= self._since:
            self._store.fill(candle)
            return
        key = (candle.symbol, candle.timeframe, candle.open_time)
        known = self._to_tell.get(key)
        if known is None or candle.version > known.version:
            self._to_tell[key] = candle

    def begin(self) -> Iterator[Closed | Corrected]:
        """Tell what was there and closed after `since`, as it is now: by close time, then timeframe, then symbol.

        When an event is handed out the series is as of that event.
        """
        for candle in sorted(self._to_tell.values(), key=step_order):
            del self._to_tell[candle.symbol, candle.timeframe, candle.open_time]
            event = self._store.apply(candle)
            if event is not None:
                yield event

    @property
    def is_begun(self) -> bool:
        """Whether all that was to be told of what was there has been handed out."""
        return not self._to_tell

    def stream(self, candle: Candle) -> Closed | Corrected | None:
        """Take in a candle that has come since; None where it is no news."""
        return self._store.apply(candle)

"""What there was of some series before they were looked at: from the store, and what it lacks from topic `candles`.

A store lags behind the topic that it is filled from, so the topic is read from before the store's newest candle on
(`ashi_series.join`). What comes from both, or comes from the stream meanwhile, is told by its version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from ashi.client import read_candles
from ashi_chart.series.active import PARTS

if TYPE_CHECKING:
    from collections.abc import Collection

    from ashi.client import Since, UnreadableRecord
    from ashi.contracts.candle import Candle
    from ashi.runtime.settings import Settings
    from ashi_chart.candles.rollup import Rollup
    from ashi_sinks.protocol import CandleReader

MOST_KEPT: Final = 10_000
"""So many candles of a series, the newest, are kept of what is read of the topic."""


class Source(NamedTuple):
    """A stored series."""

    symbol: str
    timeframe: str


class Parts(NamedTuple):
    """Closed candles of a source: all there are that open at or after `since`, µs; 0: the source has no older ones."""

    candles: Collection[Candle]
    since: int


async def stored_parts(reader: CandleReader, symbol: str, rollup: Rollup) -> Parts:
    """The newest candles that a store has, of whole windows. Raises StorageError."""
    wanted = max(PARTS, 2 * rollup.parts)
    candles = [candle async for candle in reader.read(symbol, str(rollup.source), limit=wanted)]
    if len(candles) < wanted:
        return Parts(candles, 0)
    since, end = rollup.window_of(candles[0].open_time)
    return Parts(candles, since if since == candles[0].open_time else end)


class Streamed:
    """Closed candles of some series as the topic has them, the greatest version of each."""

    def __init__(self, sources: Collection[Source]) -> None:
        self._found: dict[Source, dict[int, Candle]] = {source: {} for source in sources}
        self._trimmed: set[Source] = set()

    async def read(self, settings: Settings, since: Since) -> None:
        """Read the topic from `since` up to its end as of now.

        Raises BrokerError, and StateError where its records are gone before they are read.
        """
        reader = read_candles(
            settings,
            symbols={source.symbol for source in self._found},
            timeframes={source.timeframe for source in self._found},
            since=since,
            follow=False,
            on_unreadable=_pass_over,
            remember=1,
        )
        async with reader:
            async for candle in reader:
                self.take(candle)

    def take(self, candle: Candle) -> None:
        """Take in a candle, if it is of one of the series."""
        source = Source(candle.symbol, candle.timeframe)
        found = self._found.get(source)
        if found is None:
            return
        known = found.get(candle.open_time)
        if known is None or candle.version > known.version:
            found[candle.open_time] = candle
            if len(found) > MOST_KEPT + MOST_KEPT // 5:
                self._found[source] = {time: found[time] for time in sorted(found)[-MOST_KEPT:]}
                self._trimmed.add(source)

    def candles(self, source: Source) -> Collection[Candle]:
        """Those of one series."""
        return self._found[source].values()

    def first(self, source: Source) -> int:
        """From when on all are here that were read, µs; 0: all are."""
        return min(self._found[source]) if source in self._trimmed else 0


def _pass_over(_: UnreadableRecord) -> None:
    """The hub has told of it, or another process when it came: it is no candle, and none is missing for it."""

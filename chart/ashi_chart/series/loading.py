"""Loads series: what the store has of them, and what it lacks from the topic; as much as can be had."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import BrokerError, BrokerUnreachableError, StateError, StorageError
from ashi.contracts.timeframe import HOUR_US, format_time
from ashi.runtime.wall_clock import now_us
from ashi_chart.series.active import PARTS
from ashi_chart.series.catch_up import Parts, Source, Streamed, stored_parts
from ashi_series.warm import lacking_from
from ashi_sinks.joined import WithVenueCandles

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ashi.contracts.feed import FeedGap
    from ashi.runtime.settings import Settings
    from ashi_chart.series.active import ActiveSeries
    from ashi_chart.series.store import ChartStore
    from ashi_sinks.protocol import CandleReader, SeriesSpan

PATIENCE_S: Final = 2.0
"""What the store has is shown after so long, if reading the topic takes longer."""
WITHOUT_STORE_US: Final = 6 * HOUR_US
"""Of so much time, µs, the candles are read of the topic where the store cannot be read."""


class Loader:
    """Loads series that are looked at.

    Attributes:
        can_read_topic: set while Kafka answers; else it is not asked, as that would take half a minute.

    """

    def __init__(self, settings: Settings, store: ChartStore, take_gap: Callable[[FeedGap], None]) -> None:
        """`take_gap`: is told of the gaps that the store knows; topic `feed.gaps` has them for some time only."""
        self._settings = settings
        self._store = store
        self._take_gap = take_gap
        self.can_read_topic = asyncio.Event()

    async def load(self, wanted: Sequence[ActiveSeries]) -> str | None:
        """Load them as far as may be; what is lacking then, None: nothing."""
        stored: dict[ActiveSeries, Parts] = {}
        spans: Sequence[SeriesSpan] = ()
        trouble: str | None = None
        try:
            found = await asyncio.gather(*(self._store.ask(partial(_stored, series)) for series in wanted))
            spans = await self._store.spans()
            for series, (parts, gaps) in zip(wanted, found, strict=True):
                stored[series] = parts
                for gap in gaps:
                    self._take_gap(gap)
        except StorageError as error:
            trouble = f"older bars cannot be had: {error}"
            if all(series.is_loaded for series in wanted):
                return trouble  # of the topic there is nothing new
        try:
            streamed, since = await self._read_topic(wanted, stored, spans)
        except (BrokerError, StateError) as error:
            sentence = f"the newest bars are lacking: {error}"
            for series, parts in stored.items():
                if not series.is_loaded:
                    series.load(parts.candles, parts.since, sentence)
            return trouble or sentence
        for series in wanted:
            lacking = self._join(series, stored.get(series), streamed, since, trouble)
            trouble = trouble or lacking
            await asyncio.sleep(0)  # a longer one takes a second of ten, and there may be a hundred
        return trouble

    async def _read_topic(
        self, wanted: Sequence[ActiveSeries], stored: Mapping[ActiveSeries, Parts], spans: Sequence[SeriesSpan]
    ) -> tuple[Streamed, int]:
        """What topic `candles` has that the store may lack, and from when on (µs; 0: from the beginning).

        Where that takes long, what the store has is shown meanwhile. Raises BrokerError and StateError.
        """
        try:
            async with asyncio.timeout(PATIENCE_S):  # as a rule it is the start, and Kafka there in a moment
                await self.can_read_topic.wait()
        except TimeoutError:
            raise BrokerUnreachableError("Kafka cannot be read") from None
        if stored:
            since = await lacking_from(self._settings, spans, {series.key.symbol for series in wanted}) or 0
        else:
            since = now_us() - WITHOUT_STORE_US
        streamed = Streamed({source_of(series) for series in wanted})
        reading = asyncio.create_task(streamed.read(self._settings, since or "beginning"))
        try:
            await asyncio.wait({reading}, timeout=PATIENCE_S)
            if not reading.done():
                for series, parts in stored.items():
                    if not series.is_loaded:
                        series.load(parts.candles, parts.since, "the newest bars are still being read from Kafka")
            await reading
        finally:
            reading.cancel()
        return streamed, since

    @staticmethod
    def _join(
        series: ActiveSeries, stored: Parts | None, streamed: Streamed, since: int, trouble: str | None
    ) -> str | None:
        """Load a series with what the store and the topic have; what is lacking between the two, None: nothing."""
        candles, first = streamed.candles(source_of(series)), streamed.first(source_of(series))
        if stored is None:
            # Whatever opened after that time was appended after it, too.
            series.load(candles, series.rollup.window_of(max(first, since) - 1)[1], trouble)
            return None
        begin = stored.since
        if first:
            begin = max(begin, series.rollup.window_of(first - 1)[1])
            until = max((candle.close_time for candle in stored.candles), default=0)
            if until < begin:
                trouble = f"bars from {format_time(until)} to {format_time(begin)} are lacking: the store lags behind"
        series.load([*stored.candles, *candles], begin, trouble, keep=len(candles) + PARTS)
        return trouble


async def _stored(series: ActiveSeries, reader: CandleReader) -> tuple[Parts, list[FeedGap]]:
    """The newest parts, and the gaps for which trades may be missing."""
    gaps = await reader.gaps(series.key.symbol)
    parts = await stored_parts(WithVenueCandles(reader), series.key.symbol, series.rollup)
    return parts, [gap for gap in gaps if gap.state != "repaired"]


def source_of(series: ActiveSeries) -> Source:
    """The stored series that it is made of."""
    return Source(series.key.symbol, str(series.rollup.source))

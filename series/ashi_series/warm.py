"""What a store of Ashi's sinks has of some series: the newest candles, and from when on the topic has the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ashi.contracts.timeframe import Timeframe
from ashi.contracts.topics import CANDLES
from ashi.runtime.kafka.connections.clients import partition_of, partitions_of
from ashi_series.join import NewestStored, read_from

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable

    from ashi.contracts.candle import Candle
    from ashi.runtime.settings import Settings
    from ashi_sinks.protocol import CandleReader, SeriesSpan


async def lacking_from(settings: Settings, spans: Iterable[SeriesSpan], symbols: Collection[str]) -> int | None:
    """From when on, µs, topic `candles` has what a store with these series lacks; None: from its beginning.

    `spans`: of all series in the store. See `ashi_series.join.read_from`. Raises BrokerError without Kafka or topic.
    """
    number = len(await partitions_of(settings, CANDLES))
    stored = [NewestStored(span.symbol, span.last + Timeframe.parse(span.timeframe).length_us) for span in spans]
    return read_from(stored, symbols, lambda symbol: partition_of(symbol.encode(), number))


class WarmStore:
    """A store as whoever begins to follow series wants it; an asynchronous context, open within."""

    def __init__(self, url: str) -> None:
        """Raises UsageError for a URL of no store."""
        from ashi_sinks.registry import open_reader, store_name

        store_name(url)
        self._opening = open_reader(url)
        self._reader: CandleReader | None = None

    async def __aenter__(self) -> WarmStore:
        """Raises StorageError where there is no store of candles, UsageError where what reads it is not installed."""
        self._reader = await self._opening.__aenter__()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._opening.__aexit__(None, None, None)

    async def read_from(self, settings: Settings, symbols: Collection[str]) -> int | None:
        """See `lacking_from`. Raises StorageError, and BrokerError without Kafka or the topic."""
        return await lacking_from(settings, await self._open_reader.spans(), symbols)

    async def candles(self, symbol: str, timeframe: Timeframe, limit: int, since: int | None) -> AsyncIterator[Candle]:
        """The newest candles of a series, `limit` of those that closed by `since` (µs) and all that closed later.

        Without `since`: the newest `limit`. Raises StorageError.
        """
        reader, name = self._open_reader, str(timeframe)
        # It bounds the open times: the first that is not to be in the one part begins the other.
        later = None if since is None else since - timeframe.length_us + 1
        async for candle in reader.read(symbol, name, end=later, limit=limit):
            yield candle
        if later is not None:
            async for candle in reader.read(symbol, name, start=later):
                yield candle

    @property
    def _open_reader(self) -> CandleReader:
        assert self._reader is not None, "not within `async with`"  # noqa: S101
        return self._reader

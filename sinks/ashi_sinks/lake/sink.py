"""The lake: Delta tables in a folder or on S3, that DuckDB, Polars and Spark read without Ashi.

A batch is one merge guarded by version, that is one entry of the table's log: there as a whole or not at all, and a
batch that is written again changes nothing. `tables` has the tables, `delta` how they change.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from ashi_sinks.lake.delta import DeltaTable
from ashi_sinks.lake.location import NAME
from ashi_sinks.lake.tables import (
    CANDLES,
    FEED_GAPS,
    FEED_STATUS,
    VENUE_CANDLES,
    candle_columns,
    gap_columns,
    status_columns,
    venue_candle_columns,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashi.contracts.candle import Candle
    from ashi.contracts.feed import FeedGap, FeedStatus
    from ashi.contracts.venue_candle import VenueCandle
    from ashi_sinks.lake.location import Lake
    from ashi_sinks.protocol import TableName


class LakeSink:
    """Writes candles and what is said of feeds to a lake; see `ashi_sinks.protocol.Sink`."""

    name: Final = NAME

    def __init__(self, lake: Lake) -> None:
        self._candles = DeltaTable(lake, CANDLES)
        self._gaps = DeltaTable(lake, FEED_GAPS)
        self._statuses = DeltaTable(lake, FEED_STATUS)
        self._venue_candles = DeltaTable(lake, VENUE_CANDLES)
        self._has_venue_candles = False

    async def open(self) -> bool:
        """Open the tables, or make them. See `Sink.open`."""
        return await asyncio.to_thread(self._open)

    def _open(self) -> bool:
        self._gaps.open_or_make()
        self._statuses.open_or_make()
        self._candles.open_or_make()
        return not self._candles.now.file_uris()

    async def write(self, candles: Sequence[Candle]) -> int:
        """Merge the batch in one commit. See `Sink.write`."""
        return await asyncio.to_thread(self._write, candles)

    def _write(self, candles: Sequence[Candle]) -> int:
        return self._candles.merge(candle_columns(candles)) if candles else 0

    async def write_gaps(self, gaps: Sequence[FeedGap]) -> int:
        """Merge the batch in one commit. See `Sink.write_gaps`."""
        return await asyncio.to_thread(self._write_gaps, gaps)

    def _write_gaps(self, gaps: Sequence[FeedGap]) -> int:
        return self._gaps.merge(gap_columns(gaps)) if gaps else 0

    async def write_statuses(self, statuses: Sequence[FeedStatus]) -> int:
        """Merge the batch in one commit. See `Sink.write_statuses`."""
        return await asyncio.to_thread(self._write_statuses, statuses)

    def _write_statuses(self, statuses: Sequence[FeedStatus]) -> int:
        return self._statuses.merge(status_columns(statuses)) if statuses else 0

    async def write_venue_candles(self, candles: Sequence[VenueCandle]) -> int:
        """Merge the batch in one commit; the table is made with the first one. See `Sink.write_venue_candles`."""
        return await asyncio.to_thread(self._write_venue_candles, candles)

    def _write_venue_candles(self, candles: Sequence[VenueCandle]) -> int:
        if not candles:
            return 0
        if not self._has_venue_candles:
            self._venue_candles.open_or_make()
            self._has_venue_candles = True
        return self._venue_candles.merge(venue_candle_columns(candles))

    async def look(self, table: TableName) -> None:
        """See whether a table is still what was written to. See `Sink.look`."""
        tables = {"candles": self._candles, "feed_gaps": self._gaps, "feed_status": self._statuses}
        await asyncio.to_thread(tables[table].look)

    async def close(self) -> None:
        """Let go of the tables. See `Sink.close`."""
        self._statuses.close()
        self._venue_candles.close()
        self._has_venue_candles = False
        self._candles.close()
        self._gaps.close()

"""Reads candles and what is said of feeds from a lake, while workers write. What writes them is in `sink`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ashi.contracts.candle import Candle
from ashi.contracts.feed import FeedGap, FeedStatus
from ashi.contracts.timeframe import DAY_US
from ashi.contracts.venue_candle import VenueCandle
from ashi_sinks.lake.delta import DeltaTable
from ashi_sinks.lake.query import Snapshot
from ashi_sinks.lake.tables import (
    CANDLES,
    FEED_GAPS,
    FEED_STATUS,
    VENUE_CANDLES,
    day_literal,
    text_literal,
    venue_of,
)
from ashi_sinks.protocol import STATUS_FIELDS, SeriesSpan, by_symbol_and_length
from ashi_sinks.rows import candle_from, message_from

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from ashi_sinks.lake.location import Lake

_CANDLE: Final = CANDLES.select(Candle.__struct_fields__)
_VENUE_CANDLE: Final = VENUE_CANDLES.select(VenueCandle.__struct_fields__)
_STATUS: Final = FEED_STATUS.select(STATUS_FIELDS)

_Message = TypeVar("_Message", FeedGap, FeedStatus)

DAYS_AT_ONCE: Final = 32
"""A long series is read so many days after another, so that it need not fit into memory."""


class LakeReader:
    """Reads a lake and never changes it; see `ashi_sinks.protocol.CandleReader`."""

    def __init__(self, lake: Lake) -> None:
        self._candles = DeltaTable(lake, CANDLES)
        self._gaps = DeltaTable(lake, FEED_GAPS)
        self._statuses = DeltaTable(lake, FEED_STATUS)
        self._venue_candles = DeltaTable(lake, VENUE_CANDLES)
        self._has_statuses = False
        self._has_venue_candles = False

    async def open(self) -> None:
        """Open the tables. See `CandleReader.open`."""
        await asyncio.to_thread(self._candles.open)
        await asyncio.to_thread(self._gaps.open)
        # A lake made before statuses were kept gets them from the next worker.
        self._has_statuses = await asyncio.to_thread(_open_if_there, self._statuses)
        self._has_venue_candles = await asyncio.to_thread(_open_if_there, self._venue_candles)

    async def read(
        self, symbol: str, timeframe: str, start: int | None = None, end: int | None = None, limit: int | None = None
    ) -> AsyncIterator[Candle]:
        """The candles of one series; see `CandleReader.read`. Raises StorageError.

        All of it is of one state of the table, read partition after partition.
        """
        async for row in self._series(self._candles, _CANDLE, (symbol, timeframe), (start, end), limit):
            yield candle_from(Candle, row, where=self._candles.where, table=CANDLES.name)

    async def venue_candles(
        self, symbol: str, timeframe: str, start: int | None = None, end: int | None = None, limit: int | None = None
    ) -> AsyncIterator[VenueCandle]:
        """The venue's own candles of one series; see `CandleReader.venue_candles`. Raises StorageError."""
        if not self._has_venue_candles:
            return
        async for row in self._series(self._venue_candles, _VENUE_CANDLE, (symbol, timeframe), (start, end), limit):
            yield candle_from(VenueCandle, row, where=self._venue_candles.where, table=VENUE_CANDLES.name)

    async def venue_spans(self) -> list[SeriesSpan]:
        """Each series of a venue's own; see `CandleReader.venue_spans`. Raises StorageError."""
        return await self._spans(self._venue_candles) if self._has_venue_candles else []

    async def _series(
        self,
        table: DeltaTable,
        columns: str,
        series: tuple[str, str],
        bounds: tuple[int | None, int | None],
        limit: int | None,
    ) -> AsyncIterator[tuple[Any, ...]]:
        """The rows of one series, symbol and timeframe, of one state of the table."""
        (symbol, timeframe), (start, end) = series, bounds
        snapshot = await asyncio.to_thread(Snapshot, table)
        venue = venue_of(symbol)
        days = snapshot.days(
            {"venue": venue, "timeframe": timeframe},
            None if start is None else start // DAY_US,
            None if end is None else end // DAY_US,
        )
        within = f"venue = {text_literal(venue)} AND timeframe = {text_literal(timeframe)}"
        within += f" AND symbol = {text_literal(symbol)}{_bounds('open_time', start, end)}"
        select = f"SELECT {columns} FROM {table.table.name} WHERE {within} AND day IN"  # noqa: S608
        if limit is None:
            for first in range(0, len(days), DAYS_AT_ONCE):
                batch_of_days = days[first : first + DAYS_AT_ONCE]
                for row in await asyncio.to_thread(snapshot.rows, f"{select} ({_days(batch_of_days)}) ORDER BY 3"):
                    yield row
            return
        for row in await asyncio.to_thread(_latest, snapshot, select, days, limit):
            yield row

    async def spans(self) -> list[SeriesSpan]:
        """Each series in the table; see `CandleReader.spans`. Raises StorageError."""
        return await self._spans(self._candles)

    async def _spans(self, table: DeltaTable) -> list[SeriesSpan]:
        bounds = "CAST(min(open_time) AS BIGINT), CAST(max(open_time) AS BIGINT)"
        query = f"SELECT symbol, timeframe, {bounds} FROM {table.table.name} GROUP BY 1, 2"  # noqa: S608
        found = await asyncio.to_thread(lambda: Snapshot(table).rows(query))
        return by_symbol_and_length(SeriesSpan(*row) for row in found)

    async def count(self, symbol: str | None = None, timeframe: str | None = None) -> int:
        """The number of rows; see `CandleReader.count`. Raises StorageError."""
        conditions = ["true"]
        if symbol is not None:
            conditions.append(f"venue = {text_literal(venue_of(symbol))} AND symbol = {text_literal(symbol)}")
        if timeframe is not None:
            conditions.append(f"timeframe = {text_literal(timeframe)}")
        [[rows]] = await self._query(f"SELECT count(*) FROM candles WHERE {' AND '.join(conditions)}")  # noqa: S608
        return int(rows)

    async def greatest_version(self) -> int | None:
        """See `CandleReader.greatest_version`. Raises StorageError."""
        [[version]] = await self._query("SELECT max(version) FROM candles")
        return None if version is None else int(version)

    async def _query(self, query: str) -> list[tuple[Any, ...]]:
        return await asyncio.to_thread(lambda: Snapshot(self._candles).rows(query))

    async def gaps(self, symbol: str, start: int | None = None, end: int | None = None) -> list[FeedGap]:
        """The gaps that overlap a time; see `CandleReader.gaps`. Raises StorageError."""
        conditions = [f"symbol = {text_literal(symbol)}"]
        if end is not None:
            conditions.append(f"CAST(from_time AS BIGINT) < {end}")
        if start is not None:  # as `ashi.contracts.feed.overlaps`
            least = "greatest(CAST(to_time AS BIGINT), CAST(from_time AS BIGINT) + 1)"
            conditions.append(f"(to_time IS NULL OR {least} > {start})")
        fields = [name for name in FeedGap.__struct_fields__ if name not in self._gaps.lacking]
        columns = FEED_GAPS.select(fields)
        query = f"SELECT {columns} FROM feed_gaps WHERE {' AND '.join(conditions)} ORDER BY 2"  # noqa: S608
        rows = await asyncio.to_thread(lambda: Snapshot(self._gaps).rows(query))
        found = [dict(zip(fields, row, strict=True)) for row in rows]
        # NULL in rows of a version that did not have it.
        return [self._message(self._gaps, row | {"final": bool(row.get("final"))}, FeedGap) for row in found]

    async def status(self, symbol: str) -> FeedStatus | None:
        """How the feed was when it was said last; see `CandleReader.status`. Raises StorageError."""
        return next(iter(await self._read_statuses(f" WHERE symbol = {text_literal(symbol)}")), None)

    async def statuses(self) -> list[FeedStatus]:
        """How all feeds were; see `CandleReader.statuses`. Raises StorageError."""
        return await self._read_statuses("")

    async def _read_statuses(self, where: str) -> list[FeedStatus]:
        if not self._has_statuses:
            return []
        query = f"SELECT {_STATUS} FROM feed_status{where}"  # noqa: S608
        rows = await asyncio.to_thread(lambda: Snapshot(self._statuses).rows(query))
        return [self._message(self._statuses, dict(zip(STATUS_FIELDS, row, strict=True)), FeedStatus) for row in rows]

    async def close(self) -> None:
        """Let go of the tables. See `CandleReader.close`."""
        self._candles.close()
        self._gaps.close()
        self._statuses.close()
        self._venue_candles.close()

    def _message(self, table: DeltaTable, row: dict[str, Any], message: type[_Message]) -> _Message:
        return message_from(message, row, where=table.where, table=table.table.name, key=table.table.key)


def _open_if_there(table: DeltaTable) -> bool:
    if not table.exists():
        return False
    table.open()
    return True


def _latest(snapshot: Snapshot, select: str, days: Sequence[int], limit: int) -> list[tuple[Any, ...]]:
    """The last `limit` rows, in order, from the latest days that hold so many."""
    rows: list[tuple[Any, ...]] = []
    end, width = len(days), 1
    while end > 0 and len(rows) < limit:
        batch_of_days = days[max(end - width, 0) : end]
        rows += snapshot.rows(f"{select} ({_days(batch_of_days)}) ORDER BY 3 DESC LIMIT {limit - len(rows)}")
        end, width = end - len(batch_of_days), 2 * width
    return rows[::-1]


def _bounds(column: str, start: int | None, end: int | None) -> str:
    bounds = "" if start is None else f" AND CAST({column} AS BIGINT) >= {start}"
    return bounds if end is None else f"{bounds} AND CAST({column} AS BIGINT) < {end}"


def _days(days: Sequence[int]) -> str:
    return ", ".join(map(day_literal, days))

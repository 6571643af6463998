"""The table `trades`: topic `trades` beyond its retention, so that candles can be verified and made anew from it.

A record of the topic is one row, and never two: with the rows of a batch the table notes, for each partition, the
offset of the last one (`txn` in https://github.com/delta-io/delta/blob/master/PROTOCOL.md). A batch that comes again is
left out up to there, and of two workers that hold the same partition for a moment one finds that the other was faster.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ashi.contracts.decimals import parse_decimal
from ashi.contracts.errors import ContractError, StorageError
from ashi.contracts.timeframe import DAY_US
from ashi.contracts.trade import MAX_AHEAD_US, Trade
from ashi_sinks.lake.delta import DeltaTable
from ashi_sinks.lake.driver import delta
from ashi_sinks.lake.query import Snapshot
from ashi_sinks.lake.tables import TRADES, StoredTrade, day_literal, text_literal, trade_columns, venue_of
from ashi_sinks.protocol import RowsLostError
from ashi_sinks.rows import changed_by_hand

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

    from ashi_sinks.lake.location import Lake

CELL_US: Final = 600_000_000
"""Trades are counted in cells of so much time before they are read, see `LakeTrades.spans`."""
TRADES_AT_ONCE: Final = 100_000
"""So many trades of a symbol are read, and in memory, at once; those of a single cell always."""
_TRADE: Final = TRADES.select(Trade.__struct_fields__)
_DAYS_AT_ONCE: Final = 31
"""Records are counted of so many days in one query."""


def _condition(symbol: str, start: int, end: int, days: Sequence[int]) -> str:
    """The condition of a symbol's records of a time, µs. It names the days, so that no other partition is read."""
    return (
        f"venue = {text_literal(symbol.partition(':')[0])} "
        f"AND day BETWEEN {day_literal(days[0])} AND {day_literal(days[-1])} AND symbol = {text_literal(symbol)} "
        f"AND CAST(traded_at AS BIGINT) >= {start} AND CAST(traded_at AS BIGINT) < {end}"
    )


@contextmanager
def _trades_lost() -> Iterator[None]:
    """The table notes what it has stored, so that nothing lost would come again from the topic."""
    try:
        yield
    except RowsLostError as error:
        raise StorageError(
            f"{error}: take that back (RESTORE), or name another lake, which is filled from the topic"
        ) from error


def progress_key(partition: int) -> str:
    """The name under which the table notes how far a partition of the topic has been stored."""
    return f"ashi-trades-{partition}"


class LakeTrades:
    """Keeps and reads trades in a lake."""

    def __init__(self, lake: Lake) -> None:
        self._table = DeltaTable(lake, TRADES)
        self._noted: dict[int, int | None] = {}
        self._noted_in: int | None = None

    async def open_or_make(self) -> None:
        """Open the table, or make it where there is nothing. Raises StorageError; RetryableError when S3 is away."""
        await asyncio.to_thread(self._table.open_or_make)

    async def open(self) -> None:
        """Open the table to read it. Raises StorageError when there is none."""
        await asyncio.to_thread(self._table.open)

    async def stored(self, partitions: Iterable[int]) -> dict[int, int]:
        """The offset of the last record that is stored of each partition; without those of which there is none."""
        noted = await asyncio.to_thread(lambda: self._look_up(self._table.refresh(), partitions))
        return {partition: offset for partition, offset in noted.items() if offset is not None}

    async def holds(self, row: StoredTrade) -> bool:
        """Whether this record is stored, the same trade at the same place. Raises StorageError."""
        time_us = row.trade.traded_at
        found = [each async for each in self.read(row.trade.symbol, time_us, time_us + 1)]
        return row in found

    async def write(self, trades: Sequence[StoredTrade]) -> int:
        """Store the records that are not stored yet, all or none, durably; how many they were.

        `trades` has the records of a partition in the order of their offsets. Raises RetryableError and StorageError.
        """
        with _trades_lost():
            return await asyncio.to_thread(self._write, trades)

    async def look(self) -> None:
        """See whether the table is still what was written to. Raises RetryableError and StorageError."""
        with _trades_lost():
            await asyncio.to_thread(self._table.look)

    def _write(self, trades: Sequence[StoredTrade]) -> int:
        partitions = {row.partition for row in trades}

        def change(table: delta.DeltaTable) -> int:
            stored, before = self._look_up(table, partitions), table.version()
            new = [row for row in trades if (last := stored[row.partition]) is None or row.offset > last]
            if not new:
                return 0
            reached = {row.partition: row.offset for row in new}
            notes = [delta.Transaction(progress_key(partition), offset) for partition, offset in reached.items()]
            delta.write_deltalake(
                table,
                self._table.rows(trade_columns(new)),
                mode="append",
                commit_properties=delta.CommitProperties(app_transactions=notes),
            )
            if table.version() != before + 1:  # others wrote in between: not these partitions, but perhaps others
                self._noted.clear()
            self._noted.update(reached)
            self._noted_in = table.version()
            return len(new)

        return self._table.commit(change)

    def _look_up(self, table: delta.DeltaTable, partitions: Iterable[int]) -> dict[int, int | None]:
        """What the table notes of the partitions. Kept while the table stays, as to look it up is to read the log."""
        if self._noted_in != table.version():
            self._noted, self._noted_in = {}, table.version()
        for partition in partitions:
            if partition not in self._noted:
                self._noted[partition] = table.transaction_version(progress_key(partition))
        return {partition: self._noted[partition] for partition in partitions}

    async def symbols(self) -> list[str]:
        """The symbols there are trades of. Raises StorageError."""
        found = await asyncio.to_thread(lambda: Snapshot(self._table).rows("SELECT DISTINCT symbol FROM trades"))
        return sorted(symbol for (symbol,) in found)

    async def snapshot(self) -> Snapshot:
        """The table as it is now, to read more than once from. Raises StorageError."""
        return await asyncio.to_thread(Snapshot, self._table)

    async def counts(
        self, snapshot: Snapshot, symbol: str, start: int, end: int, cell_us: int
    ) -> AsyncIterator[tuple[int, int]]:
        """How many records of a symbol there are in each cell of so much time that has some, by `traded_at`.

        Gives (begin of the cell, records) from `start` to `end` (exclusive), in order; times are in µs, and cells begin
        at multiples of `cell_us`. Only days that the table has cost anything. Raises StorageError.
        """
        days = snapshot.days({"venue": venue_of(symbol)}, start // DAY_US, (end - 1) // DAY_US)
        for place in range(0, len(days), _DAYS_AT_ONCE):
            batch_of_days = days[place : place + _DAYS_AT_ONCE]
            query = (
                f"SELECT CAST(traded_at AS BIGINT) / {cell_us} AS cell, COUNT(*) FROM trades "  # noqa: S608
                f"WHERE {_condition(symbol, start, end, batch_of_days)} GROUP BY cell ORDER BY cell"
            )
            for cell, count in await asyncio.to_thread(snapshot.rows, query):
                yield cell * cell_us, count

    async def spans(self, snapshot: Snapshot, symbol: str, start: int, end: int) -> AsyncIterator[tuple[int, int]]:
        """Times from `start` to `end` (exclusive), one after the other, with `TRADES_AT_ONCE` records in each.

        Gives (begin, end) of each, µs: of times that have records, so that a symbol's can be read in pieces that fit
        into memory. Raises StorageError.
        """
        async for span in self.counted_spans(snapshot, symbol, start, end):
            yield span[:2]

    async def counted_spans(
        self,
        snapshot: Snapshot,
        symbol: str,
        start: int,
        end: int,
        *,
        cell_us: int = CELL_US,
        at_once: int | None = None,
    ) -> AsyncIterator[tuple[int, int, int]]:
        """The same and how many records each has; of cells of another length, and with more `at_once`."""
        most = TRADES_AT_ONCE if at_once is None else at_once
        begin = until = held = 0
        async for cell, count in self.counts(snapshot, symbol, start, end, cell_us):
            if until and held + count > most:
                yield begin, min(until, end), held
                until = held = 0
            if not until:
                begin = max(cell, start)
            until, held = cell + cell_us, held + count
        if until:
            yield begin, min(until, end), held

    def columns(self, snapshot: Snapshot, symbol: str, start: int, end: int, *, names: Sequence[str]) -> Iterator[Any]:
        """Columns of the records of a symbol and a time [`start`, `end`), µs, in no order: Arrow's, some at a time.

        Times are integers, µs. It is to be gone through in a thread of its own. Raises StorageError.
        """
        days = snapshot.days({"venue": venue_of(symbol)}, start // DAY_US, (end - 1) // DAY_US)
        if not days:
            return iter(())
        return snapshot.columns(
            f"SELECT {TRADES.select(names)} FROM trades WHERE {_condition(symbol, start, end, days)}"  # noqa: S608
        )

    async def first(
        self, snapshot: Snapshot, symbol: str, start: int, end: int
    ) -> tuple[int, int, frozenset[int]] | None:
        """Of the records of a symbol in a time: the least `traded_at`, the least `received_at`, and the partitions.

        None when there are none. Raises StorageError.
        """
        days = snapshot.days({"venue": venue_of(symbol)}, start // DAY_US, (end - 1) // DAY_US)
        if not days:
            return None
        query = (
            "SELECT kafka_partition, MIN(CAST(traded_at AS BIGINT)), MIN(CAST(received_at AS BIGINT)) "  # noqa: S608
            f"FROM trades WHERE {_condition(symbol, start, end, days)} GROUP BY kafka_partition"
        )
        found = await asyncio.to_thread(snapshot.rows, query)
        if not found:
            return None
        partitions, traded, received = zip(*found, strict=True)
        return min(traded), min(received), frozenset(partitions)

    async def begins(self, snapshot: Snapshot, partition: int) -> bool:
        """Whether the first record that the partition of the topic ever had is stored. Raises StorageError."""
        query = f"SELECT 1 FROM trades WHERE kafka_partition = {partition} AND kafka_offset = 0 LIMIT 1"  # noqa: S608
        return bool(await asyncio.to_thread(snapshot.rows, query))

    async def ends(self, snapshot: Snapshot) -> dict[int, int]:
        """Of each partition of the topic the offset after the last record that is stored. Raises StorageError."""
        query = "SELECT kafka_partition, MAX(kafka_offset) FROM trades GROUP BY 1"
        return {number: last + 1 for number, last in await asyncio.to_thread(snapshot.rows, query)}

    async def missing_until(self, snapshot: Snapshot) -> int:
        """No trade that the topic had and the table has not from its beginnings on is stamped later, µs; 0: it has all.

        Raises StorageError.
        """
        query = (
            "SELECT kafka_offset, CAST(received_at AS BIGINT) FROM trades JOIN (SELECT kafka_partition AS number, "
            "MIN(kafka_offset) AS least FROM trades GROUP BY 1) ON kafka_partition = number AND kafka_offset = least"
        )
        found = await asyncio.to_thread(snapshot.rows, query)
        return max((received_at + MAX_AHEAD_US for offset, received_at in found if offset), default=0)

    async def read(
        self, symbol: str, start: int, end: int, snapshot: Snapshot | None = None
    ) -> AsyncIterator[StoredTrade]:
        """The records of a symbol whose `traded_at` is from `start` (inclusive) to `end` (exclusive), µs.

        They come in the order of the topic and as often as they are in it: an ingest that was restarted may have
        published a trade twice. Of a `snapshot`, or of the table as it is now. Raises StorageError.
        """
        if snapshot is None:
            snapshot = await self.snapshot()
        days = snapshot.days({"venue": venue_of(symbol)}, start // DAY_US, end // DAY_US)
        if not days:
            return
        batches = snapshot.batches(
            f"SELECT kafka_partition, kafka_offset, {_TRADE} FROM trades "  # noqa: S608
            f"WHERE {_condition(symbol, start, end, days)} ORDER BY kafka_partition, kafka_offset"
        )
        while (batch := await asyncio.to_thread(next, batches, None)) is not None:
            for partition, offset, *row in batch:
                yield StoredTrade(partition, offset, self._trade(row))

    def _trade(self, row: Sequence[Any]) -> Trade:
        fields = dict(zip(Trade.__struct_fields__, row, strict=True))
        try:
            for name in ("price", "size"):
                fields[name] = parse_decimal(name, fields[name])
            return msgspec.convert(fields, Trade)
        except (ContractError, msgspec.ValidationError) as error:
            key = fields["symbol"], fields["trade_id"]
            raise changed_by_hand(self._table.where, self._table.table.name, key, error) from error

    async def close(self) -> None:
        """Let go of the table."""
        self._table.close()

"""Trades of a lake as something that can be counted again: also those that topic `trades` no longer has."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias

from ashi.contracts.errors import UsageError
from ashi.contracts.timeframe import Timeframe, format_time
from ashi.contracts.trade import MAX_AHEAD_US
from ashi.runtime.kafka.connections.clients import partition_of
from ashi.runtime.wall_clock import now_us
from ashi_audit.rules import COPIES_APART_US, rules_of_epoch
from ashi_audit.sources.base import MARGIN_US, AddedUp, SourcePart, TradeBatch
from ashi_audit.sources.topic import appended_from, not_durable, read_letters

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
    from typing import Any

    from ashi.contracts.trade import Trade
    from ashi.runtime.settings import Settings
    from ashi_aggregate.epoch import Epoch
    from ashi_sinks.lake.query import Snapshot
    from ashi_sinks.lake.tables import StoredTrade
    from ashi_sinks.lake.trades import LakeTrades

TRADES_OF_BATCH: Final = 5_000
ADDED_UP_AT_ONCE: Final = 400_000
"""So many trades of a symbol the native library adds up at once, some 100 bytes each; those of a single cell always."""

Letters: TypeAlias = "Mapping[int, Mapping[int, tuple[bytes, Trade]]]"
"""Of each partition, by offset, what was told of trades that came too late, and the trade."""


class Piece(NamedTuple):
    """Trades of a symbol that are to be added up.

    Attributes:
        begin: the first `traded_at` that counts, µs; `end` the first after it that does not.
        records: about so many there are.
        unread: of each partition the offsets that do not count.
        letters: see `Letters`.

    """

    symbol: str
    begin: int
    end: int
    records: int
    unread: Mapping[int, range]
    letters: Letters


class Addition(Protocol):
    """Adds trades up, somewhere else and faster.

    Attributes:
        cell_us: pieces end at multiples of it, µs.
        columns: what it needs of each record, by name.

    """

    cell_us: int
    columns: Sequence[str]

    def add_up(self, piece: Piece, columns: Iterator[Any]) -> AddedUp | None:
        """What the trades of a piece add up to; None where that is to be found out trade by trade.

        `columns`: those of all of them, and of those next to them as far as a copy may be stamped.
        """


class LakeSource:
    """The trades of a lake, each symbol's in the order of their times, so that none of them is late.

    A lake holds every record of the topic from some place in each partition on. Where that is not the beginning of the
    partition, what is older than the first one found shortly before `start` may lack trades, and counts as before the
    left edge. What the workers have not made durable yet is left out, as with the topic.
    """

    def __init__(
        self,
        settings: Settings,
        url: str,
        *,
        epoch: Epoch,
        partitions: int,
        symbols: Collection[str],
        start: int,
        end: int,
        on_note: Callable[[str], None],
        addition: Addition | None = None,
    ) -> None:
        """Windows that begin in [`start`, `end`), µs, are wanted, of these symbols, of all if empty.

        `partitions`: of topic `trades`. `on_note`: told of what is left out because the lake may lack trades.
        `addition`: adds up what it can.
        Raises UsageError for a wrong URL or without a start.
        """
        if not start:
            raise UsageError("with trades of a lake name where to begin: --from")
        rules = rules_of_epoch(epoch)
        longest_us = max(timeframe.length_us for timeframe in map(Timeframe.parse, epoch.timeframes))
        from ashi_sinks.lake.location import lake_of
        from ashi_sinks.lake.trades import LakeTrades

        self._settings = settings
        self._table: LakeTrades = LakeTrades(lake_of(url))
        self._epoch = epoch
        self._unread: Mapping[int, range] = {}
        self._ends: Mapping[int, int] | None = None
        self._on_note = on_note
        self._addition = addition
        self._rules = rules
        self._partitions = partitions
        self._symbols = symbols
        self._start = start
        self._end = end
        # Trades of so much later make the last windows final, and end the flat candles after them.
        self._enough = end + longest_us + rules.horizon_us + 2 * rules.finest.length_us + COPIES_APART_US

    async def parts(self) -> AsyncIterator[SourcePart]:
        """One for each symbol. Raises StorageError when there is no such table."""
        await self._table.open()
        try:
            symbols = sorted(self._symbols) or await self._table.symbols()
            # In the order of their times none is beyond the horizon, so none is missed by leaving out what is older.
            letters = await read_letters(self._settings, symbols, lambda _, __, trade: trade.traded_at >= self._start)
            # The lake first: what comes into it later must not look like a record of another log.
            snapshot = await self._table.snapshot()
            self._unread = await not_durable(self._settings, self._epoch)
            edges: dict[str, int] = {}
            for symbol in symbols:
                home = partition_of(symbol.encode(), self._partitions)
                begins_at, edge = await self._begins_at(snapshot, symbol, home)
                if edge > self._start:
                    edges[symbol] = edge
                read_until = partial(self._read_until, snapshot, home)
                yield SourcePart(home, {}, begins_at, self._batches(snapshot, symbol, letters), read_until)
            self._note_edges(edges)
        finally:
            await self._table.close()

    async def _read_until(self, snapshot: Snapshot, home: int) -> int:
        """See `SourcePart.read_until`: the lake has no more than its sink has written, nor is more than that read."""
        if self._ends is None:
            self._ends = await self._table.ends(snapshot)
        unread = self._unread.get(home)
        stored = self._ends.get(home, 0)
        return await appended_from(self._settings, home, stored if unread is None else min(stored, unread.start))

    def _note_edges(self, edges: Mapping[str, int]) -> None:
        if edges:
            symbol = max(edges, key=edges.__getitem__)
            others = f" (of {len(edges) - 1:,} more up to an earlier time)" if len(edges) > 1 else ""
            self._on_note(
                f"windows of {symbol} before {format_time(edges[symbol])} are left out{others}: the lake may lack "
                "trades of them"
            )

    async def _begins_at(self, snapshot: Snapshot, symbol: str, home: int) -> tuple[int, int]:
        """No trade that the lake lacks is stamped later than the first of the two, µs; the second is the left edge.

        Whatever is missing was appended before the first record that is there, and is no further ahead of its receipt
        than trades may be. Nothing is missing where the first records of the partitions are there.
        """
        from ashi_sinks.lake.trades import CELL_US

        table, start = self._table, self._start
        found = await table.first(snapshot, symbol, start - MARGIN_US, start)
        if found is None:
            cell = await anext(table.counts(snapshot, symbol, start, self._until(), CELL_US), None)
            if cell is not None:
                found = await table.first(snapshot, symbol, max(cell[0], start), cell[0] + CELL_US)
        if found is None:
            return 0, 0
        traded_at, received_at, partitions = found
        # A symbol whose partition has changed, as the topic grew, has trades in more than one.
        if all([await table.begins(snapshot, number) for number in sorted(partitions | {home})]):
            return 0, 0
        begins_at = received_at + MAX_AHEAD_US
        return begins_at, self._rules.whole_from(begins_at, max(traded_at, start))

    def _until(self) -> int:
        return min(now_us() + MAX_AHEAD_US, self._enough)

    async def _pieces(
        self, snapshot: Snapshot, symbol: str, start: int, until: int
    ) -> AsyncIterator[list[StoredTrade]]:
        """The trades of [`start`, `until`), µs, each once, by their times."""
        async for begin, end in self._table.spans(snapshot, symbol, start, until):
            around = [
                row async for row in self._table.read(symbol, begin - COPIES_APART_US, end + COPIES_APART_US, snapshot)
            ]
            rows = [
                row
                for row in self._without_copies(around)
                if begin <= row.trade.traded_at < end and row.offset not in self._unread.get(row.partition, ())
            ]
            yield sorted(rows, key=lambda row: row.trade.traded_at)

    def _without_copies(self, rows: Sequence[StoredTrade]) -> Iterator[StoredTrade]:
        """Of each trade the first in the log, which is the one that counts: a copy may be stamped a little earlier."""
        occurrences = Counter(row.trade.trade_id for row in rows)
        counted_at: dict[str, list[int]] = {}
        for row in rows:
            trade = row.trade
            if occurrences[trade.trade_id] > 1:
                before = counted_at.setdefault(trade.trade_id, [])
                if any(self._rules.are_copies(traded_at, trade.traded_at) for traded_at in before):
                    continue
                before.append(trade.traded_at)
            yield row

    async def _batches(self, snapshot: Snapshot, symbol: str, letters: Letters) -> AsyncIterator[TradeBatch | AddedUp]:
        if self._addition is None:
            async for batch in self._one_by_one(snapshot, symbol, letters, self._start, self._until()):
                yield batch
            return
        async for begin, end, added_up in self._added_up(self._addition, snapshot, symbol, letters):
            if added_up is None:
                async for batch in self._one_by_one(snapshot, symbol, letters, begin, end):
                    yield batch
            elif added_up.totals or added_up.late:
                yield added_up

    async def _added_up(
        self, addition: Addition, snapshot: Snapshot, symbol: str, letters: Letters
    ) -> AsyncIterator[tuple[int, int, AddedUp | None]]:
        """Begin, end (µs), and what the trades of that time add up to. While one is looked at, the next is made."""
        ahead: tuple[int, int, asyncio.Task[AddedUp | None]] | None = None
        spans = self._table.counted_spans(
            snapshot, symbol, self._start, self._until(), cell_us=addition.cell_us, at_once=ADDED_UP_AT_ONCE
        )
        try:
            async for begin, end, records in spans:
                done = None if ahead is None else (*ahead[:2], await ahead[2])
                columns = self._table.columns(
                    snapshot, symbol, begin - COPIES_APART_US, end + COPIES_APART_US, names=addition.columns
                )
                piece = Piece(symbol, begin, end, records, self._unread, letters)
                ahead = begin, end, asyncio.create_task(asyncio.to_thread(addition.add_up, piece, columns))
                if done is not None:
                    yield done
            if ahead is not None:
                yield *ahead[:2], await ahead[2]
        finally:
            if ahead is not None:
                await asyncio.gather(ahead[2], return_exceptions=True)  # a thread cannot be told to stop

    async def _one_by_one(
        self, snapshot: Snapshot, symbol: str, letters: Letters, start: int, until: int
    ) -> AsyncIterator[TradeBatch]:
        async for rows in self._pieces(snapshot, symbol, start, until):
            for place in range(0, len(rows), TRADES_OF_BATCH):
                batch = rows[place : place + TRADES_OF_BATCH]
                late = {
                    row.offset: row.trade
                    for row in (batch if letters else ())
                    if (letter := letters.get(row.partition, {}).get(row.offset)) and letter[1] == row.trade
                }
                yield TradeBatch(symbol, [row.trade for row in batch], [row.offset for row in batch], late)

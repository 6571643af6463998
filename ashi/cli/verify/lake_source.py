"""Trades of a lake as something that can be counted again: also those that topic `trades` no longer has."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from aggregate.core.ids import APART_US, TradeIds
from ashi.cli.verify.sources import MARGIN_US, Batch, Part, read_letters
from ashi.contracts.errors import UsageError
from ashi.contracts.timeframe import Timeframe
from ashi.contracts.trade import MAX_AHEAD_US
from ashi.runtime.kafka import partition_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from aggregate.epoch import Epoch
    from ashi.contracts.trade import Trade
    from ashi.runtime.settings import Settings
    from sinks.lake.tables import StoredTrade
    from sinks.lake.trades import LakeTrades

PIECE_US: Final = 1_800_000_000
"""So much time of one symbol is read, and in memory, at once."""
LONGEST_US: Final = 86_400_000_000
"""Where there are no trades, pieces become longer, up to this."""


class LakeSource:
    """The trades of a lake, each symbol's in the order of their times, so that none of them is late.

    A lake holds every record of the topic from some place in each partition on. What is older than the first one found
    shortly before `start` may lack trades, and counts as before the left edge.
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
    ) -> None:
        """Windows that begin in [`start`, `end`), µs, are wanted, of these symbols, of all if empty.

        `partitions`: of topic `trades`. Raises UsageError for a wrong URL or without a start.
        """
        if not start:
            raise UsageError("with trades of a lake name where to begin: --from")
        rules = epoch.rules()
        longest_us = max(timeframe.length_us for timeframe in map(Timeframe.parse, epoch.timeframes))
        from sinks.lake.location import lake_of
        from sinks.lake.trades import LakeTrades

        self._settings = settings
        self._table: LakeTrades = LakeTrades(lake_of(url))
        self._finest_us = rules.finest.length_us
        self._partitions = partitions
        self._symbols = symbols
        self._start = start
        self._end = end
        # Trades of so much later make the last windows final, and end the flat candles after them.
        self._enough = end + longest_us + rules.horizon_us + 2 * rules.finest.length_us + APART_US

    async def parts(self) -> AsyncIterator[Part]:
        """One for each symbol. Raises StorageError when there is no such table."""
        await self._table.open()
        try:
            symbols = sorted(self._symbols) or await self._table.symbols()
            letters = await read_letters(self._settings, symbols, self._start)
            for symbol in symbols:
                begins_at = await self._begins_at(symbol)
                yield Part(
                    partition_of(symbol.encode(), self._partitions), {}, begins_at, self._batches(symbol, letters)
                )
        finally:
            await self._table.close()

    async def _begins_at(self, symbol: str) -> int:
        """No trade that the lake lacks is stamped later than this, µs.

        Whatever is missing was appended before the first record that is there, and is no further ahead of its receipt
        than trades may be.
        """
        before = [row async for row in self._table.read(symbol, self._start - MARGIN_US, self._start)]
        if before:
            return min(row.trade.received_at for row in before) + MAX_AHEAD_US
        async for row in self._pieces(symbol):
            if row:
                return min(one.trade.received_at for one in row) + MAX_AHEAD_US
        return 0

    async def _pieces(self, symbol: str) -> AsyncIterator[list[StoredTrade]]:
        """The trades, each once, by their times."""
        now = time.time_ns() // 1000 + MAX_AHEAD_US
        begin, length_us = self._start, PIECE_US
        while begin < min(now, self._enough):
            end = begin + length_us
            # A copy may be stamped a little differently, and the first in the log is the one that counts.
            ids = TradeIds({}, self._finest_us)
            around = [row async for row in self._table.read(symbol, begin - APART_US, end + APART_US)]
            rows = [
                row
                for row in around
                if ids.admit(row.trade.trade_id, row.trade.traded_at) and begin <= row.trade.traded_at < end
            ]
            yield sorted(rows, key=lambda row: row.trade.traded_at)
            begin, length_us = end, PIECE_US if rows else min(2 * length_us, LONGEST_US)

    async def _batches(self, symbol: str, letters: dict[int, dict[int, tuple[bytes, Trade]]]) -> AsyncIterator[Batch]:
        reached = 0
        async for rows in self._pieces(symbol):
            if rows:
                late = {
                    row.offset: row.trade
                    for row in rows
                    if (letter := letters.get(row.partition, {}).get(row.offset)) and letter[1] == row.trade
                }
                yield Batch(symbol, [row.trade for row in rows], [row.offset for row in rows], late)
                reached = rows[-1].trade.traded_at
            if reached > self._enough:
                return

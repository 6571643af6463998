"""The trades of one part of a source, counted again symbol by symbol as they pass by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ashi_audit.recount import BatchAggregation
from ashi_audit.sources.base import AddedUp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

    from ashi.contracts.timeframe import Timeframe
    from ashi_audit.recount import LateTrade, SeriesRange
    from ashi_audit.rules import CandleRules
    from ashi_audit.sources.base import SourcePart, TradeBatch

WINDOWS_AT_ONCE: Final = 200
"""A series is looked at so many windows at a time: a look into the store costs more than a window."""


class PartRecount:
    """Counts the windows that begin in [start, end), µs, and are whole.

    Attributes:
        seen: the symbols that have trades.
        unreported: late trades of these windows that nothing had told of.
        whole_from: of each symbol, from when on windows are counted, µs: those that began before may lack trades, or
            are not wanted.

    """

    def __init__(
        self,
        rules: CandleRules,
        timeframes: Sequence[Timeframe],
        *,
        start: int,
        end: int,
        symbols: Collection[str] = (),
    ) -> None:
        """`symbols`: only these, all if empty."""
        self._rules = rules
        self._timeframes = timeframes
        self._start = start
        self._end = end
        self._symbols = symbols
        self.seen: set[str] = set()
        self.unreported: list[LateTrade] = []
        self.whole_from: dict[str, int] = {}

    async def ranges(self, part: SourcePart) -> AsyncIterator[tuple[SeriesRange, int]]:
        """Range by range of each series, with the clock (µs) of its symbol; what is not settled comes last."""
        by_symbol: dict[str, BatchAggregation] = {}
        async for batch in part.batches:
            if self._symbols and batch.symbol not in self._symbols:
                continue
            self.seen.add(batch.symbol)
            aggregation = by_symbol.get(batch.symbol) or self._begin(part, batch)
            if aggregation is None:
                continue
            by_symbol[batch.symbol] = aggregation
            aggregation.report_late(batch.late)
            if isinstance(batch, AddedUp):
                aggregation.add_totals(batch.totals, batch.late, batch.clock)
            else:
                aggregation.add(batch.trades, batch.offsets)
            for settled in aggregation.settled(WINDOWS_AT_ONCE):
                yield settled, aggregation.clock
        for aggregation in by_symbol.values():
            for windows in aggregation.rest():
                yield windows, aggregation.clock
            self.unreported += aggregation.unreported

    def _begin(self, part: SourcePart, batch: TradeBatch | AddedUp) -> BatchAggregation | None:
        """The aggregation of a symbol, from its first trade in time on; None while there is none."""
        late = part.late.get(batch.symbol, {})
        first: int | None
        if isinstance(batch, AddedUp):
            first = batch.first
        else:
            # One that is late says nothing of how far those before it had come.
            of_batch = zip(batch.trades, batch.offsets, strict=True)
            first = next((trade.traded_at for trade, at in of_batch if at not in late), None)
        if first is None:
            return None
        start = max(self._start, self._rules.whole_from(part.begins_at, first))
        self.whole_from[batch.symbol] = max(start, self.whole_from.get(batch.symbol, 0))
        return BatchAggregation(batch.symbol, self._timeframes, self._rules, late, start=start, end=self._end)

"""Recordings as something that can be counted again: without Kafka, in the order in which a replay publishes them."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from ashi.contracts.feed import overlaps
from ashi.contracts.late_gaps import is_of_late_trades
from ashi_audit.sources.base import SourcePart, TradeBatch
from ashi_ingest.recording.sequence import RecordingSequence

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from ashi.contracts.feed import FeedGap
    from ashi.contracts.trade import Trade
    from ashi_audit.rules import CandleRules

TRADES_AT_ONCE: Final = 5_000


class RecordedTrades:
    """Recordings, in the order in which a replay publishes them. They are read twice: first for the late trades."""

    def __init__(
        self,
        recordings: Sequence[tuple[str, Path]],
        rules: CandleRules,
        symbols: Collection[str],
        on_note: Callable[[str], None],
    ) -> None:
        """`recordings`: venue and path of each. `symbols`: these, all if empty. `on_note`: told what cannot be read."""
        self._recordings = RecordingSequence(recordings)
        self._rules = rules
        self._symbols = symbols
        self._on_note = on_note
        self.spans: dict[str, tuple[int, int]] = {}
        """From when to when (µs) each venue was recorded, by the times its trades were received."""

    async def parts(self) -> AsyncIterator[SourcePart]:
        """All as one part."""
        yield SourcePart(None, self._late(), 0, self._batches())

    def _late(self) -> dict[str, dict[int, Trade]]:
        clocks: dict[str, int] = {}
        late: dict[str, dict[int, Trade]] = {}
        for offset, trade in self._trades(self._on_note):
            venue = trade.symbol.partition(":")[0]
            first, last = self.spans.get(venue, (trade.received_at, trade.received_at))
            self.spans[venue] = (min(first, trade.received_at), max(last, trade.received_at))
            clock = clocks[trade.symbol] = max(clocks.get(trade.symbol, 0), trade.traded_at)
            if self._rules.beyond_horizon(trade.traded_at, clock):
                late.setdefault(trade.symbol, {})[offset] = trade
        return late

    async def _batches(self) -> AsyncIterator[TradeBatch]:
        trades = self._trades(lambda _: None)
        while batch := list(islice(trades, TRADES_AT_ONCE)):
            by_symbol: dict[str, tuple[list[Trade], list[int]]] = {}
            for offset, trade in batch:
                trades_of_symbol, offsets = by_symbol.setdefault(trade.symbol, ([], []))
                trades_of_symbol.append(trade)
                offsets.append(offset)
            for symbol, (trades_of_symbol, offsets) in by_symbol.items():
                yield TradeBatch(symbol, trades_of_symbol, offsets)

    def _trades(self, on_note: Callable[[str], None]) -> Iterator[tuple[int, Trade]]:
        for offset, trade in self._recordings.trades(on_note):
            if not self._symbols or trade.symbol in self._symbols:
                yield offset, trade

    def excuse(self, symbol: str, start: int, end: int, gaps: Sequence[FeedGap]) -> str | None:
        """Why the recordings and a store may hold different trades of a window of a symbol, if they may."""
        first, last = self.spans[symbol.partition(":")[0]]
        if start <= first:
            return "the recording begins in this window"
        if end > last:
            return "the recording ends in this window"
        missed = [gap for gap in gaps if overlaps(gap, start, end) and not is_of_late_trades(gap)]
        if symbol in self._recordings.with_repairs:
            # With nothing recovered, another worker may have published it: that stands in a recording of its own.
            missed = [gap for gap in missed if gap.state != "repaired" or not gap.trades_recovered]
        if missed:
            return "the feed was interrupted, and what was missed then is in no recording"
        return None

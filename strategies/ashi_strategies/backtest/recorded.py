"""Recordings as a source of candles: their trades through the same core as a worker's, in this process, without Kafka.

The candles are those that an aggregate worker with these settings makes of a replay. Windows close by the trades'
own times, so those that are still open at the recording's end are left out.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import islice
from typing import TYPE_CHECKING, Final

from ashi.contracts.timeframe import Timeframe
from ashi_aggregate.core.symbol import SymbolAggregator
from ashi_sinks.protocol import SeriesSpan, by_symbol_and_length

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterable

    from ashi.contracts.candle import Candle
    from ashi.contracts.feed import FeedGap, FeedStatus
    from ashi.contracts.trade import Trade
    from ashi_aggregate.core.window_state import WindowRules
    from ashi_strategies.backtest.sources import SeriesKey

TRADES_AT_ONCE: Final = 5_000


class RecordedCandles:
    """The candles of recorded trades, all of them in memory; see `sources.CandleSource`."""

    def __init__(
        self,
        trades: Iterable[tuple[int, Trade]],
        series: Collection[SeriesKey],
        rules: WindowRules,
        on_note: Callable[[str], None],
    ) -> None:
        """Count the trades, each with its place, ascending.

        `series`: what is wanted of them. `rules`: those of the worker that would have made the candles. `on_note` is
        told how many trades came too late to count.
        """
        symbols = sorted({key.symbol for key in series})
        timeframes = sorted({Timeframe.parse(key.timeframe) for key in series})
        workers = {symbol: SymbolAggregator(timeframes, rules) for symbol in symbols}
        self._newest: dict[tuple[str, str], dict[int, Candle]] = {}
        self._symbols: set[str] = set()
        late = 0
        iterator = iter(trades)
        while batch := list(islice(iterator, TRADES_AT_ONCE)):
            by_symbol: dict[str, tuple[list[Trade], list[int]]] = {}
            for offset, trade in batch:
                of_symbol, offsets = by_symbol.setdefault(trade.symbol, ([], []))
                of_symbol.append(trade)
                offsets.append(offset)
            self._symbols |= by_symbol.keys()
            for symbol, worker in workers.items():
                if symbol in by_symbol:
                    late += self._count(worker, *by_symbol[symbol])
        if late:
            on_note(f"{late:,} trade{'s' * (late > 1)} came too late, and count in no candle, as with a worker")
        self._open_times = {key: sorted(candles) for key, candles in self._newest.items()}

    def _count(self, worker: SymbolAggregator, trades: list[Trade], offsets: list[int]) -> int:
        """Take trades of one symbol in; how many came too late."""
        outcome = worker.on_trades(trades, offsets)
        for candle in (*outcome.candles, *worker.corrections()):
            newest = self._newest.setdefault((candle.symbol, candle.timeframe), {})
            known = newest.get(candle.open_time)
            if known is None or candle.version > known.version:
                newest[candle.open_time] = candle
        worker.drop_final()
        return len(outcome.late)

    async def read(
        self, symbol: str, timeframe: str, start: int | None = None, end: int | None = None, limit: int | None = None
    ) -> AsyncIterator[Candle]:
        """See `CandleSource.read`."""
        candles, times = self._newest.get((symbol, timeframe), {}), self._open_times.get((symbol, timeframe), [])
        first = 0 if start is None else bisect_left(times, start)
        last = len(times) if end is None else bisect_left(times, end)
        if limit is not None:
            first = max(first, last - limit)
        for time in times[first:last]:
            yield candles[time]

    async def spans(self) -> list[SeriesSpan]:
        """See `CandleSource.spans`: the series that were asked for and have a candle."""
        return by_symbol_and_length(
            SeriesSpan(symbol, timeframe, times[0], times[-1])
            for (symbol, timeframe), times in self._open_times.items()
        )

    def has(self, symbol: str, timeframe: str) -> bool:
        """Whether there is a candle of the series."""
        return (symbol, timeframe) in self._newest

    @property
    def symbols(self) -> list[str]:
        """All that trades were recorded of."""
        return sorted(self._symbols)

    async def gaps(self, symbol: str, start: int | None = None, end: int | None = None) -> list[FeedGap]:  # noqa: ARG002
        """None: a recording does not tell of its feed."""
        return []

    async def status(self, symbol: str) -> FeedStatus | None:  # noqa: ARG002
        """None: a recording does not tell of its feed."""
        return None

"""Recordings as a source of candles: their trades through the same core as a worker's, in this process, without Kafka.

The candles are those that an aggregate worker with these settings makes of a replay. Windows close by the trades'
own times, so those that are still open at the recording's end are left out.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from ashi.contracts.timeframe import Timeframe
from ashi.runtime.words import counted
from ashi_aggregate.core.symbol import SymbolAggregator
from ashi_strategies.backtest.in_memory import CandlesInMemory

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from ashi.contracts.candle import Candle
    from ashi.contracts.trade import Trade
    from ashi_aggregate.core.window_state import WindowRules
    from ashi_strategies.series_name import SeriesName

TRADES_AT_ONCE: Final = 5_000


class RecordedCandles(CandlesInMemory):
    """The candles of recorded trades.

    Attributes:
        symbols: all that trades were recorded of, sorted.

    """

    def __init__(
        self,
        trades: Iterable[tuple[int, Trade]],
        series: Collection[SeriesName],
        rules: WindowRules,
        on_note: Callable[[str], None],
    ) -> None:
        """Count the trades, each with its place, ascending.

        `series`: what is wanted of them. `rules`: those of the worker that would have made the candles. `on_note` is
        told how many trades came too late to count.
        """
        timeframes = sorted({Timeframe.parse(key.timeframe) for key in series})
        self._workers = {key.symbol: SymbolAggregator(timeframes, rules) for key in series}
        self._recorded: set[str] = set()
        self._late = 0
        super().__init__(self._candles_of(trades))
        self.symbols = sorted(self._recorded)
        if self._late:
            on_note(f"{counted(self._late, 'trade')} came too late to count in any candle, as with a worker")

    def _candles_of(self, trades: Iterable[tuple[int, Trade]]) -> Iterator[Candle]:
        """All candles as a worker sends them, and again when they are corrected."""
        iterator = iter(trades)
        while batch := list(islice(iterator, TRADES_AT_ONCE)):
            by_symbol: dict[str, tuple[list[Trade], list[int]]] = {}
            for offset, trade in batch:
                of_symbol, offsets = by_symbol.setdefault(trade.symbol, ([], []))
                of_symbol.append(trade)
                offsets.append(offset)
            self._recorded |= by_symbol.keys()
            for symbol, (of_symbol, offsets) in by_symbol.items():
                if (worker := self._workers.get(symbol)) is not None:
                    outcome = worker.on_trades(of_symbol, offsets)
                    self._late += len(outcome.late)
                    yield from outcome.candles
                    yield from worker.corrections()
                    worker.drop_final()

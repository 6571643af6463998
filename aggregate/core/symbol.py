"""All timeframes of one symbol: a chunk of trades is folded once and the partial folds are merged into each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from aggregate.core.aggregator import CandleAggregator, Row, WindowRules, is_late
from aggregate.core.fold import fold_trades
from ashi.contracts.candle import Candle
from ashi.contracts.timeframe import Timeframe
from ashi.contracts.trade import Trade


class LateTrade(NamedTuple):
    """A trade beyond the correction horizon, its offset, and the data clock (µs) that made it late."""

    trade: Trade
    offset: int
    data_clock: int


class SymbolAggregator:
    """The aggregators of one symbol, finest timeframe first."""

    def __init__(
        self, timeframes: Sequence[Timeframe], rules: WindowRules, rows: Iterable[Row | None] = (), edge: int = 0
    ) -> None:
        """Take up the rows of the symbol in the order of `timeframes`; None, or none at all, begins anew.

        `edge` (µs) goes to rows that begin anew: see `Row.edge`.
        """
        kept = list(rows) or [None] * len(timeframes)
        self.rules = rules
        self.rows = [
            CandleAggregator(timeframe, rules, row or Row(edge=edge))
            for timeframe, row in zip(timeframes, kept, strict=True)
        ]

    def on_trades(
        self, trades: Sequence[Trade], offsets: Sequence[int], appended_at: int = 0
    ) -> tuple[list[Candle], list[LateTrade]]:
        """Take in trades of this symbol in log order; return the candles they closed and the trades too late.

        However the log is cut into chunks, the rows end in the same state.

        Args:
            trades: at least one.
            offsets: their places in the log, ascending.
            appended_at: when the last of them was appended to the log, µs.

        """
        positions = {aggregator.row.position for aggregator in self.rows}
        if len(positions) == 1 and offsets[0] > positions.pop():
            candles, late = self._fold_once(trades, offsets)
        else:
            candles, late = self._fold_each(trades, offsets)
        for aggregator in self.rows:
            aggregator.row.appended_at = max(aggregator.row.appended_at, appended_at)
        return candles, late

    def close_due(self, clock: int) -> list[Candle]:
        """Close the windows that are due at `clock` (µs) in every timeframe."""
        return [candle for aggregator in self.rows for candle in aggregator.close_due(clock)]

    def corrections(self) -> list[Candle]:
        """Candles that late trades have changed since they were last emitted, of every timeframe."""
        return [candle for aggregator in self.rows for candle in aggregator.corrections()]

    def drop_final(self) -> None:
        """Forget what nothing can change any more; see `CandleAggregator.drop_final` for when."""
        for aggregator in self.rows:
            aggregator.drop_final()

    def _fold_once(self, trades: Sequence[Trade], offsets: Sequence[int]) -> tuple[list[Candle], list[LateTrade]]:
        """The common case: no row has seen any of the trades, so one partial fold per finest window serves all."""
        finest_us = self.rules.finest.length_us
        horizon_us = self.rules.horizon_us
        row = self.rows[0].row
        clock = row.data_clock
        late: list[LateTrade] = []
        groups: dict[int, tuple[list[Trade], list[int]]] = {}
        start = end = 0  # the finest window of the trade before: most trades fall into the same one
        group: tuple[list[Trade], list[int]] = ([], [])
        for trade, offset in zip(trades, offsets, strict=True):
            traded_at = trade.traded_at
            if traded_at > clock:
                clock = traded_at
            # Only a trade this far behind the clock can be late; the exact rule is in one place.
            elif traded_at < clock - horizon_us and is_late(self.rules, clock, row.floor, traded_at):
                late.append(LateTrade(trade, offset, clock))
                continue
            if not start <= traded_at < end:
                start = traded_at - traded_at % finest_us
                end = start + finest_us
                group = groups.setdefault(start, ([], []))
            group[0].append(trade)
            group[1].append(offset)
        partials = [fold_trades(of, start, places[-1]) for start, (of, places) in sorted(groups.items())]
        candles = [candle for aggregator in self.rows for partial in partials for candle in aggregator.merge(partial)]
        for aggregator in self.rows:
            aggregator.advance(offsets[-1], clock)
        return candles, late

    def _fold_each(self, trades: Sequence[Trade], offsets: Sequence[int]) -> tuple[list[Candle], list[LateTrade]]:
        """After a crash rows may have seen different stretches: each takes what it has not, trade by trade.

        The finest row reports the late trades. Those at or below its position were reported before it was written.
        """
        candles: list[Candle] = []
        late: list[LateTrade] = []
        finest = self.rows[0]
        for trade, offset in zip(trades, offsets, strict=True):
            if offset > finest.row.position and finest.is_late(trade.traded_at):
                late.append(LateTrade(trade, offset, finest.row.data_clock))
            for aggregator in self.rows:
                candles += aggregator.on_trade(trade, offset)
        return candles, late

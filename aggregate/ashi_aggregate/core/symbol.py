"""All timeframes of one symbol: a chunk of trades is folded once and the partial folds are merged into each."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import count, repeat
from typing import NamedTuple

from ashi.contracts.candle import Candle
from ashi.contracts.timeframe import Timeframe
from ashi.contracts.trade import Trade
from ashi_aggregate.core.aggregator import TimeframeAggregator
from ashi_aggregate.core.fold import Fold, fold_coarser, fold_trades
from ashi_aggregate.core.trade_ids import as_numbers
from ashi_aggregate.core.window_state import LateReason, StateRow, WindowRules, late_reason


class LateTrade(NamedTuple):
    """A trade too late to count.

    Attributes:
        trade: what it was.
        place: which of the trades given, from 0.
        stream_time: that of its symbol when it came, µs.
        reason: why it is late.

    """

    trade: Trade
    place: int
    stream_time: int
    reason: LateReason


class Outcome(NamedTuple):
    """What a chunk of one symbol's trades led to.

    Candles that closed, trades too late, how many were folded and how many not because they had come before. Not
    `changed`, every row had seen all of them already.
    """

    candles: list[Candle]
    late: list[LateTrade]
    counted: int
    duplicates: int
    changed: bool = True


class Partials(NamedTuple):
    """What the trades of one symbol in one range of the log add up to, ids being counted already.

    Attributes:
        symbol: whose they are.
        folds: of each timeframe one for each window, oldest first; they become the rows', which have the symbol.
        late: the trades too late to count.
        counted: how many were folded.
        duplicates: how many were not because they had come before.
        stream_time: that of the symbol after all of them, µs.
        last_offset: the place of the last of them in the log, whatever became of it.

    """

    symbol: str
    folds: list[list[Fold]]
    late: list[LateTrade]
    counted: int
    duplicates: int
    stream_time: int
    last_offset: int


COPY, COUNTS, LATE = range(3)
"""What a trade is to `SymbolAggregator.admit`."""

_Group = tuple[list[Trade], list[int], list[int]]
"""The trades of one finest window, which of those given they are, and their ids as numbers if all are."""


class SymbolAggregator:
    """The aggregators of one symbol, finest timeframe first."""

    def __init__(
        self,
        timeframes: Sequence[Timeframe],
        rules: WindowRules,
        rows: Iterable[StateRow | None] = (),
        complete_from: int = 0,
    ) -> None:
        """Take up the rows of the symbol in the order of `timeframes`; None, or none at all, begins anew.

        `complete_from` (µs) goes to rows that begin anew: see `find_complete_from`.
        """
        kept = list(rows) or [None] * len(timeframes)
        self.rules = rules
        self.lengths_us = [timeframe.length_us for timeframe in timeframes]
        self.rows = [
            TimeframeAggregator(timeframe, rules, row or StateRow(complete_from=complete_from, epoch=rules.epoch))
            for timeframe, row in zip(timeframes, kept, strict=True)
        ]
        self._share_ids()

    def on_trades(self, trades: Sequence[Trade], offsets: Sequence[int], appended_at: int = 0) -> Outcome:
        """Take in trades of this symbol in log order.

        However the log is cut into chunks, the rows end in the same state.

        Args:
            trades: at least one.
            offsets: their places in the log, ascending.
            appended_at: when the last of them was appended to the log, µs.

        """
        # A row that has seen them all stays as it is: its append time must go on to say what it has read.
        behind = [aggregator.row for aggregator in self.rows if aggregator.row.applied_offset < offsets[-1]]
        applied_offsets = {aggregator.row.applied_offset for aggregator in self.rows}
        if not behind:
            return Outcome([], [], 0, 0, changed=False)
        if len(applied_offsets) == 1:
            outcome = self._fold_once(trades, offsets, bisect_right(offsets, applied_offsets.pop()))
        else:
            outcome = self._fold_each(trades, offsets)
            self._share_ids()
        for row in behind:
            row.appended_at = max(row.appended_at, appended_at)
        return outcome

    def admit(self, times: Sequence[int], trade_ids: Sequence[str]) -> tuple[bytes, list[tuple[int, int, LateReason]]]:
        """Count the ids of trades that no row has seen, for `on_partials`; all rows must have seen the same.

        Args:
            times: of the trades in log order, µs.
            trade_ids: theirs.

        Returns:
            Of each trade `COPY`, `COUNTS` or `LATE`; and of those too late which one, the stream time then, and why.

        """
        finest, horizon_us = self.rows[0], self.rules.horizon_us
        row = finest.row
        stream_time = row.stream_time
        greatest, least = max(stream_time, *times), min(times)
        if least >= greatest - horizon_us and least >= row.dropped_until:  # none can be late
            admitted = finest.ids.admit_texts(trade_ids, times)
            if admitted is not None:
                finest.ids.forget_before(finest.ids_needed_from(greatest))
                return bytes(admitted), []
        marks, late = bytearray(len(times)), []
        for place, (traded_at, trade_id) in enumerate(zip(times, trade_ids, strict=True)):
            if traded_at > stream_time:  # noqa: PLR1730  (as in `_group`)
                stream_time = traded_at
            may_be_late = traded_at < stream_time - horizon_us or traded_at < row.dropped_until
            if may_be_late and (reason := late_reason(self.rules, stream_time, row.dropped_until, traded_at)):
                marks[place] = LATE
                late.append((place, stream_time, reason))
            elif finest.admit(trade_id, traded_at, stream_time):
                marks[place] = COUNTS
        return bytes(marks), late

    def on_partials(self, partials: Partials, appended_at: int) -> Outcome:
        """Take in what somebody else has added up of trades that no row has seen; `appended_at` as in `on_trades`.

        All rows must have seen the log up to the same offset, and the ids must be counted.
        """
        outcome = self._take(partials)
        for aggregator in self.rows:
            aggregator.row.appended_at = max(aggregator.row.appended_at, appended_at)
        return outcome

    @property
    def rows_are_alike(self) -> bool:
        """Whether all rows have seen the log up to the same offset."""
        return len({aggregator.row.applied_offset for aggregator in self.rows}) == 1

    def state_rows(self) -> list[StateRow]:
        """Its rows, in the order of the timeframes."""
        return [aggregator.row for aggregator in self.rows]

    @property
    def next_close(self) -> int:
        """The clock (µs) from which on `close_due` would close anything."""
        return min([aggregator.next_close for aggregator in self.rows])  # a list is faster, and this is asked often

    def close_due(self, clock: int) -> list[Candle]:
        """Close the windows that are due at `clock` (µs) in every timeframe."""
        candles: list[Candle] = []
        for aggregator in self.rows:
            if clock >= aggregator.next_close:
                candles += aggregator.close_due(clock)
        return candles

    def prepare(self) -> list[Candle]:
        """The candles that close next, as they are now: what `close_due` will give unless something comes for them.

        Making them changes nothing. Without flat ones.
        """
        clock = self.next_close
        made = [aggregator.prepare() for aggregator in self.rows if aggregator.next_close == clock]
        return [candle for candle in made if candle is not None]

    def corrections(self) -> list[Candle]:
        """Candles that late trades have changed since they were last emitted, of every timeframe."""
        return [candle for aggregator in self.rows for candle in aggregator.corrections()]

    def candles_in_progress(self, since: int) -> list[Candle]:
        """What windows of every timeframe hold that have changed since offset `since` and not closed.

        See `TimeframeAggregator.candles_in_progress`.
        """
        return [candle for aggregator in self.rows for candle in aggregator.candles_in_progress(since)]

    @property
    def applied_offset(self) -> int:
        """Up to where (inclusive) every row has seen the log."""
        return min(aggregator.row.applied_offset for aggregator in self.rows)

    def drop_final(self) -> None:
        """Forget what nothing can change any more; see `TimeframeAggregator.drop_final` for when."""
        for aggregator in self.rows:
            aggregator.drop_final()

    def _share_ids(self) -> None:
        """Rows that have seen the same trades have the same ids: from here on they are counted once for all."""
        if len({aggregator.row.applied_offset for aggregator in self.rows}) == 1:
            for aggregator in self.rows[1:]:
                aggregator.ids = self.rows[0].ids
                aggregator.row.ids = self.rows[0].row.ids

    def _fold_once(self, trades: Sequence[Trade], offsets: Sequence[int], seen: int = 0) -> Outcome:
        """The common case: all rows have seen the same trades, so one partial fold per finest window serves all.

        `seen`: so many of the trades given, the first of them.
        """
        groups, late, duplicates, stream_time = self._group(trades, seen)
        folds = [
            fold_trades(grouped, start, offsets[places[-1]]) for start, (grouped, places, _) in sorted(groups.items())
        ]
        counted = len(trades) - seen - len(late) - duplicates
        by_timeframe = self.by_timeframe(folds)
        return self._take(Partials(trades[0].symbol, by_timeframe, late, counted, duplicates, stream_time, offsets[-1]))

    def by_timeframe(self, folds: Sequence[Fold]) -> list[list[Fold]]:
        """What `Partials` has, of one fold for each finest window, oldest first."""
        return [fold_coarser(folds, length_us) for length_us in self.lengths_us]

    def _take(self, partials: Partials) -> Outcome:
        """Add to every row what all of them have yet to see."""
        symbol, folds, _, _, _, stream_time, last_offset = partials
        dropped_until = self.rows[0].row.dropped_until
        candles: list[Candle] = []
        for aggregator, of_timeframe in zip(self.rows, folds, strict=True):
            candles += aggregator.take(symbol, of_timeframe, last_offset, stream_time)
            aggregator.row.dropped_until = dropped_until
        return Outcome(candles, partials.late, partials.counted, partials.duplicates)

    def _group(self, trades: Sequence[Trade], seen: int) -> tuple[dict[int, _Group], list[LateTrade], int, int]:
        """The trades not seen yet by the start of their finest window (µs), those that count; their ids are counted.

        Then the trades too late, how many were copies, and the stream time (µs) after all of them.
        """
        finest_us = self.rules.finest.length_us
        horizon_us = self.rules.horizon_us
        finest = self.rows[0]
        row = finest.row
        unseen = trades[seen:]
        numbers = as_numbers([trade.trade_id for trade in unseen])
        # Ids that only ascend need no look at each of them; this is how they nearly always come.
        all_new = numbers is not None and finest.ids.all_new(numbers)
        late: list[LateTrade] = []
        duplicates = 0
        # The row's own stream time stands still until the trades are in: it says which windows are due.
        stream_time = row.stream_time
        groups: dict[int, _Group] = {}
        start = end = 0  # the finest window of the trade before: most trades fall into the same one
        group: _Group = ([], [], [])
        for place, trade, number in zip(count(seen), unseen, numbers or repeat(0), strict=False):
            traded_at = trade.traded_at
            if traded_at > stream_time:  # noqa: PLR1730  (`max` would be called for every trade)
                stream_time = traded_at
            # Only a trade this far behind can be late. The rule is not asked for the others: that would cost too much.
            may_be_late = traded_at < stream_time - horizon_us or traded_at < row.dropped_until
            if may_be_late and (reason := late_reason(self.rules, stream_time, row.dropped_until, traded_at)):
                late.append(LateTrade(trade, place, stream_time, reason))
                continue
            if not all_new and not finest.admit(trade.trade_id, traded_at, stream_time):
                duplicates += 1
                continue
            if not start <= traded_at < end:
                start = traded_at - traded_at % finest_us
                end = start + finest_us
                group = groups.setdefault(start, ([], [], []))
            group[0].append(trade)
            group[1].append(place)
            group[2].append(number)
        if all_new:
            for start, (_, _, ids) in groups.items():
                finest.ids.add_ascending(start, ids)
        return groups, late, duplicates, stream_time

    def _fold_each(self, trades: Sequence[Trade], offsets: Sequence[int]) -> Outcome:
        """After a crash rows may have seen different ranges of the log: each takes what it has not, trade by trade.

        The finest row reports the late trades. Those it had applied were reported before it was written.
        """
        candles: list[Candle] = []
        late: list[LateTrade] = []
        finest = self.rows[0]
        seen, counted = bisect_right(offsets, finest.row.applied_offset), 0
        for place, (trade, offset) in enumerate(zip(trades, offsets, strict=True)):
            if offset > finest.row.applied_offset and (reason := finest.late_reason(trade.traded_at)):
                late.append(LateTrade(trade, place, finest.row.stream_time, reason))
            before = finest.counted
            for aggregator in self.rows:
                candles += aggregator.on_trade(trade, offset)
            counted += finest.counted - before
        return Outcome(candles, late, counted, len(trades) - seen - len(late) - counted)

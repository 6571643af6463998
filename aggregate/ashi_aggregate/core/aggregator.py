"""One symbol in one timeframe: windows open, close, are corrected and dropped, by the stream time."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest

from ashi.contracts.candle import Candle, make_version
from ashi.contracts.errors import ContractError
from ashi.contracts.timeframe import Timeframe
from ashi.contracts.trade import Trade
from ashi_aggregate.core.candles import candle_of, flat_candles
from ashi_aggregate.core.fold import Fold, fold_coarser, fold_trades
from ashi_aggregate.core.trade_ids import COPIES_APART_US, TradeIds
from ashi_aggregate.core.window_state import NO_WINDOW, LateReason, StateRow, Window, WindowRules, late_reason


class TimeframeAggregator:
    """The candles of one symbol in one timeframe: a pure state machine over trades in log order.

    >>> aggregator = TimeframeAggregator("1m")
    >>> closed = aggregator.on_trade(trade)

    Content is a function of the trades alone. A candle is emitted when the stream time (the greatest `traded_at`
    seen) reaches the end of its window plus the allowed lateness, and again, with a greater version, when a late
    trade within the correction horizon has changed it. A window without trades gives a flat candle, which carries the
    close of the window before it, and that window's version; it counts in no coarser candle.
    """

    def __init__(
        self, timeframe: Timeframe | str, rules: WindowRules | None = None, row: StateRow | None = None
    ) -> None:
        self.timeframe = Timeframe.parse(timeframe) if isinstance(timeframe, str) else timeframe
        self.rules = rules or WindowRules(finest=self.timeframe)
        self.row = row or StateRow(epoch=self.rules.epoch)
        self.ids = TradeIds(self.row.ids, self.rules.finest.length_us)
        self.counted = 0
        """Trades taken in one by one since it was made, without those that were late or came again."""
        self._name = str(self.timeframe)
        self._may_correct = True  # what a row brings has yet to be looked through
        self._made: Candle | None = None
        self.next_close = self._find_next_close()
        """The clock (µs) at which the next window closes."""

    def on_trade(self, trade: Trade, offset: int | None = None) -> list[Candle]:
        """Take one trade in and return the candles it closed, oldest first.

        Args:
            trade: a trade of this aggregator's symbol.
            offset: its place in the log; None takes the one after the last. At or below the row's applied offset the
                trade has been seen before and changes nothing.

        A trade beyond the correction horizon changes nothing either (see `late_reason`), nor does one whose id has been
        counted before.

        """
        row = self.row
        if offset is None:
            offset = row.applied_offset + 1
        if offset <= row.applied_offset:
            return []
        counts = self.late_reason(trade.traded_at) is None and self.admit(
            trade.trade_id, trade.traded_at, max(row.stream_time, trade.traded_at)
        )
        self.advance(offset, trade.traded_at)
        if not counts:
            return self.close_due(row.stream_time)
        self.counted += 1
        fold = fold_trades((trade,), self.timeframe.open_time(trade.traded_at), offset)
        self._add(trade.symbol, fold_coarser([fold], self.timeframe.length_us))
        return self.close_due(row.stream_time)

    def late_reason(self, traded_at: int) -> LateReason | None:
        """Why a trade of that time (µs) is too late to count, or None when it is not."""
        return late_reason(self.rules, self.row.stream_time, self.row.dropped_until, traded_at)

    def admit(self, trade_id: str, traded_at: int, stream_time: int) -> bool:
        """Count the id of a trade that is not late; False when it has been counted before.

        `traded_at` (µs) is its time, `stream_time` (µs) that of all trades up to this one.

        Where too many ids are kept, the oldest window's are given up, and `dropped_until` rises past it.
        """
        row = self.row
        self.ids.forget_before(self.ids_needed_from(stream_time))
        admitted = self.ids.admit(trade_id, traded_at)
        while (end := self.ids.give_up_oldest()) is not None:
            row.dropped_until = max(row.dropped_until, end)
        return admitted

    def ids_needed_from(self, stream_time: int) -> int:
        """Ids of trades before this time (µs) can meet no second copy that is not late."""
        return stream_time - self.rules.horizon_us - self.rules.finest.length_us - COPIES_APART_US

    def take(self, symbol: str, folds: Iterable[Fold], last_offset: int, stream_time: int) -> list[Candle]:
        """Take in what a range of the log adds up to, and return the candles that closed, oldest first.

        All of it is in before any window closes. Else a flat candle could carry a close with a version from the end of
        the range before a trade from earlier in it is in.

        Args:
            symbol: whose trades.
            folds: of windows of this timeframe, of trades not seen before. They become the row's own.
            last_offset: up to which the log has been read, whatever there was.
            stream_time: of the symbol by then, µs.

        """
        self._add(symbol, folds)
        self.advance(last_offset, stream_time)
        return self.close_due(stream_time) if stream_time >= self.next_close else []

    def _add(self, symbol: str, folds: Iterable[Fold]) -> None:
        row = self.row
        if row.symbol != symbol:
            if row.symbol:
                raise ContractError(f"{symbol!r} given to the aggregator of {row.symbol!r}: use one per symbol")
            row.symbol = symbol
        windows = row.windows
        for fold in folds:
            open_time = fold.open_time
            window = windows.get(open_time)
            if window is None:
                windows[open_time] = Window(fold)
                if not row.closed_until:
                    self.next_close = self._find_next_close()
            else:
                window.fold.merge(fold)
            if open_time < row.closed_until:
                self._may_correct = True

    def advance(self, offset: int, traded_at: int) -> None:
        """Note that the log has been read up to `offset` and that its trades reach `traded_at` (µs)."""
        row = self.row
        if offset > row.applied_offset:  # noqa: PLR1730
            row.applied_offset = offset
        if traded_at > row.stream_time:  # noqa: PLR1730
            row.stream_time = traded_at

    def is_due(self, clock: int) -> bool:
        """Whether `close_due` would close anything at `clock` (µs)."""
        return clock >= self.next_close

    def close_due(self, clock: int) -> list[Candle]:
        """Close the windows that are due at `clock` (µs) and return their candles, oldest first.

        The stream time when trades come; a later time in a quiet market. A window closed early is corrected if
        its trades do come.
        """
        if not self.is_due(clock):
            return []
        row, length_us, lateness_us = self.row, self.timeframe.length_us, self.rules.lateness_us
        until = clock - lateness_us
        until -= until % length_us
        begin = row.closed_until or min(row.windows)
        if until - begin == length_us and (window := row.windows.get(begin)) is not None:
            # At the end of a minute it is this one window, mostly; of tens of thousands of symbols each step counts.
            candles = [*self._emit(window, self._candle(window.fold))]
        else:
            candles = self._emit_between(begin, until)
        row.closed_until = until
        self.next_close = until + length_us + lateness_us
        self._made = None
        return candles

    def _emit_between(self, begin: int, until: int) -> list[Candle]:
        """The candles of the windows that began in [begin, until), flat ones too, each noted as emitted as it is."""
        candles: list[Candle] = []
        last: Candle | None = None
        for window in self._windows_between(begin, until):
            open_time = window.fold.open_time
            if begin < open_time:
                candles += self._flat_candles(last or self._window_before(begin), begin, open_time)
            last = self._candle(window.fold)
            candles += self._emit(window, last)
            begin = open_time + self.timeframe.length_us
        if begin < until:
            candles += self._flat_candles(last or self._window_before(begin), begin, until)
        return candles

    def prepare(self) -> Candle | None:
        """Make the candle of the window that closes next, as it is now; it is kept until then, and changes nothing.

        None where nothing has traded in that window, or it would not be sent.
        """
        window = self.row.windows.get(self.row.closes_from)
        if window is None or window.fold.open_time < self.row.complete_from:
            return None
        self._made = self._candle(window.fold)
        return self._made

    def corrections(self) -> list[Candle]:
        """Candles of closed windows that late trades have changed since they were last emitted, oldest first.

        Each with the flat candles after it, which carry its close.
        """
        if not self._may_correct:
            return []
        self._may_correct = False
        candles: list[Candle] = []
        closed = self._windows_between(0, self.row.closed_until)
        for window, following in zip_longest(closed, closed[1:]):
            if window.emitted == window.fold.offset:
                continue
            end = self.row.closed_until if following is None else following.fold.open_time
            candle = self._candle(window.fold)
            candles += self._emit(window, candle)
            candles += self._flat_candles(candle, candle.close_time, end)
        return candles

    def drop_final(self) -> None:
        """Forget the windows that nothing can change any more, raising `dropped_until`.

        Only to be called when all candles emitted so far have been acknowledged: what is forgotten cannot be
        emitted again.
        """
        row = self.row
        final_until = self.rules.final_until(row.stream_time)
        newest: Fold | None = None
        for open_time in sorted(row.windows):
            window = row.windows[open_time]
            if open_time + self.timeframe.length_us > final_until or window.emitted != window.fold.offset:
                break
            if open_time >= row.complete_from:
                newest = window.fold
            del row.windows[open_time]
        if newest is not None:
            row.dropped = self._candle(newest)
        row.dropped_until = max(row.dropped_until, final_until)
        self.ids.forget_before(self.ids_needed_from(row.stream_time))

    def get_current_candle(self) -> Candle | None:
        """The candle in progress: that of the newest window that has not closed, or None."""
        candles = self.get_open_candles()
        return candles[-1] if candles else None

    def get_open_candles(self) -> list[Candle]:
        """The candles of all windows that have not closed yet, oldest first.

        Without those before `complete_from`, which may lack trades and will not be emitted either.
        """
        row = self.row
        return [
            self._candle(window.fold)
            for window in self._windows_between(max(row.closed_until, row.complete_from), NO_WINDOW)
        ]

    def candles_in_progress(self, since: int) -> list[Candle]:
        """The candles of windows that have not closed and hold a trade from beyond offset `since`, oldest first.

        The newest window's comes last in any case, so that it is the last word on this symbol and timeframe. None where
        nothing has changed, and none of a window before `complete_from`.
        """
        row = self.row
        windows = self._windows_between(max(row.closed_until, row.complete_from), NO_WINDOW)
        changed = [window for window in windows if window.fold.offset > since]
        if changed and changed[-1] is not windows[-1]:
            changed.append(windows[-1])
        return [self._candle(window.fold) for window in changed]

    def _find_next_close(self) -> int:
        return self.row.closes_from + self.timeframe.length_us + self.rules.lateness_us

    def _windows_between(self, begin: int, end: int) -> list[Window]:
        """The windows that began in [begin, end), oldest first."""
        windows = self.row.windows
        found = [open_time for open_time in windows if begin <= open_time < end]
        found.sort()  # few, and mostly in order
        return [windows[open_time] for open_time in found]

    def _window_before(self, time: int) -> Candle | None:
        """The newest candle of trades that began before `time` (µs) and was or can be emitted."""
        before = self._windows_between(self.row.complete_from, time)
        return self._candle(before[-1].fold) if before else self.row.dropped

    def _emit(self, window: Window, candle: Candle) -> tuple[Candle, ...]:
        """Note that the window is emitted as it is, as `candle`; gives that, or nothing if it may lack trades."""
        window.emitted = window.fold.offset
        return (candle,) if candle.open_time >= self.row.complete_from else ()

    def _flat_candles(self, carried: Candle | None, begin: int, end: int) -> list[Candle]:
        """Candles of the windows in [begin, end), which have no trades and carry the close of `carried`.

        None where nothing is carried, where that window may lack trades, and beyond the greatest number in a
        row.
        """
        if carried is None or carried.open_time < self.row.complete_from:
            return []
        return flat_candles(carried, begin, end, self.rules.max_flat)

    def _candle(self, fold: Fold) -> Candle:
        version = make_version(self.rules.epoch, fold.offset)
        made = self._made
        if made is not None and made.version == version and made.open_time == fold.open_time:
            return made  # whatever comes after it was made raises the version
        return candle_of(fold, self.row.symbol, self._name, self.timeframe.length_us, version)

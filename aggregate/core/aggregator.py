"""One symbol in one timeframe: windows open, close, are corrected and dropped, by the data clock."""

from __future__ import annotations

from typing import Final

import msgspec

from aggregate.core.fold import Fold, fold_trades
from ashi.contracts.candle import Candle, make_version
from ashi.contracts.errors import ContractError
from ashi.contracts.timeframe import Timeframe
from ashi.contracts.trade import Trade

ROW_FORMAT: Final = 1

NEVER: Final = -1
"""The `emitted` of a window that has not closed yet."""


class WindowRules(msgspec.Struct, frozen=True):
    """What belongs to an epoch: with other rules the same trades give other candles.

    Attributes:
        finest: the finest of all timeframes; lateness is decided by a trade's window of this length.
        lateness_us: a window stays open this long (µs of the data clock) after its end.
        horizon_us: until this long after the end of its finest window a late trade still corrects candles.
        epoch: see `ashi.contracts.candle.make_version`.

    """

    finest: Timeframe
    lateness_us: int = 2_000_000
    horizon_us: int = 120_000_000
    epoch: int = 0


class Window(msgspec.Struct):
    """A window that is open or can still be corrected; `emitted` is the offset its candle was last sent with."""

    fold: Fold
    emitted: int = NEVER


class Row(msgspec.Struct):
    """All that is known of one (symbol, timeframe): one row of the table `ohlcv-<timeframe>`, self-contained.

    Attributes:
        position: offset of the last record seen; records at or below it are skipped.
        data_clock: greatest `traded_at` seen, µs.
        appended_at: append time in the log of the last record seen, µs.
        floor: windows that began before this (µs) have been dropped and are never begun anew.
        edge: windows that began before this (µs) may lack trades that the log no longer had; never emitted.
        windows: by open time, µs.
        dropped: the newest closed candle that has no window any more.

    """

    symbol: str = ""
    position: int = -1
    data_clock: int = 0
    appended_at: int = 0
    floor: int = 0
    edge: int = 0
    windows: dict[int, Window] = {}
    dropped: Candle | None = None
    format: int = ROW_FORMAT


class CandleAggregator:
    """The candles of one symbol in one timeframe: a pure state machine over trades in log order.

    >>> aggregator = CandleAggregator("1m")
    >>> closed = aggregator.on_trade(trade)

    Content is a function of the trades alone. A candle is emitted when the data clock (the greatest `traded_at`
    seen) reaches the end of its window plus the allowed lateness, and again, with a greater version, when a late
    trade within the correction horizon has changed it.
    """

    def __init__(self, timeframe: Timeframe | str, rules: WindowRules | None = None, row: Row | None = None) -> None:
        self.timeframe = Timeframe.parse(timeframe) if isinstance(timeframe, str) else timeframe
        self.rules = rules or WindowRules(finest=self.timeframe)
        self.row = row or Row()
        self._name = str(self.timeframe)
        self._next_close = self._find_next_close()

    def on_trade(self, trade: Trade, offset: int | None = None) -> list[Candle]:
        """Take one trade in and return the candles it closed, oldest first.

        Args:
            trade: a trade of this aggregator's symbol.
            offset: its place in the log; None takes the one after the last. At or below the row's position the
                trade has been seen before and changes nothing.

        A trade beyond the correction horizon changes nothing either: see `is_late`.

        """
        row = self.row
        if offset is None:
            offset = row.position + 1
        if offset <= row.position:
            return []
        late = self.is_late(trade.traded_at)
        self.advance(offset, trade.traded_at)
        if late:
            return []
        return self.merge(fold_trades((trade,), self.timeframe.open_time(trade.traded_at), offset))

    def is_late(self, traded_at: int) -> bool:
        """Whether a trade of that time (µs) is too late: beyond the horizon, or its window has been dropped."""
        return is_late(self.rules, self.row.data_clock, self.row.floor, traded_at)

    def merge(self, partial: Fold) -> list[Candle]:
        """Add a partial fold of trades not seen before, of any one window of the finest timeframe or of this one.

        Returns the candles that its newest trade closed, oldest first. Partial folds are merged oldest window
        first, else a window could close before its last trades are in, and would then be corrected.
        """
        row = self.row
        if row.symbol != partial.symbol:
            if row.symbol:
                raise ContractError(f"{partial.symbol!r} given to the aggregator of {row.symbol!r}: use one per symbol")
            row.symbol = partial.symbol
        open_time = self.timeframe.open_time(partial.open_time)
        window = row.windows.get(open_time)
        if window is None:
            fold = msgspec.structs.replace(partial, open_time=open_time, symbol="")
            row.windows[open_time] = Window(fold)
            self._next_close = min(self._next_close, self._closes_at(open_time))
        else:
            window.fold.merge(partial)
        self.advance(partial.offset, partial.last[0])
        return self.close_due(row.data_clock)

    def advance(self, offset: int, traded_at: int) -> None:
        """Note that the log has been read up to `offset` and that its trades reach `traded_at` (µs)."""
        row = self.row
        row.position = max(row.position, offset)
        row.data_clock = max(row.data_clock, traded_at)

    def close_due(self, clock: int) -> list[Candle]:
        """Close the windows that are due at `clock` (µs) and return their candles, oldest first.

        The data clock when trades come; a later time in a quiet market. A window closed early is corrected if
        its trades do come.
        """
        if clock < self._next_close:
            return []
        due = [
            window
            for open_time, window in sorted(self.row.windows.items())
            if window.emitted == NEVER and self._closes_at(open_time) <= clock
        ]
        candles = [self._candle(window.fold) for window in due if window.fold.open_time >= self.row.edge]
        for window in due:
            window.emitted = window.fold.offset
        self._next_close = self._find_next_close()
        return candles

    def corrections(self) -> list[Candle]:
        """Candles of closed windows that late trades have changed since they were last emitted, oldest first."""
        changed = [
            window for _, window in sorted(self.row.windows.items()) if NEVER < window.emitted < window.fold.offset
        ]
        candles = [self._candle(window.fold) for window in changed if window.fold.open_time >= self.row.edge]
        for window in changed:
            window.emitted = window.fold.offset
        return candles

    def drop_final(self) -> None:
        """Forget the windows that nothing can change any more, raising the floor.

        Only to be called when all candles emitted so far have been acknowledged: what is forgotten cannot be
        emitted again.
        """
        row = self.row
        keep_from = row.data_clock - self.rules.horizon_us
        for open_time in sorted(row.windows):
            window = row.windows[open_time]
            if open_time + self.timeframe.length_us >= keep_from or window.emitted != window.fold.offset:
                break
            if open_time >= row.edge:
                row.dropped = self._candle(window.fold)
            del row.windows[open_time]
        finest = self.rules.finest
        row.floor = max(row.floor, finest.open_time(max(keep_from - 1, 0)))

    def get_current_candle(self) -> Candle | None:
        """The candle in progress: that of the newest window that has not closed, or None."""
        open_windows = [window for window in self.row.windows.values() if window.emitted == NEVER]
        if not open_windows:
            return None
        return self._candle(max(open_windows, key=lambda window: window.fold.open_time).fold)

    def get_open_candles(self) -> list[Candle]:
        """The candles of all windows that have not closed yet, oldest first.

        Without those before the edge, which may lack trades and will not be emitted either.
        """
        return [
            self._candle(window.fold)
            for open_time, window in sorted(self.row.windows.items())
            if window.emitted == NEVER and open_time >= self.row.edge
        ]

    def get_last_closed_candle(self) -> Candle | None:
        """The newest closed candle, with the corrections that have reached it, or None."""
        closed = [window for window in self.row.windows.values() if window.emitted != NEVER]
        if not closed:
            return self.row.dropped
        return self._candle(max(closed, key=lambda window: window.fold.open_time).fold)

    def _closes_at(self, open_time: int) -> int:
        return open_time + self.timeframe.length_us + self.rules.lateness_us

    def _find_next_close(self) -> int:
        waiting = (open_time for open_time, window in self.row.windows.items() if window.emitted == NEVER)
        return min(map(self._closes_at, waiting), default=2**63)

    def _candle(self, fold: Fold) -> Candle:
        return Candle(
            symbol=self.row.symbol,
            timeframe=self._name,
            open_time=fold.open_time,
            close_time=fold.open_time + self.timeframe.length_us,
            open=fold.first[3],
            high=fold.high,
            low=fold.low,
            close=fold.last[3],
            volume=fold.volume,
            quote_volume=fold.quote_volume,
            trade_count=fold.trade_count,
            taker_buy_volume=fold.taker_buy_volume,
            taker_buy_quote_volume=fold.taker_buy_quote_volume,
            first_trade_id=fold.first[2],
            last_trade_id=fold.last[2],
            version=make_version(self.rules.epoch, fold.offset),
        )


def is_late(rules: WindowRules, data_clock: int, floor: int, traded_at: int) -> bool:
    """Whether a trade is too late to count: its finest window ended more than the horizon before the data clock.

    All times in µs. The floor adds windows that were dropped for other reasons than the clock.
    """
    start = rules.finest.open_time(traded_at)
    return start < floor or start + rules.finest.length_us + rules.horizon_us < data_clock

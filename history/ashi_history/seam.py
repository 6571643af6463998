"""Where the candles of files meet the live ones: the left edge of the live state, and the candles it cuts. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ashi.contracts.candle import epoch_of, make_version
from ashi.contracts.decimals import EXACT
from ashi_aggregate.core.fold import fold_trades
from ashi_aggregate.core.trade_ids import COPIES_APART_US, as_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ashi.contracts.candle import Candle
    from ashi.contracts.timeframe import Timeframe
    from ashi.contracts.trade import Trade
    from ashi_aggregate.core.fold import Fold


class LeftEdge:
    """The oldest live candle of each timeframe.

    The state began with one trade, the first of its log: in each timeframe it gave the open of the oldest candle, which
    may lack what was traded before it in the same window. Where the log had lost its beginning the first candles are
    whole ones, of different trades: nothing is to be added to those.

    Attributes:
        trade_id: of the trade that the live series begins with; None where there is none, or it is not known.

    """

    def __init__(self, oldest: Mapping[Timeframe, Candle], finest: Timeframe) -> None:
        """`oldest`: that of `finest`, at least: in longer timeframes the first candle may not have closed yet."""
        self._oldest = oldest
        self._finest = finest
        self._begin = oldest[finest].open_time
        self.trade_id = oldest[finest].first_trade_id

    @property
    def window(self) -> tuple[int, int]:
        """From when to when (µs, exclusive) the finest window goes that the live series begins in."""
        return self._begin, self._begin + self._finest.length_us

    def limit(self, timeframe: Timeframe) -> int:
        """Where the live series begins, µs: also that of a candle that has not closed yet."""
        candle = self._oldest.get(timeframe)
        return timeframe.open_time(self._begin) if candle is None else candle.open_time

    def cut_candle(self, timeframe: Timeframe) -> Candle | None:
        """The live candle that the edge cuts, if it does."""
        candle = self._oldest.get(timeframe)
        if candle is None or self.trade_id is None or candle.first_trade_id != self.trade_id:
            return None
        return candle

    def has_closed(self, timeframe: Timeframe) -> bool:
        """Whether there is a live candle."""
        return timeframe in self._oldest

    def begins_whole(self, timeframe: Timeframe) -> bool:
        """Whether the first live candle has all trades of its window, as the log began before it."""
        return timeframe in self._oldest and self.cut_candle(timeframe) is None

    def near(self) -> list[int]:
        """The finest windows (µs) that the first live trade may be in by the time that a file gives it."""
        begin, end = self.window
        return list(range(self._finest.open_time(begin - COPIES_APART_US), end + COPIES_APART_US, end - begin))

    def until(self, timeframes: Iterable[Timeframe]) -> int:
        """No trade of this time or later (µs) is wanted of a file."""
        near = self.near()
        return max(near[-1] + self._finest.length_us, *(self.limit(timeframe) for timeframe in timeframes))

    def follows(self, trade_id: str) -> bool:
        """Whether the first live trade is the next one after this, by its number."""
        before, first = as_number(trade_id), as_number(self.trade_id or "")
        return isinstance(before, int) and isinstance(first, int) and first == before + 1

    def before(self, trades: Sequence[Trade]) -> tuple[list[Trade], Trade | None]:
        """Of the trades near the edge those from before the first live one, and that one if it is among them.

        Where it is not, its number tells which are before it; without numbers only those of earlier windows surely are.
        """
        first = next((trade for trade in trades if trade.trade_id == self.trade_id), None)
        if first is not None:
            return [trade for trade in trades if rank(trade) < rank(first)], first
        number = as_number(self.trade_id or "")
        return [trade for trade in trades if self._is_surely_before(trade, number)], None

    def _is_surely_before(self, trade: Trade, number: int | str) -> bool:
        own = as_number(trade.trade_id)
        if isinstance(own, int) and isinstance(number, int):
            return own < number
        return trade.traded_at < self._begin


def rank(trade: Trade) -> tuple[int, int, str, object]:
    """The order of a symbol's trades."""
    return trade.traded_at, trade.sequence, trade.trade_id, trade.price


def folds_of(trades: Iterable[Trade], finest: Timeframe) -> list[Fold]:
    """Trades of one symbol folded by their finest windows, oldest first."""
    groups: dict[int, list[Trade]] = {}
    for trade in trades:
        groups.setdefault(finest.open_time(trade.traded_at), []).append(trade)
    return [fold_trades(groups[start], start, 0) for start in sorted(groups)]


def join(earlier: Fold, live: Candle, epoch: int) -> Candle:
    """The candle of a window that the edge cuts: the trades of files from before it, and those that the live one has.

    A candle is a fold too. The version has the offset of the last trade counted, as that of any candle.
    """
    add = EXACT.add
    offset = live.version - make_version(epoch_of(live.version), 0)
    return msgspec.structs.replace(
        live,
        open=earlier.first[3],
        first_trade_id=earlier.first[2],
        high=max(earlier.high, live.high),
        low=min(earlier.low, live.low),
        volume=add(earlier.volume, live.volume),
        quote_volume=add(earlier.quote_volume, live.quote_volume),
        trade_count=earlier.trade_count + live.trade_count,
        taker_buy_volume=add(earlier.taker_buy_volume, live.taker_buy_volume),
        taker_buy_quote_volume=add(earlier.taker_buy_quote_volume, live.taker_buy_quote_volume),
        version=make_version(epoch, offset),
    )

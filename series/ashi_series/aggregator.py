"""Trades of a script into candles, in its own process: no Kafka, and the same core as the aggregate workers' inside."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING

import msgspec

from ashi.contracts.candle import Candle
from ashi.contracts.errors import UsageError
from ashi.contracts.timeframe import Timeframe, format_time
from ashi.contracts.trade import Side, Trade
from ashi_aggregate.core.aggregator import TimeframeAggregator
from ashi_aggregate.core.trade_ids import TradeIds
from ashi_aggregate.core.window_state import WindowRules
from ashi_series.script_values import AnyTimeframe, amount, check_side_and_id, is_number, time_us, timeframe_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal

    from ashi_series.script_values import Amount, Number


class LateTradeWarning(UserWarning):
    """A trade came after its window had closed and is in no candle."""


class LateTrade(msgspec.Struct, frozen=True, gc=False):
    """A trade that came after its window had closed: it is in no candle of that timeframe.

    Attributes:
        symbol: whose trade.
        timeframe: in which it is too late; it may be in time for a longer one.
        traded_at: its time, µs.
        price: quote currency.
        size: base currency.
        closed_until: windows that began before this, µs, had closed.

    """

    symbol: str
    timeframe: Timeframe
    traded_at: int
    price: Decimal
    size: Decimal
    closed_until: int

    def __str__(self) -> str:
        return (
            f"the trade of {self.size} at {self.price} from {format_time(self.traded_at)} UTC came after its window "
            f"had closed and is in no candle of {self.symbol or 'the market'} in {self.timeframe}; to wait for such, "
            "give lateness_sec"
        )


class CandleAggregator:
    """The candles of one market in one timeframe, from trades that are given to it.

    >>> aggregator = CandleAggregator(timeframe_sec=60)
    >>> closed = aggregator.on_trade(ts, price, size)

    A window closes when the first trade of a later one comes. Trades of one time keep the order in which they came. Not
    for several threads at once.

    Attributes:
        symbol: what the candles are called.
        timeframe: their length.
        closed: all candles that the last call closed, the oldest first. There are several only where `lateness_sec` or
            `flat_candles` is given.
        late_trades: so many trades came too late.

    """

    def __init__(
        self,
        timeframe_sec: AnyTimeframe = 60,
        *,
        symbol: str = "",
        lateness_sec: float = 0,
        flat_candles: int = 0,
        on_late: Callable[[LateTrade], None] | None = None,
        on_change: Callable[[CandleAggregator], None] | None = None,
    ) -> None:
        """Begin without any trade.

        Args:
            timeframe_sec: the candles' length, s, which divides a day evenly; or as text, `1m`.
            symbol: any text.
            lateness_sec: so long after its end a window waits for trades that come late, by the time of the trades, s.
            flat_candles: at most so many windows in a row without trades give flat candles.
            on_late: is told of each trade that is too late; without it each is a `LateTradeWarning`.
            on_change: is called with the aggregator when its candles may be others now, before any trade is told.

        Raises ContractError for a timeframe and UsageError for a lateness or a number that cannot be.

        """
        if not is_number(lateness_sec) or not isinstance(flat_candles, int):
            raise UsageError(f"lateness_sec {lateness_sec!r} and flat_candles {flat_candles!r} must both be numbers")
        if not 0 <= lateness_sec < float("inf") or flat_candles < 0:
            raise UsageError(
                f"lateness_sec {lateness_sec} and flat_candles {flat_candles}: neither can be negative, nor endless"
            )
        self.symbol = symbol
        self.timeframe = timeframe_of(timeframe_sec)
        self.closed: tuple[Candle, ...] = ()
        self.late_trades = 0
        self._lateness_us = int(lateness_sec * 1_000_000)
        # What is late is decided here, before the core is asked: its horizon says how long it keeps closed windows.
        rules = WindowRules(self.timeframe, self._lateness_us, self._lateness_us, max_flat=flat_candles)
        self._core = TimeframeAggregator(self.timeframe, rules)
        # A worker bounds what it stores and gives open windows up for that; here the ids go with their windows.
        self._core.ids = TradeIds(self._core.row.ids, self.timeframe.length_us, most=sys.maxsize)
        self._on_change = on_change
        self._on_late = on_late
        self._begins_at: int | None = None
        self._last_closed: Candle | None = None
        self._count = 0
        self._has_ids: bool | None = None

    def on_trade(
        self, ts: Number, price: Amount, size: Amount, *, side: Side | None = None, trade_id: str | None = None
    ) -> Candle | None:
        """Take a trade in; gives the candle that it closed, the newest where there are several (`closed`), or None.

        Args:
            ts: seconds or milliseconds since the epoch; its size tells which.
            price: quote currency; float, str or Decimal.
            size: base currency, likewise.
            side: the taker's, `buy` or `sell`, for the volume of taker buys.
            trade_id: the venue's. With ids a trade that comes again counts once, as long as its window is open; without
                any, each call is a trade, and the candles number them from 1. Either all trades of a market have one or
                none has. Ids cost memory while their window is open: nothing where they are consecutive numbers.

        Raises ContractError for a time, a number or a side that is none and UsageError for an id that is none; nothing
        has changed then.

        """
        check_side_and_id(side, trade_id)
        self.check_has_ids(trade_id is not None)
        late = self.take(time_us(ts), amount("price", price), amount("size", size), side, trade_id)
        if late is not None:
            self.tell(late)
        return self.closed[-1] if self.closed else None

    def take(
        self, traded_at: int, price: Decimal, size: Decimal, side: Side | None, trade_id: str | None
    ) -> LateTrade | None:
        """As `on_trade`, with the time in µs, exact numbers and what is checked; gives the trade if it is late.

        `tell` is for its caller to call then.
        """
        self._has_ids = trade_id is not None
        self.closed = ()
        core, row = self._core, self._core.row
        if self._begins_at is None:
            self._begins_at = self.timeframe.open_time(traded_at - self._lateness_us)
        closed_until = max(row.closed_until, self._begins_at)
        if traded_at < closed_until or core.late_reason(traded_at) is not None:
            self.late_trades += 1
            return LateTrade(self.symbol, self.timeframe, traded_at, price, size, closed_until)
        self._count += 1
        own_id = str(self._count) if trade_id is None else trade_id
        trade = Trade(self.symbol, own_id, price, size, side, traded_at, traded_at, self._count)
        self._close(core.on_trade(trade))
        return None

    def on_time(self, ts: Number) -> Candle | None:
        """Close what is due at a time (seconds or milliseconds since the epoch) though no trade came; as `on_trade`.

        For quiet markets: give it the time now. A trade that comes afterwards is late for what has closed.
        """
        return self._close(self._core.close_due(time_us(ts)))

    def get_current_candle(self) -> Candle | None:
        """The candle in progress, as far as its trades have come, or None."""
        return self._core.get_current_candle()

    def get_open_candles(self) -> list[Candle]:
        """The candles of all open windows, the oldest first; at most one without `lateness_sec`."""
        return self._core.get_open_candles()

    def get_last_closed_candle(self) -> Candle | None:
        """The newest candle that has closed, or None."""
        return self._last_closed

    def _close(self, closed: list[Candle]) -> Candle | None:
        self.closed = tuple(closed)
        if closed:
            self._core.drop_final()
            self._last_closed = closed[-1]
        if self._on_change is not None:
            self._on_change(self)
        return closed[-1] if closed else None

    def check_has_ids(self, has_ids: bool) -> None:
        """Raise UsageError for a trade with an id where those before had none, or without one where they had."""
        if self._has_ids not in (None, has_ids):
            raise UsageError("some trades have a trade_id and some have none: give it for all of a market or for none")

    def tell(self, late: LateTrade) -> None:
        """Tell of a trade that is late."""
        if self._on_late is None:
            frame = sys._getframe(1)
            while frame.f_back is not None and frame.f_globals.get("__package__") == __package__:
                frame = frame.f_back
            warnings.warn_explicit(
                str(late),
                LateTradeWarning,
                frame.f_code.co_filename,
                frame.f_lineno,
                module=frame.f_globals.get("__name__"),
                registry={},  # the module's own would keep each text for ever, and show equal ones once
            )
        else:
            self._on_late(late)

"""An account of a simulation: what it holds, how it is filled, what it pays.

Nothing here knows an order book. A signal is known when its candle has closed, and is filled at the price of the first
trade after that: the open of the next candle that has trades, of the finest timeframe there is of the symbol. All of
it, at that price, whatever its size; the market does not move by it.

Each series at whose candles signals are filled has an account of its own: one for each symbol, and one for each of its
timeframes where a strategy of one timeframe is run in several. All begin with the same capital, in the symbol's quote
currency. A position takes all of
its account, or the part that is the signal's `strength`, without leverage, and profits stay in it. The fee is a part
of each fill's value, paid at both ends.

Money is `Decimal`, divided and rounded to 50 digits in `MONEY`; no float is in here.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from ashi.contracts.candle import Candle

MONEY: Final = Context(prec=50, rounding=ROUND_HALF_EVEN)
"""Amounts are quotients of prices of up to 38 digits, so they cannot be exact; the last digits are far below a cent."""
ZERO: Final = Decimal(0)
DUST: Final = Decimal("1E-30")
"""An account that has no more than this has nothing: rounding may leave it where the exact result is zero."""
ONE: Final = Decimal(1)

EndReason: TypeAlias = Literal["signal", "end", "ruined"]


@dataclass(frozen=True, slots=True)
class ClosedTrade:
    """A position from its first fill to its last.

    Attributes:
        symbol: `venue:MARKET`; `timeframe` that of the account.
        side: which way.
        opened_at: begin (µs) of the window whose first trade gave the first fill; `closed_at` likewise of the last. A
            position that was ended by the end of the candles, or by ruin, closed at the end of a window, at its close.
        entry: mean price of what was taken on, quote currency; `exit` of what was let go.
        units: how much of the base currency was taken on in all, positive.
        fees: quote currency, of all fills.
        profit: quote currency, after fees.
        gain: profit as a part of what the account had before: 0.01 is one percent.
        ended_by: a signal, the end of the candles, or that nothing was left in the account.

    """

    symbol: str
    timeframe: str
    side: Literal["long", "short"]
    opened_at: int
    closed_at: int
    entry: Decimal
    exit: Decimal
    units: Decimal
    fees: Decimal
    profit: Decimal
    gain: Decimal
    ended_by: EndReason


@dataclass(slots=True)
class _OpenTrade:
    """The position of now: what was taken on, in units and in quote currency, and what was let go of it again."""

    opened_at: int
    equity_before: Decimal
    side: Decimal
    units_in: Decimal = ZERO
    value_in: Decimal = ZERO
    units_out: Decimal = ZERO
    value_out: Decimal = ZERO
    fees: Decimal = ZERO


class Account:
    """The money of one series.

    Attributes:
        symbol: whose candles it trades at; `timeframe` which of them.
        cash: quote currency; more than it began with while it is short.
        units: of the base currency; negative when short.
        fees: all that it has paid, quote currency.
        trades: those that have ended.
        is_ruined: nothing is left in it, so it takes no position any more.

    """

    def __init__(self, symbol: str, timeframe: str, capital: Decimal, fee: Decimal) -> None:
        """`capital`: quote currency. `fee`: a part of each fill's value, such as 0.001."""
        self.symbol = symbol
        self.timeframe = timeframe
        self.cash = capital
        self.units = ZERO
        self.fees = ZERO
        self.trades: list[ClosedTrade] = []
        self.is_ruined = False
        self._fee = fee
        self._trade: _OpenTrade | None = None
        self._share = ZERO
        """The part of the account that the position was to take when it was filled last: negative when short."""
        self._wanted: Decimal | None = None
        self._mark = ZERO
        self._marked_at = 0

    @property
    def equity(self) -> Decimal:
        """Cash, and the position at the last close: quote currency. Without the fee that closing it would take."""
        return MONEY.add(self.cash, MONEY.multiply(self.units, self._mark)) if self.units else self.cash

    def want(self, share: Decimal) -> None:
        """Hold a position of this part of the account from the next trade on; negative: short."""
        if not self.is_ruined:
            self._wanted = share

    def on_candle(self, candle: Candle) -> None:
        """Fill what is waited for at the candle's first trade, then value the account at its close."""
        # At zero nothing can be bought; such prices are in no market, but in a store they may be.
        if self._wanted is not None and candle.trade_count and candle.open > 0:
            wanted, self._wanted = self._wanted, None
            if wanted != self._share:
                with localcontext(MONEY):
                    self._change_to(wanted, candle.open, candle.open_time)
        self._mark, self._marked_at = candle.close, candle.close_time
        if self.units < 0 and self.equity <= DUST:
            with localcontext(MONEY):
                self._close(candle.close, candle.close_time, "ruined")

    def finish(self) -> None:
        """No candle follows: a position that is left is closed at the last close, with the fee; what waits is void."""
        self._wanted = None
        if self._trade is not None:
            with localcontext(MONEY):
                self._close(self._mark, self._marked_at, "end")

    def _change_to(self, share: Decimal, price: Decimal, time: int) -> None:
        if self.cash + self.units * price <= DUST:
            self._close(price, time, "ruined")
        elif self._trade is not None and share * self._trade.side <= 0:
            self._close(price, time, "signal")
        if share and not self.is_ruined:
            side = ONE.copy_sign(share)
            if self._trade is None:
                self._trade = _OpenTrade(time, self.cash, side)
            self._fill(side * self._value(abs(share), price) / price - self.units, price)
            self._share = share

    def _value(self, share: Decimal, price: Decimal) -> Decimal:
        """What a position of that part of the account is worth, the fee of changing to it paid."""
        equity, value, fee = self.cash + self.units * price, abs(self.units) * price, self._fee
        if share * equity >= value:
            return share * (equity + fee * value) / (1 + share * fee)
        return max(share * (equity - fee * value) / (1 - share * fee), ZERO)

    def _fill(self, units: Decimal, price: Decimal) -> None:
        """Buy so many units, or sell them if negative, and pay the fee."""
        assert self._trade is not None  # noqa: S101  (whoever opens has made it)
        value = abs(units) * price
        fee = value * self._fee
        self.cash -= units * price + fee
        self.units += units
        self.fees += fee
        self._trade.fees += fee
        if units * self._trade.side > 0:
            self._trade.units_in += abs(units)
            self._trade.value_in += value
        else:
            self._trade.units_out += abs(units)
            self._trade.value_out += value

    def _close(self, price: Decimal, time: int, ended_by: EndReason) -> None:
        self._fill(-self.units, price)
        trade, self._trade = self._trade, None
        assert trade is not None  # noqa: S101  (there were units)
        profit = self.cash - trade.equity_before
        self.trades.append(
            ClosedTrade(
                symbol=self.symbol,
                timeframe=self.timeframe,
                side="long" if trade.side > 0 else "short",
                opened_at=trade.opened_at,
                closed_at=time,
                entry=trade.value_in / trade.units_in,
                exit=trade.value_out / trade.units_out,
                units=trade.units_in,
                fees=trade.fees,
                profit=profit,
                gain=profit / trade.equity_before,
                ended_by=ended_by,
            )
        )
        self.units, self._share = ZERO, ZERO
        if self.cash <= DUST:
            self.is_ruined, self._wanted = True, None

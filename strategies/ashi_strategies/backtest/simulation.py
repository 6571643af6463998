"""What would have come of trading the signals: an account for each series, and what all are worth over time."""

from __future__ import annotations

from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Final, NamedTuple

from ashi.contracts.timeframe import Timeframe
from ashi_strategies.backtest.account import MONEY, ONE, ZERO, Account
from ashi_strategies.series_name import SeriesName

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ashi.contracts.candle import Candle
    from ashi.contracts.signal import Signal
    from ashi_strategies.backtest.account import ClosedTrade

_SIDES: Final = {"long": ONE, "short": -ONE, "flat": ZERO}


class EquityPoint(NamedTuple):
    """What all accounts were worth at the end of a window (µs): cash, and positions at their last close."""

    time: int
    equity: Decimal


class Drawdown(NamedTuple):
    """The greatest loss from a peak of the equity to a later low, as a part of the peak; 0 if there was none.

    Attributes:
        peak_at: end of the window at which the equity stood highest before, µs; `low_at` of that at which lowest.
        recovered_at: end of the first window after `low_at` at which it had reached the peak again; None if never.

    """

    depth: Decimal = ZERO
    peak_at: int | None = None
    low_at: int | None = None
    recovered_at: int | None = None


class EquityCurve:
    """What the accounts were worth over time, and the greatest drawdown of it.

    Attributes:
        points: each window's end at which the worth was another than before, and the first and the last one.

    """

    def __init__(self) -> None:
        self.points: list[EquityPoint] = []
        self.drawdown = Drawdown()
        self._last: EquityPoint | None = None
        self._peak: EquityPoint | None = None
        self._deepest_from = ZERO

    def add(self, time: int, equity: Decimal) -> None:
        """Go on to the end of the next window (µs)."""
        point = EquityPoint(time, equity)
        if self._last is None or equity != self._last.equity:
            self.points.append(point)
        self._last = point
        if self._peak is None or equity > self._peak.equity:
            self._peak = point
        elif equity < self._peak.equity and self._peak.equity > 0:
            depth = MONEY.divide(MONEY.subtract(self._peak.equity, equity), self._peak.equity)
            if depth > self.drawdown.depth:
                self.drawdown = Drawdown(depth, self._peak.time, time)
                self._deepest_from = self._peak.equity
        if self.drawdown.low_at is not None and self.drawdown.recovered_at is None and equity >= self._deepest_from:
            self.drawdown = self.drawdown._replace(recovered_at=time)

    def finish(self) -> None:
        """No window follows."""
        if self._last is not None and self.points[-1] != self._last:
            self.points.append(self._last)


class Simulation:
    """All accounts over time. Of each step first the candles, then the signals, then its end."""

    def __init__(self, traded: Mapping[SeriesName, SeriesName], *, capital: Decimal, fee: Decimal) -> None:
        """Open the accounts.

        `traded`: for each series that signals come of, the one at whose candles they are filled; each of these has an
        account. `capital`: of each, quote currency, above 0. `fee`: a part of each fill's value, below 1.
        """
        self.capital = capital
        self.accounts = {key: Account(*key, capital, fee) for key in dict.fromkeys(traded.values())}
        self.curve = EquityCurve()
        self.candles = 0
        self.candles_in_market = 0
        """Candles at whose end the account had a position."""
        self._by_signal = {series: self.accounts[key] for series, key in traded.items()}
        self._ended: EquityPoint | None = None

    def on_candle(self, candle: Candle) -> None:
        """The next candle of a series that has an account."""
        account = self.accounts[SeriesName(candle.symbol, candle.timeframe)]
        account.on_candle(candle)
        self.candles += 1
        self.candles_in_market += bool(account.units)

    def on_signal(self, signal: Signal) -> None:
        """The strategy wants another position, or the same; the last word before the next trade counts."""
        strength = ONE if signal.strength is None else signal.strength
        account = self._by_signal[SeriesName(signal.symbol, signal.timeframe)]
        account.want(_SIDES[signal.target] * strength)

    def end_step(self, time: int) -> None:
        """All candles that ended at this time (µs) are in, and all signals of them."""
        if self._ended is not None:
            self.curve.add(*self._ended)
        self._ended = EquityPoint(time, self.equity)

    def finish(self) -> None:
        """No candle follows: positions that are left are closed."""
        for account in self.accounts.values():
            account.finish()
        if self._ended is not None:
            self.curve.add(self._ended.time, self.equity)  # what closing them took is in the last one
        self.curve.finish()

    @property
    def equity(self) -> Decimal:
        """That of all accounts."""
        with localcontext(MONEY):
            return sum((account.equity for account in self.accounts.values()), ZERO)

    @property
    def trades(self) -> Sequence[ClosedTrade]:
        """Those of all accounts, by when they ended, then by symbol and timeframe."""
        trades = [trade for account in self.accounts.values() for trade in account.trades]
        return sorted(
            trades, key=lambda trade: (trade.closed_at, trade.symbol, Timeframe.parse(trade.timeframe), trade.opened_at)
        )

"""The figures of a backtest; docs/backtest.md has what each one means, and how other programs count it."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Final

from ashi_strategies.backtest.account import MONEY, ZERO

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ashi.contracts.candle import Candle
    from ashi_strategies.backtest.account import ClosedTrade
    from ashi_strategies.backtest.simulation import Drawdown, Simulation

LABEL: Final = "SIMULATION: past candles, one fill price, no order book. It is no forecast and no account statement."
"""Stands in everything that shows these figures."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of trading the signals. Parts are of 1: 0.01 is one percent.

    Attributes:
        capital: of all accounts together at the start.
        final_equity: of all accounts at the end, every position closed.
        total_return: `final_equity` over `capital`, less 1.
        market_return: what closes did from the first to the last, the mean over the accounts, without fees.
        drawdown: of the equity at the end of each window.
        trades: positions that were opened and closed.
        wins: trades with a profit after fees.
        best: greatest gain of a trade; `worst` the least; `mean_gain` their mean; None without trades.
        profit_factor: profits over losses, None without losses.
        exposure: the part of all candles at whose end there was a position.
        fees: paid in all, quote currency.
        ruined: symbols of which an account had nothing left.

    """

    capital: Decimal
    final_equity: Decimal
    total_return: Decimal
    market_return: Decimal
    drawdown: Drawdown
    trades: int
    wins: int
    best: Decimal | None
    worst: Decimal | None
    mean_gain: Decimal | None
    profit_factor: Decimal | None
    exposure: Decimal
    fees: Decimal
    ruined: Sequence[str]


class MarketReturn:
    """What prices did: the mean over the accounts' series, from the first to the last close of each."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, str], Decimal] = {}
        self._last: dict[tuple[str, str], Decimal] = {}

    def on_candle(self, candle: Candle) -> None:
        """The next candle of a series that has an account."""
        key = candle.symbol, candle.timeframe
        if candle.close:
            self._first.setdefault(key, candle.close)
        self._last[key] = candle.close

    def result(self) -> Decimal:
        """0 where there was no price."""
        with localcontext(MONEY):
            changes = [self._last[key] / first - 1 for key, first in self._first.items()]
            return _mean(changes) if changes else ZERO


def summarize(simulation: Simulation, market: MarketReturn) -> Summary:
    """The figures of a simulation that is finished."""
    trades = simulation.trades
    gains = [trade.gain for trade in trades]
    with localcontext(MONEY):
        capital = simulation.capital * len(simulation.accounts)
        return Summary(
            capital=capital,
            final_equity=simulation.equity,
            total_return=simulation.equity / capital - 1,
            market_return=market.result(),
            drawdown=simulation.curve.drawdown,
            trades=len(trades),
            wins=sum(trade.profit > 0 for trade in trades),
            best=max(gains, default=None),
            worst=min(gains, default=None),
            mean_gain=_mean(gains) if gains else None,
            profit_factor=_profit_factor(trades),
            exposure=Decimal(simulation.candles_in_market) / max(simulation.candles, 1),
            fees=sum((account.fees for account in simulation.accounts.values()), ZERO),
            ruined=list(dict.fromkeys(account.symbol for account in simulation.accounts.values() if account.is_ruined)),
        )


def _mean(values: Sequence[Decimal]) -> Decimal:
    return sum(values, ZERO) / len(values)


def _profit_factor(trades: Iterable[ClosedTrade]) -> Decimal | None:
    profits = [trade.profit for trade in trades]
    losses = -sum((profit for profit in profits if profit < 0), ZERO)
    return sum((profit for profit in profits if profit > 0), ZERO) / losses if losses else None

"""Accounts of a simulation against exact fractions, and the figures that are made of them."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from ashi.contracts import Candle
from ashi.contracts.signal import Signal
from ashi_strategies.backtest.simulation import EquityCurve, Simulation
from ashi_strategies.backtest.summary import MarketReturn, summarize
from ashi_strategies.series_name import SeriesName

SYMBOL, OTHER = "binance:ETHUSDT", "bitflyer:BTC_JPY"
MINUTE = 60_000_000
CAPITAL = Decimal(1_000)


def candle(minute: int, open_: Any, close: Any, *, symbol: str = SYMBOL, trades: int = 1) -> Candle:
    open_, close = Decimal(open_), Decimal(close)
    volume = Decimal(trades)
    return Candle(
        symbol, "1m", minute * MINUTE, (minute + 1) * MINUTE, open_, max(open_, close), min(open_, close), close,
        volume, volume, trades, Decimal(0), Decimal(0), "1" if trades else None, "1" if trades else None, minute,
    )  # fmt: skip


def signal(minute: int, target: Any, strength: Any = None, *, symbol: str = SYMBOL) -> Signal:
    return Signal(
        strategy="s", symbol=symbol, timeframe="1m", open_time=minute * MINUTE, close_time=(minute + 1) * MINUTE,
        version=minute, revision=0, target=target, strength=None if strength is None else Decimal(strength),
        price=Decimal(1), reason=None, labels={}, all_closed=True, is_complete=None, status="active", updated_at=0,
    )  # fmt: skip


def simulated(
    steps: list[tuple[list[Candle], list[Signal]]], *, fee: Any = 0, symbols: tuple[str, ...] = (SYMBOL,)
) -> Simulation:
    keys = [SeriesName(symbol, "1m") for symbol in symbols]
    simulation = Simulation(dict(zip(keys, keys, strict=True)), capital=CAPITAL, fee=Decimal(fee))
    for candles, signals in steps:
        for one in candles:
            simulation.on_candle(one)
        for wanted in signals:
            simulation.on_signal(wanted)
        simulation.end_step(candles[0].close_time)
    simulation.finish()
    return simulation


def test_a_signal_is_filled_at_the_open_of_the_next_candle_that_has_trades():
    simulation = simulated(
        [
            ([candle(0, 100, 101)], [signal(0, "long")]),
            ([candle(1, 101, 101, trades=0)], []),  # flat: nobody traded
            ([candle(2, 125, 130)], [signal(2, "flat")]),
            ([candle(3, 150, 90)], []),
        ]
    )
    [trade] = simulation.trades
    assert (trade.side, trade.opened_at, trade.closed_at, trade.ended_by) == ("long", 2 * MINUTE, 3 * MINUTE, "signal")
    assert (trade.entry, trade.exit, trade.units) == (125, 150, 8)
    assert (trade.profit, trade.gain, simulation.equity) == (200, Decimal("0.2"), 1_200)


def test_the_fee_is_paid_of_both_fills_out_of_the_account():
    simulation = simulated(
        [
            ([candle(0, 100, 100)], [signal(0, "long")]),
            ([candle(1, 100, 100)], [signal(1, "flat")]),
            ([candle(2, 100, 100)], []),
        ],
        fee="0.25",
    )
    [trade] = simulation.trades
    assert (trade.units, trade.fees) == (8, 400)  # 1,000 buy 800 and the fee of 200; 800 sold bring 600
    assert (trade.profit, trade.gain, simulation.equity) == (-400, Decimal("-0.4"), 600)


def test_a_short_position_gains_what_the_price_loses():
    simulation = simulated(
        [
            ([candle(0, 100, 100)], [signal(0, "short")]),
            ([candle(1, 100, 75)], []),
            ([candle(2, 50, 50)], [signal(2, "long")]),  # turns round at one price
            ([candle(3, 50, 60)], []),
        ]
    )
    short, long = simulation.trades
    assert (short.side, short.entry, short.exit, short.profit) == ("short", 100, 50, 500)
    assert (long.side, long.ended_by, long.closed_at) == ("long", "end", 4 * MINUTE)
    assert [point.equity for point in simulation.curve.points] == [1_000, 1_250, 1_500, 1_800]


def test_a_position_that_is_left_is_closed_at_the_last_close_with_its_fee():
    simulation = simulated([([candle(0, 1, 1)], [signal(0, "long")]), ([candle(1, 100, 100)], [])], fee="0.25")
    [trade] = simulation.trades
    assert (trade.ended_by, trade.exit, simulation.equity) == ("end", 100, 600)
    assert simulation.curve.points[-1] == (2 * MINUTE, 600)
    assert simulation.curve.drawdown.depth == Decimal("0.4")


def test_a_signal_without_a_later_trade_is_not_filled():
    simulation = simulated([([candle(0, 1, 1)], [signal(0, "long")]), ([candle(1, 1, 1, trades=0)], [])])
    assert list(simulation.trades) == []
    assert simulation.equity == 1_000


def test_a_strength_takes_that_part_of_the_account_and_another_one_changes_the_position():
    simulation = simulated(
        [
            ([candle(0, 10, 10)], [signal(0, "long", "0.5")]),
            ([candle(1, 10, 10)], [signal(1, "long", "0.5")]),  # the same: nothing
            ([candle(2, 10, 20)], [signal(2, "long", "1")]),
            ([candle(3, 20, 20)], [signal(3, "long", "0.25")]),
            ([candle(4, 20, 20)], [signal(4, "flat")]),
            ([candle(5, 40, 40)], []),
        ]
    )
    [trade] = simulation.trades
    # 50 units at 10; at 20 all of the 1,500: 75; then a quarter of them: 18.75; these at 40.
    assert (trade.units, round(trade.entry, 8)) == (75, Decimal("13.33333333"))
    assert simulation.equity == Decimal(1_500) + Decimal("18.75") * 20
    assert trade.profit == simulation.equity - 1_000


def test_a_position_that_is_changed_pays_the_fee_of_the_change_alone():
    simulation = simulated(
        [
            ([candle(0, 100, 100)], [signal(0, "long")]),  # 800 and the fee of 200
            ([candle(1, 100, 100)], [signal(1, "long", "0.8")]),  # 200 less, for 50: 600 are 0.8 of 750
            ([candle(2, 100, 100)], [signal(2, "long", "1")]),  # 120 more, for 30: 720 are all
            ([candle(3, 100, 100)], [signal(3, "flat")]),
            ([candle(4, 100, 100)], []),
        ],
        fee="0.25",
    )
    [trade] = simulation.trades
    assert [point.equity for point in simulation.curve.points] == [1_000, 800, 750, 720, 540]
    assert (trade.units, trade.fees, trade.profit) == (Decimal("9.2"), 200 + 50 + 30 + 180, -460)


def test_a_short_that_loses_all_of_its_account_ends_and_the_account_takes_no_more():
    simulation = simulated(
        [
            ([candle(0, 100, 100)], [signal(0, "short")]),
            ([candle(1, 100, 150)], []),
            ([candle(2, 150, 230)], [signal(2, "long")]),
            ([candle(3, 230, 300)], [signal(3, "long")]),
            ([candle(4, 300, 600)], []),
        ]
    )
    [trade] = simulation.trades
    assert (trade.ended_by, trade.exit) == ("ruined", 230)
    assert simulation.equity == -300
    assert summarize(simulation, MarketReturn()).ruined == [SYMBOL]


def test_a_gap_that_takes_more_than_all_ends_a_short_at_its_open():
    simulation = simulated(
        [
            ([candle(0, 100, 100)], [signal(0, "short", "0.9")]),
            ([candle(1, 100, 100)], [signal(1, "short", "1")]),
            ([candle(2, 400, 100)], []),
            ([candle(3, 100, 100)], []),
        ]
    )
    [trade] = simulation.trades
    assert (trade.ended_by, trade.exit, simulation.equity) == ("ruined", 400, 1_000 - 9 * 300)


def test_each_symbol_has_an_account_of_its_own_and_the_market_is_their_mean():
    market = MarketReturn()
    steps: list[tuple[list[Candle], list[Signal]]] = [
        ([candle(0, 10, 10), candle(0, 100, 100, symbol=OTHER)], [signal(0, "long"), signal(0, "short", symbol=OTHER)]),
        ([candle(1, 10, 20), candle(1, 100, 50, symbol=OTHER)], []),
    ]
    for candles, _ in steps:
        for one in candles:
            market.on_candle(one)
    summary = summarize(simulated(steps, symbols=(SYMBOL, OTHER)), market)
    assert (summary.capital, summary.final_equity, summary.total_return) == (2_000, 3_500, Decimal("0.75"))
    assert summary.market_return == Decimal("0.25")
    assert (summary.trades, summary.wins, summary.profit_factor) == (2, 2, None)
    assert summary.exposure == Decimal("0.5")


def near(value: Decimal | Fraction, expected: Fraction) -> bool:
    return abs(Fraction(value) - expected) < Fraction(1, 10**40)


shares = st.sampled_from([Fraction(-1), Fraction(0), Fraction(1)])
prices = st.integers(50, 200)


# Nothing is left of the last one, but for rounding.
@example([(50, 50, -1), (83, 50, 0), (74, 50, -1), (57, 114, -1), (50, 50, -1)], "0")
@given(st.lists(st.tuples(prices, prices, shares), min_size=1, max_size=12), st.sampled_from(["0", "0.001", "0.25"]))
def test_equity_is_what_fractions_say_and_the_trades_add_up_to_it(rows, fee):
    """Whole positions only: each trade multiplies what the account has by a factor of its two prices."""
    f = Fraction(fee)
    names = {1: "long", 0: "flat", -1: "short"}
    steps = [([candle(n, o, c)], [signal(n, names[int(share)])]) for n, (o, c, share) in enumerate(rows)]
    simulation = simulated(steps, fee=fee)

    equity, side, entry, worth = Fraction(1_000), 0, Fraction(1), []

    def factor(exit_: Fraction) -> Fraction:
        return 1 + side * (exit_ / entry - 1) / (1 + f) - f * (1 + exit_ / entry) / (1 + f) if side else Fraction(1)

    wanted, ruined = 0, False
    for open_, close, share in rows:
        price = Fraction(open_)
        if not ruined and wanted != side:
            equity, side = equity * factor(price), 0
            ruined = equity <= 0
            if not ruined:
                side, entry = wanted, price
        # The worth at a close has the fee of the entry in it, and not yet that of the exit.
        worth.append(equity * (factor(Fraction(close)) + (f * Fraction(close) / entry / (1 + f) if side else 0)))
        if side < 0 and worth[-1] <= 0:
            equity, side, ruined = equity * factor(Fraction(close)), 0, True
        wanted = 0 if ruined else int(share)
    equity *= factor(Fraction(rows[-1][1]))
    worth[-1] = equity

    assert near(simulation.equity, equity)
    profits = sum((Fraction(trade.profit) for trade in simulation.trades), Fraction(0))
    assert near(profits, equity - 1_000)
    for trade in simulation.trades:
        direction = 1 if trade.side == "long" else -1
        gross = Fraction(trade.units) * (Fraction(trade.exit) - Fraction(trade.entry)) * direction
        assert near(trade.profit, gross - Fraction(trade.fees))
    peak, depth = worth[0], Fraction(0)
    for value in worth:
        peak = max(peak, value)
        depth = max(depth, (peak - value) / peak)
    assert near(simulation.curve.drawdown.depth, depth)


def test_the_drawdown_names_its_peak_its_low_and_when_it_was_made_up_for():
    curve = EquityCurve()
    for time, equity in enumerate([100, 90, 110, 88, 99, 109, 110, 105]):
        curve.add(time, Decimal(equity))
    assert curve.drawdown == (Decimal("0.2"), 2, 3, 6)
    curve.add(8, Decimal(55))
    assert curve.drawdown == (Decimal("0.5"), 2, 8, None)

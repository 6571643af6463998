"""The strategies that come with Ashi say what their first line promises."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest
from strategy_samples import a_candle

from ashi.contracts.candle import Candle
from ashi.contracts.errors import UsageError
from ashi.contracts.signal import Signal
from ashi_series.events import Closed
from ashi_strategies import load_strategy, plans_of
from ashi_strategies.engine import Engine
from samples.candles import BTC, ETH


def signals_of(
    name: str, symbols: list[str], candles: list[Candle], timeframes: Any = (), **parameters: Any
) -> list[Signal]:
    (plan,) = plans_of(load_strategy(name), symbols, timeframes, parameters)
    engine = Engine(plan)
    engine.feed([Closed(candle) for candle in sorted(candles, key=lambda one: one.close_time)])
    engine.finish()
    return engine.signals()


def wave(window: int, period: int = 40, height: int = 100) -> float:
    return round(1_000 + height * math.sin(window * 2 * math.pi / period), 2)


def test_ma_cross_is_long_from_where_the_fast_mean_comes_above_the_slow_one() -> None:
    closes = [wave(window) + window % 3 for window in range(400)]
    said = signals_of(
        "ma_cross", [BTC], [a_candle(window, close) for window, close in enumerate(closes)], fast=3, slow=8
    )
    wanted = []
    for last in range(17, 400):  # nine candles to be handed to it, each with eight before it
        was_above, is_above = (
            statistics.fmean(closes[end - 3 : end]) > statistics.fmean(closes[end - 8 : end])
            for end in (last, last + 1)
        )
        if was_above != is_above:
            wanted.append((last, "long" if is_above else "flat"))
    found = [
        (round((signal.open_time - said[0].open_time) / 60_000_000) + wanted[0][0], signal.target) for signal in said
    ]
    assert found == wanted
    assert len(wanted) >= 19
    assert {signal.strategy for signal in said} == {"ma_cross(fast=3,slow=8)"}
    assert said[0].labels.keys() == {"fast", "slow"}


@pytest.mark.parametrize("close", ["0.1", "0.0731", "1.1", "2650.1", "3000.33", "65432.17"])
def test_ma_cross_says_nothing_of_means_that_are_equal(close: str) -> None:
    """The last digits of a running sum are noise, which is no cross."""
    closes = [2 * float(close)] * 45 + [float(close)] * 60
    said = signals_of("ma_cross", [BTC], [a_candle(window, close) for window, close in enumerate(closes)])
    assert [(signal.target, signal.close_time) for signal in said] == []


def test_trend_pullback_is_long_only_in_an_upward_trend() -> None:
    def candles(slope: float) -> list[Candle]:
        fine = [
            a_candle(window, round(wave(window, 24, 10) + slope * window, 2), 1, BTC, "5m") for window in range(900)
        ]
        coarse = [a_candle(window, fine[window * 12 + 11].close, 1, BTC, "1h") for window in range(75)]
        return [*fine, *coarse]

    up, down = (signals_of("trend_pullback", [BTC], candles(slope), rsi="7") for slope in (0.2, -0.2))
    assert {signal.target for signal in up} == {"long", "flat"}
    assert {signal.target for signal in down} == {"flat"}
    assert {signal.timeframe for signal in up} == {"5m"}
    assert all(signal.all_closed for signal in up)


def test_venue_spread_is_short_in_the_dear_market_and_long_in_the_cheap_one() -> None:
    candles = [a_candle(window, 1_000 + (window % 7), 1, BTC) for window in range(200)]
    candles += [a_candle(window, 1_000 + (window % 5) + 40 * (window % 50 == 49), 1, ETH) for window in range(200)]
    said = signals_of("venue_spread", [BTC, ETH], candles, window=20, entry=3)
    apart = [signal for signal in said if signal.target != "flat"]
    assert {(signal.symbol, signal.target) for signal in apart} == {(ETH, "short"), (BTC, "long")}
    assert len(apart) == 2 * 4
    times = [signal.close_time for signal in said]
    assert all(times.count(time) == 2 for time in times), "each of the two has a signal of its own"


@pytest.mark.parametrize(
    ("name", "symbols", "parameters"),
    [
        ("ma_cross", [BTC], {"fast": 21, "slow": 9}),
        ("ma_cross", [BTC], {"fast": 1}),
        ("trend_pullback", [BTC], {"low": 70}),
        ("venue_spread", [BTC], {}),
        ("venue_spread", [BTC, ETH], {"window": 1}),
    ],
)
def test_parameters_that_cannot_be_meant_are_refused(name: str, symbols: Any, parameters: Any) -> None:
    with pytest.raises(UsageError, match=name):
        plans_of(load_strategy(name), symbols, (), parameters)

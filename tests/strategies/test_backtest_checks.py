"""A strategy that breaks the one rule is found out by running it again, and one that keeps it is not accused."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from strategy_samples import Forever, Memory, Prophet, Views, a_candle, a_plan

from ashi.contracts.candle import Candle
from ashi_strategies import Target, load_strategy, long, plans_of
from ashi_strategies.backtest.checks import Finding, check_strategy
from ashi_strategies.plan import Plan
from samples.candles import BTC, ETH


def walk(symbols: Any = (BTC,), timeframes: Any = ("1m",), minutes: int = 1_200, missing: float = 0) -> list[Candle]:
    rng = random.Random(3)
    return [
        a_candle(window, 1_000 + rng.randint(0, 50), 1, symbol, timeframe)
        for symbol in symbols
        for timeframe in timeframes
        for window in range(minutes // int(timeframe[:-1]))
        if rng.random() >= missing
    ]


def check(plan: Plan, candles: list[Candle]) -> Finding | None:
    return asyncio.run(check_strategy(plan, candles, may_know_date=True))


@pytest.mark.parametrize("strategy", [Views, Memory])
@pytest.mark.parametrize(("symbols", "timeframes"), [([BTC], ["1m"]), ([BTC, ETH], ["1m", "5m"])])
@pytest.mark.parametrize("missing", [0, 0.2])
def test_a_strategy_that_keeps_the_rule_is_not_accused(
    strategy: Any, symbols: Any, timeframes: Any, missing: float
) -> None:
    plan = a_plan(strategy, symbols, timeframes, length=5)
    assert check(plan, walk(symbols, timeframes, missing=missing)) is None


@pytest.mark.parametrize("name", ["ma_cross", "trend_pullback", "venue_spread"])
def test_the_examples_keep_it(name: str) -> None:
    strategy = load_strategy(name)
    symbols = [BTC, ETH][: 1 + strategy.symbols_together]
    timeframes = ["1m", "5m"] if len(strategy.timeframes) > 1 else ["1m"]
    (plan,) = plans_of(strategy, symbols, timeframes)
    assert check(plan, walk(symbols, timeframes, 3_000)) is None


def test_one_whose_instances_share_what_they_have_seen_is_found_out() -> None:
    Prophet.shared.clear()
    found = check(a_plan(Prophet), walk())
    assert found is not None
    assert found.check == "repeatable"
    assert "prophet(bitflyer:BTC_JPY,length=2) gave no signal at the 1m candle of bitflyer:BTC_JPY" in found.text
    assert "and long when all was run again as it was" in found.text


def test_one_that_decides_by_chance_is_found_out() -> None:
    rng = random.Random(1)

    class Chance(Views):
        def on_candle(self, candle: Candle, series: Any) -> Target | None:
            return long(str(rng.randint(0, 9)))

    found = check(a_plan(Chance), walk())
    assert found is not None
    assert found.check == "repeatable"


def test_chance_that_comes_seldom_is_not_taken_for_something_else() -> None:
    """A part that is run again may differ where a run that ends there does not."""
    for seed in range(10):
        rng = random.Random(seed)

        class Rare(Views):
            def on_candle(self, candle: Candle, series: Any, rng: random.Random = rng) -> Target | None:
                return None if rng.random() < 0.01 else long()

        found = asyncio.run(check_strategy(a_plan(Rare), walk(minutes=600)))
        assert found is not None
        assert found.check == "repeatable"


def test_one_that_remembers_for_longer_than_it_declares_is_found_out() -> None:
    found = check(a_plan(Forever, length=5), walk())
    assert found is not None
    assert found.check == "startup"
    assert "Raise startup_candles (bitflyer:BTC_JPY 1m: 5), or keep less" in found.text


class Average(Views):
    """An exponential average that is carried along: it forgets, but never wholly."""

    declared: int = 100

    @property
    def startup_candles(self) -> int:
        return self.declared

    def __post_init__(self) -> None:
        self.average = 0.0

    def on_candle(self, candle: Candle, series: Any) -> Target | None:
        self.average += (float(candle.close) - self.average) / 20
        return long() if candle.close > self.average else None


def test_one_that_forgets_slowly_has_to_declare_enough() -> None:
    candles = walk(minutes=2_000)
    found = check(a_plan(Average, declared=5), candles)
    assert found is not None
    assert found.check == "startup"
    assert check(a_plan(Average, declared=400), candles) is None


def test_too_few_candles_are_no_difference() -> None:
    plan = a_plan(Views, length=5)
    assert check(plan, []) is None
    assert check(plan, walk(minutes=8)) is None
    assert check(plan, walk(minutes=12)) is None

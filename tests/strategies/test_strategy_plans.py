"""How strategies are written, named, found and given their parameters."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ashi.contracts.errors import ContractError, UsageError
from ashi.contracts.timeframe import Timeframe
from ashi_strategies import Strategy, Target, flat, load_strategy, long, plans_of, short
from ashi_strategies.plan import EXAMPLES
from samples.candles import BTC, ETH

M1, M5, H1 = map(Timeframe.parse, ("1m", "5m", "1h"))


class RsiBands(Strategy):
    length: int = 14
    edge: Decimal = Decimal("0.5")
    quiet: bool = False

    @property
    def startup_candles(self) -> int | Mapping[str, int]:
        return self.length

    def on_candle(self, candle: Any, series: Any) -> Target | None:
        return None


class TwoLengths(RsiBands):
    timeframes = ("5m", "1h")
    symbols_together = True
    length = 3
    startup_candles = {"5m": 40, "1h": 2}  # noqa: RUF012


def test_each_symbol_and_each_timeframe_has_a_plan_of_its_own() -> None:
    plans = plans_of(RsiBands, [ETH, BTC], ["60s", "5m"], {"length": "21", "edge": "0.25"})
    assert [(plan.symbols, plan.timeframes) for plan in plans] == [
        ((ETH,), ("1m",)), ((ETH,), ("5m",)), ((BTC,), ("1m",)), ((BTC,), ("5m",)),
    ]  # fmt: skip
    assert {plan.identity for plan in plans} == {"rsi_bands(length=21,edge=0.25,quiet=False)"}
    assert plans[0].startup == {(ETH, M1): 21}
    strategy: Any = plans[0].make()
    assert (strategy.symbols, strategy.timeframes, strategy.length, strategy.edge) == (
        (ETH,), ("1m",), 21, Decimal("0.25"),
    )  # fmt: skip
    assert plans[0].make() is not strategy


def test_a_strategy_that_wants_its_series_together_has_one_plan_which_is_named_by_them() -> None:
    (plan,) = plans_of(TwoLengths, [ETH, BTC])
    assert plan.identity == f"two_lengths({ETH},{BTC},5m,1h,length=3,edge=0.5,quiet=False)"
    assert list(plan.startup.items()) == [((ETH, M5), 40), ((BTC, M5), 40), ((ETH, H1), 2), ((BTC, H1), 2)]
    assert plan.history == {(ETH, M5): 79, (BTC, M5): 79, (ETH, H1): 5, (BTC, H1): 5}
    (other,) = plans_of(TwoLengths, [BTC, ETH])
    assert plan.identity != other.identity


@pytest.mark.parametrize(
    ("strategy", "symbols", "timeframes", "parameters", "what"),
    [
        (RsiBands, [], [], {}, "rsi_bands needs at least one symbol"),
        (RsiBands, [BTC, BTC], [], {}, "a symbol is given twice"),
        (RsiBands, [BTC], ["1m", "60s"], {}, "a timeframe is given twice among 1m, 1m"),
        (TwoLengths, [BTC], ["5m"], {}, "takes 2 timeframes together, such as 5m, 1h; 1 are given"),
        (
            TwoLengths,
            [BTC],
            ["1m", "2m"],
            {},
            r"startup_candles is {'5m': 40, '1h': 2}: .* one number for each of 1m, 2m",
        ),
        (RsiBands, [BTC], [], {"lenght": "5"}, "has no parameter lenght: there are length, edge, quiet"),
        (RsiBands, [BTC], [], {"length": "five"}, "rsi_bands: length is 'five'"),
        (RsiBands, [BTC], [], {"length": 5.5}, "rsi_bands: length is 5.5"),
        (RsiBands, [BTC], [], {"length": 0}, "startup_candles is 0"),
        (RsiBands, [BTC], [], {"edge": "1" * 500}, "has at most 500 characters"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_starts(
    strategy: Any, symbols: Any, timeframes: Any, parameters: Any, what: str
) -> None:
    with pytest.raises(UsageError, match=what):
        plans_of(strategy, symbols, timeframes, parameters)


@pytest.mark.parametrize(("symbols", "timeframes"), [(["BTC_JPY"], []), ([BTC], ["7s"])])
def test_symbols_and_timeframes_are_those_of_the_contract(symbols: Any, timeframes: Any) -> None:
    with pytest.raises(ContractError):
        plans_of(RsiBands, symbols, timeframes)


def test_a_default_is_read_as_if_it_were_given() -> None:
    class Widths(RsiBands):
        width: float = 2

    (by_default,), (given,) = plans_of(Widths, [BTC]), plans_of(Widths, [BTC], [], {"width": "2"})
    assert by_default.identity == given.identity
    assert by_default.identity.endswith(",width=2.0)")

    class Wrong(RsiBands):
        width: float = None  # type: ignore[assignment]

    with pytest.raises(UsageError, match="wrong: width is None: Expected `float`"):
        plans_of(Wrong, [BTC])


def test_an_attribute_that_is_not_annotated_is_no_parameter_and_one_is_told_how_it_gets_one() -> None:
    class Forgets(RsiBands):
        window = 20

    with pytest.raises(UsageError, match=r"no parameter window: .*; annotate it to make it one, `window: int = 20`$"):
        plans_of(Forgets, [BTC], [], {"window": "9"})


@pytest.mark.parametrize("method", ["__post_init__", "startup_candles"])
@pytest.mark.parametrize("what", [ZeroDivisionError, SystemExit])
def test_what_a_strategy_raises_when_it_is_made_is_told_with_its_line(method: str, what: type[BaseException]) -> None:
    def fail(_: Any) -> int:
        raise what("planted")

    broken = type("Broken", (RsiBands,), {method: property(fail) if method == "startup_candles" else fail})
    line = fail.__code__.co_firstlineno + 1
    with pytest.raises(UsageError, match=rf"^broken raised {what.__name__} when it was made: planted \(.*:{line}\)$"):
        plans_of(broken, [BTC])


def test_an_integer_of_numpy_is_a_number_of_candles() -> None:
    counts = type("Counts", (RsiBands,), {"startup_candles": {"1m": np.int64(3)}})
    (plan,) = plans_of(counts, [BTC])
    assert [(count, type(count)) for count in plan.startup.values()] == [(3, int)]
    with pytest.raises(UsageError, match=r"startup_candles is 2\.0: write how many"):
        plans_of(type("Counts", (RsiBands,), {"startup_candles": 2.0}), [BTC])


def test_a_parameter_without_a_default_has_to_be_given() -> None:
    class Needs(RsiBands):
        window: int

    with pytest.raises(UsageError, match="needs needs a value for window"):
        plans_of(Needs, [BTC])
    assert plans_of(Needs, [BTC], [], {"window": "7"})[0].identity.endswith(",window=7)")


def test_a_strategy_in_a_file_of_ones_own_is_found_by_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_strategies.py").write_text(
        "from ashi_strategies import Strategy, long\n"
        "class Always(Strategy):\n    startup_candles = 1\n    def on_candle(self, candle, series): return long()\n"
        "class Half(Strategy):\n    startup_candles = 1\n"
        "class Mine: pass\n"
    )
    (tmp_path / "own_broken.py").write_text("import there_is_no_such_module\n")
    (tmp_path / "own_leaving.py").write_text("raise SystemExit\n")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        found = load_strategy("own_strategies:Always")
        assert plans_of(found, [BTC])[0].identity == "always"
        for name, what in {
            "own_strategies:Half": "Half lacks on_candle",
            "own_strategies:Mine": "no subclass of ashi_strategies.Strategy named 'Mine'",
            "own_strategies:Nothing": "named 'Nothing'",
            "own_broken:Always": "importing own_broken failed: ModuleNotFoundError: .*there_is_no_such_module",
            "own_leaving:Always": "importing own_leaving failed: SystemExit",
            "own_strategies": "there is no strategy 'own_strategies': there are ma_cross, .* as package.module:Class",
        }.items():
            with pytest.raises(UsageError, match=what):
                load_strategy(name)
    finally:
        for name in ("own_strategies", "own_broken"):
            sys.modules.pop(name, None)


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_example_is_found_by_its_name_and_says_what_it_does(name: str) -> None:
    strategy = load_strategy(name)
    assert strategy.name == name
    assert strategy.__doc__


def test_a_target_has_exact_numbers_and_texts() -> None:
    assert long("up", strength=0.1, fast=8761204.5) == Target("long", Decimal("0.1"), "up", {"fast": "8761204.5"})
    assert short() == Target("short")
    assert flat(strength="0.5").strength == Decimal("0.5")


@pytest.mark.parametrize("wrong", [{"strength": 1.5}, {"strength": -1}, {"reason": ""}, {"label": "x" * 201}])
def test_what_no_signal_may_hold_is_refused_where_it_is_said(wrong: Any) -> None:
    with pytest.raises(ContractError):
        long(**wrong)

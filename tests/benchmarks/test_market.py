"""What engines are held against, `benchmarks/market.py`, counts what the oracle makes of the same trades."""

from __future__ import annotations

import sys
from pathlib import Path

from ashi.contracts import decode_trade
from oracle import candles_of

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from market import Expected, Market, spread_names


def test_the_count_is_the_oracles() -> None:
    market = Market(4_000, 5, 3, between_us=2_000_000)
    trades = [decode_trade(value) for _, _, value in market.messages()][:-5]
    wanted = candles_of(trades, ["1m", "5m", "1h"])
    found = market.expected()
    assert {key: each._asdict() for key, each in found.items()} == {
        key: {name: candle[name] for name in Expected._fields} for key, candle in wanted.items()
    }


def test_each_partition_has_as_many_symbols_give_or_take_one() -> None:
    homes = list(spread_names(11, 4).values())
    assert sorted(homes.count(partition) for partition in range(4)) == [2, 3, 3, 3]

"""Trades that the tests of `ashi history export` and `import` share."""

from __future__ import annotations

import random
from decimal import Decimal

from ashi.contracts import Trade

SYMBOL = "gmo:BTC"
DAY_US = 86_400_000_000
BEGIN = 1_700_000_000_000_000 // DAY_US * DAY_US
END = BEGIN + 3 * DAY_US


def some_trades(symbol: str = SYMBOL, count: int = 600) -> list[Trade]:
    """Of three days, two in each millisecond; in the order of the market."""
    rng = random.Random(7)
    trades = []
    for number in range(count):
        at = BEGIN + 1_000 * (number // 2 * (516_000_000 // count))
        price, size = Decimal(rng.randint(1, 10**6)) / 1_000, Decimal(rng.randint(1, 10**6)) / 10**5
        received_at = at + rng.randint(1, 999)
        trades.append(
            Trade(
                symbol,
                f"{symbol}-{number}",
                price,
                size,
                rng.choice(["buy", "sell", None]),
                at,
                received_at,
                number % 2,
            )
        )
    return trades

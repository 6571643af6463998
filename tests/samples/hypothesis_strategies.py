"""Hypothesis strategies for trades and for how a log is cut, shared by all tests."""

from __future__ import annotations

import random
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from ashi.contracts import Trade

START = 1_700_000_040_000_000
"""A minute's start, µs."""
SYMBOLS = ["bitflyer:BTC_JPY", "binance:币安人生USDT", "binance-usdm:BTCUSDT"]

prices = st.one_of(
    st.decimals(min_value="0.01", max_value="99999", places=2),
    st.sampled_from([Decimal("0.00000001"), Decimal(12345678901234567890), Decimal("1.10"), Decimal(0)]),
)
sizes = st.one_of(
    st.decimals(min_value="0.00000001", max_value="1000", places=8),
    st.sampled_from([Decimal("0.00000001"), Decimal(99999999999999999999), Decimal(0)]),
)


@st.composite
def trades(
    draw: Any, *, count: int = 40, span_us: int = 12 * 60_000_000, symbols: list[str] | None = None
) -> list[Trade]:
    """Trades of a few symbols in some order, often at the same time and often exactly on a window's edge."""
    number = draw(st.integers(1, count))
    times = st.one_of(
        st.integers(0, span_us),
        st.integers(0, span_us // 60_000_000).map(lambda minute: minute * 60_000_000),
        st.integers(0, span_us // 60_000_000).map(lambda minute: max(minute * 60_000_000 - 1, 0)),
    )
    result = []
    for sequence in range(number):
        traded_at = START + draw(times)
        result.append(
            Trade(
                symbol=draw(st.sampled_from(symbols or SYMBOLS)),
                trade_id=str(sequence),
                price=draw(prices),
                size=draw(sizes),
                side=draw(st.sampled_from(["buy", "sell", None])),
                traded_at=traded_at,
                received_at=traded_at,
                sequence=sequence,
            )
        )
    return result


def drawn_trade(rng: random.Random, symbols: Sequence[str], trade_id: str, traded_at: int, sequence: int) -> Trade:
    """A trade of one of the symbols at this time, received at once; the rest is drawn."""
    return Trade(
        rng.choice(symbols),
        trade_id,
        Decimal(rng.randint(1, 10**6)) / 100,
        Decimal(rng.randint(1, 10**9)) / 10**8,
        rng.choice(["buy", "sell", None]),
        traded_at,
        traded_at,
        sequence,
    )


def drawn_lateness_us(rng: random.Random) -> int:
    """How late a trade is: 8 in 100 are, half of them within a horizon of two minutes and half beyond it."""
    late = [rng.randint(0, 100_000_000)] * 4 + [rng.randint(200_000_000, 900_000_000)] * 4
    return rng.choice([0] * 92 + late)


def cuts(length: int) -> st.SearchStrategy[list[int]]:
    """Where to cut a log of so many records into chunks."""
    return st.lists(st.integers(0, length), max_size=6).map(lambda places: sorted({0, length, *places}))

"""Which worker of several reads a symbol."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashi.contracts.errors import UsageError
from ashi_ingest.shard import Shard, parse_shard, select, shard_of

names = st.lists(st.from_regex(r"[a-z]{2,8}:[A-Z_]{2,10}", fullmatch=True), unique=True, max_size=60)


def test_a_shard_is_read_as_the_ordinal_of_a_worker_and_how_many_there_are() -> None:
    assert parse_shard("0/1") == Shard(0, 1)
    assert parse_shard("2/5") == Shard(2, 5)
    assert parse_shard("4/5") == Shard(4, 5)


@pytest.mark.parametrize("text", ["", "2", "2/", "/5", "a/b", "-1/5", "1/5/6", "1 / 5", "1.0/5", "²/5", "1/5\n"])
def test_what_is_no_shard_is_answered_with_what_to_write(text: str) -> None:
    with pytest.raises(UsageError, match="write 0/5 for the first of five workers, 4/5 for the last"):
        parse_shard(text)


def test_a_worker_that_there_is_not_is_answered_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"no worker 5 among 5, they are counted from 0: write 0/5 to 4/5"):
        parse_shard("5/5")
    with pytest.raises(UsageError, match=r"write 0/1 for a single worker"):
        parse_shard("0/0")


@given(names, st.integers(1, 9))
def test_every_symbol_belongs_to_exactly_one_worker_and_keeps_its_place(symbols: list[str], count: int) -> None:
    parts = [select(symbols, Shard(number, count)) for number in range(count)]
    assert sorted(symbol for part in parts for symbol in part) == sorted(symbols)
    for part in parts:
        assert part == [symbol for symbol in symbols if symbol in part]


def test_the_parts_do_not_change_from_release_to_release() -> None:
    found = {
        symbol: shard_of(symbol, 5)
        for symbol in ("bitflyer:FX_BTC_JPY", "gmo:BTC", "binance:ETHUSDT", "binance:BTCUSDT")
    }
    assert found == {"bitflyer:FX_BTC_JPY": 4, "gmo:BTC": 1, "binance:ETHUSDT": 0, "binance:BTCUSDT": 1}


def test_the_symbols_of_a_large_venue_are_spread_evenly() -> None:
    symbols = [f"binance:{base}{number}{quote}" for number in range(250) for base in "AB" for quote in ("USDT", "BTC")]
    sizes = [len(select(symbols, Shard(number, 5))) for number in range(5)]
    assert sum(sizes) == 1_000
    assert min(sizes) > 150
    assert max(sizes) < 250

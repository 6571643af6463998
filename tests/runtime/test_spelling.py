"""What was meant by a name that there is not."""

from __future__ import annotations

import pytest

from ashi.runtime.spelling import closest, did_you_mean

KNOWN = ("binance:BTCUSDT", "binance:ETHUSDT", "bitflyer:BTC_JPY", "gmo:BTC", "1m", "15m")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("binance:btcusdt", "binance:BTCUSDT"),
        ("BTCUSDT", "binance:BTCUSDT"),
        ("binance:BTCUDST", "binance:BTCUSDT"),
        ("bitflyer:BTCJPY", "bitflyer:BTC_JPY"),
        ("bitflier:BTC_JPY", "bitflyer:BTC_JPY"),
        ("btc", "gmo:BTC"),
        ("5m", "15m"),
        ("XRP", None),
        ("", None),
    ],
)
def test_the_name_that_is_most_like_it_is_found(name: str, meant: str | None) -> None:
    assert closest(name, KNOWN) == meant
    assert did_you_mean(name, KNOWN) == (f"; did you mean {meant}?" if meant else "")


def test_where_nothing_is_known_nothing_is_meant() -> None:
    assert did_you_mean("BTC", ()) == ""

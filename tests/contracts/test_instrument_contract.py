"""The messages of `instruments`: they read back as they were written, and what is wrong is named."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashi.contracts.errors import ContractError
from ashi.contracts.instrument import Instrument, decode_instrument, encode_instrument
from ashi.contracts.topics import COMPACTED, INSTRUMENTS, TRADES, topic_specs

SPOT = Instrument("binance:BTCUSDT", "BTC", "USDT", Decimal("0.01000000"), Decimal("0.00001"), "trading", 10**15)

steps = st.none() | st.decimals("0.00000001", "1000000", places=8).filter(bool)
instruments = st.builds(
    Instrument,
    st.sampled_from(["binance:BTCUSDT", "bitflyer:FX_BTC_JPY", "binance:币安人生USDT"]),
    st.sampled_from([None, "BTC", "币安人生"]),
    st.sampled_from([None, "USDT"]),
    steps,
    steps,
    st.sampled_from(["trading", "halted", "delisted"]),
    st.integers(10**15, 2 * 10**15),
)


def test_a_message_has_plain_decimals_and_nulls() -> None:
    assert json.loads(encode_instrument(SPOT)) == {
        "symbol": "binance:BTCUSDT",
        "base": "BTC",
        "quote": "USDT",
        "tick_size": "0.01",
        "lot_size": "0.00001",
        "state": "trading",
        "updated_at": 10**15,
    }
    unknown = Instrument("bitflyer:BTC_JPY", None, None, None, None, "halted", 10**15)
    assert json.loads(encode_instrument(unknown))["tick_size"] is None


@given(instruments)
def test_a_message_reads_back_as_it_was_written(instrument: Instrument) -> None:
    assert decode_instrument(encode_instrument(instrument)) == instrument


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"symbol": "BTCUSDT"}, "symbol"),
        ({"state": "asleep"}, "state"),
        ({"tick_size": "NaN"}, "tick_size"),
        ({"lot_size": "-1"}, "lot_size"),
        ({"lot_size": "0"}, "lot_size is 0: write null"),
        ({"base": ""}, "base is empty: write null"),
        ({"updated_at": 5}, "updated_at"),
        ({"quote": 5}, "quote"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], what: str) -> None:
    message = json.loads(encode_instrument(SPOT)) | changes
    with pytest.raises(ContractError, match=what):
        decode_instrument(json.dumps(message).encode())


@pytest.mark.parametrize("message", [b"", b"null", b"[]", b"{}", b"\xff", b'{"x":' * 100_000])
def test_what_is_no_message_is_an_error(message: bytes) -> None:
    with pytest.raises(ContractError, match="not an instrument"):
        decode_instrument(message)


def test_a_field_of_a_later_version_is_passed_over() -> None:
    message = json.loads(encode_instrument(SPOT)) | {"kind": "spot"}
    assert decode_instrument(json.dumps(message).encode()) == SPOT


def test_the_topic_keeps_the_last_message_of_each_symbol_where_its_trades_are() -> None:
    specs = {spec.name: spec for spec in topic_specs(5, [])}
    assert specs[INSTRUMENTS].config["cleanup.policy"] == "compact"
    assert specs[INSTRUMENTS].config["message.timestamp.type"] == "LogAppendTime"
    assert specs[INSTRUMENTS].partitions == specs[TRADES].partitions == 5
    assert INSTRUMENTS in COMPACTED

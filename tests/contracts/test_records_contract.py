"""What message a record holds: one rule for all topics."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from ashi.contracts.candle import encode_candle
from ashi.contracts.errors import ContractError
from ashi.contracts.feed import FeedGap, FeedStatus, encode_feed
from ashi.contracts.instrument import Instrument, encode_instrument
from ashi.contracts.records import (
    candle_in,
    feed_gap_in,
    feed_status_in,
    instrument_in,
    live_candle_in,
    live_key,
    signal_in,
    split_live_key,
    trade_in,
)
from ashi.contracts.signal import Signal, encode_signal
from ashi.contracts.trade import Trade, encode_trade
from samples.hypothesis_strategies import START

SYMBOL = "binance:ETHUSDT"
A_TRADE = Trade(SYMBOL, "1", Decimal("0.5"), Decimal(100), "buy", START, START, 1)
A_CANDLE: dict[str, Any] = {
    "symbol": SYMBOL, "timeframe": "1m", "open_time": START // 60_000_000 * 60_000_000,
    "close_time": START // 60_000_000 * 60_000_000 + 60_000_000,
    **dict.fromkeys(("open", "high", "low", "close"), "0.5"), **dict.fromkeys(("volume", "quote_volume"), "100"),
    "trade_count": 1, "taker_buy_volume": "100", "taker_buy_quote_volume": "50", "first_trade_id": "1",
    "last_trade_id": "1", "version": 1,
}  # fmt: skip
A_SIGNAL = Signal(
    "ma_cross(fast=9,slow=21)", SYMBOL, "1m", A_CANDLE["open_time"], A_CANDLE["close_time"], 1, 0, "long",
    Decimal("0.5"), Decimal(100), "9 above 21", {"fast": "1_000"}, True, None, "active", START,
)  # fmt: skip
KINDS: list[tuple[str, Callable[[Any], Any], bytes]] = [
    ("ashi.trade.v1", trade_in, encode_trade(A_TRADE)),
    ("ashi.candle.v1", candle_in, json.dumps(A_CANDLE).encode()),
    ("ashi.feed-gap.v1", feed_gap_in, encode_feed(FeedGap(SYMBOL, START, None, "open", 0, "silent", START))),
    (
        "ashi.feed-status.v1",
        feed_status_in,
        encode_feed(FeedStatus(SYMBOL, "connected", START, None, None, None, START)),
    ),
    (
        "ashi.instrument.v1",
        instrument_in,
        encode_instrument(Instrument(SYMBOL, "ETH", "USDT", Decimal("0.5"), Decimal(100), "trading", START)),
    ),
    ("ashi.signal.v1", signal_in, encode_signal(A_SIGNAL)),
]
each_kind = pytest.mark.parametrize(("schema", "message_in", "value"), KINDS, ids=[kind[0] for kind in KINDS])


def record(value: bytes | None, *headers: tuple[str, bytes | None], key: bytes | None = SYMBOL.encode()) -> Any:
    return SimpleNamespace(key=key, value=value, headers=headers)


@each_kind
def test_a_record_with_its_schema_or_none_is_read(schema, message_in, value):
    read = message_in(record(value, ("content-type", b"application/json"), ("schema", schema.encode())))
    assert read.symbol == SYMBOL
    for headers in ([], [("schema", None)], [("schema", b"another"), ("schema", schema.encode())], [("Schema", b"x")]):
        assert message_in(record(value, *headers)) == read


@each_kind
@pytest.mark.parametrize("version", ["v2", "v10", "V1", "v1 ", ""])
def test_another_version_is_refused_with_both_named(schema, message_in, value, version):
    other = schema.replace("v1", version)
    with pytest.raises(ContractError) as refused:
        message_in(record(value, ("schema", schema.encode()), ("schema", other.encode())))
    assert repr(other) in str(refused.value)
    assert repr(schema) in str(refused.value)


@each_kind
def test_the_schema_of_another_topic_and_what_is_no_text_are_refused(schema, message_in, value):
    for other in (next(kind[0] for kind in KINDS if kind[0] != schema).encode(), b"\xff" * 1_000):
        with pytest.raises(ContractError, match="is not known here") as refused:
            message_in(record(value, ("schema", other)))
        assert len(str(refused.value)) < 600


@each_kind
@pytest.mark.parametrize("key", [None, b"", b"binance:BTCUSDT", b'"binance:ETHUSDT"'])
def test_another_key_than_the_symbol_is_refused(schema, message_in, value, key):
    with pytest.raises(ContractError, match=r"key .* is not its .*'s symbol 'binance:ETHUSDT'"):
        message_in(record(value, key=key))


@each_kind
def test_a_record_without_a_value_holds_no_message(schema, message_in, value):
    with pytest.raises(ContractError, match="has no value"):
        message_in(record(None))


DECIMALS = {
    "ashi.trade.v1": ("price", "size"),
    "ashi.candle.v1": ("open", "volume"),
    "ashi.instrument.v1": ("tick_size", "lot_size"),
    "ashi.signal.v1": ("strength", "price"),
}


@pytest.mark.parametrize("schema", DECIMALS)
@pytest.mark.parametrize("written", [("0.5", "100"), ('"0.5"', '"1e2"'), ("5E-1", "1.00e+2"), ("0.500", '"100.0"')])
def test_decimals_are_read_exactly_however_they_are_written_and_on_all_topics_alike(schema, written):
    """As JSON numbers and with exponents too: docs/messages.md says so of every topic."""
    _, message_in, value = next(kind for kind in KINDS if kind[0] == schema)
    text = value.decode()
    for field, number in zip(DECIMALS[schema], written, strict=True):
        fields = json.loads(text)
        text = json.dumps(fields | {field: "HERE"}).replace('"HERE"', number)
    read = message_in(record(text.encode()))
    plain = message_in(record(value))
    assert read == plain
    digits = "0.1234567890123456789012345678901234567"
    if schema != "ashi.candle.v1":
        field = DECIMALS[schema][0]
        exact = json.dumps(json.loads(text) | {field: "HERE"}).replace('"HERE"', digits)
        assert getattr(message_in(record(exact.encode())), field) == Decimal(digits)


def test_what_is_written_is_plain_text_whatever_was_read():
    text = json.dumps(A_CANDLE).replace('"100"', "1e2").replace('"0.5"', "5E-1")
    written = json.loads(encode_candle(candle_in(record(text.encode()))))
    assert (written["open"], written["volume"], written["quote_volume"]) == ("0.5", "100", "100")


def test_a_candle_in_progress_has_its_symbol_and_its_timeframe_as_key():
    value = json.dumps(A_CANDLE).encode()
    assert live_key(SYMBOL, "1m") == b"binance:ETHUSDT/1m"
    assert live_candle_in(record(value, key=live_key(SYMBOL, "1m"))) == candle_in(record(value))
    for key in (SYMBOL.encode(), b"binance:ETHUSDT/5m", b"binance:ETHUSDT/", None):
        with pytest.raises(ContractError, match="is not its candle's b'binance:ETHUSDT/1m'"):
            live_candle_in(record(value, key=key))
    with pytest.raises(ContractError, match="no value"):
        live_candle_in(record(None, key=live_key(SYMBOL, "1m")))
    with pytest.raises(ContractError, match=r"schema 'ashi\.candle\.v2' is not known"):
        live_candle_in(record(value, ("schema", b"ashi.candle.v2"), key=live_key(SYMBOL, "1m")))


def test_a_market_whose_name_has_a_slash_is_found_in_the_key():
    for symbol in ("binance:ETH/USDT", "binance:ETH/1m", "binance:币安人生USDT"):
        assert split_live_key(live_key(symbol, "1h")) == (symbol.encode(), b"1h")

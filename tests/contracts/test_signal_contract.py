"""The messages of `signals`: they read back as they were written, and what is wrong is named."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashi.client import read_signals
from ashi.contracts.errors import ContractError, UsageError
from ashi.contracts.signal import Signal, decode_signal, encode_signal, signal_rank, signal_slot
from ashi.contracts.topics import SIGNALS, TRADES, topic_specs

MINUTE_US = 60_000_000
OPEN = 1_723_161_180_000_000
LONG = Signal(
    strategy="ma_cross(fast=9,slow=21)",
    symbol="bitflyer:BTC_JPY",
    timeframe="1m",
    open_time=OPEN,
    close_time=OPEN + MINUTE_US,
    version=1789,
    revision=0,
    target="long",
    strength=Decimal("0.50"),
    price=Decimal("8763519.0"),
    reason="9 above 21",
    labels={"fast": "8761204.5"},
    all_closed=True,
    is_complete=None,
    status="active",
    updated_at=OPEN + MINUTE_US + 2_000_000,
)

signals = st.builds(
    Signal,
    strategy=st.text(min_size=1, max_size=500),
    symbol=st.sampled_from(["binance:BTCUSDT", "bitflyer:FX_BTC_JPY", "binance:币安人生USDT"]),
    timeframe=st.just("1m"),
    open_time=st.just(OPEN),
    close_time=st.just(OPEN + MINUTE_US),
    version=st.integers(0, 2**53 - 1),
    revision=st.integers(0, 2**31 - 1),
    target=st.sampled_from(["long", "short", "flat"]),
    strength=st.none() | st.decimals("0", "1", places=8),
    price=st.decimals("0", "1000000", places=8),
    reason=st.none() | st.text(min_size=1, max_size=500),
    labels=st.dictionaries(st.text(min_size=1, max_size=64), st.text(max_size=200), max_size=16),
    all_closed=st.booleans(),
    is_complete=st.sampled_from([None, True, False]),
    status=st.sampled_from(["active", "superseded"]),
    updated_at=st.integers(10**15, 2 * 10**15),
)


def test_a_message_is_as_the_page_has_it() -> None:
    assert json.loads(encode_signal(LONG)) == {
        "strategy": "ma_cross(fast=9,slow=21)",
        "symbol": "bitflyer:BTC_JPY",
        "timeframe": "1m",
        "open_time": OPEN,
        "close_time": OPEN + MINUTE_US,
        "version": 1789,
        "revision": 0,
        "target": "long",
        "strength": "0.5",
        "price": "8763519",
        "reason": "9 above 21",
        "labels": {"fast": "8761204.5"},
        "all_closed": True,
        "is_complete": None,
        "status": "active",
        "updated_at": OPEN + MINUTE_US + 2_000_000,
    }


@given(signals)
def test_a_message_reads_back_as_it_was_written(signal: Signal) -> None:
    assert decode_signal(encode_signal(signal)) == signal


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"strategy": ""}, "strategy '' has 0 characters"),
        ({"strategy": "s" * 501}, "strategy 's+' has 501 characters"),
        ({"symbol": "BTC_JPY"}, "symbol"),
        ({"timeframe": "7s"}, "timeframe"),
        ({"open_time": OPEN + 1}, "open_time"),
        ({"close_time": OPEN + 2 * MINUTE_US}, "close_time .* is not open_time plus 1m"),
        ({"version": -1}, "version -1"),
        ({"version": 2**53}, "version"),
        ({"revision": -1}, "revision -1"),
        ({"revision": 2**31}, "revision"),
        ({"target": "buy"}, "target"),
        ({"strength": "1.01"}, "strength 1.01 is more than 1"),
        ({"strength": "-0.5"}, "strength"),
        ({"strength": "NaN"}, "strength"),
        ({"price": "1_000"}, "price"),
        ({"price": "1" * 39}, "price"),
        ({"reason": ""}, "reason '' has 0 characters; 1 to 500"),
        ({"labels": {"a": 5}}, "labels"),
        ({"labels": {str(number): "" for number in range(17)}}, "labels: 17 are given"),
        ({"labels": {"": "x"}}, "labels: the name '' has 0"),
        ({"labels": {"a": "x" * 201}}, "labels: 'a' has 201 characters"),
        ({"all_closed": None}, "all_closed"),
        ({"status": "gone"}, "status"),
        ({"updated_at": 5}, "updated_at"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], what: str) -> None:
    message = json.loads(encode_signal(LONG)) | changes
    with pytest.raises(ContractError, match=what):
        decode_signal(json.dumps(message).encode())


@pytest.mark.parametrize("message", [b"", b"null", b"[]", b"{}", b"\xff", b'{"x":' * 100_000])
def test_what_is_no_message_is_an_error(message: bytes) -> None:
    with pytest.raises(ContractError, match="not a signal"):
        decode_signal(message)


def test_a_field_of_a_later_version_is_passed_over() -> None:
    message = json.loads(encode_signal(LONG)) | {"kind": "spot"}
    assert decode_signal(json.dumps(message).encode()) == LONG


def test_of_one_slot_the_greater_version_then_the_revision_counts_and_what_is_superseded_comes_after() -> None:
    def message(version: int, revision: int, status: Any) -> Signal:
        return msgspec.structs.replace(LONG, version=version, revision=revision, status=status)

    in_order = [
        message(1, 0, "active"),
        message(1, 0, "superseded"),
        message(1, 1, "active"),
        message(1, 2**31 - 1, "superseded"),
        message(2, 0, "active"),
        message(2**53 - 1, 0, "active"),
    ]
    ranks = [signal_rank(each) for each in in_order]
    assert ranks == sorted(set(ranks))
    assert len({signal_slot(each) for each in in_order}) == 1
    for changes in ({"strategy": "b"}, {"symbol": "gmo:BTC"}, {"timeframe": "5m"}, {"open_time": OPEN + MINUTE_US}):
        assert signal_slot(msgspec.structs.replace(LONG, **changes)) != signal_slot(LONG)


def test_the_topic_keeps_signals_as_long_as_candles_where_their_symbols_candles_are() -> None:
    specs = {spec.name: spec for spec in topic_specs(5, [])}
    assert specs[SIGNALS].config == specs["candles"].config
    assert specs[SIGNALS].partitions == specs[TRADES].partitions == 5


@pytest.mark.parametrize("strategies", ["ma_cross", []])
def test_strategies_to_read_are_a_collection_of_names(strategies: Any) -> None:
    with pytest.raises(UsageError, match="not a collection of names"):
        read_signals("127.0.0.1:9092", strategies=strategies)

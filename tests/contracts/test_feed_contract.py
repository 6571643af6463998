"""The messages of `feed.status` and `feed.gaps`: they read back as they were written, and what is wrong is named."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashi.contracts import ContractError
from ashi.contracts.feed import FeedGap, FeedStatus, decode_feed_gap, decode_feed_status, encode_feed
from ashi.contracts.topics import FEED_GAPS, FEED_STATUS, TRADES, topic_specs
from ashi.contracts.trade import EARLIEST_US, LATEST_US
from strategies import START, SYMBOLS

STATUS = FeedStatus("bitflyer:BTC_JPY", "down", START, "closed by the venue", "7", START - 5, START + 9)
GAP = FeedGap("bitflyer:BTC_JPY", START, START + 60, "repaired", 12, "closed by the venue", START + 99)

times = st.integers(EARLIEST_US, LATEST_US)
statuses = st.builds(
    FeedStatus,
    symbol=st.sampled_from(SYMBOLS),
    state=st.sampled_from(["connected", "silent", "repairing", "down"]),
    since=times,
    reason=st.none() | st.text(),
    last_trade_id=st.none() | st.text(),
    last_traded_at=st.none() | times,
    updated_at=times,
)


@st.composite
def gaps(draw):
    from_time = draw(times)
    return FeedGap(
        symbol=draw(st.sampled_from(SYMBOLS)),
        from_time=from_time,
        to_time=draw(st.none() | st.integers(from_time, LATEST_US)),
        state=draw(st.sampled_from(["open", "repaired", "lost"])),
        trades_recovered=draw(st.integers(0, 2**63 - 1)),
        reason=draw(st.text()),
        updated_at=draw(times),
    )


def test_the_messages_are_exactly_these():
    assert list(json.loads(encode_feed(STATUS)).items()) == [
        ("symbol", "bitflyer:BTC_JPY"),
        ("state", "down"),
        ("since", START),
        ("reason", "closed by the venue"),
        ("last_trade_id", "7"),
        ("last_traded_at", START - 5),
        ("updated_at", START + 9),
    ]
    assert list(json.loads(encode_feed(GAP)).items()) == [
        ("symbol", "bitflyer:BTC_JPY"),
        ("from_time", START),
        ("to_time", START + 60),
        ("state", "repaired"),
        ("trades_recovered", 12),
        ("reason", "closed by the venue"),
        ("updated_at", START + 99),
    ]


def test_what_is_unknown_is_null_and_not_left_out():
    status = msgspec.structs.replace(STATUS, reason=None, last_trade_id=None, last_traded_at=None)
    assert [name for name, value in json.loads(encode_feed(status)).items() if value is None] == [
        "reason",
        "last_trade_id",
        "last_traded_at",
    ]
    assert json.loads(encode_feed(msgspec.structs.replace(GAP, to_time=None)))["to_time"] is None


@given(statuses)
def test_a_status_reads_back_as_it_was_written(status):
    assert decode_feed_status(encode_feed(status)) == status


@given(gaps())
def test_a_gap_reads_back_as_it_was_written(gap):
    assert decode_feed_gap(encode_feed(gap)) == gap


def test_a_field_of_a_later_version_is_passed_over():
    later = json.dumps(json.loads(encode_feed(GAP)) | {"severity": "high"}).encode()
    assert decode_feed_gap(later) == GAP


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"symbol": "BTC_JPY"}, "symbol 'BTC_JPY' has no venue"),
        ({"state": "up"}, "not a feed status: Invalid enum value 'up'"),
        ({"since": START // 1_000}, "since"),
        ({"since": None}, "not a feed status: .*since"),
        ({"updated_at": START * 1_000}, "updated_at"),
        ({"last_trade_id": 7}, "not a feed status: .*last_trade_id"),
    ],
)
def test_a_wrong_status_is_refused_with_its_field(change, message):
    wrong = json.dumps(json.loads(encode_feed(STATUS)) | change).encode()
    with pytest.raises(ContractError, match=message):
        decode_feed_status(wrong)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"symbol": "bitflyer:"}, "market '' must be"),
        ({"state": "connected"}, "not a feed gap: Invalid enum value 'connected'"),
        ({"from_time": START // 1_000}, "from_time"),
        ({"to_time": START * 1_000}, "to_time"),
        ({"to_time": START - 1}, f"to_time {START - 1} is before from_time {START}"),
        ({"trades_recovered": -1}, "trades_recovered -1 is negative"),
        ({"reason": None}, "not a feed gap: .*reason"),
        ({"updated_at": 0}, "updated_at"),
    ],
)
def test_a_wrong_gap_is_refused_with_its_field(change, message):
    wrong = json.dumps(json.loads(encode_feed(GAP)) | change).encode()
    with pytest.raises(ContractError, match=message):
        decode_feed_gap(wrong)


@pytest.mark.parametrize(
    "message", [b"", b"{", b"null", b"[]", b"\xff", b'{"symbol": "bitflyer:BTC_JPY"}', b"[" * 9_999]
)
def test_what_is_no_message_is_refused_in_words(message):
    with pytest.raises(ContractError, match="not a feed status"):
        decode_feed_status(message)
    with pytest.raises(ContractError, match="not a feed gap"):
        decode_feed_gap(message)


def test_one_message_is_not_taken_for_the_other():
    with pytest.raises(ContractError, match="not a feed gap"):
        decode_feed_gap(encode_feed(STATUS))
    with pytest.raises(ContractError, match="not a feed status"):
        decode_feed_status(encode_feed(GAP))


def test_the_last_status_of_each_symbol_is_kept_and_both_topics_are_partitioned_as_trades():
    specs = {spec.name: spec for spec in topic_specs(5, [])}
    assert specs[FEED_STATUS].config["cleanup.policy"] == "compact"
    assert specs[FEED_GAPS].config["cleanup.policy"] == "delete"
    assert specs[FEED_STATUS].partitions == specs[FEED_GAPS].partitions == specs[TRADES].partitions == 5

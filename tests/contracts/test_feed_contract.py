"""The messages of `feed.status` and `feed.gaps`: they read back as they were written, and what is wrong is named."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashi.contracts import ContractError
from ashi.contracts.feed import (
    STALE_AFTER_US,
    FeedGap,
    FeedStatus,
    FeedWorker,
    decode_feed_gap,
    decode_feed_status,
    encode_feed,
    is_complete,
    is_stale,
    overlaps,
)
from ashi.contracts.topics import FEED_GAPS, FEED_STATUS, TRADES, topic_specs
from ashi.contracts.trade import EARLIEST_US, LATEST_US
from samples.hypothesis_strategies import START, SYMBOLS

WORKER = FeedWorker("host-1/7f3a", "down", START + 8, redundant=True, complete_until=START - 61)
STATUS = FeedStatus(
    "bitflyer:BTC_JPY", "down", START, "closed by the venue", "7", START - 5, START + 9, START - 60, (WORKER,)
)
GAP = FeedGap("bitflyer:BTC_JPY", START, START + 60, "repaired", 12, "closed by the venue", START + 99)

STATUS_0_1_0 = ("symbol", "state", "since", "reason", "last_trade_id", "last_traded_at", "updated_at")

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
    complete_until=st.none() | times,
    workers=st.lists(
        st.builds(
            FeedWorker,
            id=st.text(),
            state=st.sampled_from(["connected", "silent", "repairing", "down"]),
            heartbeat=times,
            redundant=st.booleans(),
            complete_until=st.none() | times,
        ),
        max_size=3,
    ).map(tuple),
)


@st.composite
def gaps(draw):
    from_time = draw(times)
    state = draw(st.sampled_from(["open", "repaired", "lost"]))
    return FeedGap(
        symbol=draw(st.sampled_from(SYMBOLS)),
        from_time=from_time,
        to_time=draw(st.none() | st.integers(from_time, LATEST_US)),
        state=state,
        trades_recovered=draw(st.integers(0, 2**63 - 1)),
        reason=draw(st.text()),
        updated_at=draw(times),
        final=state == "lost" and draw(st.booleans()),
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
        ("complete_until", START - 60),
        (
            "workers",
            [
                {
                    "id": "host-1/7f3a",
                    "state": "down",
                    "heartbeat": START + 8,
                    "redundant": True,
                    "complete_until": START - 61,
                }
            ],
        ),
    ]
    assert list(json.loads(encode_feed(GAP)).items()) == [
        ("symbol", "bitflyer:BTC_JPY"),
        ("from_time", START),
        ("to_time", START + 60),
        ("state", "repaired"),
        ("trades_recovered", 12),
        ("reason", "closed by the venue"),
        ("updated_at", START + 99),
        ("final", False),
    ]


def test_what_is_unknown_is_null_and_not_left_out():
    status = msgspec.structs.replace(STATUS, reason=None, last_trade_id=None, last_traded_at=None, complete_until=None)
    assert [name for name, value in json.loads(encode_feed(status)).items() if value is None] == [
        "reason",
        "last_trade_id",
        "last_traded_at",
        "complete_until",
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


def test_messages_of_version_0_1_0_are_read():
    status = {name: value for name, value in json.loads(encode_feed(STATUS)).items() if name in STATUS_0_1_0}
    read = decode_feed_status(json.dumps(status).encode())
    assert read == msgspec.structs.replace(STATUS, complete_until=None, workers=())
    gap = {name: value for name, value in json.loads(encode_feed(GAP)).items() if name != "final"}
    assert decode_feed_gap(json.dumps(gap).encode()) == GAP


WINDOW = (START, START + 60)


@pytest.mark.parametrize(("complete_until", "complete"), [(None, False), (START + 59, False), (START + 60, True)])
def test_a_window_is_complete_once_everything_up_to_its_end_was_checked(complete_until, complete):
    assert is_complete(*WINDOW, complete_until, []) is complete


@pytest.mark.parametrize("state", ["open", "repaired", "lost"])
@pytest.mark.parametrize(
    ("from_time", "to_time", "touches"),
    [
        (START - 9, START, False),
        (START - 9, START + 1, True),
        (START + 59, START + 99, True),
        (START + 60, START + 99, False),
        (START - 9, None, True),
        (START + 60, None, False),
        (START, START, True),
        (START - 1, START - 1, False),
    ],
)
def test_a_gap_that_is_not_repaired_makes_the_windows_incomplete_that_it_overlaps(state, from_time, to_time, touches):
    gap = FeedGap("bitflyer:BTC_JPY", from_time, to_time, state, 0, "a reason", START + 99)
    assert overlaps(gap, *WINDOW) is touches
    assert is_complete(*WINDOW, START + 60, [gap]) is (state == "repaired" or not touches)


def test_a_status_without_a_fresh_heartbeat_does_not_tell_how_the_feed_is():
    assert not is_stale(STATUS, STATUS.updated_at + STALE_AFTER_US)
    assert is_stale(STATUS, STATUS.updated_at + STALE_AFTER_US + 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"symbol": "BTC_JPY"}, "symbol 'BTC_JPY' has no venue"),
        ({"state": "up"}, "not a feed status: Invalid enum value 'up'"),
        ({"since": START // 1_000}, "since"),
        ({"since": None}, "not a feed status: .*since"),
        ({"updated_at": START * 1_000}, "updated_at"),
        ({"last_trade_id": 7}, "not a feed status: .*last_trade_id"),
        ({"complete_until": START * 1_000}, "complete_until"),
        ({"workers": [{"id": "a", "state": "down", "heartbeat": 0}]}, "heartbeat"),
        ({"workers": [{"id": "a", "state": "up", "heartbeat": START}]}, "not a feed status: Invalid enum value 'up'"),
        ({"workers": [{"id": "a", "state": "down", "heartbeat": START, "complete_until": 5}]}, "complete_until"),
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
        ({"final": True}, "final is said of a gap that is repaired, not lost"),
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

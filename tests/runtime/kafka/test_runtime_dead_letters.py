from __future__ import annotations

import time

import pytest

from ashi.runtime.kafka.producing.dead_letters import (
    MAX_HEADER_CHARACTERS,
    MAX_VALUE_BYTES,
    dead_letter,
    message_headers,
    trade_place,
)


def test_a_dead_letter_says_why_from_where_and_when() -> None:
    before = time.time_ns() // 1_000
    letter = dead_letter(
        "trades.dead",
        key=b"k",
        value=b"{",
        reason="price NaN",
        source="trades/3/1789",
        consumer="ashi-aggregate",
        venue="bitflyer",
    )
    assert (letter.topic, letter.key, letter.value) == ("trades.dead", b"k", b"{")
    headers = dict(letter.headers)
    assert headers["content-type"] == b"application/octet-stream"
    assert headers["ashi.reason"] == b"price NaN"
    assert headers["ashi.source"] == b"trades/3/1789"
    assert headers["ashi.consumer"] == b"ashi-aggregate"
    assert headers["ashi.venue"] == b"bitflyer"
    assert before <= int(headers["ashi.failed_at"]) <= time.time_ns() // 1_000
    assert "ashi.full_length" not in headers


def test_a_record_without_a_value_is_quoted_without_one() -> None:
    letter = dead_letter("trades.dead", key=None, value=None, reason="r", source="s", consumer="c")
    assert letter.value is None


def test_a_value_that_kafka_would_refuse_is_cut_and_says_how_long_it_was() -> None:
    letter = dead_letter("trades.dead", key=None, value=b"x" * 2_000_000, reason="r", source="s", consumer="c")
    assert letter.value == b"x" * MAX_VALUE_BYTES
    assert dict(letter.headers)["ashi.full_length"] == b"2000000"


def test_a_reason_that_is_endless_or_not_valid_text_still_makes_a_header() -> None:
    letter = dead_letter("trades.dead", key=None, value=b"", reason="\ud800" + "é" * 5_000, source="s", consumer="c")
    reason = dict(letter.headers)["ashi.reason"].decode()
    assert reason == "\\ud800" + "é" * (MAX_HEADER_CHARACTERS - 1)


def test_a_message_of_the_contract_names_its_schema() -> None:
    assert message_headers("ashi.trade.v1") == [("content-type", b"application/json"), ("schema", b"ashi.trade.v1")]


@pytest.mark.parametrize(
    ("headers", "place"),
    [
        ({"source": b"trades/3/1789", "partition": b"3", "offset": b"1789"}, (3, 1789)),
        ({"source": b"trades/3/1789"}, (3, 1789)),  # of a version that had no headers for it
        ({"source": b"candles/3/1789"}, None),
        ({"source": b"recording:/p/file.gz:123"}, None),
        ({"source": b"trades/x/y"}, None),
        ({"source": b"\xff"}, None),
        ({"partition": b"3"}, None),
        ({}, None),
    ],
)
def test_the_place_of_a_trade_is_read_from_headers_of_its_own_or_from_the_source_of_an_older_letter(headers, place):
    assert trade_place([(f"ashi.{name}", text) for name, text in headers.items()]) == place

"""What the readers refuse before they connect, what a position is as text, and what counts as new."""

from __future__ import annotations

import asyncio
import socket
from datetime import UTC, datetime
from typing import Any

import pytest
from client_samples import a_candle
from hypothesis import given
from hypothesis import strategies as st

from ashi.client import (
    Position,
    kafka_settings,
    read_candles,
    read_feed_gaps,
    read_feed_status,
    read_instruments,
    read_live_candles,
    read_signals,
)
from ashi.client.newest import Newest
from ashi.client.position import start_of
from ashi.contracts import BrokerError, ContractError, UsageError
from ashi.runtime.kafka.cluster.log_identity import Fingerprint


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"symbols": []}, r"leave it out"),
        ({"symbols": "bitflyer:BTC_JPY"}, r"write \['bitflyer:BTC_JPY'\]"),
        ({"symbols": ["BTC_JPY"]}, "has no venue"),
        ({"timeframes": []}, "no candle would ever come"),
        ({"timeframes": ["7m"]}, "does not divide a day"),
        ({"since": datetime(2026, 1, 1)}, "has no time zone"),  # noqa: DTZ001
        ({"since": Position("feed.gaps", {0: 1})}, "a position in topic feed.gaps, but candles is to be read"),
        ({"since": "yesterday"}, "not a place to begin"),
        ({"kafka": "kafka"}, "ASHI_KAFKA_BOOTSTRAP 'kafka' is wrong"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_done(arguments, words):
    with pytest.raises((UsageError, ContractError), match=words):
        read_candles(**{"kafka": "127.0.0.1:1"} | arguments)
    words = words.replace("but candles is", "but candles.live is")
    with pytest.raises((UsageError, ContractError), match=words):
        read_live_candles(**{"kafka": "127.0.0.1:1"} | arguments)


def test_settings_by_hand_are_checked_as_those_of_the_environment_and_hide_the_password():
    settings = kafka_settings(
        "kafka:9093",
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="SCRAM-SHA-512",
        username="reader",
        password="hunter2",
    )
    assert (settings.kafka_bootstrap, settings.kafka_username) == ("kafka:9093", "reader")
    assert "hunter2" not in repr(settings)
    with pytest.raises(UsageError, match="ASHI_KAFKA_PASSWORD must be set too"):
        kafka_settings("kafka:9093", security_protocol="SASL_SSL", sasl_mechanism="PLAIN", username="reader")


def test_the_environment_says_where_kafka_is_when_nothing_else_does(monkeypatch):
    monkeypatch.setenv("ASHI_KAFKA_BOOTSTRAP", "nowhere")
    for read in (read_candles, read_live_candles, read_feed_gaps, read_feed_status, read_instruments, read_signals):
        with pytest.raises(UsageError, match="'nowhere'"):
            read()


def test_a_kafka_that_is_not_there_is_an_error_with_what_to_do():
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        port = closed_soon.getsockname()[1]

    async def main():
        async for candle in read_candles(f"127.0.0.1:{port}"):
            raise AssertionError(candle)

    with pytest.raises(BrokerError, match=f"cannot reach Kafka at 127.0.0.1:{port}"):
        asyncio.run(main())


def test_a_position_is_known_only_once_the_reader_has_begun():
    with pytest.raises(UsageError, match="has not begun"):
        _ = read_candles("127.0.0.1:1").position


_offsets = st.integers(0, 2**63 - 1)


@given(
    st.dictionaries(st.integers(0, 9_999), _offsets),
    st.dictionaries(st.integers(0, 9_999), st.builds(Fingerprint, _offsets, st.integers(-1, 2**63 - 1), _offsets)),
    st.none() | st.uuids().map(str),
)
def test_a_position_comes_back_from_its_text(offsets, last_read, topic_id):
    position = Position("candles", offsets, last_read, topic_id)
    assert Position.from_json(position.to_json()) == position


def test_a_position_of_an_earlier_version_is_read_and_one_without_more_is_written_as_it_was():
    text = '{"topic":"candles","offsets":{"0":1789}}'
    assert Position.from_json(text) == Position("candles", {0: 1789})
    assert Position("candles", {0: 1789}).to_json() == text


@pytest.mark.parametrize("text", ["", "{}", '{"topic":"candles","offsets":{"a":1}}', '{"topic":"candles"}', "\udcff"])
def test_a_text_that_is_no_position_is_refused(text):
    with pytest.raises(ContractError, match="not a position"):
        Position.from_json(text)


def test_times_are_understood_in_microseconds_and_with_a_zone():
    assert start_of(1_640_995_200_000_999, "candles") == 1_640_995_200_000
    assert start_of(datetime(2022, 1, 1, tzinfo=UTC), "candles") == 1_640_995_200_000


class TestNewest:
    def newest(self, limit: int = 100) -> Newest:
        return Newest(key=lambda pair: pair[0], rank=lambda pair: pair[1], limit=limit)

    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=40))
    def test_whoever_keeps_the_last_keeps_the_greatest_and_the_first_of_equals(self, messages):
        newest, kept = self.newest(), {}
        for place, (name, rank) in enumerate(messages):
            if newest.is_new((name, rank)):
                kept[name] = (rank, -place)
        best: dict[str, tuple[int, int]] = {}
        for place, (name, rank) in enumerate(messages):
            best[name] = max(best.get(name, (rank, -place)), (rank, -place))
        assert kept == best

    @given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)), max_size=80))
    def test_no_more_than_the_limit_is_remembered_and_nothing_new_is_kept_back(self, messages):
        newest = self.newest(limit=5)
        greatest: dict[Any, Any] = {}
        for name, rank in messages:
            is_greater = rank > greatest.get(name, -1)
            assert newest.is_new((name, rank)) or not is_greater
            greatest[name] = max(rank, greatest.get(name, -1))
            assert len(newest._ranks) <= 5

    def test_what_came_last_is_remembered_longest(self):
        newest = self.newest(limit=2)
        assert [newest.is_new(pair) for pair in (("a", 1), ("b", 1), ("a", 2), ("c", 1))] == [True] * 4
        assert not newest.is_new(("a", 1))
        assert newest.is_new(("b", 1)), "forgotten, so it counts as new"


def test_a_candle_is_about_its_symbol_timeframe_and_open_time():
    reader = read_candles("127.0.0.1:1")
    wanted = reader._source.wanted
    candles = [a_candle(), a_candle(1), a_candle(symbol="binance:ETHUSDT"), a_candle(timeframe="5m"), a_candle()]
    assert [wanted(candle) for candle in candles] == [True, True, True, True, False]

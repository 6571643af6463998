"""Messages on another partition than that of their key: stored, counted, and each key told once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from ashi.runtime.kafka.connections.clients import partition_of
from ashi.runtime.kafka.consuming.spans import Span
from ashi.runtime.metrics.declare import REGISTRY
from ashi_sinks.place_watch import TOLD_AT_MOST, PlaceWatch


class At(NamedTuple):
    topic: str
    partition: int


def span(*keys: bytes | None) -> Span:
    records: list[Any] = [SimpleNamespace(key=key) for key in keys]
    return Span(0, len(records), records)


def counted() -> float:
    return REGISTRY.get_sample_value("ashi_messages_misplaced_total") or 0.0


def test_a_key_on_another_partition_is_told_once_and_every_message_of_it_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch, before = PlaceWatch(), counted()
    key, other = b"binance:ETHUSDT", b"binance:BTCUSDT"
    home = partition_of(key, 8)
    watch.look(At("candles", home), span(key, None, key), 8)
    assert not caplog.records
    wrong = next(number for number in range(8) if number not in (home, partition_of(other, 8)))
    for _ in range(3):
        watch.look(At("candles", wrong), span(key, key, None), 8)
    watch.look(At("feed.gaps", wrong), span(key, other), 8)
    assert counted() - before == 8
    assert [record.message.count("binance:ETHUSDT") for record in caplog.records] == [1, 0, 1]
    assert f"belongs_on={home}" in caplog.messages[0]
    assert f"partition={wrong}" in caplog.messages[0]


def test_however_many_keys_are_wrong_the_log_is_not_filled(caplog: pytest.LogCaptureFixture) -> None:
    watch = PlaceWatch()
    keys = [f"binance:S{number}".encode() for number in range(500)]
    watch.look(At("candles", 0), span(*keys), 8)
    assert len(caplog.records) == TOLD_AT_MOST

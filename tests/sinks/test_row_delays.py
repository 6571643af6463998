"""How late rows are, and how far a sink is behind, as its metrics tell."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from sink_fakes import MemoryLog, MemorySink, Rows, a_service, a_worker
from sink_samples import a_candle

from ashi.contracts import encode_candle
from ashi.runtime.metrics import sink as metrics
from ashi.runtime.metrics.declare import REGISTRY
from ashi_sinks.delays import AWAITED_US, RowDelays, SinkLag
from ashi_sinks.read_log import Stored
from ashi_sinks.streams import CandleStreams

NOW = 1_700_000_000_000_000
SECOND = 1_000_000


class At(NamedTuple):
    topic: str
    partition: int


@pytest.fixture(autouse=True)
def no_samples():
    for metric in (metrics.row_delay_seconds, metrics.sink_lag_records, metrics.sink_lag_seconds, metrics.store_up):
        metric.clear()


def delays(what="count", **labels):
    return REGISTRY.get_sample_value(f"ashi_row_delay_seconds_{what}", {"sink": "test", **labels})


def record(appended_us):
    return SimpleNamespace(timestamp=appended_us // 1_000)


def test_a_row_is_timed_from_the_append_of_its_record_to_when_it_is_stored():
    timer = RowDelays("test", now_us=lambda: NOW)
    timer._now_us = lambda: NOW + 3 * SECOND
    timer.stored([record(NOW), record(NOW), record(NOW + SECOND)], ["1m", "1h", "1m"])
    assert delays(timeframe="1m") == 2
    assert delays("sum", timeframe="1m") == 5.0
    assert delays("sum", timeframe="1h") == 3.0


def test_a_store_that_is_filled_from_the_beginning_counts_only_what_is_appended_from_then_on():
    timer = RowDelays("test", now_us=lambda: NOW)
    timer.stored([record(NOW - 1_000), record(NOW)], ["1m", "1m"])
    assert delays(timeframe="1m") == 1


def test_a_sink_that_was_away_counts_the_last_hour_as_late_as_it_is():
    timer = RowDelays("test", goes_on=True, now_us=lambda: NOW)
    timer.stored([record(NOW - AWAITED_US - 1_000), record(NOW - AWAITED_US)], ["1m", "1m"])
    assert delays("sum", timeframe="1m") == 3_600.0


def test_rows_that_are_stored_once_more_after_a_loss_do_not_count():
    timer = RowDelays("test", goes_on=True, now_us=lambda: NOW)
    timer.begin_anew()
    timer.stored([record(NOW - SECOND)], ["1m"])
    assert delays(timeframe="1m") is None


def test_a_worker_times_the_candles_that_it_stores_and_says_that_the_store_is_up():
    log = MemoryLog([encode_candle(a_candle(0)), encode_candle(a_candle(1))])
    service, streams = a_service(), CandleStreams(MemorySink(Rows({})))
    worker = a_worker(log, streams, service)
    worker._delays = RowDelays("test", now_us=lambda: 0)

    async def run():
        running = asyncio.create_task(worker.run())
        await log.at_end.wait()
        service.stopping.set()
        await running

    asyncio.run(run())
    assert delays(timeframe="1m") == 2
    assert REGISTRY.get_sample_value("ashi_store_up", {"sink": streams.name}) == 1


def lag(what, topic="candles", partition="0"):
    return REGISTRY.get_sample_value(f"ashi_sink_lag_{what}", {"sink": "test", "topic": topic, "partition": partition})


def test_the_lag_is_of_what_is_stored_and_not_of_what_is_read():
    shown = SinkLag("test", now_us=lambda: NOW)
    shown.show({At("candles", 0): Stored(5, NOW - 60 * SECOND)}, {At("candles", 0): (100, 100)})
    assert (lag("records"), lag("seconds")) == (95, 60.0)


def test_partitions_that_are_held_no_more_are_shown_no_more():
    shown = SinkLag("test", now_us=lambda: NOW)
    shown.show({}, {At("candles", 0): (7, 7), At("feed.gaps", 0): (1, 3)})
    assert (lag("records"), lag("seconds")) == (0, 0.0)
    assert (lag("records", "feed.gaps"), lag("seconds", "feed.gaps")) == (2, None), "nothing is known of its time"
    shown.show({}, {At("candles", 1): (7, 7)})
    assert lag("records") is None

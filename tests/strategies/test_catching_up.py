"""The candles that a strategy begins with, without a Kafka."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from live_samples import FIRST_US, MINUTE_US, a_candle, a_lost_minute
from structlog.testing import capture_logs

from ashi.client import Position
from ashi.contracts.topics import CANDLES
from ashi.runtime.health import Health
from ashi.runtime.service import Service
from ashi.runtime.settings import Settings
from ashi_sinks.registry import make_sink
from ashi_strategies import load_strategy, plans_of
from ashi_strategies.live import catching_up
from ashi_strategies.live.beginning import Beginning
from ashi_strategies.live.catching_up import CaughtUp, catch_up
from ashi_strategies.live.empty import EmptySeries
from ashi_strategies.live.instance import Instance
from ashi_strategies.series_name import SeriesName

if TYPE_CHECKING:
    from pathlib import Path

    from ashi.contracts.candle import Candle

INSTANCE = Instance(plans_of(load_strategy("ma_cross"), ["sim:A"], [], {"fast": 2, "slow": 5}))
NEEDED = 11
"""Candles before the first that it decides by: see `Plan.history`."""


def minute_us(minute: int) -> int:
    return FIRST_US + minute * MINUTE_US


class Topic:
    """What is in the topic, appended when it closed; and since when it was read, each time."""

    def __init__(self, candles: list[Candle]) -> None:
        self.candles = candles
        self.read_since: list[int] = []
        self.open = 0

    def feed(self, settings: Settings, symbols: Any, timeframes: Any, since: int) -> Feed:
        self.read_since.append(since)
        return Feed(self, since)


class Feed:
    def __init__(self, topic: Topic, since: int) -> None:
        self._topic = topic
        self._items = [candle for candle in topic.candles if candle.close_time >= since]
        self.is_caught_up = False

    async def open(self) -> None:
        self._topic.open += 1

    async def close(self) -> None:
        self._topic.open -= 1

    async def more(self, wait_s: float) -> tuple[list[Candle], Position]:
        self.is_caught_up = True
        return self._items, Position(CANDLES, {0: 7})


def caught_up(
    monkeypatch: pytest.MonkeyPatch, topic: Topic, beginning: Beginning, store: str | None = None
) -> CaughtUp:
    monkeypatch.setattr(catching_up, "TopicFeed", topic.feed)
    service = Service("strategy", Settings.from_environment({}))
    return asyncio.run(catch_up(service, INSTANCE, beginning, store))


def test_it_needs_so_many_candles() -> None:
    assert dict(catching_up.wanted_candles(INSTANCE)) == {("sim:A", "1m"): NEEDED}


def test_a_first_start_gives_the_signal_of_the_newest_candle_and_those_that_follow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(catching_up, "now_us", lambda: minute_us(100))
    topic = Topic([a_candle(minute, 1_000 + minute) for minute in range(100)])
    found = caught_up(monkeypatch, topic, Beginning(None, None))
    assert (found.began, found.redo_from) == (minute_us(100) - 1, minute_us(100))
    assert found.candles[-1] == topic.candles[-1]
    assert len(found.candles) > NEEDED
    assert topic.open == 1


def test_a_restart_begins_some_time_before_what_is_not_done_with_enough_candles_before_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topic = Topic([a_candle(minute, 1_000 + minute) for minute in range(1_000)])
    found = caught_up(monkeypatch, topic, Beginning(minute_us(3), minute_us(900)))
    assert (found.began, found.redo_from) == (minute_us(3), minute_us(900))
    assert minute_us(880) < found.kept_from < found.redo_from - 10 * MINUTE_US + 1
    before = [candle for candle in found.candles if candle.close_time < found.kept_from]
    assert len(before) >= NEEDED
    assert len(topic.read_since) == 1
    assert found.candles[-1] == topic.candles[-1]


def test_where_a_market_has_paused_it_reads_further_back_until_there_are_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paused = [a_candle(minute, 1_000) for minute in (*range(15), *range(2_990, 3_000))]
    topic = Topic(paused)
    found = caught_up(monkeypatch, topic, Beginning(0, minute_us(2_999)))
    assert found.candles == paused
    assert len(topic.read_since) > 1
    assert topic.open == 1, "those before are closed"


def test_where_there_are_no_more_it_does_not_look_for_them_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    topic = Topic([a_candle(minute, 1_000) for minute in range(3)])
    found = caught_up(monkeypatch, topic, Beginning(0, minute_us(3)))
    assert len(found.candles) == 3
    assert len(topic.read_since) < 6
    assert minute_us(0) - topic.read_since[-1] < 8 * 24 * 60 * MINUTE_US


def test_what_the_topic_does_not_hold_any_more_comes_out_of_a_store_and_of_two_the_newer_version_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/candles.db"
    in_store = [a_candle(minute, 1_000 + minute) for minute in range(103)]

    async def fill() -> None:
        sink = make_sink(url)
        await sink.open()
        await sink.write(in_store)
        await sink.close()

    asyncio.run(fill())
    corrected = a_candle(100, 999, version=5_000)
    newest = a_candle(103, 1_103)
    topic = Topic([corrected, newest])
    found = caught_up(monkeypatch, topic, Beginning(minute_us(5), minute_us(103)), url)
    before = [candle for candle in found.candles if candle.close_time < found.kept_from]
    assert len(before) >= NEEDED
    assert found.candles[-4:] == [corrected, in_store[101], in_store[102], newest]
    assert found.candles == sorted(found.candles, key=lambda candle: candle.open_time)


def test_a_series_without_any_candle_is_warned_of_and_a_remark_until_one_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = caught_up(monkeypatch, Topic([]), Beginning(0, minute_us(3)))
    assert list(found.empty) == [("sim:A", "1m")]
    assert not caught_up(monkeypatch, Topic([a_candle(1, 1_000)]), Beginning(0, minute_us(3))).empty

    health = Health()
    health.set_ready(True, "following the candles")
    with capture_logs() as logs:
        empty = EmptySeries(health, [SeriesName("sim:A", "1m"), SeriesName("sim:WRONG", "1m")])
    assert [(each["log_level"], each["of"]) for each in logs] == [("warning", ["sim:A 1m", "sim:WRONG 1m"])]
    empty.note([a_candle(1, 1_000), a_lost_minute(1, "sim:WRONG")])
    is_ready, reason = health.ready()
    assert is_ready
    assert reason.endswith("there is no candle so far of sim:WRONG 1m")
    empty.note([a_candle(1, 1_000, symbol="sim:WRONG")])
    assert "no candle" not in health.ready()[1]

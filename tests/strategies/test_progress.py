"""How far a strategy has come, beside what its group has committed."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext

import pytest
from live_samples import a_candle

from ashi.client import Position
from ashi.contracts.errors import UsageError
from ashi.contracts.topics import CANDLES
from ashi.runtime.kafka.cluster.log_identity import Fingerprint
from ashi.runtime.kafka.cluster.offsets import Committed
from ashi.runtime.settings import Settings
from ashi_strategies import load_strategy, plans_of
from ashi_strategies.live import beginning
from ashi_strategies.live.beginning import refuse_namesake
from ashi_strategies.live.history import History
from ashi_strategies.live.instance import Instance
from ashi_strategies.live.progress import Progress, committed_places, read_progress
from ashi_strategies.series_name import SeriesName


def test_what_is_committed_is_read_again() -> None:
    position = Position(CANDLES, {0: 7, 2: 0}, {0: Fingerprint(6, 1_789, 99)}, "topic-id")
    places = committed_places(Progress(began=5, done=60), position)
    found = {number: Committed(*place) for (topic, number), place in places.items() if topic == CANDLES}
    assert read_progress(found) == (Progress(began=5, done=60), position)


def test_a_note_says_which_class_it_was_and_one_of_before_says_nothing_of_it() -> None:
    position = Position(CANDLES, {0: 7})
    assert instance(["sim:A"], ["1m"]).place == "ashi_strategies.examples.ma_cross:MaCross"
    progress = Progress(5, 60, "here.ideas:Idea")
    found = {0: Committed(*committed_places(progress, position)[CANDLES, 0])}
    assert read_progress(found) == (progress, position)
    assert read_progress({0: Committed(7, '{"began":5,"done":60}')}) == (Progress(5, 60), position)


@pytest.mark.parametrize(
    ("place", "is_refused"),
    [("here.ideas:MaCross", True), ("ashi_strategies.examples.ma_cross:MaCross", False), (None, False)],
)
def test_another_class_of_the_same_name_is_refused(
    monkeypatch: pytest.MonkeyPatch, place: str | None, is_refused: bool
) -> None:
    note = committed_places(Progress(5, 60, place), Position(CANDLES, {0: 7}))[CANDLES, 0]
    one = instance(["sim:A"], ["1m"])

    async def committed(settings: Settings, group: str, topic: str) -> dict[int, Committed]:
        assert group == one.id
        return {0: Committed(*note)}

    monkeypatch.setattr(beginning, "committed", committed)
    refused = pytest.raises(UsageError, match=r"here\.ideas:MaCross .*ashi_strategies.*name = .*delete the group")
    with refused if is_refused else nullcontext():
        asyncio.run(refuse_namesake(Settings.from_environment({}), one))


def test_what_somebody_else_has_committed_is_no_progress() -> None:
    assert read_progress({}) is None
    assert read_progress({0: Committed(7, ""), 1: Committed(3, "{}")}) is None


def instance(symbols: list[str], timeframes: list[str], **parameters: int) -> Instance:
    return Instance(plans_of(load_strategy("ma_cross"), symbols, timeframes, parameters))


def test_an_instance_is_the_same_in_whatever_order_its_series_are_named() -> None:
    one = instance(["sim:A", "sim:B"], ["1m", "5m"], fast=9)
    assert one.id == instance(["sim:B", "sim:A"], ["5m", "1m"]).id
    assert one.id.startswith("ashi-strategy-ma_cross-")
    assert one.name == "ma_cross(fast=9,slow=21)"
    others = [
        instance(["sim:A", "sim:B"], ["1m", "5m"], fast=8),
        instance(["sim:A"], ["1m", "5m"]),
        instance(["sim:A", "sim:B"], ["1m"]),
    ]
    assert len({one.id, *(other.id for other in others)}) == 4


def test_a_history_has_of_each_window_the_newest_version_wherever_it_came_from() -> None:
    history = History({SeriesName("sim:A", "1m"): 2, SeriesName("sim:B", "1m"): 1})
    newer = a_candle(1, 1_001, version=900)
    history.add([a_candle(2, 1_002), newer, a_candle(0, 1_000), a_candle(0, 1_000, symbol="sim:C")])
    history.add([a_candle(1, 999), a_candle(0, 1_003, symbol="sim:B")])
    assert history.in_order() == [a_candle(0, 1_000), a_candle(0, 1_003, symbol="sim:B"), newer, a_candle(2, 1_002)]
    assert history.newest_close_time() == a_candle(2, 1_002).close_time
    assert history.short_series(a_candle(2, 1_002).close_time) == []
    assert history.short_series(a_candle(1, 999).close_time) == ["sim:A 1m"]


def test_of_partitions_that_were_not_committed_together_the_earliest_time_counts() -> None:
    position = Position(CANDLES, {0: 7, 1: 9})
    before = committed_places(Progress(began=5, done=60), position)
    after = committed_places(Progress(began=5, done=120), position)
    found = {0: Committed(*after[CANDLES, 0]), 1: Committed(*before[CANDLES, 1])}
    assert read_progress(found) == (Progress(began=5, done=60), position)

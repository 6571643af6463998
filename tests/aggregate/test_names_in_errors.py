"""Under a prefix, errors name topics as Kafka does: what they tell to look for is to be found."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

import ashi.runtime.kafka.cluster.writers_time as writers_time_module
import ashi_aggregate.epoch as epoch_module
import ashi_aggregate.worker as worker_module
from ashi.contracts.errors import StateError
from ashi.contracts.timeframe import parse_timeframes
from ashi.contracts.topics import META, TRADES, state_topics, table_name
from ashi.runtime.settings import Settings
from ashi_aggregate.census import find_missing
from ashi_aggregate.core.codec import Marker
from ashi_aggregate.faust.app import make_app
from ashi_aggregate.fencing import SessionGuard
from ashi_aggregate.partition import PartitionOffsets

SETTINGS = Settings.from_environment({"ASHI_TOPIC_PREFIX": "staging.", "ASHI_TIMEFRAMES": "1m"})


def records_of_meta(monkeypatch: pytest.MonkeyPatch, *records: tuple[bytes, bytes]) -> None:
    class Record:
        def __init__(self, key: bytes, value: bytes) -> None:
            self.key, self.value = key, value

    async def read_topic(_: object, topic: str) -> AsyncIterator[Record]:
        assert topic == META
        for key, value in records:
            yield Record(key, value)

    async def require_topics(*_: object) -> None:
        return None

    monkeypatch.setattr(epoch_module, "read_topic", read_topic)
    monkeypatch.setattr(epoch_module, "require_topics", require_topics)


def test_the_topic_of_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    records_of_meta(monkeypatch)
    with pytest.raises(StateError, match=r"^topic staging\.ashi\.meta has no epoch"):
        asyncio.run(epoch_module.require_epoch(SETTINGS))
    records_of_meta(monkeypatch, (b"epoch-0", b"[]"), (b"rebuild-1", b"[]"))
    with pytest.raises(StateError, match=r"^an epoch in topic staging\.ashi\.meta cannot be read .*: b'\[\]', under"):
        asyncio.run(epoch_module.require_epoch(SETTINGS))
    with pytest.raises(StateError, match=r"^a rebuild in topic staging\.ashi\.meta cannot be read .*: b'\[\]', under"):
        asyncio.run(epoch_module.last_rebuild(SETTINGS))


def test_topics_that_are_not_as_they_must_be(monkeypatch: pytest.MonkeyPatch) -> None:
    async def topic_setting(*_: object) -> str:
        return "CreateTime"

    monkeypatch.setattr(worker_module, "topic_setting", topic_setting)
    with pytest.raises(StateError, match=r"^topic staging\.trades does not have message\.timestamp\.type"):
        asyncio.run(worker_module._check_time(SETTINGS))
    counts = {TRADES: 8} | dict.fromkeys(state_topics(SETTINGS.timeframes), 4)
    with pytest.raises(
        StateError, match=r"^topic staging\.ashi-aggregate-\S+-changelog has 4 partitions and staging\.trades has 8:"
    ):
        worker_module._check_partitions(SETTINGS, counts)


def test_the_topics_that_take_the_writers_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def topics_of_writers_time(*_: object) -> list[str]:
        return ["candles", "trades.late"]

    monkeypatch.setattr(writers_time_module, "topics_of_writers_time", topics_of_writers_time)
    with capture_logs() as lines:
        asyncio.run(writers_time_module.warn_of_writers_time(SETTINGS, ["candles", "trades.late"]))
    assert [line["topics"] for line in lines] == [["staging.candles", "staging.trades.late"]]


def test_a_worker_whose_topic_has_grown_names_it(tmp_path: Any) -> None:
    """The application tells the pipeline, which knows no settings."""
    epoch = epoch_module.make_epoch(SETTINGS, 0)

    async def scenario() -> None:
        app = make_app(SETTINGS, epoch, 4, SessionGuard(10**12), tmp_path)
        with pytest.raises(StateError, match=r"^topic staging\.trades has grown beyond 4 partitions"):
            await app.pipeline.resume({4: PartitionOffsets(None, 0, 0)})

    asyncio.run(scenario())


class Table:
    name = table_name(parse_timeframes("1m")[0])

    def rows(self, _: int) -> dict[bytes, bytes]:
        return {}

    def put(self, _: int, key: bytes, value: bytes | None) -> None:
        raise NotImplementedError


def test_changelogs_that_lack_what_a_marker_lists() -> None:
    marker = Marker(10, 0, 0, None, [], {"binance:BTCUSDT": 5})
    missing = find_missing(3, marker, [Table()], {}, lambda name: f"staging.{name}")
    assert missing is not None
    assert f"(topic staging.ashi-aggregate-{Table.name}-changelog) had in partition 3" in missing
    marker.listed_by, marker.positions, marker.behind = json.dumps("a list"), None, [5]
    missing = find_missing(3, marker, [Table()], {}, lambda name: f"staging.{name}")
    assert missing is not None
    assert "(topic staging.ashi-aggregate-markers-changelog) is not there" in missing

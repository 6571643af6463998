"""Candles, rows, markers and letters that an earlier version wrote: this one writes the same, and goes on from them.

The recording was made with the simulated log: two lives of a worker over 400 trades of three symbols on two partitions,
with disorder, copies, late trades, ids that are numbers and ids that are not, and quiet markets.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from simulated_log import Broker, Worker

from ashi.contracts import parse_timeframes
from ashi_aggregate.core.window_state import WindowRules

TIMEFRAMES = parse_timeframes("1m,5m")
RULES = WindowRules(TIMEFRAMES[0], epoch=3)
NEW_HEADERS = {"ashi.partition", "ashi.offset"}
NOT_COMPARED = NEW_HEADERS | {"ashi.failed_at"}

Message = tuple[str, int | None, str | None, str, tuple[tuple[str, str], ...]]


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    path = Path(__file__).with_name("data") / "written-by-0.1.0.json.gz"
    with gzip.open(path, "rt") as file:
        return json.load(file)


def written(broker: Broker) -> list[Message]:
    """Everything there is in the topics of the stage, sorted: within a checkpoint symbols come in any order."""
    found = []
    for (topic, partition), sent in broker.topics.items():
        for key, value, headers in sent:
            texts = {name: text.decode() for name, text in headers if name not in NOT_COMPARED}
            found.append((topic, partition, key and key.decode(), plain(value.decode()), tuple(texts.items())))
    return sorted(found, key=repr)


def recorded_messages(life: dict[str, Any]) -> list[Message]:
    messages = [
        (topic, partition, key, plain(value), tuple(headers.items()))
        for topic, partition, key, value, headers in life["written"]
    ]
    return sorted(messages, key=repr)


def plain(value: str) -> str:
    """The same text, but for ids that are no numbers, which are a set: in an order of its own."""
    if '"texts"' not in value:
        return value
    row = json.loads(value)
    for ids in row["ids"].values():
        ids["texts"] = sorted(ids.get("texts", []))
    return json.dumps(row)


async def live(broker: Broker, recorded: dict[str, Any], number: int) -> None:
    """One life of a worker, as it was recorded."""
    life = recorded["lives"][number]
    for partition, end in life["ends"].items():
        log = recorded["trades"][partition][:end]
        for key, value, timestamp in log[len(broker.trades[int(partition)]) :]:
            broker.append(int(partition), key.encode(), value.encode(), timestamp)
    broker.committed = {int(partition): offset for partition, offset in life["committed"].items()}
    worker = Worker(broker, TIMEFRAMES, RULES, seed=1, quiet_close=True, now_us=life["now"])
    await worker.start()
    while any([await worker.read(partition, 25) for partition in worker.next]):
        pass
    await worker.pipeline.checkpoint()
    broker.now_us = life["later"]
    await worker.pipeline.checkpoint()


def test_this_version_writes_what_the_version_before_wrote(recorded):
    broker = Broker(partitions=2)
    asyncio.run(live(broker, recorded, 0))
    assert written(broker) == recorded_messages(recorded["lives"][0])
    headers = [dict(headers) for _, _, headers in broker.messages("trades.late") + broker.messages("trades.dead")]
    assert all(set(texts) >= NEW_HEADERS for texts in headers)


def test_this_version_goes_on_from_what_the_version_before_wrote(recorded):
    broker = Broker(partitions=2)
    for topic, partition, key, value, _ in recorded["lives"][0]["written"]:
        if topic.endswith("-changelog"):
            broker.keep(topic, partition, key.encode(), value.encode(), [])
    before = written(broker)
    assert {topic for topic, *_ in before} == {
        f"ashi-aggregate-{table}-changelog" for table in ("markers", "ohlcv-1m", "ohlcv-5m")
    }
    asyncio.run(live(broker, recorded, 1))
    assert written(broker) == sorted(before + recorded_messages(recorded["lives"][1]), key=repr)

"""Faust's application as the aggregate stage makes it, and as it comes, neither connected to anything."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faust
from faust.types import TP

from ashi.contracts import parse_timeframes
from ashi.contracts.topics import TRADES
from ashi.runtime.kafka.cluster.log_identity import Standing, fingerprint_of
from ashi.runtime.kafka.cluster.topic_ids import TopicIdentity
from ashi.runtime.settings import Settings
from ashi_aggregate.core.codec import Marker, encode
from ashi_aggregate.core.window_state import WindowRules
from ashi_aggregate.epoch import Epoch
from ashi_aggregate.faust.app import AggregateApp, make_app
from ashi_aggregate.fencing import SessionGuard

PARTITIONS = 8
TIMEFRAMES = parse_timeframes("1m,5m,1h")
RULES = WindowRules(TIMEFRAMES[0])
SETTINGS = Settings.from_environment({})
TP0 = TP(TRADES, 0)
MINUTE = 60_000_000
WAIT_S = 60
"""A bound for what must happen at once: reached only by a test that fails."""


def our_app(session_guard: SessionGuard | None = None, settings: Settings = SETTINGS) -> AggregateApp:
    """The application as a worker builds it, not started."""
    epoch = Epoch(0, [str(timeframe) for timeframe in TIMEFRAMES], RULES.lateness_us, RULES.horizon_us, 1440)
    app = make_app(settings, epoch, PARTITIONS, session_guard or SessionGuard(10**12), Path("not-made"))
    app.check_epoch = ticks  # there is no Kafka to ask
    app.probe = UnchangedLog()  # type: ignore[assignment]
    return opened(app)


class UnchangedLog:
    """A topic that is what it was."""

    async def identity(self) -> TopicIdentity:
        return TopicIdentity("first", {})

    async def standing(self, offsets: Mapping[int, Sequence[int]]) -> dict[int, Standing]:
        found = {at: fingerprint_of(record(at)) for asked in offsets.values() for at in asked}
        return {partition: Standing(0, 10**6, found) for partition in offsets}

    async def close(self) -> None:
        return None


def plain_app(**options: Any) -> faust.App:
    """Faust as it comes."""
    settings = {"broker": "kafka://127.0.0.1:1", "store": "memory://", "topic_disable_leader": True} | options
    return opened(faust.App("plain", **settings))


def opened(app: faust.App) -> Any:
    """An application that takes messages of `trades`, though it is not connected to anything."""
    app.finalize()
    app.topics._acking_topics.add(TRADES)
    app.flow_control.resume()
    return app


async def ticks() -> None:
    """Let every task run on as far as it can without the outside."""
    for _ in range(50):
        await asyncio.sleep(0)


def record(offset: int, partition: int = 0, topic: str = TRADES) -> Any:
    return SimpleNamespace(
        topic=topic,
        partition=partition,
        offset=offset,
        key=b"k",
        value=b"v" if topic == TRADES else encode(Marker(offset)),
        timestamp=1_000 * offset,
        timestamp_type=1,
        headers=[],
        checksum=None,
        serialized_key_size=1,
        serialized_value_size=1,
    )

"""A deployment that is well, in samples: each test changes what it is about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from ashi.contracts.feed import FeedStatus, FeedWorker
from ashi_operations.doctor.facts import (
    Address,
    Certificates,
    Clocks,
    EpochFacts,
    Fact,
    Facts,
    Partitions,
    ShownCertificate,
    StoreFacts,
    Topics,
)
from ashi_operations.status.judge import Ground
from ashi_operations.status.snapshot import Delay, Feeds, Gaps, Group, Lag, Newest, Snapshot, Venue

S = 1_000_000
NOW = 1_790_000_000 * S
MINUTE = 60 * S
DAY = 86_400 * S


def status(symbol: str = "binance:BTCUSDT", state: Any = "connected", *, age_s: float = 1, **more: Any) -> FeedStatus:
    at = NOW - int(age_s * S)
    given: dict[str, Any] = {
        "since": at - 100 * S,
        "reason": None,
        "last_trade_id": "1",
        "last_traded_at": at - S,
        "updated_at": at,
        "complete_until": at - 2 * S,
        "workers": (FeedWorker("worker-1", state, at),),
    }
    return FeedStatus(symbol=symbol, state=state, **given | more)


def lag(topic: str = "trades", records: int = 0, seconds: float = 0.0, **more: Any) -> Lag:
    return Lag(topic, records, seconds, 0 if seconds else None, **{"lost": [], "unread": []} | more)


def aggregate(**more: Any) -> Group:
    given: dict[str, Any] = {"state": "Stable", "members": 2, "partitions": 4, "unowned": [], "lags": [lag()]}
    return Group(stage="aggregate", group="ashi-aggregate", **given | more)


def sink(**more: Any) -> Group:
    given: dict[str, Any] = {"state": "Stable", "members": 1, "partitions": 4, "unowned": [], "lags": [lag("candles")]}
    return Group(stage="sink", group="ashi-sink-sqlite", newest_row=NOW - MINUTE, **given | more)


def strategy(**more: Any) -> Group:
    """Of a process at work, which is in no group."""
    given: dict[str, Any] = {"state": None, "members": None, "partitions": 4, "unowned": [], "lags": [lag("candles")]}
    return Group(stage="strategy", group="ashi-strategy-ma_cross-1f", **given | more)


def snapshot(**more: Any) -> Snapshot:
    """In which nothing is wrong."""
    venue = Venue("binance", 1, {"connected": 1}, NOW - S, NOW - 2 * S)
    well = Snapshot(
        at=NOW,
        kafka="kafka:9092",
        brokers=3,
        partitions_without_leader=[],
        feeds=Feeds(1, {"connected": 1}, 1, [venue], [], 0),
        stages=[aggregate(), strategy()],
        stores=[sink()],
        delay=Delay(10, 180.0, 0.2, 0.4, 0.5),
        candles=[Newest("1m", "binance:BTCUSDT", NOW - 2 * MINUTE, NOW - MINUTE, "61837.63", NOW - MINUTE + S, 1)],
        gaps=Gaps(86_400.0, 0, 0, 0, 2, []),
        dead_letters={"trades.late": 0, "trades.dead": 0, "candles.dead": 0},
        clock_ahead=0.01,
        problems=[],
        unknown=[],
    )
    return msgspec.structs.replace(well, **more)


def ground(**more: Any) -> Ground:
    return replace(Ground("kafka:9092", "", 2 * S, MINUTE), **more)


def facts(**more: Any) -> Facts:
    """Of which nothing is wrong."""
    well = Facts(
        now=NOW,
        bootstrap="kafka:9092",
        prefix="",
        user="user 'sink'",
        principal="User:sink",
        addresses=Fact([Address("kafka:9092", True, None), Address("kafka-2:9092", False, None)]),
        certificates=Fact(Certificates([ShownCertificate("kafka:9092", "CN=kafka", NOW + 200 * DAY)], {})),
        login=Fact(True),
        versions=Fact({3: (0, 13), 1: (0, 17), 22: (0, 5)}),
        partitions=Fact(Partitions([], [], 40)),
        rights=Fact({"ashi sink": []}),
        chosen=["ashi sink"],
        topics=Fact(Topics(14, [], [])),
        retention=Fact([]),
        epoch=Fact(EpochFacts(3, "ASHI_TIMEFRAMES=1m", None)),
        groups=Fact([]),
        feeds=Fact([]),
        clocks=Fact(Clocks(0.05, {"binance": -0.02})),
        store=Fact(StoreFacts("/data/candles.db", 3, 3, [], 80 * 10**9, 100 * 10**9)),
        store_kind="sqlite",
        store_url="sqlite:////data/candles.db",
    )
    return replace(well, **more)

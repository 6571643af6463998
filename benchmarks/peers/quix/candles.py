"""Candles by Quix Streams: a tumbling window for each timeframe, its candle when it is final. Numbers are floats."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from quixstreams import Application

TIMEFRAMES_MS = {"1m": 60_000, "5m": 300_000, "1h": 3_600_000}
GRACE_MS = 2_000

Candle = dict[str, Any]


def begin(trade: dict[str, Any]) -> Candle:
    """A candle of one trade."""
    price, rank = float(trade["price"]), [trade["traded_at"], trade["sequence"]]
    return {
        "open": price, "high": price, "low": price, "close": price, "volume": float(trade["size"]), "trade_count": 1,
        "first": rank, "last": rank,
    }  # fmt: skip


def add(candle: Candle, trade: dict[str, Any]) -> Candle:
    """Add a trade."""
    price, rank = float(trade["price"]), [trade["traded_at"], trade["sequence"]]
    if rank < candle["first"]:
        candle["open"], candle["first"] = price, rank
    if rank > candle["last"]:
        candle["close"], candle["last"] = price, rank
    candle["high"] = max(candle["high"], price)
    candle["low"] = min(candle["low"], price)
    candle["volume"] += float(trade["size"])
    candle["trade_count"] += 1
    return candle


def name(timeframe: str) -> Callable[..., Candle]:
    """What makes a message of a final window."""

    def message(window: dict[str, Any], key: str, _timestamp: int, _headers: Any) -> Candle:
        return {"symbol": key, "timeframe": timeframe, "open_time": window["start"] * 1000, **window["value"]}

    return message


app = Application(
    broker_address=os.environ["BENCH_KAFKA"],
    consumer_group="quix",
    auto_offset_reset="earliest",
    state_dir=os.environ["BENCH_STATE"],
    loglevel="WARNING",
)
trades = app.topic(
    os.environ["BENCH_TRADES"],
    key_deserializer="str",
    value_deserializer="json",
    timestamp_extractor=lambda value, _headers, _timestamp, _kind: value["traded_at"] // 1000,
)
candles = app.topic(os.environ["BENCH_CANDLES"], key_serializer="str", value_serializer="json")
stream = app.dataframe(trades)
for timeframe, length_ms in TIMEFRAMES_MS.items():
    final = stream.tumbling_window(length_ms, grace_ms=GRACE_MS).reduce(reducer=add, initializer=begin).final()
    final.apply(name(timeframe), metadata=True).to_topic(candles)

if __name__ == "__main__":
    app.run()

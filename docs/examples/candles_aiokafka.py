"""The closed candles of a market by aiokafka alone, written from docs/messages.md: nothing of Ashi is installed.

    pip install 'aiokafka>=0.14,<0.15' 'cramjam>=2.8,<3'
    python candles_aiokafka.py 127.0.0.1:9092 bitflyer:BTC_JPY 1m

The one rule: of each (symbol, timeframe, open_time) the greatest `version` counts, and the first of equals.
"""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from aiokafka import AIOKafkaConsumer

TOPIC, SCHEMA = "candles", b"ashi.candle.v1"


async def candles_now(bootstrap: str, symbol: str, timeframe: str) -> list[dict[str, Any]]:
    """What counts of the topic now, oldest first."""
    consumer = AIOKafkaConsumer(
        TOPIC,
        bootstrap_servers=bootstrap,
        group_id=None,  # all partitions, and nothing is committed
        auto_offset_reset="earliest",
        isolation_level="read_committed",  # what a transaction has aborted never happened
    )
    await consumer.start()
    try:
        partitions = consumer.assignment()
        ends = await consumer.end_offsets(partitions)
        kept: dict[int, dict[str, Any]] = {}
        while any([await consumer.position(each) < ends[each] for each in partitions]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                for record in records:
                    candle = candle_in(record)
                    if candle is None or candle["symbol"] != symbol or candle["timeframe"] != timeframe:
                        continue
                    known = kept.get(candle["open_time"])
                    if known is None or candle["version"] > known["version"]:
                        kept[candle["open_time"]] = candle
    finally:
        await consumer.stop()
    return [kept[open_time] for open_time in sorted(kept)]


def candle_in(record: Any) -> dict[str, Any] | None:
    """The candle in a record; None where it holds another message, whose fields may mean anything."""
    schema = dict(record.headers).get("schema")  # of several the last counts; without one it is the version known here
    if schema not in (None, SCHEMA):
        print(f"{TOPIC}/{record.partition}/{record.offset} is passed over: {schema!r}", file=sys.stderr)
        return None
    candle: dict[str, Any] = json.loads(record.value)
    return candle


def main() -> None:
    """Print them."""
    for candle in asyncio.run(candles_now(*sys.argv[1:4])):
        opened = datetime.fromtimestamp(candle["open_time"] // 1_000_000, UTC)  # times are µs, in UTC
        prices = [Decimal(candle[name]) for name in ("open", "high", "low", "close", "volume")]  # exact, as text
        print(opened.isoformat(), *prices, sep="\t")


if __name__ == "__main__":
    main()

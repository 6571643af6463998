"""The closed candles of a market by confluent-kafka alone, written from docs/messages.md: nothing of Ashi is installed.

    pip install 'confluent-kafka>=2.6,<3'
    python candles_confluent.py 127.0.0.1:9092 bitflyer:BTC_JPY 1m

The one rule: of each (symbol, timeframe, open_time) the greatest `version` counts, and the first of equals.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

TOPIC, SCHEMA = "candles", b"ashi.candle.v1"


def candles_now(bootstrap: str, symbol: str, timeframe: str) -> list[dict[str, Any]]:
    """What counts of the topic now, oldest first."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "not-used",  # librdkafka wants one; nothing is committed
            "enable.auto.commit": False,
            "isolation.level": "read_committed",  # what a transaction has aborted never happened
            "enable.partition.eof": True,
        }
    )
    try:
        left = set(consumer.list_topics(TOPIC, timeout=30).topics[TOPIC].partitions)
        if not left:
            sys.exit(f"there is no topic {TOPIC!r} at {bootstrap}")
        consumer.assign([TopicPartition(TOPIC, number, OFFSET_BEGINNING) for number in left])
        kept: dict[int, dict[str, Any]] = {}
        while left:
            record = consumer.poll(30)
            if record is None:
                sys.exit(f"nothing comes from {bootstrap}")
            if (error := record.error()) is not None:
                if error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                left.discard(record.partition() or 0)
                continue
            candle = candle_in(record)
            if candle is None or candle["symbol"] != symbol or candle["timeframe"] != timeframe:
                continue
            known = kept.get(candle["open_time"])
            if known is None or candle["version"] > known["version"]:
                kept[candle["open_time"]] = candle
    finally:
        consumer.close()
    return [kept[open_time] for open_time in sorted(kept)]


def candle_in(record: Any) -> dict[str, Any] | None:
    """The candle in a record; None where it holds another message, whose fields may mean anything."""
    schema = dict(record.headers() or []).get("schema")  # of several the last counts; without one it is of this version
    if schema not in (None, SCHEMA):
        print(f"{TOPIC}/{record.partition()}/{record.offset()} is passed over: {schema!r}", file=sys.stderr)
        return None
    candle: dict[str, Any] = json.loads(record.value())
    return candle


def main() -> None:
    """Print them."""
    for candle in candles_now(*sys.argv[1:4]):
        opened = datetime.fromtimestamp(candle["open_time"] // 1_000_000, UTC)  # times are µs, in UTC
        prices = [Decimal(candle[name]) for name in ("open", "high", "low", "close", "volume")]  # exact, as text
        print(opened.isoformat(), *prices, sep="\t")


if __name__ == "__main__":
    main()

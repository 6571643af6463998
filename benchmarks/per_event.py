"""The per-event Faust way of making candles: what Ashi is compared with. Not part of Ashi.

A plain agent, one record at a time, one table set per trade and timeframe, a candle sent when a window ends: as in
Faust's own documentation, with the same exact decimals and the same durable changelogs.
"""

from __future__ import annotations

import os
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import faust

from ashi.contracts import decode_trade, parse_timeframes
from ashi.contracts.topics import CANDLES, TRADES

TIMEFRAMES = parse_timeframes(os.environ.get("ASHI_TIMEFRAMES", "1m,5m,1h"))
PARTITIONS = 8
TABLE = "per-event-{}"

app = faust.App(
    "per-event",
    broker=f"kafka://{os.environ['ASHI_KAFKA_BOOTSTRAP']}",
    store="memory://",
    datadir=Path(tempfile.gettempdir()) / "per-event-data",
    web_enabled=False,
    topic_disable_leader=True,
    topic_allow_declare=False,
    topic_partitions=PARTITIONS,
    table_standby_replicas=0,
    consumer_auto_offset_reset="earliest",
    stream_recovery_delay=0.0,
)
trades = app.topic(TRADES, key_type=bytes, value_type=bytes, value_serializer="raw", partitions=PARTITIONS)
candles = app.topic(os.environ.get("BENCH_CANDLES", CANDLES), key_type=bytes, value_serializer="json")
tables = {
    timeframe: app.Table(TABLE.format(timeframe), partitions=PARTITIONS, key_type=bytes) for timeframe in TIMEFRAMES
}


@app.on_worker_init.connect  # type: ignore[untyped-decorator]
def widen_producer_buffer(*_: Any, **__: Any) -> None:
    """Faust's default of 100 messages makes this way slower still."""
    app.producer.buffer.max_messages = 10_000


@app.agent(trades)  # type: ignore[untyped-decorator]
async def aggregate(stream: Any) -> None:
    """One trade after the other."""
    async for key, value in stream.items():
        trade = decode_trade(value)
        for timeframe, table in tables.items():
            open_time = timeframe.open_time(trade.traded_at)
            row = table.get(key)
            if row is None or row["open_time"] < open_time:
                if row is not None:
                    await candles.send(key=key, value=row)
                price = str(trade.price)
                row = {
                    "symbol": trade.symbol, "timeframe": str(timeframe), "open_time": open_time,
                    "open": price, "high": price, "low": price, "volume": "0", "trade_count": 0,
                }  # fmt: skip
            row["high"] = str(max(Decimal(row["high"]), trade.price))
            row["low"] = str(min(Decimal(row["low"]), trade.price))
            row["close"] = str(trade.price)
            row["volume"] = str(Decimal(row["volume"]) + trade.size)
            row["trade_count"] += 1
            table[key] = row


if __name__ == "__main__":
    faust.Worker(app, loglevel="WARNING").execute_from_commandline()

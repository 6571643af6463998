"""Candles by chDB, ClickHouse in a process: batches into materialized views, closed candles out of them."""

from __future__ import annotations

import json
import os
import signal

from chdb import session
from confluent_kafka import Consumer, Producer

TIMEFRAMES_US = {"1m": 60_000_000, "5m": 300_000_000, "1h": 3_600_000_000}
LATENESS_US = 2_000_000
BATCH = 100_000

TRADES = """
CREATE TABLE trades (
    symbol LowCardinality(String), price Decimal(38, 12), size Decimal(38, 12), traded_at Int64, sequence Int64
) ENGINE = Null"""
CLOCKS = """
CREATE MATERIALIZED VIEW clocks ENGINE = AggregatingMergeTree ORDER BY symbol AS
SELECT symbol, maxSimpleState(traded_at) AS clock FROM trades GROUP BY symbol"""
CANDLES = """
CREATE MATERIALIZED VIEW candles_{name} ENGINE = AggregatingMergeTree ORDER BY (open_time, symbol) AS
SELECT
    symbol, intDiv(traded_at, {length}) * {length} AS open_time,
    argMinState(price, (traded_at, sequence)) AS open, maxSimpleState(price) AS high, minSimpleState(price) AS low,
    argMaxState(price, (traded_at, sequence)) AS close, sumState(size) AS volume, countState() AS trade_count
FROM trades GROUP BY symbol, open_time"""
CLOSED = """
SELECT
    symbol, '{name}' AS timeframe, open_time, argMinMerge(open) AS open, max(high) AS high, min(low) AS low,
    argMaxMerge(close) AS close, sumMerge(volume) AS volume, countMerge(trade_count) AS trade_count
FROM candles_{name} WHERE open_time >= {since} GROUP BY symbol, open_time FORMAT JSONEachRow"""

consumer = Consumer(
    {
        "bootstrap.servers": os.environ["BENCH_KAFKA"],
        "group.id": "chdb",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
)
consumer.subscribe([os.environ["BENCH_TRADES"]])
producer = Producer({"bootstrap.servers": os.environ["BENCH_KAFKA"], "compression.type": "zstd"})
database = session.Session(os.environ["BENCH_STATE"])
for setting in ("input_format_skip_unknown_fields", "output_format_json_quote_decimals"):
    database.query(f"SET {setting} = 1")
for statement in (TRADES, CLOCKS, *(CANDLES.format(name=name, length=us) for name, us in TIMEFRAMES_US.items())):
    database.query(statement)
told: dict[tuple[str, str], int] = {}
"""By timeframe and symbol, the window that was told of last."""


def tell() -> None:
    """Send the candles of windows that have closed since."""
    answer = str(database.query("SELECT symbol, max(clock) FROM clocks GROUP BY symbol", "JSONCompactEachRow"))
    clocks = {symbol: int(clock) for symbol, clock in map(json.loads, answer.splitlines())}
    for name, length in TIMEFRAMES_US.items():
        # Nothing can have closed of a symbol before the window that follows the one told of last.
        since = min((told.get((name, symbol), 0) for symbol in clocks), default=0)
        for line in str(database.query(CLOSED.format(name=name, since=since))).splitlines():
            candle = json.loads(line)
            symbol, open_time = candle["symbol"], int(candle["open_time"])
            if told.get((name, symbol), -1) < open_time <= clocks[symbol] - LATENESS_US - length:
                producer.produce(os.environ["BENCH_CANDLES"], line.encode(), symbol.encode())
        for symbol, clock in clocks.items():
            told[name, symbol] = (clock - LATENESS_US) // length * length - length
    producer.flush()


running = True


def stop(*_: object) -> None:
    """End after the batch."""
    global running  # noqa: PLW0603
    running = False


signal.signal(signal.SIGTERM, stop)
while running:
    messages = [(each.value() or b"").decode() for each in consumer.consume(BATCH, timeout=0.5) if not each.error()]
    if messages:
        database.query("INSERT INTO trades FORMAT JSONEachRow " + "\n".join(messages))
        tell()
        consumer.commit(asynchronous=True)
consumer.close()

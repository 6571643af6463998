"""Candles by Bytewax: a fold for each timeframe over windows of event time, in exact decimals.

`python -m bytewax.recovery STATE 1`, once, and `python -m bytewax.run candles:flow -r STATE -s 10 -b 0`.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import bytewax.operators as op
import bytewax.operators.windowing as win
import orjson
from bytewax.connectors.kafka import KafkaSinkMessage
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow

TIMEFRAMES = {"1m": timedelta(minutes=1), "5m": timedelta(minutes=5), "1h": timedelta(hours=1)}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BROKERS = [os.environ["BENCH_KAFKA"]]

Trade = tuple[datetime, int, Decimal, Decimal]
"""Time, sequence, price, size."""
Candle = list[Any]
"""First and last rank, open, high, low, close, volume, trades."""


def decode(message: Any) -> tuple[str, Trade]:
    """A trade, by symbol."""
    trade = orjson.loads(message.value)
    at = EPOCH + timedelta(microseconds=trade["traded_at"])
    return trade["symbol"], (at, trade["sequence"], Decimal(trade["price"]), Decimal(trade["size"]))


def add(candle: Candle, trade: Trade) -> Candle:
    """Add a trade."""
    at, sequence, price, size = trade
    rank = (at, sequence)
    if not candle:
        return [rank, rank, price, price, price, price, size, 1]
    if rank < candle[0]:
        candle[0], candle[2] = rank, price
    if rank > candle[1]:
        candle[1], candle[5] = rank, price
    candle[3] = max(candle[3], price)
    candle[4] = min(candle[4], price)
    candle[6] += size
    candle[7] += 1
    return candle


def merge(one: Candle, other: Candle) -> Candle:
    """Tumbling windows are never merged."""
    raise NotImplementedError(one, other)


clock = win.EventClock(
    ts_getter=lambda trade: trade[0],
    wait_for_system_duration=timedelta(seconds=2),
    # The time of a window says nothing of when to wake up where the past is read.
    to_system_utc=lambda _: None,
)
flow = Dataflow("candles")
messages = kop.input("trades", flow, brokers=BROKERS, topics=[os.environ["BENCH_TRADES"]], batch_size=5_000)
trades = op.map("decode", messages.oks, decode)
for timeframe, length in TIMEFRAMES.items():
    windows = win.fold_window(
        timeframe, trades, clock, win.TumblingWindower(length=length, align_to=EPOCH), list, add, merge, ordered=False
    )

    def encode(
        closed: tuple[str, tuple[int, Candle]], timeframe: str = timeframe, length: timedelta = length
    ) -> KafkaSinkMessage[bytes, bytes]:
        """A message of a closed window, which has a number."""
        symbol, (number, (_, _, *prices, volume, count)) = closed
        names = ("open", "high", "low", "close", "volume")
        values = dict(zip(names, map(str, [*prices, volume]), strict=True))
        open_time = number * length // timedelta(microseconds=1)
        about = {"symbol": symbol, "timeframe": timeframe, "open_time": open_time, "trade_count": count}
        return KafkaSinkMessage(symbol.encode(), orjson.dumps(about | values))

    made = op.map(f"encode {timeframe}", windows.down, encode)
    kop.output(f"candles {timeframe}", made, brokers=BROKERS, topic=os.environ["BENCH_CANDLES"])

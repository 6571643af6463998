"""What other programs read Ashi's topics with: candles, feeds' gaps and status, signals, always the newest version.

    async with read_candles("kafka:9092", symbols=["bitflyer:BTC_JPY"], timeframes=["1m"]) as candles:
        async for candle in candles:
            ...

Outside of asyncio it is `with` and `for`. No consumer group, nothing is committed, no other part of Ashi has to be
installed. The messages are described in docs/messages.md, this package in docs/client.md.
"""

from ashi.client.completeness import Completeness
from ashi.client.position import Position, Since
from ashi.client.reader import Reader, UnreadableRecord
from ashi.client.topics import (
    kafka_settings,
    read_candles,
    read_feed_gaps,
    read_feed_status,
    read_instruments,
    read_live_candles,
    read_signals,
)
from ashi.contracts.candle import Candle
from ashi.contracts.feed import FeedGap, FeedStatus
from ashi.contracts.instrument import Instrument
from ashi.contracts.signal import Signal
from ashi.runtime.settings import Settings

__all__ = [
    "Candle",
    "Completeness",
    "FeedGap",
    "FeedStatus",
    "Instrument",
    "Position",
    "Reader",
    "Settings",
    "Signal",
    "Since",
    "UnreadableRecord",
    "kafka_settings",
    "read_candles",
    "read_feed_gaps",
    "read_feed_status",
    "read_instruments",
    "read_live_candles",
    "read_signals",
]

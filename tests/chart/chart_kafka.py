"""What tests of the chart on a real Kafka write to the topics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from ashi.contracts.candle import Candle, encode_candle
from ashi.contracts.feed import FeedGap, FeedStatus, encode_feed
from ashi.contracts.instrument import Instrument, encode_instrument
from ashi.contracts.records import live_key
from ashi.contracts.topics import CANDLES, CANDLES_LIVE, FEED_GAPS, FEED_STATUS, INSTRUMENTS
from ashi.runtime.kafka.connections.clients import make_producer
from ashi.runtime.settings import Settings


@asynccontextmanager
async def topics_of(settings: Settings) -> AsyncIterator[Topics]:
    producer = make_producer(settings)
    await producer.start()
    try:
        yield Topics(producer)
    finally:
        await producer.stop()


class Topics:
    """Writes what the stages write."""

    def __init__(self, producer: Any) -> None:
        self._producer = producer

    async def send(self, *messages: Candle | FeedGap | FeedStatus | Instrument, live: bool = False) -> None:
        for message in messages:
            key = message.symbol.encode()
            match message:
                case FeedGap():
                    await self._producer.send_and_wait(FEED_GAPS, encode_feed(message), key)
                case FeedStatus():
                    await self._producer.send_and_wait(FEED_STATUS, encode_feed(message), key)
                case Instrument():
                    await self._producer.send_and_wait(INSTRUMENTS, encode_instrument(message), key)
                case Candle() if live:
                    key = live_key(message.symbol, message.timeframe)
                    await self._producer.send_and_wait(CANDLES_LIVE, encode_candle(message), key)
                case Candle():
                    await self._producer.send_and_wait(CANDLES, encode_candle(message), key)

    async def send_all(self, candles: Iterable[Candle]) -> None:
        """Closed candles, not one by one."""
        sent = [await self._producer.send(CANDLES, encode_candle(each), each.symbol.encode()) for each in candles]
        await asyncio.gather(*sent)

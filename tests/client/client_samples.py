"""Messages for the tests of the client, and how they come into a topic."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from ashi.contracts.candle import Candle, encode_candle
from ashi.contracts.feed import FeedGap, FeedStatus, encode_feed
from ashi.contracts.instrument import Instrument, encode_instrument
from ashi.contracts.signal import Signal, encode_signal
from ashi.contracts.timeframe import Timeframe
from ashi.contracts.topics import CANDLES, FEED_GAPS, FEED_STATUS, INSTRUMENTS, SIGNALS
from ashi.runtime.kafka.connections.clients import make_producer

if TYPE_CHECKING:
    from ashi.runtime.settings import Settings

MINUTE_US = 60_000_000
FIRST_US = 1_640_995_200_000_000
BTC, ETH = "bitflyer:BTC_JPY", "binance:ETHUSDT"


def a_candle(minute: int = 0, version: int = 1, symbol: str = BTC, timeframe: str = "1m") -> Candle:
    """A candle whose prices are its version."""
    open_time = Timeframe.parse(timeframe).open_time(FIRST_US + minute * MINUTE_US)
    price, none = Decimal(version), Decimal(0)
    return Candle(
        symbol=symbol,
        timeframe=timeframe,
        open_time=open_time,
        close_time=open_time + Timeframe.parse(timeframe).length_us,
        open=price,
        high=price,
        low=price,
        close=price,
        volume=Decimal("1.5"),
        quote_volume=price,
        trade_count=1,
        taker_buy_volume=none,
        taker_buy_quote_volume=none,
        first_trade_id="7",
        last_trade_id="7",
        version=version,
    )


def a_gap(minute: int = 0, updated: int = 1, symbol: str = BTC) -> FeedGap:
    return FeedGap(symbol, FIRST_US + minute * MINUTE_US, None, "open", 0, "silent for 30 s", FIRST_US + updated)


def a_status(updated: int = 1, symbol: str = BTC) -> FeedStatus:
    return FeedStatus(symbol, "connected", FIRST_US, None, None, None, FIRST_US + updated)


def a_signal(minute: int = 0, version: int = 1, revision: int = 0, **changes: Any) -> Signal:
    candle = a_candle(minute, version)
    signal = Signal(
        strategy="ma_cross(fast=9,slow=21)",
        symbol=candle.symbol,
        timeframe=candle.timeframe,
        open_time=candle.open_time,
        close_time=candle.close_time,
        version=version,
        revision=revision,
        target="long",
        strength=None,
        price=candle.close,
        reason=None,
        labels={},
        all_closed=True,
        is_complete=None,
        status="active",
        updated_at=candle.close_time + 2_000_000,
    )
    return msgspec.structs.replace(signal, **changes)


Message: TypeAlias = Candle | FeedGap | FeedStatus | Instrument | Signal | tuple[str, str, bytes]


async def send(settings: Settings, *messages: Message) -> list[Any]:
    """Send messages, or (topic, key, value), one after the other; where each came to stand."""
    producer = make_producer(settings)
    await producer.start()
    try:
        return [
            await producer.send_and_wait(topic, value, key.encode()) for topic, key, value in map(_record, messages)
        ]
    finally:
        await producer.stop()


def _record(message: Message) -> tuple[str, str, bytes]:
    match message:
        case Candle():
            return CANDLES, message.symbol, encode_candle(message)
        case FeedGap():
            return FEED_GAPS, message.symbol, encode_feed(message)
        case FeedStatus():
            return FEED_STATUS, message.symbol, encode_feed(message)
        case Instrument():
            return INSTRUMENTS, message.symbol, encode_instrument(message)
        case Signal():
            return SIGNALS, message.symbol, encode_signal(message)
        case _:
            return message

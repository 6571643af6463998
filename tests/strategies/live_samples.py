"""What the tests of strategies that run write into the topics, and read of them."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ashi.contracts.candle import CANDLE_SCHEMA, Candle, encode_candle
from ashi.contracts.feed import FEED_GAP_SCHEMA, FeedGap, encode_feed
from ashi.contracts.records import signal_in
from ashi.contracts.signal import Signal, signal_rank, signal_slot
from ashi.contracts.topics import CANDLES, FEED_GAPS, SIGNALS
from ashi.runtime.kafka.connections.clients import make_producer
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.kafka.producing.dead_letters import message_headers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ashi.runtime.settings import Settings

MINUTE_US = 60_000_000
FIRST_US = 1_640_995_200_000_000


def a_candle(minute: int, price: int, *, symbol: str = "sim:A", version: int | None = None) -> Candle:
    """A one-minute candle; one that is newer has a greater version, as those of a log have."""
    open_time, value = FIRST_US + minute * MINUTE_US, Decimal(price)
    return Candle(
        symbol=symbol,
        timeframe="1m",
        open_time=open_time,
        close_time=open_time + MINUTE_US,
        open=value,
        high=value,
        low=value,
        close=value,
        volume=Decimal(1),
        quote_volume=value,
        trade_count=1,
        taker_buy_volume=Decimal(1),
        taker_buy_quote_volume=value,
        first_trade_id="1",
        last_trade_id="1",
        version=minute + 1 if version is None else version,
    )


def candles_of_a_walk(count: int, seed: int, symbol: str = "sim:A") -> list[Candle]:
    """Candles whose price goes up and down so much that means of it often cross."""
    chosen = random.Random(seed)
    return [a_candle(minute, 1_000 + chosen.randrange(200), symbol=symbol) for minute in range(count)]


def a_lost_minute(minute: int, symbol: str = "sim:A") -> FeedGap:
    """A gap that is for good."""
    return FeedGap(
        symbol=symbol,
        from_time=FIRST_US + minute * MINUTE_US,
        to_time=FIRST_US + (minute + 1) * MINUTE_US,
        state="lost",
        reason="a test",
        trades_recovered=0,
        updated_at=FIRST_US + (minute + 2) * MINUTE_US,
    )


async def publish(settings: Settings, messages: Iterable[Candle | FeedGap]) -> None:
    """Write messages where they belong, and wait until they stand there."""
    producer = make_producer(settings)
    await producer.start()
    try:
        sent = []
        for message in messages:
            topic, schema, value = (
                (CANDLES, CANDLE_SCHEMA, encode_candle(message))
                if isinstance(message, Candle)
                else (FEED_GAPS, FEED_GAP_SCHEMA, encode_feed(message))
            )
            sent.append(await producer.send(topic, value, message.symbol.encode(), headers=message_headers(schema)))
        for each in sent:
            await each
    finally:
        await producer.stop()


async def written_signals(settings: Settings, topic: str = SIGNALS) -> list[Signal]:
    """All messages that stand in the topic of signals, repeats too."""
    return [signal_in(record) async for record in read_topic(settings, topic)]


def holding(signals: Iterable[Signal]) -> dict[Any, Signal]:
    """What a reader keeps: of each slot the message of the greatest rank, if it is not superseded."""
    newest: dict[Any, Signal] = {}
    for signal in signals:
        slot = signal_slot(signal)
        if slot not in newest or signal_rank(signal) > signal_rank(newest[slot]):
            newest[slot] = signal
    return {slot: signal for slot, signal in newest.items() if signal.status == "active"}


def content(signal: Signal) -> tuple[Any, ...]:
    """What a signal says, whenever and however often it was said."""
    return (
        *signal_slot(signal),
        signal.close_time,
        signal.version,
        signal.target,
        signal.strength,
        signal.price,
        signal.reason,
        tuple(signal.labels.items()),
        signal.all_closed,
    )


def contents(signals: Iterable[Signal]) -> list[tuple[Any, ...]]:
    """What all say that hold, in order of time."""
    return sorted(content(signal) for signal in holding(signals).values())


def repeated(signals: Iterable[Signal]) -> list[tuple[Any, ...]]:
    """Those messages that were written more than once."""
    seen, twice = set(), []
    for signal in signals:
        name = (signal_slot(signal), signal_rank(signal))
        if name in seen:
            twice.append(name)
        seen.add(name)
    return twice

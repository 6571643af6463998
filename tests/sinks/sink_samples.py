"""Candles, gaps and stores for the tests of sinks: what is sent, what must be stored, what troubles a store."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol

import msgspec

from ashi.contracts.candle import Candle
from ashi.contracts.feed import FeedGap, FeedStatus, FeedWorker
from ashi.contracts.venue_candle import VenueCandle
from ashi_sinks.protocol import CandleReader, Sink

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

MINUTE_US = 60_000_000
FIRST_US = 1_640_995_200_000_000


def a_candle(minute: int = 0, version: int = 1, symbol: str = "binance:ETHUSDT", price: str = "100", **more: object):
    """A one-minute candle; what tells two of one window apart is the price."""
    open_time = FIRST_US + minute * MINUTE_US
    candle = Candle(
        symbol=symbol,
        timeframe="1m",
        open_time=open_time,
        close_time=open_time + MINUTE_US,
        open=Decimal(price),
        high=Decimal(price),
        low=Decimal(price),
        close=Decimal(price),
        volume=Decimal("1.5"),
        quote_volume=Decimal(150),
        trade_count=2,
        taker_buy_volume=Decimal("0.5"),
        taker_buy_quote_volume=Decimal(50),
        first_trade_id="7",
        last_trade_id="8",
        version=version,
    )
    return msgspec.structs.replace(candle, **more)


def a_gap(
    minute: int = 0,
    updated: int = 1,
    symbol: str = "binance:ETHUSDT",
    minutes: int | None = 1,
    reason: str = "silent for 30 s",
    **more: object,
):
    """A gap from the given minute on that lasts so many; what tells two of one name apart is the reason."""
    from_time = FIRST_US + minute * MINUTE_US
    gap = FeedGap(
        symbol=symbol,
        from_time=from_time,
        to_time=None if minutes is None else from_time + minutes * MINUTE_US,
        state="open",
        trades_recovered=0,
        reason=reason,
        updated_at=FIRST_US + updated,
    )
    return msgspec.structs.replace(gap, **more)


def a_status(updated: int = 1, symbol: str = "binance:ETHUSDT", **more: object):
    """What is said of a feed that is well; what tells two of one symbol apart is the last trade."""
    status = FeedStatus(
        symbol=symbol,
        state="connected",
        since=FIRST_US,
        reason=None,
        last_trade_id=str(updated),
        last_traded_at=FIRST_US - 1,
        updated_at=FIRST_US + updated,
        complete_until=FIRST_US - 2,
        workers=(FeedWorker("a worker", "connected", FIRST_US),),
    )
    return msgspec.structs.replace(status, **more)


def a_venue_candle(minute: int = 0, symbol: str = "binance:ETHUSDT", price: str = "5", **more: object) -> VenueCandle:
    """A candle of a venue's own that lasts a minute."""
    open_time = FIRST_US + minute * MINUTE_US
    candle = VenueCandle(
        symbol=symbol,
        timeframe="1m",
        open_time=open_time,
        close_time=open_time + MINUTE_US,
        open=Decimal(price),
        high=Decimal(price),
        low=Decimal(price),
        close=Decimal(price),
        volume=Decimal("0.00000001"),
        quote_volume=Decimal(8),
        trade_count=3,
        taker_buy_volume=Decimal(0),
        taker_buy_quote_volume=Decimal("1.5"),
        source="venue",
        fetched_at=FIRST_US + 1,
    )
    return msgspec.structs.replace(candle, **more)


def oracle(candles: Iterable[Candle]) -> list[Candle]:
    """What a store must hold: of each window the greatest version, the first of equals; by symbol and time."""
    best: dict[tuple[str, str, int], Candle] = {}
    for candle in sorted(candles, key=lambda candle: -candle.version):  # stable, so the first of equals stays first
        best.setdefault((candle.symbol, candle.timeframe, candle.open_time), candle)
    return sorted(best.values(), key=lambda candle: (candle.symbol, candle.timeframe, candle.open_time))


def gap_oracle(gaps: Iterable[FeedGap]) -> list[FeedGap]:
    """What a store must hold: of each gap the greatest `updated_at`, the first of equals; by symbol and time."""
    best: dict[tuple[str, int], FeedGap] = {}
    for gap in sorted(gaps, key=lambda gap: -gap.updated_at):  # stable, so the first of equals stays first
        best.setdefault((gap.symbol, gap.from_time), gap)
    return sorted(best.values(), key=lambda gap: (gap.symbol, gap.from_time))


async def stored(reader: CandleReader) -> list[Candle]:
    """All candles of a store in the oracle's order."""
    series = sorted(await reader.spans())
    return [candle for symbol, timeframe, _, _ in series async for candle in reader.read(symbol, timeframe)]


SYMBOLS = ("binance:ETHUSDT", "bitflyer:BTC_JPY")


async def stored_gaps(reader: CandleReader) -> list[FeedGap]:
    """All gaps of a store in the oracle's order; those of `SYMBOLS`."""
    return [gap for symbol in SYMBOLS for gap in await reader.gaps(symbol)]


async def until(condition, timeout_s=60.0):
    """Wait until `condition()`, which may be a coroutine, is true.

    What takes long is looked at less often: to look may be to open a store, beside the worker that writes to it.
    """
    pause_s = 0.005
    async with asyncio.timeout(timeout_s):
        while True:
            met = condition()
            if await met if asyncio.iscoroutine(met) else met:
                return
            await asyncio.sleep(pause_s)
            pause_s = min(1.5 * pause_s, 0.1)


class Stage(Protocol):
    """One store, at first not existing, and the means to trouble it."""

    refused: Candle
    """A candle that `decode_candle` accepts and the store does not."""
    refused_gap: FeedGap
    """A gap that `decode_feed_gap` accepts and the store does not."""

    def sink(self) -> Sink: ...
    def reader(self) -> CandleReader: ...
    def unavailable(self) -> AbstractContextManager[None]:
        """Make the store unusable for a sink that is open, for a while."""


@asynccontextmanager
async def opened(thing):
    await thing.open()
    try:
        yield thing
    finally:
        await thing.close()

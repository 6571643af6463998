"""What tests of the client library on a real Kafka collect."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from client_samples import FIRST_US, MINUTE_US

if TYPE_CHECKING:
    from ashi.client import Candle

BOUND_S = 30


def run(main):
    return asyncio.run(asyncio.wait_for(main, BOUND_S * 3))


async def collect(reader):
    """All that a reader hands out until it ends."""
    async with reader:
        return [message async for message in reader]


async def take(reader, count: int):
    """The next few; fails where there are none."""
    async with asyncio.timeout(BOUND_S):
        return [await anext(reader) for _ in range(count)]


def versions(candles: list[Candle]) -> list[tuple[int, int]]:
    return [((candle.open_time - FIRST_US) // MINUTE_US, candle.version) for candle in candles]

"""Trades of a lake for tests."""

from __future__ import annotations

import asyncio
from decimal import Decimal

from sink_certification import FIRST_US

from ashi.contracts.trade import Trade
from ashi_sinks.lake.tables import StoredTrade
from ashi_sinks.lake.trades import LakeTrades


def a_trade(number=0, symbol="binance:ETHUSDT", **more):
    """Trades of one number are alike; 700 of them fill a day."""
    fields = {
        "symbol": symbol,
        "trade_id": str(number),
        "price": Decimal("61837.63"),
        "size": Decimal("0.00000001"),
        "side": ("buy", "sell", None)[number % 3],
        "traded_at": FIRST_US + number * 123_456_789,
        "received_at": FIRST_US + number * 123_456_789 + 1_234,
        "sequence": number,
    }
    return Trade(**fields | more)


def as_rows(trades, partition=0, first=0):
    return [StoredTrade(partition, first + at, trade) for at, trade in enumerate(trades)]


def write(lake, *batches):
    async def scenario():
        table = LakeTrades(lake)
        await table.open_or_make()
        written = [await table.write(batch) for batch in batches]
        await table.close()
        return written

    return asyncio.run(scenario())

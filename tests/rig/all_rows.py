"""Every row of a store in one go, past Ashi's readers: they read a series at a time, and here are thousands."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import polars

from ashi.contracts import Candle
from ashi.contracts.candle import DECIMAL_FIELDS

FIELDS = Candle.__struct_fields__
SELECT = f"SELECT {', '.join(FIELDS)} FROM candles"


async def read_whole(url: str) -> list[Candle]:
    """All candles of the store at this URL."""
    scheme, _, path = url.partition("://")
    if scheme == "sqlite":
        with closing(sqlite3.connect(path.removeprefix("/"))) as database:
            return _candles(dict(zip(FIELDS, row, strict=True)) for row in database.execute(SELECT))
    if scheme == "lake":
        table = polars.read_delta(f"{path}/candles")
        times = [polars.col(name).dt.timestamp("us") for name in ("open_time", "close_time")]
        return _candles(table.with_columns(times).select(FIELDS).iter_rows(named=True))
    connection = await asyncpg.connect(url)
    try:
        return _candles(map(dict, await connection.fetch(SELECT)))
    finally:
        await connection.close()


def _candles(rows: Iterable[dict[str, Any]]) -> list[Candle]:
    return [
        Candle(
            **row
            | {name: Decimal(row[name]) for name in DECIMAL_FIELDS}
            | {name: _microseconds(row[name]) for name in ("open_time", "close_time")}
        )
        for row in rows
    ]


def _microseconds(time: int | datetime) -> int:
    return (
        time if isinstance(time, int) else (time - datetime.fromtimestamp(0, time.tzinfo)) // timedelta(microseconds=1)
    )

"""The candles of an SQLite store, read without Ashi's own reader."""

from __future__ import annotations

import sqlite3
from decimal import Decimal
from pathlib import Path

import msgspec

from ashi.contracts import Candle
from ashi.contracts.candle import DECIMAL_FIELDS


def rows_in(path: Path) -> list[Candle]:
    """All rows of table `candles`."""
    with sqlite3.connect(path) as db:
        db.row_factory = sqlite3.Row
        rows = [dict(row) for row in db.execute("SELECT * FROM candles")]
    exact = [{name: Decimal(value) if name in DECIMAL_FIELDS else value for name, value in row.items()} for row in rows]
    return [msgspec.convert(row, Candle) for row in exact]

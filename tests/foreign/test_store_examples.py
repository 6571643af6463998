"""The programs of docs/examples that read a store, as a stranger would start them, over what the sinks have written."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import duckdb_extension_delta
import pytest

from ashi.contracts.feed import FeedGap, FeedStatus
from ashi_sinks.registry import make_sink
from samples.candles import BTC, ETH, FIRST_US, MINUTE_US, a_candle
from servers.postgres import PASSWORD, USER

if TYPE_CHECKING:
    from servers.postgres import PostgresServer

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
HOUR_MINUTES = 60
BOUND_S = 60

CANDLES = [
    a_candle(0, 2, price="100"),
    a_candle(0, 9, price="8763519.5"),  # corrected
    a_candle(1, 3, price="5.25"),
    a_candle(
        2,
        3,
        price="5.25",
        trade_count=0,
        volume=Decimal(0),
        quote_volume=Decimal(0),
        first_trade_id=None,
        last_trade_id=None,
    ),
    a_candle(HOUR_MINUTES, 4, price="7"),
    a_candle(HOUR_MINUTES + 1, 5, price="8"),  # the feed has not come so far
    a_candle(1, 1, symbol=ETH, price="1"),
    a_candle(0, 10, timeframe="5m", price="6"),
]
GAP = FeedGap(BTC, FIRST_US + MINUTE_US + 1, FIRST_US + MINUTE_US + 2, "lost", 0, "silent", FIRST_US)
REPAIRED = FeedGap(BTC, FIRST_US + 7, FIRST_US + 9, "repaired", 1, "silent", FIRST_US)
UNTIL = FIRST_US + (HOUR_MINUTES + 1) * MINUTE_US
STATUS = FeedStatus(BTC, "connected", FIRST_US, None, "7", FIRST_US, FIRST_US, UNTIL)


async def fill(url: str) -> None:
    sink = make_sink(url)
    await sink.open()
    try:
        await sink.write([CANDLES[0], *CANDLES[2:]])
        await sink.write([CANDLES[1]])
        await sink.write_gaps([GAP, REPAIRED])
        await sink.write_statuses([STATUS])
    finally:
        await sink.close()


def printed(*command: object, **environment: str) -> list[list[str]]:
    done = subprocess.run(
        [str(word) for word in command],
        env=os.environ | environment,
        capture_output=True,
        encoding="utf-8",
        timeout=BOUND_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    return [line.split("\t") for line in done.stdout.splitlines()]


@pytest.mark.processes
def test_duckdb_and_polars_read_the_lake_through_its_log(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    asyncio.run(fill(f"lake:///{lake}"))
    # DuckDB downloads its extension by itself; here it finds it where it would have put it.
    version = f"v{duckdb.__version__}"
    [extension] = (Path(duckdb_extension_delta.__file__).parent / "extensions" / version).rglob(
        "delta.duckdb_extension"
    )
    platform = duckdb.sql("PRAGMA platform").fetchall()[0][0]
    folder = tmp_path / ".duckdb/extensions" / version / platform
    folder.mkdir(parents=True)
    shutil.copy(extension, folder)

    python = (sys.executable, "-I")
    assert printed(*python, EXAMPLES / "lake_duckdb.py", lake, BTC, HOME=str(tmp_path)) == [
        ["2022-01-01", "8763520.50000000", "5.25000000", "6.00000000", "1460589.9583333333", "4", "3"]
    ]
    assert printed(*python, EXAMPLES / "lake_polars.py", lake, BTC) == [
        ["2022-01-01T00:00:00+00:00", "8763519.5", "8763520.5", "5.25", "5.25", "3", "8763524.75", "6"],
        ["2022-01-01T01:00:00+00:00", "7", "9", "7", "8", "3", "15", "6"],
    ]


@pytest.mark.postgres
def test_psql_prints_the_hours_of_a_day_and_how_complete_they_are(postgres: PostgresServer) -> None:
    from ashi_sinks.postgres.store import STORE

    url = postgres.new_schema()
    assert STORE.migrate is not None
    STORE.migrate(url)
    asyncio.run(fill(url))
    schema = url.partition("search_path=")[2]
    rows = printed(
        postgres.programs / "psql", "-X", "-q", "-A", "-t", "-F", "\t", "-h", "127.0.0.1", "-p", postgres.port,
        "-U", USER, "-d", "postgres", "-v", "ON_ERROR_STOP=1", "-v", f"symbol={BTC}", "-v", "day=2022-01-01",
        "-f", EXAMPLES / "candles.sql", PGPASSWORD=PASSWORD, PGOPTIONS=f"-c search_path={schema}",
    )  # fmt: skip
    assert rows == [
        ["2022-01-01 00:00:00+00", "8763519.5", "8763520.5", "5.25", "5.25", "3.0", "3", "2"],
        ["2022-01-01 01:00:00+00", "7", "9", "7", "8", "3.0", "2", "1"],
    ]

"""What DuckDB, Polars and any reader of Delta tables find in the lake: read without Ashi."""

from __future__ import annotations

import datetime
import textwrap
from decimal import Decimal
from pathlib import Path
from typing import Any

import delta_in_duckdb
import duckdb
import polars
import pytest
from lake_stage import DAY, LakeStage, read, table, write
from sink_certification import (
    FIRST_US,
    MINUTE_US,
    a_candle,
    a_gap,
)

from ashi.contracts.candle import Candle, candle_fields
from ashi.contracts.feed import FeedGap


@pytest.fixture
def stage(tmp_path):
    return LakeStage(tmp_path / "lake")


@pytest.fixture
def lake(stage):
    """A lake with one candle in it."""
    write(stage, [a_candle()])
    return stage


# As users read it: without Ashi.

WIDE = a_candle(
    5,
    price="12345678901234567890.123456789012345678",
    volume=Decimal("0.00000001"),
    taker_buy_volume=Decimal("0.00000001"),
    first_trade_id=None,
)


def test_duckdb_reads_exact_decimals_and_times_and_prunes_by_partition(stage):
    write(stage, [a_candle(), WIDE, a_candle(DAY)], gaps=[a_gap()])
    write(stage, [a_candle(version=2)])  # leaves a file that is out of use
    duck = delta_in_duckdb.connect()
    folder = str(stage.folder / "candles")
    rows = duck.execute(
        "SELECT symbol, epoch_us(open_time), close, CAST(close AS DECIMAL(38, 18)), CAST(volume AS DECIMAL(38, 18)), "
        "first_trade_id, venue, timeframe, CAST(day AS DATE) FROM delta_scan(?) "
        "WHERE day = DATE '2022-01-01' ORDER BY open_time",
        [folder],
    ).fetchall()
    assert [row[:2] for row in rows] == [("binance:ETHUSDT", FIRST_US), ("binance:ETHUSDT", FIRST_US + 5 * MINUTE_US)]
    close, volume = Decimal("12345678901234567890.123456789012345678"), Decimal("0.00000001")
    assert rows[1][2:6] == (str(close), close, volume, None)
    assert [str(value) for value in rows[1][6:]] == ["binance", "1m", "2022-01-01"]
    total = duck.execute("SELECT sum(CAST(volume AS DECIMAL(18, 8))) FROM delta_scan(?)", [folder]).fetchone()
    assert total == (Decimal("3.00000001"),)
    with pytest.raises(duckdb.ConversionException, match="12345678901234567890"):
        duck.execute("SELECT sum(CAST(close AS DECIMAL(18, 8))) FROM delta_scan(?)", [folder]).fetchone()
    product = "CAST(CAST(volume AS DECIMAL(18, 8)) AS DECIMAL(19, 8))"
    squares = duck.execute(f"SELECT sum({product} * {product}) FROM delta_scan(?)", [folder]).fetchone()
    assert squares == (Decimal("4.5000000000000001"),)
    plan = duck.execute(
        "EXPLAIN ANALYZE SELECT * FROM delta_scan(?) WHERE day = DATE '2022-01-01'", [folder]
    ).fetchall()
    assert "Scanning Files: 1/2" in plan[0][1]


def test_polars_reads_every_field_of_candles_and_gaps(stage):
    write(stage, [a_candle(), WIDE], gaps=[a_gap(), a_gap(3, minutes=None)])
    frame = polars.scan_delta(str(stage.folder / "candles")).filter(polars.col("timeframe") == "1m").sort("open_time")
    rows = frame.collect()
    assert rows.schema["open_time"] == polars.Datetime("us", "UTC")
    assert set(rows.columns) == {*Candle.__struct_fields__, "venue", "day"}
    assert rows.schema["close"] == polars.String
    fields = rows.with_columns(polars.col("open_time", "close_time").dt.epoch("us")).select(Candle.__struct_fields__)
    assert fields.to_dicts() == [candle_fields(candle) for candle in (a_candle(), WIDE)]
    exact = rows.select(polars.col("close").cast(polars.Decimal(38, 18)))["close"]
    assert exact[1] == WIDE.close
    gaps = polars.read_delta(str(stage.folder / "feed_gaps"))
    assert set(gaps.columns) == set(FeedGap.__struct_fields__)
    assert gaps["to_time"].null_count() == 1


def test_the_documentation_reads_candles_with_polars_as_it_says(stage):
    later = a_candle((datetime.date(2026, 3, 1) - datetime.date(2022, 1, 1)).days * DAY, symbol="bitflyer:BTC_JPY")
    write(stage, [a_candle(), a_candle(symbol="bitflyer:BTC_JPY"), later])
    text = (Path(__file__).parents[2] / "docs" / "lake.md").read_text()
    snippet = textwrap.dedent(text.partition("    # Polars\n")[2].partition("\n\n")[0])
    assert "/data/lake/candles" in snippet
    names: dict[str, Any] = {}
    exec(snippet.replace("/data/lake/candles", str(stage.folder / "candles")), names)
    [row] = names["candles"].to_dicts()
    assert (row["symbol"], row["close"]) == ("bitflyer:BTC_JPY", later.close)


def test_the_table_is_one_that_any_reader_of_delta_understands(lake):
    protocol = table(lake).protocol()
    assert (protocol.min_reader_version, protocol.reader_features) == (1, None)
    assert table(lake).metadata().partition_columns == ["venue", "timeframe", "day"]
    [uri] = table(lake).file_uris()
    assert "/candles/venue=binance/timeframe=1m/day=2022-01-01/" in uri


def test_a_written_batch_touches_no_other_partition(stage):
    write(stage, [a_candle(minute) for minute in (0, DAY, 2 * DAY)])
    before = {uri for uri in table(stage).file_uris() if "day=2022-01-02" not in uri}
    write(stage, [a_candle(DAY, version=2, price="7")])
    assert before < set(table(stage).file_uris())
    assert [candle.version for candle in read(stage)] == [1, 2, 1]

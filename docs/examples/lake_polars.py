"""Hours made of the minutes in the lake, by Polars: nothing of Ashi is installed.

    pip install 'polars>=1.20,<3' 'deltalake>=1.6.6,<2'
    python lake_polars.py /data/lake bitflyer:BTC_JPY

The one rule: read a table through its log, by `scan_delta`, and never its files by a pattern. Seen so, each candle
stands there once, in its greatest `version`; among the files are also those that are out of use.
"""

from __future__ import annotations

import sys

import polars as pl

PRICES, SUMS = ("open", "high", "low", "close"), ("volume", "quote_volume")


def hours(lake: str, symbol: str) -> pl.DataFrame:
    """An hour a row, of the minutes that traded."""
    candles = pl.scan_delta(f"{lake}/candles").filter(
        pl.col("venue") == symbol.partition(":")[0],  # partitions: nothing else is read
        pl.col("timeframe") == "1m",
        pl.col("symbol") == symbol,
        pl.col("trade_count") > 0,  # a flat candle repeats the close before it
    )
    exact = candles.with_columns(pl.col(*PRICES, *SUMS).cast(pl.Decimal(38, 18)))  # they are text in the lake
    return (
        exact.sort("open_time")
        .group_by_dynamic("open_time", every="1h")
        .agg(
            pl.col("open").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").last(),
            pl.col(*SUMS, "trade_count").sum(),
        )
        .collect()
    )


def main() -> None:
    """Print them."""
    for opened, *numbers in hours(*sys.argv[1:3]).iter_rows():
        print(opened.isoformat(), *(f"{number.normalize():f}" for number in numbers[:-1]), numbers[-1], sep="\t")


if __name__ == "__main__":
    main()

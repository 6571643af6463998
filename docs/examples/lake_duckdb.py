"""The range, volume and mean price of each day of a market, from the lake by DuckDB: nothing of Ashi is installed.

    pip install 'duckdb>=1.5,<2'
    python lake_duckdb.py /data/lake bitflyer:BTC_JPY

The one rule: read a table through its log, by `delta_scan`, and never its files by a pattern. Seen so, each candle
stands there once, in its greatest `version`; among the files are also those that are out of use.
"""

from __future__ import annotations

import sys
from typing import Any

import duckdb

# Decimals are text, since no decimal type holds all of them: 64 bits with 8 digits after the point hold those of most
# markets, and are read fastest; what does not fit is an error and never a wrong number. A candle is complete where the
# feed has come past it and no gap overlaps it that is not repaired. Of partitions (venue, timeframe) that are named
# nothing else is read.
QUERY = """
WITH minutes AS (
  SELECT day, CAST(high AS DECIMAL(18, 8)) AS high, CAST(low AS DECIMAL(18, 8)) AS low, trade_count,
    CAST(volume AS DECIMAL(18, 8)) AS volume, CAST(quote_volume AS DECIMAL(18, 6)) AS quote_volume,
    close_time <= (SELECT complete_until FROM delta_scan($feed_status) AS feed WHERE feed.symbol = candles.symbol)
      AND NOT EXISTS (
        FROM delta_scan($feed_gaps) AS gap
        WHERE gap.symbol = candles.symbol AND gap.state <> 'repaired' AND gap.from_time < candles.close_time
          AND (gap.to_time IS NULL OR greatest(gap.to_time, gap.from_time + INTERVAL 1 MICROSECOND) > candles.open_time)
      ) AS is_complete
  FROM delta_scan($candles) AS candles
  WHERE venue = $venue AND timeframe = '1m' AND symbol = $symbol
)
SELECT CAST(day AS VARCHAR), max(high), min(low), sum(volume), sum(quote_volume) / nullif(sum(volume), 0),
  count(*) FILTER (trade_count > 0), count(*) FILTER (is_complete)
FROM minutes GROUP BY day ORDER BY day
"""


def days(lake: str, symbol: str) -> list[tuple[Any, ...]]:
    """A row for each day in UTC: high, low, volume, mean price, minutes with trades, minutes known to be complete."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    tables = {name: f"{lake}/{name}" for name in ("candles", "feed_gaps", "feed_status")}
    return connection.execute(QUERY, tables | {"symbol": symbol, "venue": symbol.partition(":")[0]}).fetchall()


def main() -> None:
    """Print them."""
    for row in days(*sys.argv[1:3]):
        print(*row, sep="\t")


if __name__ == "__main__":
    main()

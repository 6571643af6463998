"""How to compute with the lake's decimals in DuckDB: bytes on disk and CPU of a query, as text and as typed columns.

    .venv/bin/python benchmarks/lake_decimals.py [--candles 5000000]

Drawn candles of 20 symbols: prices walk by ticks of 0.01, volumes have 8 decimals, their products 10. One core, the
better of two runs. Not part of `make bench`: writing five million in five ways takes minutes and 3 GB of disk.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Final

import duckdb

from ashi.contracts.candle import DECIMAL_FIELDS

SYMBOLS: Final = 20
PLAIN: Final = """
CREATE MACRO plain(v, d) AS regexp_replace((v // CAST(pow(10, d) AS HUGEINT))::VARCHAR || '.' ||
  lpad((v % CAST(pow(10, d) AS HUGEINT))::VARCHAR, d, '0'), '\\.?0+$', '')"""
DRAWN: Final = """
CREATE TABLE candles AS
WITH drawn AS (
  SELECT s, i, hash(s, i) % 5_000_000_000 AS volume, hash(i, s) % 40_000 AS up, hash(i, s, 1) % 40_000 AS down,
    6_000_000 + sum(CAST(hash(s, i, 2) % 2_001 AS BIGINT) - 1_000) OVER (PARTITION BY s ORDER BY i) % 3_000_000 AS close
  FROM range({symbols}) AS symbols(s), range({minutes}) AS minutes(i))
SELECT 'binance:S' || s || 'USDT' AS symbol, i // 1_440 AS day,
  plain(close::HUGEINT - down % 500, 2) AS open, plain(close::HUGEINT + up, 2) AS high,
  plain(close::HUGEINT - down, 2) AS low, plain(close::HUGEINT, 2) AS close,
  plain(volume::HUGEINT, 8) AS volume, plain(volume::HUGEINT * close, 10) AS quote_volume,
  plain(volume::HUGEINT // 2, 8) AS taker_buy_volume,
  plain((volume::HUGEINT // 2) * close, 10) AS taker_buy_quote_volume
FROM drawn ORDER BY symbol, i"""
NARROW: Final = "CAST({0} AS DECIMAL(18, 8))"
TYPED: Final = {  # beside the text, whose digits they cannot all hold
    "DOUBLE": "CAST({0} AS DOUBLE) AS {0}_n",
    "DECIMAL(18, 8)": f"{NARROW} AS {{0}}_n",
    "DECIMAL(38, 18)": f"CAST({NARROW} AS DECIMAL(38, 18)) AS {{0}}_n",
    "coefficient, scale": "CAST(replace({0}, '.', '') AS BIGINT) AS {0}_c, "
    "CAST(length({0}) - if(contains({0}, '.'), position('.' IN {0}), length({0})) AS TINYINT) AS {0}_s",
}
CASTS: Final = ("CAST({0} AS DOUBLE)", NARROW, "CAST({0} AS DECIMAL(19, 8))", "CAST({0} AS DECIMAL(38, 18))")


def cpu_s(connection: duckdb.DuckDBPyConnection, expression: str, path: Path) -> float:
    """CPU of adding up the volumes of each symbol and day."""
    query = f"SELECT symbol, day, sum({expression.format('volume')}) FROM read_parquet('{path}') GROUP BY ALL"
    runs: list[float] = []
    while len(runs) < 2 and sum(runs) < 3:  # what takes long is not measured twice
        began = time.process_time()
        connection.execute(query).fetchall()
        runs.append(time.process_time() - began)
    return min(runs)


def main() -> None:
    """Draw candles, store them in each way, and print a line for each way to compute."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candles", type=int, default=5_000_000)
    minutes = parser.parse_args().candles // SYMBOLS
    with tempfile.TemporaryDirectory() as directory, duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        connection.execute(PLAIN)
        connection.execute(DRAWN.format(symbols=SYMBOLS, minutes=minutes))
        print(f"{'stored':28} {'MB':>7}   CPU s of sum(volume), DuckDB {duckdb.__version__}")
        for name, column in {"text": "", **TYPED}.items():
            path = Path(directory) / "candles.parquet"
            columns = ", ".join(["*", *(column.format(amount) for amount in DECIMAL_FIELDS if column)])
            connection.execute(f"COPY (SELECT {columns} FROM candles) TO '{path}' (FORMAT parquet, COMPRESSION snappy)")
            expressions = CASTS if not column else ["{0}_c / pow(10, {0}_s)" if "_c" in column else "{0}_n"]
            shown = name if not column else f"text and {name}"
            for expression in expressions:
                seconds = cpu_s(connection, expression, path)
                print(
                    f"{shown:28} {path.stat().st_size / 1e6:7.1f}   {seconds:6.2f}  {expression.format('volume')}",
                    flush=True,
                )


if __name__ == "__main__":
    main()

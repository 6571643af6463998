"""The numbered steps that make the schema in PostgreSQL, from nothing or from that of an older version."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from ashi_sinks.postgres.tables import CANDLES, FEED_GAPS, FEED_STATUS, VENUE_CANDLES, PostgresTable


@dataclass(frozen=True, slots=True)
class Step:
    """One change of the schema: it makes a table, adds a column to one, or makes an index or a view of one.

    A step that has been released is never changed; a new one is added after it.

    Attributes:
        table: as it is after the step, but for columns that later ones add.
        statement: what the step runs.
        column: the column that it adds, if it adds one.
        index: the columns of the index that it makes, if it makes one.
        view: the name of the view that it makes, if it makes one.

    """

    table: PostgresTable
    statement: str
    column: str | None = None
    index: tuple[str, ...] = ()
    view: str | None = None

    @property
    def name(self) -> str:
        """What it is recorded under."""
        if self.index:
            return f"index on {self.table.name} ({', '.join(self.index)})"
        if self.column is not None:
            return f"{self.table.name}.{self.column}"
        return self.view or self.table.name

    @property
    def makes_table(self) -> bool:
        """Whether it makes the table."""
        return not (self.column or self.index or self.view)


STEPS: Final = (
    Step(
        CANDLES,
        """
CREATE TABLE candles (
  symbol text COLLATE "C" NOT NULL,
  timeframe text COLLATE "C" NOT NULL,
  open_time timestamptz NOT NULL,
  close_time timestamptz NOT NULL,
  open numeric NOT NULL,
  high numeric NOT NULL,
  low numeric NOT NULL,
  close numeric NOT NULL,
  volume numeric NOT NULL,
  quote_volume numeric NOT NULL,
  trade_count bigint NOT NULL,
  taker_buy_volume numeric NOT NULL,
  taker_buy_quote_volume numeric NOT NULL,
  first_trade_id text,
  last_trade_id text,
  version bigint NOT NULL,
  PRIMARY KEY (symbol, timeframe, open_time)
)""",
    ),
    Step(
        replace(FEED_GAPS, kinds={name: kind for name, kind in FEED_GAPS.kinds.items() if name != "final"}),
        """
CREATE TABLE feed_gaps (
  symbol text COLLATE "C" NOT NULL,
  from_time timestamptz NOT NULL,
  to_time timestamptz,
  state text NOT NULL,
  trades_recovered bigint NOT NULL,
  reason text NOT NULL,
  updated_at timestamptz NOT NULL,
  PRIMARY KEY (symbol, from_time)
)""",
    ),
    Step(FEED_GAPS, "ALTER TABLE feed_gaps ADD final boolean NOT NULL DEFAULT false", column="final"),
    Step(
        FEED_STATUS,
        """
CREATE TABLE feed_status (
  symbol text COLLATE "C" NOT NULL PRIMARY KEY,
  state text NOT NULL,
  since timestamptz NOT NULL,
  reason text,
  last_trade_id text,
  last_traded_at timestamptz,
  updated_at timestamptz NOT NULL,
  complete_until timestamptz
)""",
    ),
    # Without a name, which another table's index may have.
    Step(CANDLES, "CREATE INDEX ON candles (timeframe, open_time)", index=("timeframe", "open_time")),
    # From one series to the next by the primary key, and of each that is asked for its last row: look-ups, however many
    # rows there are.
    Step(
        CANDLES,
        """
CREATE OR REPLACE VIEW latest_candles AS
WITH RECURSIVE series AS (
  (SELECT symbol, timeframe FROM candles ORDER BY symbol, timeframe LIMIT 1)
  UNION ALL
  SELECT next.symbol, next.timeframe FROM series CROSS JOIN LATERAL (
    SELECT symbol, timeframe FROM candles
    WHERE (symbol, timeframe) > (series.symbol, series.timeframe)
    ORDER BY symbol, timeframe LIMIT 1) AS next
)
SELECT series.symbol, series.timeframe, latest.* FROM series CROSS JOIN LATERAL (
  SELECT open_time, close_time, open, high, low, close, volume, quote_volume, trade_count,
    taker_buy_volume, taker_buy_quote_volume, first_trade_id, last_trade_id, version
  FROM candles WHERE symbol = series.symbol AND timeframe = series.timeframe
  ORDER BY open_time DESC LIMIT 1) AS latest""",
        view="latest_candles",
    ),
    Step(
        VENUE_CANDLES,
        """
CREATE TABLE venue_candles (
  symbol text COLLATE "C" NOT NULL,
  timeframe text COLLATE "C" NOT NULL,
  open_time timestamptz NOT NULL,
  close_time timestamptz NOT NULL,
  open numeric NOT NULL,
  high numeric NOT NULL,
  low numeric NOT NULL,
  close numeric NOT NULL,
  volume numeric NOT NULL,
  quote_volume numeric,
  trade_count bigint,
  taker_buy_volume numeric,
  taker_buy_quote_volume numeric,
  source text NOT NULL,
  fetched_at timestamptz NOT NULL,
  PRIMARY KEY (symbol, timeframe, open_time)
)""",
    ),
)
"""The steps in order; the number of each is its place, from 1."""
SCHEMA_VERSION: Final = len(STEPS)

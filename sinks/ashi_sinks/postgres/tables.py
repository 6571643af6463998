"""The tables of PostgreSQL as the worker uses them: columns, where a batch is copied to, what upserts it.

A table has one column for each field of its message, under the same name: NUMERIC without a bound for decimals (exact),
timestamptz for times (exact to the µs). Keys are in the collation "C": fast, and the same on every system.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from zlib import crc32

from ashi.contracts.candle import DECIMAL_FIELDS, Candle
from ashi.contracts.feed import FeedGap
from ashi.contracts.venue_candle import VenueCandle
from ashi_sinks.protocol import STATUS_FIELDS

NAME: Final = "postgres"

_FULL_NAMES: Final = {"timestamptz": "timestamp with time zone"}


@dataclass(frozen=True, slots=True)
class PostgresTable:
    """One table: its fields, their types; the greater `guard` replaces the row of a `key`."""

    name: str
    fields: tuple[str, ...]
    key: tuple[str, ...]
    guard: str
    kinds: dict[str, str]

    @property
    def types(self) -> dict[str, str]:
        """The type of each column, as `format_type` gives it."""
        return {name: _FULL_NAMES.get(kind.split()[0], kind.split()[0]) for name, kind in self.kinds.items()}

    @property
    def staging(self) -> str:
        """The table of the session that a batch is copied into, by its columns: a pooler's session may have others'."""
        return f"ashi_new_{self.name}_{crc32(' '.join(self.fields).encode()):08x}"

    @property
    def create_staging(self) -> str:
        """The statement that makes `staging` where the session has none yet; decimals are text there.

        The driver takes 1.3 µs to make a binary NUMERIC and 0.1 µs to hand over a text, and a candle has eight; the
        server turns it into the same number, exactly, on its own core.
        """
        columns = ", ".join(f"{name} {'text' if self._is_decimal(name) else self.kinds[name]}" for name in self.fields)
        return f"CREATE TEMPORARY TABLE IF NOT EXISTS {self.staging} ({columns}) ON COMMIT DELETE ROWS"

    @property
    def upsert(self) -> str:
        """The statement that adds the rows of `staging`, or replaces those of their keys that have a smaller `guard`.

        In the order of the key, so that two workers never wait for each other's rows crosswise.
        """
        values = ", ".join(f"{name}::numeric" if self._is_decimal(name) else name for name in self.fields)
        changes = ", ".join(f"{name} = excluded.{name}" for name in self.fields if name not in self.key)
        return (
            f"INSERT INTO {self.name} ({', '.join(self.fields)}) "  # noqa: S608
            f"SELECT {values} FROM pg_temp.{self.staging} ORDER BY {', '.join(self.key)} "
            f"ON CONFLICT ({', '.join(self.key)}) "
            f"DO UPDATE SET {changes} WHERE excluded.{self.guard} > {self.name}.{self.guard}"
        )

    def _is_decimal(self, field: str) -> bool:
        return self.kinds[field] == "numeric"


CANDLES: Final = PostgresTable(
    "candles",
    Candle.__struct_fields__,
    key=("symbol", "timeframe", "open_time"),
    guard="version",
    kinds=dict.fromkeys(DECIMAL_FIELDS, "numeric")
    | dict.fromkeys(("symbol", "timeframe"), 'text COLLATE "C"')
    | dict.fromkeys(("open_time", "close_time"), "timestamptz")
    | dict.fromkeys(("first_trade_id", "last_trade_id"), "text")
    | dict.fromkeys(("trade_count", "version"), "bigint"),
)
FEED_GAPS: Final = PostgresTable(
    "feed_gaps",
    FeedGap.__struct_fields__,
    key=("symbol", "from_time"),
    guard="updated_at",
    kinds={"symbol": 'text COLLATE "C"', "state": "text", "reason": "text", "trades_recovered": "bigint"}
    | dict.fromkeys(("from_time", "to_time", "updated_at"), "timestamptz")
    | {"final": "boolean"},
)
FEED_STATUS: Final = PostgresTable(
    "feed_status",
    STATUS_FIELDS,
    key=("symbol",),
    guard="updated_at",
    kinds={"symbol": 'text COLLATE "C"'}
    | dict.fromkeys(("state", "reason", "last_trade_id"), "text")
    | dict.fromkeys(("since", "last_traded_at", "updated_at", "complete_until"), "timestamptz"),
)
VENUE_CANDLES: Final = PostgresTable(
    "venue_candles",
    VenueCandle.__struct_fields__,
    key=("symbol", "timeframe", "open_time"),
    guard="fetched_at",
    kinds=dict.fromkeys(DECIMAL_FIELDS, "numeric")
    | dict.fromkeys(("symbol", "timeframe"), 'text COLLATE "C"')
    | dict.fromkeys(("open_time", "close_time", "fetched_at"), "timestamptz")
    | {"trade_count": "bigint", "source": "text"},
)
TABLES: Final = (CANDLES, FEED_GAPS, FEED_STATUS)
"""Those that a worker writes to; it needs no right to the others."""

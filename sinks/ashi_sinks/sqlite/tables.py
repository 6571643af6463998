"""The tables of the SQLite file: their columns, what makes them, and which of two rows of one key stays.

A table has one column for each field of its message under the same name. Decimals are TEXT in plain notation (exact;
SQLite's own numbers are floats beyond 15 digits), times INTEGER µs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ashi.contracts.candle import Candle
from ashi.contracts.feed import FeedGap


@dataclass(frozen=True, slots=True)
class SqliteTable:
    """One table: which fields make its primary key, are integers, may be NULL; the greater `guard` replaces a row."""

    name: str
    fields: tuple[str, ...]
    key: tuple[str, ...]
    guard: str
    integers: frozenset[str]
    nullable: frozenset[str]

    @property
    def columns(self) -> list[tuple[str, str, int, int]]:
        """Name, type, whether it refuses NULL, place in the primary key: as `pragma_table_info` gives them."""
        return [
            (
                name,
                "INTEGER" if name in self.integers else "TEXT",
                int(name not in self.nullable),
                self.key.index(name) + 1 if name in self.key else 0,
            )
            for name in self.fields
        ]

    @property
    def create(self) -> str:
        """The statement that makes the table."""
        columns = "".join(f"  {name} {kind}{' NOT NULL' * solid},\n" for name, kind, solid, _ in self.columns)
        return f"CREATE TABLE {self.name} (\n{columns}  PRIMARY KEY ({', '.join(self.key)})\n) STRICT, WITHOUT ROWID"

    @property
    def upsert(self) -> str:
        """The statement that adds a row, or replaces the one of its key if that has a smaller `guard`."""
        changes = ", ".join(f"{name} = excluded.{name}" for name in self.fields if name not in self.key)
        return (
            f"INSERT INTO {self.name} ({', '.join(self.fields)}) "  # noqa: S608
            f"VALUES ({', '.join('?' for _ in self.fields)}) ON CONFLICT ({', '.join(self.key)}) "
            f"DO UPDATE SET {changes} WHERE excluded.{self.guard} > {self.name}.{self.guard}"
        )


CANDLES: Final = SqliteTable(
    "candles",
    Candle.__struct_fields__,
    key=("symbol", "timeframe", "open_time"),
    guard="version",
    integers=frozenset({"open_time", "close_time", "trade_count", "version"}),
    nullable=frozenset({"first_trade_id", "last_trade_id"}),
)
FEED_GAPS: Final = SqliteTable(
    "feed_gaps",
    FeedGap.__struct_fields__,
    key=("symbol", "from_time"),
    guard="updated_at",
    integers=frozenset({"from_time", "to_time", "trades_recovered", "updated_at"}),
    nullable=frozenset({"to_time"}),
)

LAYOUTS: Final[dict[int, tuple[SqliteTable, ...]]] = {1: (CANDLES,), 2: (CANDLES, FEED_GAPS)}
"""The tables of each layout there has been, by `PRAGMA user_version`. The last one is ours; older ones are upgraded."""
SCHEMA_VERSION: Final = max(LAYOUTS)

"""The tables of the SQLite file: their columns, what makes them, and which of two rows of one key stays.

A table has one column for each field of its message under the same name. Decimals are TEXT in plain notation (exact;
SQLite's own numbers are floats beyond 15 digits), times INTEGER µs, truths INTEGER 0 or 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from ashi.contracts.candle import Candle
from ashi.contracts.feed import FeedGap
from ashi.contracts.venue_candle import VENUE_NULLABLE, VenueCandle
from ashi_sinks.protocol import STATUS_FIELDS

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class SqliteTable:
    """One table: which fields make its primary key, are integers, may be NULL; the greater `guard` replaces a row.

    `added`: what rows of an older layout get in the columns that it lacked.
    """

    name: str
    fields: tuple[str, ...]
    key: tuple[str, ...]
    guard: str
    integers: frozenset[str]
    nullable: frozenset[str]
    added: Mapping[str, int] = field(default_factory=dict)

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

    def additions(self, before: SqliteTable) -> list[str]:
        """The statements that make this table of that of an older layout."""
        kinds = {name: kind for name, kind, _, _ in self.columns}
        return [
            f"ALTER TABLE {self.name} ADD COLUMN {name} {kinds[name]} NOT NULL DEFAULT {value}"
            for name, value in self.added.items()
            if name not in before.fields
        ]

    @property
    def upsert(self) -> str:
        """The statement that adds a row, or replaces the one of its key if that has a smaller `guard`."""
        changes = ", ".join(f"{name} = excluded.{name}" for name in self.fields if name not in self.key)
        return (
            f"INSERT INTO {self.name} ({', '.join(self.fields)}) "  # noqa: S608
            f"VALUES ({', '.join('?' for _ in self.fields)}) ON CONFLICT ({', '.join(self.key)}) "
            f"DO UPDATE SET {changes} WHERE excluded.{self.guard} > {self.name}.{self.guard}"
        )

    @property
    def first_key(self) -> str:
        """The query for the key of the first row."""
        return f"SELECT {', '.join(self.key)} FROM {self.name} ORDER BY {', '.join(self.key)} LIMIT 1"  # noqa: S608

    @property
    def last_key(self) -> str:
        """The query for the key of the last row."""
        order = ", ".join(f"{name} DESC" for name in self.key)
        return f"SELECT {', '.join(self.key)} FROM {self.name} ORDER BY {order} LIMIT 1"  # noqa: S608

    @property
    def has_key(self) -> str:
        """The query for whether the row of a key is there, or a later one of its series."""
        *series, last = self.key
        same = [f"{name} = ?" for name in series] + [f"{last} {'>=' if series else '='} ?"]
        return f"SELECT 1 FROM {self.name} WHERE {' AND '.join(same)} LIMIT 1"  # noqa: S608


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
    integers=frozenset({"from_time", "to_time", "trades_recovered", "updated_at", "final"}),
    nullable=frozenset({"to_time"}),
    added={"final": 0},
)
FEED_STATUS: Final = SqliteTable(
    "feed_status",
    STATUS_FIELDS,
    key=("symbol",),
    guard="updated_at",
    integers=frozenset({"since", "last_traded_at", "updated_at", "complete_until"}),
    nullable=frozenset({"reason", "last_trade_id", "last_traded_at", "complete_until"}),
)
VENUE_CANDLES: Final = SqliteTable(
    "venue_candles",
    VenueCandle.__struct_fields__,
    key=("symbol", "timeframe", "open_time"),
    guard="fetched_at",
    integers=frozenset({"open_time", "close_time", "trade_count", "fetched_at"}),
    nullable=VENUE_NULLABLE,
)
_FEED_GAPS_2: Final = replace(FEED_GAPS, fields=tuple(name for name in FEED_GAPS.fields if name != "final"))

LAYOUTS: Final[dict[int, tuple[SqliteTable, ...]]] = {
    1: (CANDLES,),
    2: (CANDLES, _FEED_GAPS_2),
    3: (CANDLES, FEED_GAPS, FEED_STATUS),
    4: (CANDLES, FEED_GAPS, FEED_STATUS, VENUE_CANDLES),
}
"""The tables of each layout there has been, by `PRAGMA user_version`. The last one is ours; older ones are upgraded."""
SCHEMA_VERSION: Final = max(LAYOUTS)
TABLES: Final = {table.name: table for table in LAYOUTS[SCHEMA_VERSION]}

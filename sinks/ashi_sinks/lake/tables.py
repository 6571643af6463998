"""The tables of a lake: their columns, how they are partitioned, and how messages become rows.

A table has one column for each field of its message under the same name; `candles` and `trades` have the partition
columns `venue` and `day` besides. Decimals are strings in plain notation, see
docs/decisions/0004-decimals-in-the-lake.md; times are timestamps in µs, UTC.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from ashi.contracts.candle import DECIMAL_FIELDS, Candle
from ashi.contracts.decimals import format_decimal
from ashi.contracts.feed import FeedGap, FeedStatus
from ashi.contracts.timeframe import DAY_US
from ashi.contracts.trade import Trade
from ashi.contracts.venue_candle import VENUE_NULLABLE, VenueCandle
from ashi_sinks.lake.driver import arrow
from ashi_sinks.protocol import STATUS_FIELDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Kind: TypeAlias = Literal["text", "integer", "time", "day", "truth"]
Columns: TypeAlias = "Mapping[str, Sequence[Any]]"

_EPOCH: Final = date(1970, 1, 1)

_TYPES: Final[dict[Kind, arrow.DataType]] = {
    "text": arrow.DataType.string(),
    "integer": arrow.DataType.int64(),
    "time": arrow.DataType.timestamp("us", tz="UTC"),
    "day": arrow.DataType.date32(),
    "truth": arrow.DataType.bool(),
}
_INTEGERS_OF: Final[dict[Kind, arrow.DataType]] = {"time": arrow.DataType.int64(), "day": arrow.DataType.int32()}


@dataclass(frozen=True, slots=True)
class LakeTable:
    """One table.

    Attributes:
        name: its folder under the root.
        kinds: the columns and what they hold, in order; those of the message first.
        nullable: the columns that may be NULL.
        partitions: the columns whose values are folders.
        key: what names a row, apart from the partition columns.
        guard: of two rows of one name the one with the greater value stays; None where rows are only added.
        statistics: the columns whose least and greatest value the log has for each file.
        added: the columns that tables of older versions lack; NULL in the rows that were there before.
        content: what is in it, if not the topic of its name.

    """

    name: str
    kinds: Mapping[str, Kind]
    nullable: frozenset[str]
    partitions: tuple[str, ...]
    key: tuple[str, ...]
    guard: str | None
    statistics: tuple[str, ...]
    added: frozenset[str] = field(default_factory=frozenset)
    content: str = ""

    @property
    def description(self) -> str:
        """What others read of the table."""
        return f"{self.content or 'Topic ' + self.name.replace('_', '.')}, kept by Ashi"

    @property
    def schema(self) -> arrow.Schema:
        """The columns as Arrow has them."""
        return arrow.Schema(
            [arrow.Field(name, _TYPES[kind], name in self.nullable) for name, kind in self.kinds.items()]
        )

    def rows(self, columns: Columns) -> arrow.Table:
        """Columns of plain values (times in µs, days since the epoch) as an Arrow table.

        Raises OverflowError for an integer beyond 64 bits and UnicodeError for text that is not Unicode.
        """
        arrays = []
        for name, kind in self.kinds.items():
            # Arrow has no way from integers to times but through an array of integers.
            array = arrow.Array(columns[name], _INTEGERS_OF.get(kind, _TYPES[kind]))
            arrays.append(array.cast(_TYPES[kind]) if kind in _INTEGERS_OF else array)
        return arrow.Table.from_arrays(arrays, schema=self.schema)

    def select(self, fields: Sequence[str]) -> str:
        """The columns of a query that gives `fields` as plain values, times in µs."""
        return ", ".join(f"CAST({name} AS BIGINT) AS {name}" if self.kinds[name] == "time" else name for name in fields)

    def same_row(self, columns: Columns) -> str:
        """The condition that a row `t` of the table and a row `s` of the batch `columns` have the same name.

        It names the partitions of the batch, so that no other is read, and so that only who writes the same ones is in
        conflict.
        """
        within = [
            f"t.{name} IN ({', '.join(map(self._literal(name), sorted(set(columns[name]))))})"
            for name in self.partitions
        ]
        return " AND ".join(within + [f"t.{name} = s.{name}" for name in (*self.partitions, *self.key)])

    def _literal(self, column: str) -> Any:
        return day_literal if self.kinds[column] == "day" else text_literal


def text_literal(text: str) -> str:
    """A text in SQL."""
    return "'" + text.replace("'", "''") + "'"


def day_literal(day: int) -> str:
    """A day, given in days since the epoch, in SQL."""
    return f"DATE '{_EPOCH + timedelta(days=day)}'"


def day_number(day: str) -> int:
    """Days since the epoch of a day such as `2022-01-01`."""
    return (date.fromisoformat(day) - _EPOCH).days


class StoredTrade(NamedTuple):
    """A trade and where in topic `trades` it stands."""

    partition: int
    offset: int
    trade: Trade


def _kinds(message: type[Any], texts: set[str], times: set[str]) -> dict[str, Kind]:
    kinds: dict[str, Kind] = {}
    for name in message.__struct_fields__:
        kinds[name] = "text" if name in texts else "time" if name in times else "integer"
    return kinds


CANDLES: Final = LakeTable(
    name="candles",
    kinds={
        **_kinds(
            Candle,
            {"symbol", "timeframe", "first_trade_id", "last_trade_id", *DECIMAL_FIELDS},
            {"open_time", "close_time"},
        ),
        "venue": "text",
        "day": "day",
    },
    nullable=frozenset({"first_trade_id", "last_trade_id"}),
    partitions=("venue", "timeframe", "day"),
    key=("symbol", "open_time"),
    guard="version",
    statistics=("symbol", "open_time", "version"),
)
FEED_GAPS: Final = LakeTable(
    name="feed_gaps",
    kinds={
        **_kinds(FeedGap, {"symbol", "state", "reason"}, {"from_time", "to_time", "updated_at"}),
        "final": "truth",
    },
    nullable=frozenset({"to_time", "final"}),
    partitions=(),
    key=("symbol", "from_time"),
    guard="updated_at",
    # No times: the log keeps them in whole milliseconds, and a row must be found by its microsecond.
    statistics=("symbol",),
    added=frozenset({"final"}),
)
FEED_STATUS: Final = LakeTable(
    name="feed_status",
    kinds={
        name: "text" if name in {"symbol", "state", "reason", "last_trade_id"} else "time" for name in STATUS_FIELDS
    },
    nullable=frozenset({"reason", "last_trade_id", "last_traded_at", "complete_until"}),
    partitions=(),
    key=("symbol",),
    guard="updated_at",
    statistics=("symbol",),
)
TRADES: Final = LakeTable(
    name="trades",
    kinds={
        **_kinds(Trade, {"symbol", "trade_id", "price", "size", "side"}, {"traded_at", "received_at"}),
        "kafka_partition": "integer",
        "kafka_offset": "integer",
        "venue": "text",
        "day": "day",
    },
    nullable=frozenset({"side"}),
    partitions=("venue", "day"),
    key=("kafka_partition", "kafka_offset"),
    guard=None,
    statistics=("symbol", "traded_at", "kafka_partition", "kafka_offset"),
)


VENUE_CANDLES: Final = LakeTable(
    name="venue_candles",
    kinds={
        **_kinds(
            VenueCandle,
            {"symbol", "timeframe", "source", *DECIMAL_FIELDS},
            {"open_time", "close_time", "fetched_at"},
        ),
        "venue": "text",
        "day": "day",
    },
    nullable=VENUE_NULLABLE,
    partitions=("venue", "timeframe", "day"),
    key=("symbol", "open_time"),
    guard="fetched_at",
    statistics=("symbol", "open_time"),
    content="Candles of venues' own",
)


def candle_columns(candles: Sequence[Candle]) -> Columns:
    """The columns of `candles`. In the order of the key, so that a file's symbols and times are close together."""
    candles = sorted(candles, key=lambda candle: (candle.symbol, candle.timeframe, candle.open_time))
    columns: dict[str, Sequence[Any]] = {}
    for name in Candle.__struct_fields__:
        values = [getattr(candle, name) for candle in candles]
        columns[name] = [format_decimal(value) for value in values] if name in DECIMAL_FIELDS else values
    return columns | {
        "venue": [venue_of(candle.symbol) for candle in candles],
        "day": [candle.open_time // DAY_US for candle in candles],
    }


def venue_candle_columns(candles: Sequence[VenueCandle]) -> Columns:
    """The columns of `venue_candles`."""
    columns: dict[str, Sequence[Any]] = {}
    for name in VenueCandle.__struct_fields__:
        values = [getattr(candle, name) for candle in candles]
        if name in DECIMAL_FIELDS:
            values = [None if value is None else format_decimal(value) for value in values]
        columns[name] = values
    return columns | {
        "venue": [venue_of(candle.symbol) for candle in candles],
        "day": [candle.open_time // DAY_US for candle in candles],
    }


def gap_columns(gaps: Sequence[FeedGap]) -> Columns:
    """The columns of `feed_gaps`."""
    return {name: [getattr(gap, name) for gap in gaps] for name in FeedGap.__struct_fields__}


def status_columns(statuses: Sequence[FeedStatus]) -> Columns:
    """The columns of `feed_status`."""
    return {name: [getattr(status, name) for status in statuses] for name in STATUS_FIELDS}


def trade_columns(stored: Sequence[StoredTrade]) -> Columns:
    """The columns of `trades`, in the order of symbols and times."""
    stored = sorted(stored, key=lambda row: (row.trade.symbol, row.trade.traded_at, row.trade.sequence, row.offset))
    trades = [row.trade for row in stored]
    columns: dict[str, Sequence[Any]] = {
        name: [getattr(trade, name) for trade in trades] for name in Trade.__struct_fields__
    }
    return columns | {
        "price": [format_decimal(trade.price) for trade in trades],
        "size": [format_decimal(trade.size) for trade in trades],
        "kafka_partition": [row.partition for row in stored],
        "kafka_offset": [row.offset for row in stored],
        "venue": [venue_of(trade.symbol) for trade in trades],
        "day": [trade.traded_at // DAY_US for trade in trades],
    }


def venue_of(symbol: str) -> str:
    """The venue, as the partition names it; of what is no symbol, and so has no rows, any text."""
    return symbol.partition(":")[0]


TABLES: Final = (CANDLES, FEED_GAPS, FEED_STATUS, TRADES, VENUE_CANDLES)
"""All tables that a lake may have."""

"""A chunk: the records of one partition from one fetch, decoded in one call and sorted by symbol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import msgspec

from ashi.contracts.errors import ContractError
from ashi.contracts.records import COPY_HEADER, SCHEMA_HEADER, check_key, check_schema, time_in
from ashi.contracts.symbol import split_symbol
from ashi.contracts.trade import TRADE_SCHEMA, Trade, decode_trade, decode_trades
from ashi.runtime.kafka.connections.clients import partition_of

if TYPE_CHECKING:
    from ashi_aggregate.core.symbol import Outcome, SymbolAggregator


class LogRecord(Protocol):
    """What is needed of a Kafka record; `timestamp` is its append time in ms."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    timestamp: int
    timestamp_type: int | None


def appended_at(record: LogRecord) -> int:
    """When the trade in a record was appended to the log, µs: of a copy, when the first one was."""
    at = record.timestamp * 1000
    return min(time_in(record.headers, COPY_HEADER) or at, at)


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """What a reader gets of a partition from offset `begin` to `end` (exclusive): records in offset order.

    Offsets that no reader gets (a transaction's markers, what it has aborted) lie between, before and after them, and
    there may be no record at all. A chunk is continued by the one whose `begin` is its `end`, and by no other.
    """

    partition: int
    begin: int
    end: int
    records: Sequence[LogRecord]


REJECTIONS: Final = ("not_a_trade", "schema", "misplaced")
"""The classes of reasons why a record is no trade of its place."""


class RejectedRecord(NamedTuple):
    """A record that is no trade of its place, why in words, and by class, one of `REJECTIONS`."""

    record: LogRecord
    reason: str
    kind: str


@dataclass(slots=True)
class SymbolTrades:
    """The trades of one symbol in a chunk, in offset order, and the records they came in: one at least."""

    key: bytes
    trades: list[Trade] = field(default_factory=list)
    records: list[LogRecord] = field(default_factory=list)

    @property
    def offsets(self) -> list[int]:
        """The places of the records in the log."""
        return [record.offset for record in self.records]

    @property
    def first_offset(self) -> int:
        """The place of the first record in the log."""
        return self.records[0].offset

    @property
    def first_traded_at(self) -> int:
        """Time of the first trade, µs."""
        return self.trades[0].traded_at

    def record(self, place: int) -> LogRecord:
        """The record of one of the trades."""
        return self.records[place]

    def fold_into(self, aggregator: SymbolAggregator) -> Outcome:
        """Let the aggregator of the symbol take in its trades."""
        return aggregator.on_trades(self.trades, self.offsets, self.appended_at)

    @property
    def appended_at(self) -> int:
        """When the last of the records was appended to the log, µs."""
        return appended_at(self.records[-1])


_SCHEMA: Final = TRADE_SCHEMA.encode()
_raws: Final = msgspec.json.Decoder(list[msgspec.Raw])


class ChunkDecoder:
    """Turns chunks into trades by symbol, refusing what is no trade or stands in the wrong place."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._keys: dict[str, tuple[bytes, int]] = {}

    def decode(self, chunk: Chunk) -> tuple[dict[str, SymbolTrades], list[RejectedRecord]]:
        """Decode a chunk; every record ends either with its symbol or among the rejected."""
        trades = _decode_together(chunk.records)
        if trades is not None:
            return self._sort(chunk, chunk.records, trades, [])
        records: list[LogRecord] = []
        rejected: list[RejectedRecord] = []
        trades = []
        for record in chunk.records:
            kind = "schema"
            try:
                check_schema(record.headers, TRADE_SCHEMA)
                kind = "not_a_trade"
                trades.append(decode_trade(record.value or b""))
            except ContractError as error:
                rejected.append(RejectedRecord(record, str(error), kind))
            else:
                records.append(record)
        return self._sort(chunk, records, trades, rejected)

    def _sort(
        self, chunk: Chunk, records: Sequence[LogRecord], trades: Sequence[Trade], rejected: list[RejectedRecord]
    ) -> tuple[dict[str, SymbolTrades], list[RejectedRecord]]:
        by_symbol: dict[str, SymbolTrades] = {}
        for record, trade in zip(records, trades, strict=True):
            group = by_symbol.get(trade.symbol)
            if group is None or record.key != group.key:
                try:
                    key = self._check_place(trade.symbol, record.key, chunk.partition)
                except ContractError as error:
                    rejected.append(RejectedRecord(record, str(error), "misplaced"))
                    continue
                group = by_symbol.setdefault(trade.symbol, SymbolTrades(key))
            group.trades.append(trade)
            group.records.append(record)
        return by_symbol, rejected

    def _check_place(self, symbol: str, key: bytes | None, partition: int) -> bytes:
        """The key of a symbol. Raises ContractError when a record of it has another, or is on another's partition."""
        if symbol not in self._keys:
            split_symbol(symbol)
            self._keys[symbol] = (symbol.encode(), partition_of(symbol.encode(), self._partitions))
        wanted, home = self._keys[symbol]
        if key != wanted:
            check_key(key, symbol, "trade")
        if partition != home:
            raise ContractError(
                f"{symbol!r} belongs on partition {home}, not {partition}: "
                "its producer must partition keys by murmur2, as the Java client does"
            )
        return wanted


def _names_no_other(headers: Sequence[tuple[str, bytes | None]]) -> bool:
    return all(name != SCHEMA_HEADER or value == _SCHEMA for name, value in headers)


def _decode_together(records: Sequence[LogRecord]) -> list[Trade] | None:
    """All records in one call, five times as fast as one by one; None when any of them is not a sound trade."""
    if not records:  # as where all was aborted
        return []
    values = [record.value for record in records]
    # The headers of nearly all are the same ones.
    if not all(_names_no_other(headers) for headers in {tuple(record.headers) for record in records}):
        return None
    try:
        # Nothing else begins so, and where each does there is at least one object.
        if b"".join([value[:1] for value in values]) != b"{" * len(values):  # type: ignore[index]
            return None
        array = b"[" + b",".join(values) + b"]"  # type: ignore[arg-type]
        trades = decode_trades(array)
        if trades is None or len(trades) != len(records):
            return None
        # Of two objects in one record and half of one in the next the bounds would lie elsewhere than the records'.
        bounds_fit = list(map(len, _raws.decode(array))) == list(map(len, values))  # type: ignore[arg-type]
    except TypeError:  # one has no value
        return None
    return trades if bounds_fit else None

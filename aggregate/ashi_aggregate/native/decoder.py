"""Chunks of raw batches into trades by symbol: natively where that can be, and what is left by `ChunkDecoder`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import ContractError
from ashi.contracts.symbol import split_symbol
from ashi.runtime.kafka.connections.clients import partition_of
from ashi.runtime.metrics.aggregate import records_slow
from ashi_aggregate.chunk import Chunk, ChunkDecoder, RejectedRecord, SymbolTrades
from ashi_aggregate.native.columns import ScannedRecords, SymbolColumns, fold_columns
from ashi_aggregate.native.kernel import SYMBOL, Slow

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from ashi_aggregate.core.symbol import Outcome, SymbolAggregator
    from ashi_aggregate.core.window_state import WindowRules

NO_SYMBOL: Final = 2**32 - 1


class NativeDecoder:
    """As `ChunkDecoder`, for chunks whose records are `ScannedRecords`."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._python = ChunkDecoder(partitions)
        self._homes: dict[bytes, tuple[str, int] | None] = {}

    def decode(self, chunk: Chunk) -> tuple[dict[str, SymbolTrades | SymbolColumns], list[RejectedRecord]]:
        """Decode a chunk; every record ends either with its symbol or among the rejected."""
        records = chunk.records
        if not isinstance(records, ScannedRecords):
            by_symbol, rejected = self._python.decode(chunk)
            return dict(by_symbol), rejected
        scanned = records.scanned
        groups: dict[str, SymbolColumns] = {}
        partly: dict[str, SymbolColumns] = {}
        foreign: list[int] = []
        filed = 0
        symbols = SYMBOL.iter_unpack(memoryview(scanned.symbols)[: scanned.symbol_count * SYMBOL.size])
        for number, symbol in enumerate(symbols):
            columns = SymbolColumns(records, number, symbol)
            filed += columns.count
            home = self._home(columns.key)
            if home is None or home[1] != chunk.partition:
                foreign += columns.places()
            elif columns.slow:
                partly[home[0]] = columns
            else:
                groups[home[0]] = columns
        if filed < len(records):  # some have no key
            foreign += [place for place in range(len(records)) if records.column(place)[10] == NO_SYMBOL]
        if not foreign and not partly:
            return dict(groups), []
        by_symbol, rejected = self._by_python(chunk, foreign, partly, ())
        if by_symbol:  # some are trades, written in another way: all of those symbols are Python's
            by_symbol, rejected = self._by_python(chunk, foreign, partly, by_symbol)
        _count_slow(records, foreign, partly, by_symbol)
        # What is refused counts nowhere, so it is taken from among the others.
        numbers = [columns.number for symbol, columns in partly.items() if symbol not in by_symbol]
        if numbers:
            kept = records.without_slow(numbers)
            groups = {symbol: columns.among(kept) for symbol, columns in (groups | partly).items()}
            groups = {symbol: columns for symbol, columns in groups.items() if columns.count}
        return {**groups, **by_symbol}, rejected

    def _by_python(
        self,
        chunk: Chunk,
        foreign: Iterable[int],
        partly: Mapping[str, SymbolColumns],
        whole: Collection[str],
    ) -> tuple[dict[str, SymbolTrades], list[RejectedRecord]]:
        """What Python makes of those records and of the slow ones of those symbols; of some of them of the `whole`."""
        places = sorted([*foreign, *_slow_places(partly, whole)])
        return self._python.decode(
            Chunk(chunk.partition, chunk.begin, chunk.end, [chunk.records[place] for place in places])
        )

    def fold(
        self,
        groups: Mapping[str, SymbolTrades | SymbolColumns],
        aggregators: Mapping[str, SymbolAggregator],
        rules: WindowRules,
    ) -> dict[str, Outcome]:
        """Let the aggregator of each symbol take in its trades, all of one chunk."""
        columns = {symbol: group for symbol, group in groups.items() if isinstance(group, SymbolColumns)}
        folded = {}
        if columns:
            records = next(iter(columns.values())).records
            folded = fold_columns(records, rules, columns, aggregators)
        return {
            symbol: group.fold_into(aggregators[symbol]) if isinstance(group, SymbolTrades) else folded[symbol]
            for symbol, group in groups.items()
        }

    def _home(self, key: bytes) -> tuple[str, int] | None:
        """The symbol that a key names, and its partition; None where it names none."""
        if key not in self._homes:
            try:
                symbol = key.decode()
                split_symbol(symbol)
                self._homes[key] = symbol, partition_of(key, self._partitions)
            except (ContractError, UnicodeDecodeError):
                return None  # not remembered: whoever sends such keys could send any number of them
        return self._homes[key]


def _slow_places(partly: Mapping[str, SymbolColumns], whole: Collection[str]) -> Iterator[int]:
    """Where the slow records of these symbols stand, and all of those that are Python's as a whole."""
    for symbol, columns in partly.items():
        for place in columns.places():
            if symbol in whole or columns.column(place)[12]:
                yield place


def _count_slow(
    records: ScannedRecords, foreign: Iterable[int], partly: Mapping[str, SymbolColumns], whole: Collection[str]
) -> None:
    reasons = Counter(records.column(place)[12] for place in [*foreign, *_slow_places(partly, whole)])
    for reason, count in reasons.items():
        # One that is sound is read by Python for the sake of another of its symbol, or for its key.
        records_slow.labels(Slow(reason).name.lower() if reason else "beside").inc(count)

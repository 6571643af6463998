"""Records as the native library has scanned them, and what it makes of each symbol of them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, overload

from ashi.contracts.trade import decode_trade
from ashi.runtime.kafka.consuming.raw_batches import RawBatches
from ashi.runtime.metrics.aggregate import records_slow
from ashi_aggregate.chunk import LogRecord, SymbolTrades, appended_at
from ashi_aggregate.core.fold import fold_trades
from ashi_aggregate.core.symbol import COPY, COUNTS, LateTrade, Outcome, Partials, SymbolAggregator
from ashi_aggregate.core.trade_ids import COPIES_APART_US, TradeIds
from ashi_aggregate.core.window_state import LateReason, WindowRules
from ashi_aggregate.native.kernel import (
    ID_OF_RECORD,
    KNOWN,
    NEXT_AT,
    NEXT_OF_RECORD,
    OFFSET_OF_RECORD,
    PLACE,
    RECORD,
    SYMBOL,
    TIME_OF_RECORD,
    WINDOW,
    FoldedSymbol,
    Kernel,
    Mode,
    Rules,
    Scanned,
    Verdict,
)

MAX_INTERVALS: Final = 4_096
"""Of a symbol's known ids the library is given at most so many intervals."""
MAX_WINDOWS: Final = 8_192
"""Of a symbol's trades and known ids together the library counts ids in at most so many finest windows at once."""
_HALF: Final = 2**63
_LATE_REASONS: Final = {1: LateReason.BEYOND_HORIZON, 2: LateReason.WINDOW_DROPPED}


@dataclass(slots=True)
class ScannedRecord:
    """A record, made of the bytes when somebody asks for it; a `LogRecord`."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    timestamp: int
    timestamp_type: int | None


class ScannedRecords(Sequence[LogRecord]):
    """The records of a scan, each made when it is asked for."""

    def __init__(self, kernel: Kernel, scanned: Scanned) -> None:
        self.kernel = kernel
        self.scanned = scanned

    def since(self, offset: int) -> ScannedRecords:
        """Those from an offset on, read from the bytes again."""
        return ScannedRecords(self.kernel, self.kernel.scan(self.scanned.data, offset, len(self)))

    def without_slow(self, numbers: Iterable[int]) -> ScannedRecords:
        """The same, but that the symbols of these numbers are without those of their records that are slow.

        They are records still, of no symbol.
        """
        columns, symbols, order = map(bytearray, (self.scanned.records, self.scanned.symbols, self.scanned.order))
        for number in numbers:
            key_at, key_len, *_, order_at = symbol = SYMBOL.unpack_from(symbols, number * SYMBOL.size)
            sound = [place for place in SymbolColumns(self, number, symbol).places() if not self.column(place)[12]]
            for place, following in pairwise(sound):
                NEXT_OF_RECORD.pack_into(columns, place * RECORD.size + NEXT_AT, following)
            first, last = (sound[0], sound[-1]) if sound else (0, 0)
            SYMBOL.pack_into(symbols, number * SYMBOL.size, key_at, key_len, first, last, len(sound), 0, order_at)
            for at, place in enumerate(sound, order_at):
                PLACE.pack_into(order, at * PLACE.size, place)
        return ScannedRecords(self.kernel, self.scanned._replace(records=columns, symbols=symbols, order=order))

    def __len__(self) -> int:
        return self.scanned.record_count

    @overload
    def __getitem__(self, place: int) -> LogRecord: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[LogRecord]: ...

    def __getitem__(self, place: int | slice) -> LogRecord | Sequence[LogRecord]:
        if isinstance(place, slice):
            return [self._make(each) for each in range(len(self))[place]]
        return self._make(range(len(self))[place])

    def __iter__(self) -> Iterator[LogRecord]:
        return map(self._make, range(len(self)))

    def column(self, place: int) -> tuple[int, ...]:
        """What the library knows of a record; `RECORD` names it."""
        return RECORD.unpack_from(self.scanned.records, place * RECORD.size)

    def _make(self, place: int) -> ScannedRecord:
        column = self.column(place)
        offset, timestamp, at, kind = column[0], column[1], column[7], column[21]
        data = self.scanned.data
        _, at = _varint(data, at + 1)
        _, at = _varint(data, at)
        key, at = _bytes(data, at)
        value, at = _bytes(data, at)
        count, at = _varint(data, at)
        headers = []
        for _ in range(count):
            name, at = _bytes(data, at)
            header, at = _bytes(data, at)
            headers.append(((name or b"").decode(errors="replace"), header))
        return ScannedRecord(offset, key, value, headers, timestamp, kind)


def scan(kernel: Kernel, batches: RawBatches, begin: int) -> ScannedRecords:
    """The records of batches from an offset on. Raises Malformed where they are none."""
    return ScannedRecords(kernel, kernel.scan(batches.data, begin, batches.max_records))


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
        shift += 7


def _bytes(data: bytes, at: int) -> tuple[bytes | None, int]:
    length, at = _varint(data, at)
    return (None, at) if length < 0 else (data[at : at + length], at + length)


class SymbolColumns:
    """The trades of one symbol in a scan: one at least. What is asked of it is what is asked of `SymbolTrades`."""

    __slots__ = ("_first", "_last", "count", "key", "number", "records", "slow")

    def __init__(self, records: ScannedRecords, number: int, symbol: tuple[int, ...]) -> None:
        """`symbol`: what the library knows of it; `SYMBOL` names that."""
        key_at, key_len, self._first, self._last, self.count, self.slow, _ = symbol
        self.records = records
        self.number = number
        self.key = records.scanned.data[key_at : key_at + key_len]

    @property
    def first_offset(self) -> int:
        """Of its first record."""
        return int(OFFSET_OF_RECORD.unpack_from(self.records.scanned.records, self._first * RECORD.size)[0])

    @property
    def first_traded_at(self) -> int:
        """Time of its first trade, µs."""
        return self.column(self._first)[2]

    @property
    def appended_at(self) -> int:
        """When the last of the records was appended to the log, µs: of a copy, when the first one was."""
        timestamp, is_copy = TIME_OF_RECORD.unpack_from(self.records.scanned.records, self._last * RECORD.size)
        return appended_at(self.record(self._last)) if is_copy else timestamp * 1000

    def among(self, records: ScannedRecords) -> SymbolColumns:
        """The same symbol in another version of the same scan."""
        symbol = SYMBOL.unpack_from(records.scanned.symbols, self.number * SYMBOL.size)
        return SymbolColumns(records, self.number, symbol)

    def column(self, place: int) -> tuple[int, ...]:
        """What the library knows of a record; `RECORD` names it."""
        return self.records.column(place)

    def record(self, place: int) -> LogRecord:
        """The record at a place among all that were scanned."""
        return self.records[place]

    def places(self) -> Iterator[int]:
        """Where its records stand among all that were scanned."""
        place = self._first
        for _ in range(self.count):
            yield place
            place = self.column(place)[11]

    def ids(self, applied: int) -> tuple[list[int], list[int], list[str]]:
        """Of the records beyond offset `applied`: their places, times (µs) and trade ids."""
        scanned = self.records.scanned
        places: list[int] = []
        times: list[int] = []
        ids: list[str] = []
        place = self._first
        for _ in range(self.count):
            offset, traded_at, following, id_at, id_len = ID_OF_RECORD.unpack_from(scanned.records, place * RECORD.size)
            if offset > applied:
                places.append(place)
                times.append(traded_at)
                ids.append(scanned.data[id_at : id_at + id_len].decode())
            place = following
        return places, times, ids

    def trades(self) -> SymbolTrades:
        """The same as Python reads it."""
        records = [self.records[place] for place in self.places()]
        return SymbolTrades(self.key, [decode_trade(record.value or b"") for record in records], records)


def fold_columns(
    records: ScannedRecords,
    rules: WindowRules,
    columns: Mapping[str, SymbolColumns],
    aggregators: Mapping[str, SymbolAggregator],
) -> dict[str, Outcome]:
    """Fold the trades of all these symbols into their aggregators.

    First as ids nearly always are: numbers that ascend, or texts none of which came before. Then the others by the
    intervals that are known; then those whose ids Python counts. What is left, as sums that need more than 128 bits,
    Python folds too.
    """
    outcomes: dict[str, Outcome] = {}
    works = [_Work(symbol, column, aggregators[symbol]) for symbol, column in columns.items()]
    left = [work for work in works if work.aggregator.rows_are_alike]
    while left:
        _Call(records, rules, left).run(outcomes)
        left = [work for work in left if work.symbol not in outcomes and work.tries_again()]
    for work in works:
        if work.symbol not in outcomes:
            reason = work.verdict.name.lower() if work.aggregator.rows_are_alike else "rows_apart"
            records_slow.labels(reason).inc(work.columns.count)
            outcomes[work.symbol] = work.fold_by_python(rules)
    return outcomes


@dataclass(slots=True)
class _Work:
    """A symbol that is to be folded; what the library said of it; and of its records, in `marks`, what Python did."""

    symbol: str
    columns: SymbolColumns
    aggregator: SymbolAggregator
    mode: Mode = field(init=False)
    verdict: Verdict = Verdict.IDS
    marks: bytes = b""
    late: list[LateTrade] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.mode = Mode.TEXTS if self.ids.has_texts else Mode.ASCENDING

    @property
    def ids(self) -> TradeIds:
        """Those that its rows have counted."""
        return self.aggregator.rows[0].ids

    def tries_again(self) -> bool:
        """Whether its ids can be counted in another way: then it has that mode."""
        # Of texts none has been found to be a copy yet, and two copies are what nothing ranks.
        is_open = self.verdict in _WITHOUT_IDS or (self.mode is Mode.TEXTS and self.verdict is Verdict.TIE)
        if self.mode is Mode.GIVEN or not is_open:
            return False
        if self.mode is Mode.ASCENDING:
            self.mode = Mode.TEXTS if self.verdict is Verdict.TEXTS else Mode.INTERVALS
        else:
            self.mode = Mode.GIVEN
        return True

    def admit(self, marks: bytearray) -> None:
        """Let Python count its ids, and put into `marks`, by record, what each is."""
        places, times, ids = self.columns.ids(self.aggregator.applied_offset)
        self.marks, late = self.aggregator.admit(times, ids)
        for place, mark in zip(places, self.marks, strict=True):
            marks[place] = mark
        self.late = [
            LateTrade(
                decode_trade(self.columns.record(places[number]).value or b""), places[number], stream_time, reason
            )
            for number, stream_time, reason in late
        ]

    def fold_by_python(self, rules: WindowRules) -> Outcome:
        """Let Python fold its trades; if it has counted their ids, those that count."""
        group = self.columns.trades()
        if not self.marks:
            outcome = group.fold_into(self.aggregator)
            places = list(self.columns.places())
            late = [trade._replace(place=places[trade.place]) for trade in outcome.late]
            return outcome._replace(late=late)
        unseen = group.trades[-len(self.marks) :]
        windows: dict[int, list[int]] = {}
        for number, (trade, mark) in enumerate(zip(unseen, self.marks, strict=True)):
            if mark == COUNTS:
                windows.setdefault(rules.finest.open_time(trade.traded_at), []).append(number)
        offsets = group.offsets[-len(self.marks) :]
        folds = [
            fold_trades([unseen[number] for number in numbers], start, offsets[numbers[-1]])
            for start, numbers in sorted(windows.items())
        ]
        stream_time = max(self.aggregator.rows[0].row.stream_time, *(trade.traded_at for trade in unseen))
        counted, copies = self.marks.count(COUNTS), self.marks.count(COPY)
        by_timeframe = self.aggregator.by_timeframe(folds)
        partials = Partials(self.symbol, by_timeframe, self.late, counted, copies, stream_time, offsets[-1])
        return self.aggregator.on_partials(partials, group.appended_at)


_WITHOUT_IDS: Final = (Verdict.IDS, Verdict.ROOM, Verdict.TEXTS)
"""What is tried again with other ways to count ids."""


class _Call:
    """One call of the library, for all symbols, each in its mode."""

    def __init__(self, records: ScannedRecords, rules: WindowRules, works: Sequence[_Work]) -> None:
        self._records = records
        self._rules = rules
        self._works = works
        numbers = [work.columns.number for work in works]
        self._first = min(numbers)
        self._known = bytearray(KNOWN.size * (max(numbers) + 1 - self._first))
        self._windows = bytearray()
        self._numbers = array("Q")
        self._marks = bytearray()

    def run(self, outcomes: dict[str, Outcome]) -> None:
        """Fold them; each has its verdict then, and those that were folded their outcome."""
        asked = [work for work in self._works if self._ask(work)]
        if not asked:
            return
        rules = self._rules
        folded = self._records.kernel.fold(
            self._records.scanned,
            Rules(asked[0].aggregator.lengths_us, rules.horizon_us, COPIES_APART_US),
            self._known,
            first=self._first,
            windows=self._windows,
            numbers=self._numbers.tobytes(),
            admitted=self._marks,
            slots=MAX_WINDOWS if any(work.mode is Mode.INTERVALS for work in asked) else 0,
        )
        for work in asked:
            outcome = self._take(work, folded[work.columns.number - self._first])
            if outcome is not None:
                outcomes[work.symbol] = outcome

    def _ask(self, work: _Work) -> bool:
        """Tell the library what is known of a symbol; false where its mode is not for it, and the verdict says so."""
        row, ids, mode = work.aggregator.rows[0].row, work.ids, work.mode
        windows_at = len(self._windows) // WINDOW.size
        work.verdict = Verdict.IDS
        if mode is Mode.GIVEN:
            if not self._marks:
                self._marks = bytearray(self._records.scanned.record_count)
            work.admit(self._marks)
        greatest = -1 if mode in (Mode.GIVEN, Mode.TEXTS) else ids.greatest
        if not -1 <= greatest < _HALF:
            return False
        if mode is Mode.INTERVALS:
            if len(ids) > MAX_INTERVALS or any(window.texts for window in ids.windows.values()):
                return False
            for start, window in ids.windows.items():
                self._windows += WINDOW.pack(start, len(self._numbers), len(window.numbers))
                self._numbers.extend(window.numbers)
        KNOWN.pack_into(
            self._known,
            (work.columns.number - self._first) * KNOWN.size,
            row.applied_offset,
            row.stream_time,
            row.dropped_until,
            greatest,
            ids.room,
            mode,
            windows_at,
            len(self._windows) // WINDOW.size - windows_at,
        )
        return True

    def _take(self, work: _Work, folded: int | FoldedSymbol) -> Outcome | None:
        """What the library made of a symbol, put into its aggregator; None where it left it."""
        if isinstance(folded, int):
            work.verdict = Verdict(folded)
            return Outcome([], [], 0, 0, changed=False) if work.verdict is Verdict.SEEN else None
        ids = work.ids
        if work.mode is Mode.ASCENDING:
            for start, numbers in folded.intervals:
                ids.add_intervals(start, numbers)
        elif work.mode is Mode.INTERVALS:
            for start, numbers in folded.intervals:
                ids.replace(start, numbers)
        elif work.mode is Mode.TEXTS:
            if not ids.add_texts(folded.texts):
                return None
            ids.forget_before(work.aggregator.rows[0].ids_needed_from(folded.stream_time))
        work.verdict = Verdict.FOLDED
        partials = Partials(
            work.symbol,
            folded.folds,
            work.late or [self._late(*late) for late in folded.late],
            folded.counted,
            folded.duplicates,
            folded.stream_time,
            folded.last_offset,
        )
        return work.aggregator.on_partials(partials, work.columns.appended_at)

    def _late(self, stream_time: int, place: int, reason: int) -> LateTrade:
        record = self._records[place]
        return LateTrade(decode_trade(record.value or b""), place, stream_time, _LATE_REASONS[reason])

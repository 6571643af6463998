"""What a worker holds of one partition between two checkpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ashi.contracts.errors import StateError
from ashi.contracts.timeframe import Timeframe
from ashi.runtime.kafka.cluster.log_identity import Fingerprint, fingerprint_of
from ashi.runtime.logs import get_logger
from ashi_aggregate.census import KEEP_LISTS_S, MarkerList, Rows, find_listed, find_missing, list_positions, position_of
from ashi_aggregate.chunk import LogRecord, appended_at
from ashi_aggregate.clocks import BrokerClock
from ashi_aggregate.core.codec import Marker, RowHead, StoredRow, decode_marker, read_rank, read_stored
from ashi_aggregate.core.window_state import WindowRules
from ashi_aggregate.delays import Awaited
from ashi_aggregate.live_queue import LiveQueue
from ashi_aggregate.log_check import Trail, expired_unread, other_log
from ashi_aggregate.protocols import Acknowledge, StateTable
from ashi_aggregate.symbols import Symbols
from ashi_aggregate.write_queue import WriteQueue

_log = get_logger(__name__)

ROWS_AT_ONCE: Final = 50
"""So many symbols' rows are looked at before others have their turn."""
ASK_CLOCK_AFTER_S: Final = 60.0
"""A partition whose markers have told the broker's time this long ago gets another one, and with it the time."""


class PartitionOffsets(NamedTuple):
    """Where a partition of `trades` stands in Kafka. Offsets are those of the next record.

    Attributes:
        committed: what the group goes on from; None when it never committed.
        earliest: of the first record that the log still has.
        end: after the last record.

    """

    committed: int | None
    earliest: int
    end: int


@dataclass(slots=True, eq=False)
class PartitionState:
    """One partition of `trades`.

    Attributes:
        next: offset at which the next chunk must begin.
        durable_end: offset up to which (exclusive) all effects are acknowledged.
        begins_at: as in the marker; None until the first record is read of a state that does not begin with the log.
        folded: symbols that have taken in trades since the last checkpoint.
        unwritten: symbols whose rows have changed since they were last written.
        chunks: how to acknowledge the chunks folded since the last checkpoint.
        trail: fingerprints of what has been read, up to the last marker.
        last_record: the last one read since.
        positions: how far the rows of each symbol have come, as the last marker lists it; see `ashi_aggregate.census`.
        listing: how its markers list them.
        ahead: rows written after the marker, by position, until the log has been read up to there again.
        is_rebuilt: the marker it had said what is not there, so that it must be taken away before anything is written.
        clock: that of the partition's broker.
        taken_up_at: when (monotonic, s) the partition was taken up.
        live_from: records from this offset on have been appended since the partition was taken up.
        read_at: when the last record that was read had been appended, µs; 0 where that is not known.
        live: the symbols that have something to tell of their candles in progress.
        marked_at: when (monotonic, s) a marker was last acknowledged; None before the first since it was taken up.
        closed_at: by which append time (µs) of a record windows of quiet symbols were last closed.
        awaited: whose candles' delays are measured.
        event_at: the greatest stream time of its symbols, µs.
        appended_at: when the last record had been appended that its rows had read as it was taken up, µs; 0 for none.

    """

    number: int
    next: int
    durable_end: int
    begins_at: int | None
    symbols: Symbols
    taken_up_at: float
    folded: set[str] = field(default_factory=set)
    unwritten: WriteQueue = field(default_factory=WriteQueue)
    chunks: list[Acknowledge] = field(default_factory=list)
    trail: Trail = field(default_factory=Trail)
    last_record: LogRecord | None = None
    positions: dict[str, int] = field(default_factory=dict)
    listing: MarkerList = field(init=False)
    is_rebuilt: bool = False
    ahead: dict[int, RowHead] = field(default_factory=dict)
    clock: BrokerClock = field(default_factory=BrokerClock)
    live_from: int = 0
    read_at: int = 0
    live: LiveQueue = field(default_factory=LiveQueue)
    marked_at: float | None = None
    closed_at: int = 0
    awaited: Awaited = field(default_factory=Awaited)
    event_at: int = 0
    appended_at: int = 0

    def __post_init__(self) -> None:
        self.listing = MarkerList(self.number)

    def marker_records(self, epoch: int, known: Iterable[bytes], now_s: float) -> list[tuple[bytes, bytes | None]]:
        """What makes the state durable as it is: a marker, with the list of its symbols if that has grown.

        `known`: the keys that the table of markers has; `now_s` is monotonic.
        """
        marker = Marker(self.durable_end - 1, self.begins_at, epoch, self.trail.topic_id, self.trail.as_written())
        records = self.listing.records(marker_key(self.number), marker, self.positions)
        if now_s - self.taken_up_at > KEEP_LISTS_S and self.durable_end > self.live_from:
            records += self.listing.others(known)
        return records

    def records_read(self) -> list[Fingerprint]:
        """Some of the records that have been read, the last one last, as they must still stand in the log."""
        last = [] if self.last_record is None else [fingerprint_of(self.last_record)]
        return self.trail.records + last

    def check_ahead(self, records: Sequence[LogRecord]) -> None:
        """Raise StateError if rows that are ahead of the marker have not read these records, but others.

        Records are read again from the marker on, and rows that are ahead skip them. No fingerprint was written of
        what they had read by then; but the record at a row's position is its symbol's, and was appended no later than
        all it has read.
        """
        for record in records:
            row = self.ahead.pop(record.offset, None)
            if row is not None and (record.key != row.symbol.encode() or appended_at(record) > row.appended_at):
                raise other_log(
                    self.number,
                    f"the row of {row.symbol} has read a record at offset {record.offset} that was appended at "
                    f"{row.appended_at} µs or before, and now it holds one of {(record.key or b'')[:100]!r} of "
                    f"{appended_at(record)} µs",
                )

    def must_ask_clock(self, now_s: float) -> bool:
        """Whether a marker is due (monotonic, s) for the sake of its append time, which tells the broker's clock."""
        return bool(self.symbols) and (self.marked_at is None or now_s - self.marked_at > ASK_CLOCK_AFTER_S)

    def note_written(self, symbols: Collection[str], now_s: float) -> None:
        """The rows of these symbols stand in the changelogs as they are now (monotonic, s)."""
        self.unwritten.written(symbols, now_s)
        for symbol in symbols:
            position = position_of(self.symbols[symbol].state_rows())
            if position is not None:
                self.positions[symbol] = position

    def drop_final(self, symbols: Iterable[str]) -> None:
        """Forget what nothing can change any more, of the symbols whose rows are about to be written.

        Only to be called when all candles emitted so far have been acknowledged.
        """
        for symbol in symbols:
            self.symbols[symbol].drop_final()


def marker_key(partition: int) -> bytes:
    """The key of a partition's row in the table of markers."""
    return str(partition).encode()


async def load_partition(
    number: int,
    offsets: PartitionOffsets,
    *,
    timeframes: Sequence[Timeframe],
    rules: WindowRules,
    tables: Sequence[StateTable],
    marker: Marker | None,
    begin: int | None,
    whole_from: int | None = None,
    now_s: float,
    named: Callable[[str], str] = str,
) -> PartitionState:
    """Take up the state of a partition from its rows and marker, and find the offset to read on from.

    Reading a record again changes nothing, missing one would; so it is the smaller of the committed offset and the
    marker. A new state begins at `begin`, or where the log does if that is None; `whole_from`: as in the epoch. One
    that lacks rows which its marker says it has is read again from there, if the log still has all of it. Raises
    StateError when the log no longer has what must be read, or is not the log of this state.
    """
    committed, earliest, end = offsets
    rows = await _read_rows(number, tables, rules.epoch)
    first = earliest if begin is None else max(earliest, min(begin, end))
    is_whole = first == (begin or 0)
    is_rebuilt = False
    if marker is not None:
        _check_log(number, marker.durable_offset + 1, earliest, end)
        missing = find_missing(number, marker, tables, rows, named)
        if missing is not None:
            if not is_whole or (begin is None and marker.begins_at != 0):
                raise _lacks_rows(missing)
            _log.warning(
                "state lacks rows, rebuilding it from the log", partition=number, missing=missing, offset=first
            )
            marker, is_rebuilt = None, True
    if marker is None:
        if not is_whole:
            rows = _without_unfinished(number, rows, first)
        start = durable = first
        begins_at = whole_from if begin is not None and is_whole else None
        if start == 0 and begin is None:
            begins_at = 0
    else:
        durable = marker.durable_offset + 1
        start = max(earliest, durable if committed is None else min(committed, durable))
        begins_at = marker.begins_at
    state = PartitionState(
        number, start, durable, begins_at, Symbols(timeframes, rules), now_s, is_rebuilt=is_rebuilt, live_from=end
    )
    state.positions = list_positions(rows)
    for key, of_symbol in rows.items():
        state.symbols.take_up(key.decode(), of_symbol)
        state.ahead |= {
            row.applied_offset: row.head for row in of_symbol if row is not None and row.applied_offset >= start
        }
    state.unwritten.was_written(state.symbols, now_s)
    state.event_at, state.appended_at = state.symbols.times()
    if state.ahead and (last := max(state.ahead)) >= end:
        row = state.ahead[last]
        raise other_log(number, f"it ends at offset {end}, and the row of {row.symbol} has read {last}")
    if marker is not None:
        state.trail = Trail(marker.topic_id, marker.records)
    return state


async def _read_rows(number: int, tables: Sequence[StateTable], epoch: int) -> Rows:
    """The rows of each symbol that has any of this epoch, in the order of the tables."""
    rows: dict[bytes, list[StoredRow | None]] = {}
    for count, key in enumerate(dict.fromkeys(key for table in tables for key in table.rows(number))):
        of_symbol = [_row(table.rows(number).get(key), epoch) for table in tables]
        if any(row is not None for row in of_symbol):
            rows[key] = of_symbol
        if count % ROWS_AT_ONCE == 0:
            await asyncio.sleep(0)  # rows in JSON are decoded whole
    return rows


def _without_unfinished(number: int, rows: Rows, first: int) -> Rows:
    """What can be gone on from without a marker where the log has no more than what follows from offset `first` on.

    A symbol that lacks a row begins anew: it was killed in its first checkpoint, after it had begun in the middle of
    the log as well. If it had not, or a row is of before, there were trades in between. Raises StateError.
    """
    kept = {}
    behind = []
    for key, of_symbol in rows.items():
        known = [row for row in of_symbol if row is not None]
        is_torn = len(known) < len(of_symbol)
        if any(row.applied_offset + 1 < first for row in known) or (is_torn and not known[0].head.complete_from):
            behind.append(key.decode())
        elif not is_torn:
            kept[key] = of_symbol
    if behind:
        raise _lacks_rows(
            f"trades/{number} has rows and no marker, and of {len(behind)} symbols, as {min(behind)}, the log begins "
            f"only at {first}, after a row of theirs ends"
        )
    return kept


def _lacks_rows(missing: str) -> StateError:
    return StateError(
        f"the state lacks what it had: {missing}. A changelog was deleted, emptied or cut, and trades no longer has "
        "everything from where the state began, so that the rows cannot be made again: candles would lack trades. Stop "
        "all aggregate workers and begin a new state at what is left with `ashi aggregate reconfigure`"
    )


def _check_log(number: int, durable: int, earliest: int, end: int) -> None:
    """Raise StateError unless the log still has everything from `durable` on."""
    if durable > end:
        raise StateError(
            f"trades/{number} ends at offset {end}, but its state has read up to {durable}: the topic was made anew or "
            "mirrored. Stop all aggregate workers and begin a new state with `ashi aggregate reconfigure`"
        )
    if durable < earliest:
        raise expired_unread(number, durable, earliest)


def witness_key(partition: int) -> bytes:
    """The key, in the same table, of a record that was read and was then found not to stand in the log any more.

    Apart from the marker: one that is written later by a worker which has not noticed must not hide it.
    """
    return f"{partition}-witness".encode()


def read_witness(markers: StateTable, number: int, epoch: int) -> Marker | None:
    """What was written under `witness_key` in this epoch."""
    value = markers.rows(number).get(witness_key(number))
    return decode_marker(value) if value is not None and _is_of(value, epoch) else None


def read_marker(markers: StateTable, number: int, epoch: int) -> Marker | None:
    """The marker of a partition, if it has one of this epoch. Raises StateError for one of a later epoch."""
    value = markers.rows(number).get(marker_key(number))
    if value is None or not _is_of(value, epoch):
        return None
    return find_listed(number, decode_marker(value), markers)


def _row(value: bytes | None, epoch: int) -> StoredRow | None:
    return read_stored(value) if value is not None and _is_of(value, epoch) else None


def _is_of(value: bytes, epoch: int) -> bool:
    """Whether a row or marker belongs to the epoch; one of an earlier epoch is no part of the state."""
    written_in, _ = read_rank(value)
    if written_in > epoch:
        raise StateError(
            f"the state is of epoch {written_in}, this worker started in epoch {epoch}: it has been reconfigured "
            "meanwhile; start the worker again"
        )
    return written_in == epoch

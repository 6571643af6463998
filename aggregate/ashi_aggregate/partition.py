"""What a worker holds of one partition between two checkpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ashi.contracts.errors import StateError
from ashi.contracts.timeframe import Timeframe
from ashi_aggregate.core.codec import Marker, decode_marker, decode_row, rank_of
from ashi_aggregate.core.symbol import SymbolAggregator
from ashi_aggregate.core.window_state import StateRow, WindowRules
from ashi_aggregate.protocols import Acknowledge, StateTable

REWRITE_AFTER_S: Final = 120.0
"""Every row is written at least this often. Less than half of the changelogs' min.compaction.lag.ms: so compaction
cannot leave an older row, written late by a worker that was declared dead, as the only one."""


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
        dirty: symbols whose rows have changed since the last checkpoint.
        chunks: how to acknowledge the chunks folded since the last checkpoint.
        written: when (monotonic, s) each symbol's rows were last written.

    """

    number: int
    next: int
    durable_end: int
    begins_at: int | None
    symbols: dict[str, SymbolAggregator] = field(default_factory=dict)
    dirty: set[str] = field(default_factory=set)
    chunks: list[Acknowledge] = field(default_factory=list)
    written: dict[str, float] = field(default_factory=dict)

    def mark_rows_due(self, now_s: float) -> None:
        """Count the rows as changed that were last written too long before now (monotonic, s)."""
        self.dirty |= {symbol for symbol, at in self.written.items() if now_s - at > REWRITE_AFTER_S}

    def drop_final(self) -> None:
        """Forget what nothing can change any more, of the symbols whose rows are about to be written.

        Only to be called when all candles emitted so far have been acknowledged.
        """
        for symbol in self.dirty:
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
    markers: StateTable,
    begin: int | None,
    now_s: float,
) -> PartitionState:
    """Take up the state of a partition from its rows, and find the offset to read on from.

    Reading a record again changes nothing, missing one would; so it is the smaller of the committed offset and the
    marker. A new state begins at `begin`, or where the log does if that is None. Raises StateError when the log no
    longer has what must be read, or is not the log of this state.
    """
    committed, earliest, end = offsets
    marker = _marker(markers.rows(number).get(marker_key(number)), rules.epoch)
    if marker is None:
        start = durable = earliest if begin is None else max(earliest, min(begin, end))
        begins_at = 0 if start == 0 and begin is None else None
    else:
        durable = marker.durable_offset + 1
        _check_log(number, durable, earliest, end)
        start = max(earliest, durable if committed is None else min(committed, durable))
        begins_at = marker.begins_at
    state = PartitionState(number, start, durable, begins_at)
    keys = {key for table in tables for key in table.rows(number)}
    for key in keys:
        rows = [_row(table.rows(number).get(key), rules.epoch) for table in tables]
        known = [row for row in rows if row is not None]
        if known:
            # A row that is missing beside others was not written before a crash; it reads what they have read.
            state.symbols[key.decode()] = SymbolAggregator(
                timeframes, rules, rows, max(row.complete_from for row in known)
            )
            # Spread over the time within which they are due: else all would be written again at once.
            state.written[key.decode()] = now_s - REWRITE_AFTER_S * len(state.written) / len(keys)
        await asyncio.sleep(0)  # thousands of wide rows take seconds, in which the process must not seem to stand still
    return state


def _check_log(number: int, durable: int, earliest: int, end: int) -> None:
    """Raise StateError unless the log still has everything from `durable` on."""
    if durable > end:
        raise StateError(
            f"trades/{number} ends at offset {end}, but its state has read up to {durable}: the topic was made anew or "
            "mirrored. Stop all aggregate workers and begin a new state with `ashi aggregate reconfigure`"
        )
    if durable < earliest:
        raise StateError(
            f"records {durable} to {earliest - 1} of trades/{number} expired before they were aggregated: candles of "
            "that time would be wrong. Lengthen the topic's retention.ms, stop all aggregate workers and begin a new "
            "state at what is left with `ashi aggregate reconfigure`"
        )


def _marker(value: bytes | None, epoch: int) -> Marker | None:
    return decode_marker(value) if value is not None and _is_of(value, epoch) else None


def _row(value: bytes | None, epoch: int) -> StateRow | None:
    return decode_row(value) if value is not None and _is_of(value, epoch) else None


def _is_of(value: bytes, epoch: int) -> bool:
    """Whether a row or marker belongs to the epoch; one of an earlier epoch is no part of the state."""
    written_in, _ = rank_of(value)
    if written_in > epoch:
        raise StateError(
            f"the state is of epoch {written_in}, this worker started in epoch {epoch}: it has been reconfigured "
            "meanwhile; start the worker again"
        )
    return written_in == epoch

"""What a state must hold at its marker: which symbols, and how far the rows of each have come in every table.

The marker lists it. Rows are acknowledged before the marker that lists them is written, and recovery keeps of two
writes of a row the one that has come further; so whoever has written since, killed in the middle of a checkpoint or
declared dead, can only have brought rows further than the list. A row behind it, or not there, was lost. And rows that
are not behind it lack nothing up to the marker, whatever else was lost.

It costs some thirty bytes in each marker for each symbol of the partition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ashi.contracts.topics import changelog_topic
from ashi_aggregate.core.codec import Marker, StoredRow
from ashi_aggregate.core.window_state import StateRow
from ashi_aggregate.protocols import StateTable

Rows = Mapping[bytes, Sequence[StoredRow | None]]
"""The rows of each symbol, by key, in the order of the tables; None where a table has none."""


def position_of(rows: Sequence[StateRow | StoredRow | None]) -> int | None:
    """How far all rows of a symbol have come that stand in the changelogs; None where one is not there yet.

    After a crash some are further than others: what the least of them has, all have.
    """
    least = min(-1 if row is None else row.applied_offset for row in rows)
    return None if least < 0 else least


def list_positions(rows: Rows) -> dict[str, int]:
    """`position_of` each symbol that has one."""
    return {key.decode(): at for key, of_symbol in rows.items() if (at := position_of(of_symbol)) is not None}


def find_missing(number: int, marker: Marker, tables: Sequence[StateTable], rows: Rows) -> str | None:
    """What the tables lack of what the marker lists, in words; None when they have it all, or it lists nothing."""
    listed = marker.positions or {}
    for place, table in enumerate(tables):
        lost = {}
        for symbol, position in listed.items():
            of_symbol = rows.get(symbol.encode())
            row = None if of_symbol is None else of_symbol[place]
            if row is None or row.applied_offset < position:
                lost[symbol] = row
        if lost:
            first = min(lost)
            row = lost[first]
            return (
                f"of the {len(listed)} rows that table {table.name} (topic {changelog_topic(table.name)}) had in "
                f"partition {number} at offset {marker.durable_offset} it lacks {len(lost)}, or has them as of before: "
                f"that of {first} at offset {listed[first]} or later, there is "
                + ("none" if row is None else f"one at {row.applied_offset}")
            )
    return None

"""What a state must hold at its marker: which symbols, and how far the rows of each have come in every table.

The marker lists it. Rows are acknowledged before the marker that lists them is written, and recovery keeps of two
writes of a row the one that has come further; so whoever has written since, killed in the middle of a checkpoint or
declared dead, can only have brought rows further than the list. A row behind it, or not there, was lost. And rows that
are not behind it lack nothing up to the marker, whatever else was lost.

Names take most of the space, so they stand in a record of their own, which is written when symbols have come to be; a
marker lists positions by place, in three to five bytes each. A worker that was declared dead may still write, and with
another list: so each state that is taken up has a list of its own, under a key of its own, which only grows, and a
marker names the list that it means. It is sent before the marker, to the same partition: whoever has one has both.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from ashi.contracts.topics import MARKERS_TABLE, changelog_topic
from ashi_aggregate.core.codec import Marker, StoredRow, SymbolList, decode_list, encode
from ashi_aggregate.core.window_state import StateRow
from ashi_aggregate.protocols import StateTable

KEEP_LISTS_S: Final = 3_600.0
"""So long after a state was taken up the lists of those before are kept: no worker that was declared dead is frozen in
the middle of a send for that long."""

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


class MarkerList:
    """How the markers of one state list its symbols."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._writer = uuid.uuid4().hex
        self._listed = 0

    def records(self, key: bytes, marker: Marker, positions: Mapping[str, int]) -> list[tuple[bytes, bytes | None]]:
        """What to write so that `marker`, under `key`, lists these positions, which only come to be more."""
        marker.listed_by = self._writer
        marker.behind = [marker.durable_offset - position for position in positions.values()]
        records: list[tuple[bytes, bytes | None]] = [(key, encode(marker))]
        if len(positions) > self._listed:
            names = SymbolList(marker.durable_offset, marker.epoch, list(positions))
            records.insert(0, (list_key(self._number, self._writer), encode(names)))
            self._listed = len(positions)
        return records

    def others(self, keys: Iterable[bytes]) -> list[tuple[bytes, None]]:
        """What takes the lists of states before out of a table with these keys; only to be written behind a marker.

        And only after `KEEP_LISTS_S`. A worker that was declared dead may send its last marker late, and compaction
        may leave that one as the only one for as long as nobody writes another.
        """
        own, prefix = list_key(self._number, self._writer), list_key(self._number, "")
        return [(key, None) for key in keys if key.startswith(prefix) and key != own]


def list_key(partition: int, writer: str) -> bytes:
    """The key, in the table of markers, of a list of symbols."""
    return f"{partition}-symbols-{writer}".encode()


def find_listed(number: int, marker: Marker, markers: StateTable) -> Marker:
    """The marker with the positions that it lists by place; as it is where its list is not there, or too short."""
    if marker.listed_by is None:
        return marker
    value = markers.rows(number).get(list_key(number, marker.listed_by))
    names = [] if value is None else decode_list(value).symbols
    if len(names) >= len(marker.behind):
        behind = zip(names, marker.behind, strict=False)
        marker.positions = {symbol: marker.durable_offset - distance for symbol, distance in behind}
    return marker


def find_missing(
    number: int, marker: Marker, tables: Sequence[StateTable], rows: Rows, named: Callable[[str], str] = str
) -> str | None:
    """What the tables lack of what the marker lists, in words; None when they have it all, or it lists nothing.

    `named`: what a topic is called in Kafka.
    """
    if marker.listed_by is not None and marker.positions is None:
        return (
            f"the marker of partition {number} at offset {marker.durable_offset} lists {len(marker.behind)} symbols, "
            f"and the record with their names (topic {named(changelog_topic(MARKERS_TABLE))}) is not there, or lists "
            "fewer"
        )
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
                f"of the {len(listed)} rows that table {table.name} (topic {named(changelog_topic(table.name))}) had "
                f"in partition {number} at offset {marker.durable_offset} it lacks {len(lost)}, or has them as of "
                f"before: that of {first} at offset {listed[first]} or later, there is "
                + ("none" if row is None else f"one at {row.applied_offset}")
            )
    return None

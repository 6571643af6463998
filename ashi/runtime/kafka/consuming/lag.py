"""How far a reader is behind, in records and in seconds, by what it knows anyway: no record is read for it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Hashable


class Lag(NamedTuple):
    """How far a reader is behind in one partition.

    Attributes:
        records: offsets it has not dealt with; those that no reader gets, as a transaction's markers, count too.
        seconds: how long ago the oldest of them was appended, at most; None where that is not known.

    """

    records: int
    seconds: float | None


class LagWatch:
    """Remembers when a reader had nothing unread: all that is unread was appended later than that.

    The other bound is the append time of the last record that it has read. Beside a busy partition that is the closer
    one, and in a quiet one, where the last record may be of yesterday, the look before.
    """

    def __init__(self) -> None:
        self._caught_up: dict[Hashable, int] = {}

    def look(self, partition: Hashable, *, at: int, end: int, read_until: int, now: int) -> Lag:
        """Look at one partition.

        Args:
            partition: which, by any name.
            at: the offset that the reader goes on from.
            end: the end of the log, asked for after `at` was taken.
            read_until: append time of the last record that it has read, µs; 0 where that is not known.
            now: by the clock that append times are of, as nearly as possible, µs.

        """
        if at >= end:
            self._caught_up[partition] = now
            return Lag(0, 0.0)
        since = max(read_until, self._caught_up.get(partition, 0))
        return Lag(end - at, max(now - since, 0) / 1e6 if since else None)

"""Where Kafka has put what it acknowledged, and what of it is gone when the log was cut or made anew.

Offsets of a partition only grow. One that is acknowledged at or below an earlier one says that the log had ended before
that: an election that was not clean, a restore, a topic made anew. What was acknowledged beyond is not in the log any
more, and nobody would miss it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

MOST_STRETCHES: Final = 2_047
"""Of a partition; then each two become one, and further ones hold twice as many batches. So what is remembered is
bounded, reaches back to the start, and is as fine everywhere: to some seconds in days."""


class Stretch(NamedTuple):
    """So many batches in a row: from an offset up to `end` (exclusive), and when the oldest trade was made, µs."""

    end: int
    traded_at: int
    batches: int


class LostTrades(NamedTuple):
    """What was acknowledged in a partition and is gone.

    Attributes:
        partition: of topic `trades`.
        from_time: when the oldest of the trades was made, µs; some of those since then may be there.
        begin: the offset that was acknowledged now.
        end: the offset up to which (exclusive) the log had been acknowledged.

    """

    partition: int
    from_time: int
    begin: int
    end: int


class AcknowledgedOffsets:
    """What was acknowledged of one partition by this process."""

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._stretches: list[Stretch] = []
        self._batches = 1

    def add(self, begin: int, count: int, traded_at: int) -> LostTrades | None:
        """A batch of so many trades stands at offset `begin`; what is gone, if it shows that."""
        end = self._stretches[-1].end if self._stretches else 0
        lost = None
        if begin < end:
            from_time = traded_at
            while self._stretches and self._stretches[-1].end > begin:
                from_time = min(from_time, self._stretches.pop().traded_at)
            lost = LostTrades(self._partition, from_time, begin, end)
        if self._stretches and self._stretches[-1].batches < self._batches:
            before = self._stretches.pop()
            traded_at, batches = min(before.traded_at, traded_at), before.batches + 1
        else:
            batches = 1
        self._stretches.append(Stretch(begin + count, traded_at, batches))
        if len(self._stretches) > MOST_STRETCHES:
            self._join()
        return lost

    def _join(self) -> None:
        self._batches *= 2
        pairs = zip(*[iter(self._stretches)] * 2, strict=True)
        self._stretches = [
            Stretch(second.end, min(first.traded_at, second.traded_at), first.batches + second.batches)
            for first, second in pairs
        ]

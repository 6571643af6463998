"""How many records a worker takes in at once when it catches up: twice as many where they are of many symbols.

What a symbol costs in a chunk is as much as thirty of its trades, whatever comes of it: to look up what is known of it,
to add a sum to a window that is open already. So of 10,000 symbols in eight partitions a trade costs a third less in
chunks of 64,000 records than in those of 32,000. Of few symbols it costs the same, and there the chunks stay small: a
market that has all of one to itself would come to more ids than are kept (`MAX_IDS` in `core.trade_ids`).
"""

from __future__ import annotations

from typing import Final

MANY_SYMBOLS: Final = 100
TIMES: Final = 2


class ChunkSize:
    """Sees what the last chunks were, and says how large the next may be."""

    def __init__(self) -> None:
        self._times = 1

    def most(self, usual: int) -> int:
        """So many records, where `usual` are what is taken of few symbols."""
        return usual * self._times

    def saw(self, records: int, symbols: int, usual: int) -> None:
        """A chunk of so many records and symbols has been read."""
        if symbols >= MANY_SYMBOLS:
            self._times = TIMES
        elif records >= usual // 2:  # the rest of a fetch says nothing
            self._times = 1

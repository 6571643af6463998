"""Pages of GMO Coin's REST trades: how to ask for them, and how to make one list of pages that shift meanwhile.

The newest row stands first, and every execution of the market moves all others two rows on. A page is asked for by its
number and its size. So that it can be seen where it continues the rows before, it is asked for so that it overlaps
them, and what overlaps must be equal row for row.

Rows are ordered by time. **An overlap in which the millisecond changes is in the right place:** that change stands only
once in the history. Within one millisecond rows may be equal, so that an overlap fits in more than one place. Or it
fits in a wrong place only: when the page is older than those before, so that the right place is beyond them (the
venue's answers are cached for about a second). Then a page is asked for that overlaps as widely as possible.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from ashi_ingest.venues.gmo.messages import Content, Ordinals, make_trade

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ashi.contracts.trade import Trade

ROWS: Final = 100
"""Rows of a page, the most there are: 50 executions."""
OVERLAP: Final = 10
"""Rows that a page is to have in common with those before."""
LEAST_NEW: Final = 50
"""A page that is to overlap widely has to bring no more new rows than this."""
SEARCHED: Final = 1000
"""So many of the oldest rows are searched for the place of a page: those between two requests move it no further."""

_OTHER_SIDE: Final = {"BUY": "SELL", "SELL": "BUY"}


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it is listed. Two are equal when their content is: nothing else tells one execution from another."""

    content: Content
    received_at: int = field(compare=False)


class Window(NamedTuple):
    """A page to ask for."""

    page: int
    size: int

    @property
    def start(self) -> int:
        """How many rows are newer than its first."""
        return (self.page - 1) * self.size


def next_window(known: int) -> Window:
    """The page that brings the most rows after the `known` newest, and overlaps them by OVERLAP rows at least."""
    start = max(known - OVERLAP, 0)
    size = max(range(ROWS // 2, ROWS + 1), key=lambda rows: rows - start % rows)
    return Window(start // size + 1, size)


def wide_window(known: int, new: int) -> Window:
    """The page that overlaps the `known` newest rows the most, and brings `new` rows after them at least."""
    last = known + new - 1
    size = max(range(ROWS // 2, ROWS + 1), key=lambda rows: last % rows)
    return Window(last // size + 1, size)


def newer_window(newer: int, overlap: int) -> Window:
    """The page that brings the most of the `newer` rows before those that are known, and `overlap` of these."""
    if newer + overlap <= ROWS:
        return Window(1, ROWS)
    last = newer + overlap - 1
    size = max(range(ROWS // 2, ROWS + 1), key=lambda rows: last % rows)
    return Window(last // size + 1, size)


def find_place(rows: Sequence[Row], page: Sequence[Row], *, is_wide: bool) -> int | None:
    """Where the first row of `page` stands in `rows`, both newest first; negative if it is newer than all of them.

    None when that cannot be told. `is_wide`: the page was asked for so that the right place must be there, unless it is
    older than `rows` by as many rows as it should overlap. Then one place is believed also within one millisecond.
    """
    if not page:
        return None
    skipped = max(len(rows) - SEARCHED, 0)
    tail = rows[skipped:]
    places = [place for place in range(1 - len(page), len(tail)) if _agree(tail, page, place)]
    sure = [place for place in places if _changes_ms(_overlap(tail, page, place))]
    if is_wide and not sure:
        sure = places
    return sure[0] + skipped if len(sure) == 1 else None


def _agree(rows: Sequence[Row], page: Sequence[Row], place: int) -> bool:
    first = max(place, 0)
    if rows[first] != page[first - place]:
        return False
    overlap = _overlap(rows, page, place)
    return page[first - place : first - place + len(overlap)] == overlap


def _overlap(rows: Sequence[Row], page: Sequence[Row], place: int) -> Sequence[Row]:
    return rows[max(place, 0) : place + len(page)]


def _changes_ms(rows: Sequence[Row]) -> bool:
    return rows[0].content.at != rows[-1].content.at


def list_trades(symbol: str, rows: Sequence[Row]) -> list[Trade]:
    """The executions of `rows` (newest first), oldest first, named as the parser names them.

    The milliseconds must be whole: a row that is not among `rows` would have had an ordinal.
    """
    ordinals = Ordinals()
    trades = []
    for row in _takers(reversed(rows)):
        trades.append(make_trade(symbol, row.content, ordinals.next(row.content), row.received_at))
        ordinals.add(row.content)
    return trades


def _takers(oldest_first: Iterator[Row]) -> Iterator[Row]:
    """Each execution once. It is listed twice, as a BUY and as a SELL: the first, oldest first, is the taker's.

    The second need not follow at once. A row that has none counts by itself.
    """
    unpaired: Counter[Content] = Counter()
    for row in oldest_first:
        first = row.content._replace(side=_OTHER_SIDE[row.content.side])
        if unpaired[first]:
            unpaired[first] -= 1
        else:
            unpaired[row.content] += 1
            yield row

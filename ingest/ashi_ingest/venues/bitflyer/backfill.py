"""Repair of bitFlyer's trades over REST, forwards by id.

Source: https://lightning.bitflyer.com/docs (`getexecutions`), and recordings.

`GET /v1/getexecutions?product_code=&count=&before=<id>&after=<id>` gives the newest first, both bounds exclusive. Its
rows are those of the websocket but for `exec_date`: no `Z`, 0 to 3 fraction digits.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from ashi.contracts.symbol import make_symbol
from ashi_ingest.venues.answers import MAX_TRIES, Rows, latest, read_list
from ashi_ingest.venues.base import Missing, RepairEnd, Request
from ashi_ingest.venues.bitflyer.messages import read_execution

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from ashi.contracts.trade import Trade
    from ashi_ingest.venues.base import Answer, Repair

COUNT: Final = 500
"""Rows of an answer, the most there are."""
EXECUTIONS_PATH: Final = "/v1/getexecutions"
DISORDER_US: Final = 5_000_000
"""`exec_date` does not grow with the ids: thousands of times a day it steps back, µs at most."""


def repair(venue: str, market: str, since: Sequence[Trade], until: Trade | None) -> Repair:
    """Plan a repair: see `Venue.repair`.

    It asks for all there is; while that is more than an answer holds, it fetches first what lies before the answer.
    Never more than two answers are in memory, however long the gap is. Ids that REST does not list are absent and not
    lost: the spot products share one sequence, and even contiguous ids have jumps.
    """
    after = _begin(since)
    bad: str | None = None
    shown: int | None = None
    tries = 0
    while tries < MAX_TRIES:
        newest = yield from get(venue, market, after=after)
        bad = bad or newest.bad
        shown = latest(shown, newest.good, DISORDER_US)
        if newest.good:
            if newest.total >= COUNT:
                bad = (yield from fetch_windows(venue, market, after, newest.good[0].sequence)) or bad
            yield newest.good
            after = newest.good[-1].sequence
        complete = newest.total < COUNT or not newest.good
        if complete if until is None else after >= until.sequence:
            return RepairEnd(bad, shown)
        tries = 0 if newest.good else tries + 1
    wanted = "" if until is None else f"trade {until.trade_id}, which came over the websocket"
    return RepairEnd(bad or f"{EXECUTIONS_PATH} does not list {wanted}; its newest of {market} is {after}", shown)


def _begin(since: Sequence[Trade]) -> int:
    """The id after which to begin: the smallest of `since`, since trades come a little out of the order of ids.

    The oldest quarter does not count. It stands there for the case that trades were out of order just where `since` was
    cut off: what is known there is not in `since`, and must not be fetched again.
    """
    return min(trade.sequence for trade in since[len(since) // 4 :])


def fetch_windows(
    venue: str, market: str, after: int, before: int, is_enough: Callable[[list[Trade]], bool] = lambda _: False
) -> Generator[Request | list[Trade] | Missing, Answer | None, str | None]:
    """What lies between two ids, oldest first, in windows of ids as wide as an answer can hold.

    Gives what was wrong with the first bad row. Ids may be thousands apart, so an empty window is no end; it ends
    before the second id when `is_enough` says so of what was yielded.
    """
    width = COUNT
    bad: str | None = None
    while after + 1 < before:
        end = min(after + width + 1, before)
        rows = yield from get(venue, market, after=after, before=end)
        ids = end - after - 1
        if rows.total >= COUNT and ids > COUNT:  # it may be cut: the window has more ids than an answer has rows
            width = max(ids // 4, COUNT)
            continue
        bad = bad or rows.bad
        if rows.bad is not None:
            yield Missing(rows.bad)
        if rows.good:
            yield rows.good
            if is_enough(rows.good):
                break
        after = end - 1
        if rows.total < COUNT // 4:
            width *= 2
    return bad


def get(
    venue: str, market: str, *, after: int | None = None, before: int | None = None
) -> Generator[Request, Answer | None, Rows[Trade]]:
    """The newest executions between the two ids, both exclusive, in the order of ids."""
    answer = yield request(market, COUNT, after=after, before=before)
    assert answer is not None  # noqa: S101  (the runner answers every request)
    rows = read(venue, market, answer)
    within = [
        trade
        for trade in rows.good
        if (after is None or after < trade.sequence) and (before is None or trade.sequence < before)
    ]
    return rows._replace(good=sorted(within, key=_by_id))


def request(market: str, count: int, *, after: int | None = None, before: int | None = None) -> Request:
    """The request for the newest executions between two ids, both exclusive."""
    bounds = {"after": after, "before": before}
    named = {name: str(number) for name, number in bounds.items() if number is not None}
    return Request(EXECUTIONS_PATH, {"product_code": market, "count": str(count), **named})


def read(venue: str, market: str, answer: Answer) -> Rows[Trade]:
    """The executions of an answer. Raises ContractError when it is no list."""
    row = partial(read_execution, make_symbol(venue, market), received_at=answer.received_at)
    return read_list(answer.body, row, EXECUTIONS_PATH)


def _by_id(trade: Trade) -> int:
    return trade.sequence

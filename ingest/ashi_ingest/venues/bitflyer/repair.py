"""Repair of bitFlyer's trades over REST, forwards by id.

Source: https://lightning.bitflyer.com/docs (`getexecutions`), and recordings.

`GET /v1/getexecutions?product_code=&count=&before=<id>&after=<id>` gives the newest first, both bounds exclusive. Its
rows are those of the websocket but for `exec_date`: no `Z`, 0 to 3 fraction digits.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from ashi.contracts.errors import ContractError
from ashi.contracts.symbol import make_symbol
from ashi_ingest.venues.answers import MAX_TRIES, Rows, is_listed, latest, read_list
from ashi_ingest.venues.base import Missing, RepairEnd, Request
from ashi_ingest.venues.bitflyer.messages import read_execution

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from ashi.contracts.trade import Trade
    from ashi_ingest.venues.base import Answer, FetchPlan

COUNT: Final = 500
"""Rows of an answer, the most there are."""
EXECUTIONS_PATH: Final = "/v1/getexecutions"
DISORDER_US: Final = 5_000_000
"""`exec_date` does not grow with the ids: thousands of times a day it steps back, µs at most."""
RECENT_US: Final = 180_000_000
"""What happened so long before it is asked, µs, REST lists, also where it lags by a minute, as it may."""


def repair(venue: str, market: str, since: Sequence[Trade], until: Trade | None) -> FetchPlan:
    """Plan a repair: see `Venue.repair`.

    It asks for all there is; while that is more than an answer holds, it fetches first what lies before the answer, see
    `fetch_before`. So what is in memory is bounded, however long the gap is. Ids that REST does not list are absent and
    not lost: the spot products share one sequence, and even contiguous ids have jumps. Rows that cannot be read are
    told before those around them, see `Missing`.
    """
    known = _begin(since)
    bad: str | None = None
    shown: int | None = None
    tries = 0
    while tries < MAX_TRIES:
        newest = yield from get(venue, market, after=known.sequence - 1)  # what is known is listed as well
        bad = bad or newest.bad
        shown = latest(shown, newest.good, DISORDER_US)
        is_full = newest.total >= COUNT
        if not is_full and newest.bad is None and not is_listed(known, newest.good[:1]):
            tries += 1
            continue
        new = [trade for trade in newest.good if trade.sequence > known.sequence]
        if newest.good:
            if is_full:
                back = yield from read_back(venue, market, known.sequence - 1, newest)
                if back.reason is not None:
                    return RepairEnd(back.reason)
                bad = (yield from fetch_before(venue, market, known.sequence, back, known=known)) or bad
            if newest.bad is not None:
                yield Missing(newest.bad)
            if new:
                yield new
            known = newest.good[-1]
        elif newest.bad is not None:
            yield Missing(newest.bad)
        if (not is_full or not newest.good) if until is None else known.sequence >= until.sequence:
            return RepairEnd(bad, shown, is_told=bad is not None)
        tries = 0 if new else tries + 1
    wanted = "what is known" if until is None else f"trade {until.trade_id}, which came over the websocket"
    return RepairEnd(
        bad or f"{EXECUTIONS_PATH} does not list {wanted}; its newest of {market} is {known.trade_id}", shown
    )


def _begin(since: Sequence[Trade]) -> Trade:
    """The trade with which to begin: the first of `since`, since trades come a little out of the order of ids.

    The oldest quarter does not count. It stands there for the case that trades were out of order just where `since` was
    cut off: what is known there is not in `since`, and must not be fetched again.
    """
    return min(since[len(since) // 4 :], key=_by_id)


class Back(NamedTuple):
    """What was read backwards from an answer, without a gap.

    Attributes:
        pages: the oldest first, but for that answer.
        first: the oldest execution of all.
        is_all: there is none before it that is wanted.
        reason: why it could not be read.

    """

    pages: list[Rows[Trade]]
    first: Trade
    is_all: bool = False
    reason: str | None = None


def read_back(
    venue: str, market: str, after: int | None, newest: Rows[Trade], begin_us: int = 0
) -> Generator[Request, Answer | None, Back]:
    """Read what lies before a full answer, after an id and a time, µs, as far as it happened within RECENT_US.

    REST lags, one answer more than another: what one lists the next may not list yet. So each is asked for together
    with the oldest execution of the one before, and says nothing unless it lists that too.
    """
    pages: list[Rows[Trade]] = []
    first, tries = newest.good[0], 0
    while (after is None or after + 1 < first.sequence) and begin_us <= first.traded_at:
        if first.traded_at < first.received_at - RECENT_US:
            break
        page = yield from get(venue, market, after=after, before=first.sequence + 1)
        if not page.good or page.good[-1].sequence != first.sequence:
            tries += 1
            if tries == MAX_TRIES:
                reason = f"{EXECUTIONS_PATH} does not list trade {first.trade_id} of {market} any more, so it lags"
                return Back([], first, reason=reason)
            continue
        tries = 0
        older = page._replace(good=page.good[:-1])
        pages.insert(0, older)
        first = page.good[0]
        if page.total < COUNT:
            return Back(pages, first, is_all=True)
        if not older.good:  # all but one cannot be read
            break
    return Back(pages, first)


def fetch_before(
    venue: str,
    market: str,
    after: int,
    back: Back,
    is_enough: Callable[[list[Trade]], bool] = lambda _: False,
    *,
    known: Trade | None = None,
) -> Generator[Request | list[Trade] | Missing, Answer | None, str | None]:
    """Yield what lies between an id and a full answer, oldest first: what is old in windows, then what was read back.

    `known`: see `fetch_windows`. Raises ContractError when an answer lacks it.

    Gives what was wrong with the first bad row. It ends earlier when `is_enough` says so of what was yielded.
    """
    bad, was_enough = None, False

    def note(trades: list[Trade]) -> bool:
        nonlocal was_enough
        was_enough = is_enough(trades)
        return was_enough

    if not back.is_all:
        bad = yield from fetch_windows(venue, market, after, back.first.sequence, note, known=known)
    elif known is not None and not any(page.bad for page in back.pages) and not is_listed(known, [back.first]):
        raise ContractError(_lacks(market, known))
    for page in back.pages:
        if was_enough:
            break
        bad = bad or page.bad
        if page.bad is not None:
            yield Missing(page.bad)
        if new := [trade for trade in page.good if trade.sequence > after]:
            yield new
            note(new)
    return bad


def fetch_windows(
    venue: str,
    market: str,
    after: int,
    before: int,
    is_enough: Callable[[list[Trade]], bool] = lambda _: False,
    *,
    known: Trade | None = None,
) -> Generator[Request | list[Trade] | Missing, Answer | None, str | None]:
    """What lies between two ids, oldest first, in windows of ids as wide as an answer can hold.

    Gives what was wrong with the first bad row. Ids may be thousands apart, so an empty window is no end; it ends
    before the second id when `is_enough` says so of what was yielded. Each window is asked for together with the last
    trade before it that was listed, or is `known`: an answer that lacks that is none, and raises ContractError.
    """
    least = COUNT - 1
    width = least
    bad: str | None = None
    while after + 1 < before:
        end = min(after + width + 1, before)
        begin = after if known is None else min(after, known.sequence - 1)
        rows = yield from get(venue, market, after=begin, before=end)
        ids = end - after - 1
        if rows.total >= COUNT and ids > least:  # it may be cut: the window has more ids than an answer has rows
            width = max(ids // 4, least)
            continue
        bad = bad or rows.bad
        if rows.bad is not None:
            yield Missing(rows.bad)
        elif known is not None and not is_listed(known, rows.good[:1]):
            raise ContractError(_lacks(market, known))
        listed_again = known is not None
        known = rows.good[-1] if rows.good else None
        if new := [trade for trade in rows.good if trade.sequence > after]:
            yield new
            if is_enough(new):
                break
        after = end - 1
        if rows.total - listed_again < COUNT // 4:
            width *= 2
    return bad


def _lacks(market: str, known: Trade) -> str:
    return f"{EXECUTIONS_PATH} does not list trade {known.trade_id} of {market}, which it must"


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

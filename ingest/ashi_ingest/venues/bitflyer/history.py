"""bitFlyer's trades of a stretch of time over REST: the ids that bound it are searched for, then it is read forwards.

Source: https://lightning.bitflyer.com/docs (`getexecutions`: "the execution history obtainable through the `before`
parameter will be limited to the most recent 31 days"). Beyond that it answers, with HTTP 400,

    {"status":-156,"error_message":"Execution history is limited to the most recent 31 days.","data":null}
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from ashi.contracts.errors import ContractError
from ashi.contracts.timeframe import DAY_US
from ashi_ingest.venues.answers import in_words, latest
from ashi_ingest.venues.base import Missing, RepairEnd
from ashi_ingest.venues.bitflyer import repair
from ashi_ingest.venues.by_time import Probe, find_begin
from ashi_ingest.venues.parsing import BAD_FRAME

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from ashi.contracts.trade import Trade
    from ashi_ingest.venues.answers import Rows
    from ashi_ingest.venues.base import Answer, FetchPlan, Request

REACH_DAYS: Final = 31
REACH_US: Final = REACH_DAYS * DAY_US
TOO_OLD: Final = -156
PROBED: Final = 10
"""Rows of a probe: some old ones have no date, so more than one."""


class _Refusal(msgspec.Struct):
    status: int = 0


_refusal = msgspec.json.Decoder(_Refusal)


class _Reading:
    """What has been read so far."""

    def __init__(self, venue: str, market: str, since_us: int, until_us: int | None) -> None:
        self.venue = venue
        self.market = market
        self.since_us = since_us
        self.until_us = until_us
        self.bad: str | None = None
        self.lagging: str | None = None
        self.shown: int | None = None
        self.first: Trade | None = None

    def note(self, trades: list[Trade]) -> bool:
        """These have been yielded. Whether that is enough."""
        self.shown = latest(self.shown, trades, repair.DISORDER_US)
        if self.first is None:
            self.first = next((trade for trade in trades if trade.traded_at >= self.since_us), None)
        return self.is_enough

    @property
    def is_enough(self) -> bool:
        """Whether all that comes after is too new."""
        return self.until_us is not None and self.shown is not None and self.shown >= self.until_us


def history(venue: str, market: str, since_us: int, until_us: int | None) -> FetchPlan:
    """Plan how to get the trades of a stretch of time: see `Venue.history`.

    Times do not grow with the ids, so it begins as much before and ends as much after as they are in disorder.
    """
    reading = _Reading(venue, market, since_us, until_us)
    begin_us = since_us - repair.DISORDER_US
    newest = yield from repair.get(venue, market)
    if not newest.good:
        return RepairEnd(newest.bad)
    back = yield from _read_back(reading, None, newest, begin_us)
    if back.reason is not None:
        return RepairEnd(back.reason)
    refused = False
    after = back.first.sequence - 1
    if not back.is_all and back.first.traded_at >= begin_us:
        ask = partial(_probe, venue, market, begin_us, newest.good[0].sequence)
        oldest = next((page.good for page in back.pages if page.good), newest.good)
        after, refused = yield from find_begin(ask, oldest, begin_us, 2 * repair.COUNT)
    oldest_us = newest.good[-1].received_at - REACH_US
    beyond_reach = refused or since_us < oldest_us
    if beyond_reach:
        told = f"{repair.EXECUTIONS_PATH} goes back {REACH_DAYS} days, and not to {in_words(since_us)}"
        yield Missing(told, beyond_reach=True)
    yield from _read_on(reading, after, newest, back)
    short = None
    if beyond_reach:
        from_us = max(oldest_us, since_us) if reading.first is None else reading.first.traded_at
        short = (
            f"{repair.EXECUTIONS_PATH} goes back {REACH_DAYS} days: it has trades of {market} from "
            f"{in_words(from_us)} on, and not from {in_words(since_us)}"
        )
    reason = "; ".join(filter(None, (reading.bad, reading.lagging, short))) or None
    return RepairEnd(
        reason,
        None if reading.lagging else reading.shown,
        beyond_reach=short is not None,
        is_told=reason is not None and reading.lagging is None,
    )


def _read_back(
    reading: _Reading, after: int | None, newest: Rows[Trade], begin_us: int = 0
) -> Generator[Request, Answer | None, repair.Back]:
    """See `repair.read_back`. Not where all that is wanted happened so long ago that every answer lists it."""
    first = newest.good[0]
    if newest.total < repair.COUNT:
        return repair.Back([], first, is_all=True)
    if reading.until_us is not None and reading.until_us < first.received_at - repair.RECENT_US:
        return repair.Back([], first)
    return (yield from repair.read_back(reading.venue, reading.market, after, newest, begin_us))


def _read_on(
    reading: _Reading, after: int, rows: Rows[Trade], back: repair.Back
) -> Generator[Request | list[Trade] | Missing, Answer | None, None]:
    """Yield what comes after an id, up to the newest, then those, then what has come meanwhile."""
    venue, market = reading.venue, reading.market
    while True:
        newest = rows.good
        may_be_more = newest[0].sequence > after + 1
        if may_be_more:
            bad = yield from repair.fetch_before(venue, market, after, back, reading.note)
            reading.bad = reading.bad or bad
        if reading.is_enough:
            return
        yield from _told(rows, reading)
        yield newest
        reading.note(newest)
        if reading.is_enough or not may_be_more:
            return
        after = newest[-1].sequence
        rows = yield from repair.get(venue, market, after=after)
        if not rows.good:
            yield from _told(rows, reading)
            return
        if rows.total < repair.COUNT:
            after = rows.good[0].sequence - 1
        back = yield from _read_back(reading, after, rows)
        reading.lagging = back.reason
        if back.reason is not None:
            return


def _told(rows: Rows[Trade], reading: _Reading) -> Iterator[Missing]:
    """What is missing of an answer that is used."""
    if rows.bad is not None:
        reading.bad = reading.bad or rows.bad
        yield Missing(rows.bad)


def _probe(
    venue: str, market: str, begin_us: int, listed: int, number: int
) -> Generator[Request, Answer | None, Probe]:
    """The newest execution whose id is not greater. Raises ContractError when the answer cannot be read.

    `listed`: the id of one that was listed.
    """
    answer = yield repair.request(market, PROBED, before=number + 1)._replace(may_be_refused=True)
    assert answer is not None  # noqa: S101  (the runner answers every request)
    if _is_too_old(answer.body):
        return Probe(number, None, refused=True)
    rows = repair.read(venue, market, answer)
    if not rows.total:  # there is nothing that old; but is this an answer at all?
        rows = yield from repair.get(venue, market, before=listed + 1)
        if not any(trade.sequence == listed for trade in rows.good):
            raise ContractError(f"{repair.EXECUTIONS_PATH} does not list trade {listed} of {market} any more")
        rows = yield from repair.get(venue, market, before=number + 1)
        if not rows.total:
            return Probe(number, None)
    if not rows.good:  # then further back, which is safe
        return Probe(number, begin_us)
    newest = max(rows.good, key=lambda trade: trade.sequence)
    return Probe(newest.sequence, newest.traded_at)


def _is_too_old(body: bytes) -> bool:
    try:
        return _refusal.decode(body).status == TOO_OLD
    except BAD_FRAME:
        return False

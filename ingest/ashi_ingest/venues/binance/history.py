"""Binance's trades of a stretch of time over REST: the id that begins it is searched for, then it is read by id.

Sources: https://developers.binance.com/docs/binance-spot-api-docs/rest-api/market-data-endpoints#old-trade-lookup
(spot: all trades there ever were, and without `fromId` the latest), and, for USD-M, under
https://developers.binance.com/docs/derivatives/usds-margined-futures/market-data/rest-api/ : `Old-Trades-Lookup` ("only
data from within the last one month", with an API key) and `Recent-Trades-List`.

`aggTrades` can be asked by time, and is not: USD-M keeps two days of it only, in windows of an hour, and an answer
without any does not tell how far to go on. Ids are asked for instead, one trade each.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from ashi.contracts.errors import ContractError
from ashi.contracts.timeframe import DAY_US
from ashi_ingest.venues.answers import in_words
from ashi_ingest.venues.base import Missing, Request
from ashi_ingest.venues.binance import repair
from ashi_ingest.venues.binance.repair import API_KEY, DISORDER_US, Endpoint, IdPlan
from ashi_ingest.venues.by_time import Begin, Probe, find_begin
from ashi_ingest.venues.parsing import BAD_FRAME, symbol_of

if TYPE_CHECKING:
    from collections.abc import Generator

    from ashi.contracts.trade import Trade
    from ashi_ingest.venues.answers import Rows
    from ashi_ingest.venues.base import Answer, FetchPlan


USDM_REACH_US: Final = 30 * DAY_US
"""The month that USD-M keeps."""


REQUEST_ISSUES: Final = range(-1199, -1099)
"""`11xx` is about the request, `10xx` is weather (https://developers.binance.com/docs/binance-spot-api-docs/errors).
Which one says that an id is too old is not documented."""
BAD_SYMBOL: Final = -1121


class _Refusal(msgspec.Struct):
    code: int


_refusal: Final = msgspec.json.Decoder(_Refusal)


class _Source(NamedTuple):
    """Where a venue lists trades.

    `latest`: the latest of a market. `old`: those from an id on; None: not without an API key. `reach_us`: how old
    those are at most, µs; None: all there ever were. `holes`: ids that it leaves out are no trades.
    """

    venue: str
    latest: Endpoint
    old: Endpoint | None
    reach_us: int | None
    holes: bool


def history_spot(market: str, since_us: int, until_us: int | None) -> FetchPlan:
    """Plan how to get the trades of a stretch of time of spot: all there ever were can be had."""
    source = _Source("binance", repair.SPOT_TRADES, repair.SPOT_TRADES, None, holes=False)
    return _history(source, market, since_us, until_us)


def history_usdm(market: str, since_us: int, until_us: int | None, *, has_key: bool) -> FetchPlan:
    """Plan how to get the trades of a stretch of time of USD-M: of a month, or without a key of the latest 1,000."""
    old = repair.USDM_TRADES if has_key else None
    return _history(
        _Source("binance-usdm", repair.USDM_LATEST, old, USDM_REACH_US, holes=True), market, since_us, until_us
    )


def _history(source: _Source, market: str, since_us: int, until_us: int | None) -> FetchPlan:
    """Times grow with the ids but for DISORDER_US: it begins as much before, and ends as much after."""
    symbol = symbol_of(source.venue, market)
    begin_us = since_us - DISORDER_US
    newest = yield from repair.get(source.latest, symbol, market, {})
    oldest = newest.good[0] if newest.good else None
    is_covered = oldest is None or newest.total < source.latest.limit or oldest.traded_at < begin_us
    if is_covered or source.old is None or oldest is None:
        plan = IdPlan(source.venue, market, 0 if oldest is None else oldest.sequence, None, holes=source.holes)
        trades = plan.take(newest)
        if is_covered or oldest is None:
            yield from plan.told()
            if trades:
                yield trades
            return plan.end(None)
        reason = (
            f"the latest {source.latest.limit} trades of {market} reach back to {in_words(oldest.traded_at)} and not "
            f"to {in_words(since_us)}: set {API_KEY.setting}, with it older ones can be fetched"
        )
        yield Missing(reason, beyond_reach=True)
        yield from plan.told()
        if trades:
            yield trades
        return plan.end(reason, beyond_reach=True)
    is_out_of_reach = source.reach_us is not None and since_us < oldest.received_at - source.reach_us
    ask = partial(_probe, source.old, symbol, market, begin_us if not is_out_of_reach else None)
    found = None
    if source.reach_us is None and begin_us < oldest.received_at - DAY_US:  # perhaps before the market's first trade
        first_of_all = yield from ask(0)
        if first_of_all.at is not None and first_of_all.at >= begin_us:
            found = Begin(first_of_all.number - 1, refused=False)
    if found is None:
        found = yield from find_begin(ask, newest.good, begin_us, source.old.limit)
    begin = found.after + 1
    first = None
    if begin == oldest.sequence:
        first = newest
    elif found.refused:
        begin, first = yield from _first_page(source.old, symbol, market, begin, newest)
    plan = IdPlan(source.venue, market, begin, None, holes=source.holes)
    if found.refused or is_out_of_reach:
        yield Missing(f"{source.old.path} goes back a month, and not to {in_words(since_us)}", beyond_reach=True)
    yield from plan.read_until(source.old, first, until_us, newest.good[-1].sequence)
    if not found.refused and not is_out_of_reach:
        return plan.end(None)
    from_when = "none that old" if plan.first is None else f"trades from {in_words(plan.first.traded_at)} on"
    reason = f"{source.old.path} goes back a month: it has {from_when} of {market}, and not from {in_words(since_us)}"
    return plan.end(reason, beyond_reach=True)


def _first_page(
    endpoint: Endpoint, symbol: str, market: str, begin: int, newest: Rows[Trade]
) -> Generator[Request, Answer | None, tuple[int, Rows[Trade]]]:
    """The first page from where the venue begins. That moves on while it is looked for, so it may have been passed.

    At the latest it is the page of the newest trades, which has been read.
    """
    step = 1
    while begin < newest.good[0].sequence:
        answer = yield _request(endpoint, market, begin, endpoint.limit)
        assert answer is not None  # noqa: S101  (the runner answers every request)
        if not _is_refused(answer.body):
            return begin, repair.read(endpoint, symbol, answer)
        begin += step
        step *= 2
    return newest.good[0].sequence, newest


def _request(endpoint: Endpoint, market: str, begin: int, limit: int) -> Request:
    parameters = {"symbol": market, "limit": str(limit), "fromId": str(begin)}
    return Request(endpoint.path, parameters, endpoint.weight, endpoint.api_key, may_be_refused=True)


def _probe(
    endpoint: Endpoint, symbol: str, market: str, begin_us: int | None, number: int
) -> Generator[Request, Answer | None, Probe]:
    """The first trade whose id is not smaller. Raises ContractError when the answer cannot be read.

    Where there is none that can be read although the venue has listed later ones, it does not go back so far, or, where
    it must (`begin_us`), it is asked farther back, which is safe.
    """
    answer = yield _request(endpoint, market, number, 1)
    assert answer is not None  # noqa: S101  (the runner answers every request)
    rows = None if _is_refused(answer.body) else repair.read(endpoint, symbol, answer)
    if rows is not None and not rows.total:
        raise ContractError(f"{endpoint.path} lists nothing of {market} from id {number} on, and has listed later ones")
    if rows is not None and rows.good:
        return Probe(rows.good[0].sequence, rows.good[0].traded_at)
    if begin_us is not None and rows is not None:
        return Probe(number, begin_us)
    return Probe(number, None, refused=True)


def _is_refused(body: bytes) -> bool:
    """Whether it says that something is wrong with the id; the rest of the request has been seen to be right."""
    try:
        code = _refusal.decode(body).code
    except BAD_FRAME:
        return False
    return code in REQUEST_ISSUES and code != BAD_SYMBOL

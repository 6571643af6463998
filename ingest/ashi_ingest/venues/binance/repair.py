"""Repair of Binance's trades over REST, forwards by trade id.

Sources: https://developers.binance.com/docs/binance-spot-api-docs/rest-api/market-data-endpoints#old-trade-lookup
(spot: 1,000 rows, weight 25), and for USD-M, under
https://developers.binance.com/docs/derivatives/usds-margined-futures/market-data/rest-api/ : `Old-Trades-Lookup`
(500 rows, weight 20, needs an API key, the last month only) and `Recent-Trades-List` (1,000 rows, weight 5).

    {"id":28457,"price":"4.00000100","qty":"12.00000000","quoteQty":"48.000012","time":1499865549590,"isBuyerMaker":true,…}

aggTrades are never used: they sum up several trades, and what was summed up cannot be taken apart again.
"""

from __future__ import annotations

from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import msgspec

from ashi.contracts.decimals import parse_decimal
from ashi.contracts.errors import ContractError
from ashi.contracts.trade import MAX_SEQUENCE, Trade, check_trade
from ashi_ingest.venues.answers import MAX_TRIES, Rows, is_listed, latest, read_list
from ashi_ingest.venues.base import ApiKey, Missing, RepairEnd, Request
from ashi_ingest.venues.binance.messages import parse_time, taker_side
from ashi_ingest.venues.parsing import symbol_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from ashi_ingest.venues.base import Answer, FetchPlan

API_KEY: Final = ApiKey("ASHI_BINANCE_API_KEY", "X-MBX-APIKEY")
"""`Request Security`: `historicalTrades` of USD-M wants the key in this header, and no signature."""
DISORDER_US: Final = 1_000_000
"""Times grow with the ids as far as anybody has seen; this is to be on the safe side, µs."""
MAX_NAMED: Final = 3
"""Ranges of missing ids that a reason names; of more it gives the number."""


class Endpoint(NamedTuple):
    """A REST endpoint that lists trades: so many rows at most, for that weight."""

    path: str
    limit: int
    weight: int
    api_key: ApiKey | None = None


SPOT_TRADES: Final = Endpoint("/api/v3/historicalTrades", limit=1000, weight=25)
USDM_TRADES: Final = Endpoint("/fapi/v1/historicalTrades", limit=500, weight=20, api_key=API_KEY)
USDM_LATEST: Final = Endpoint("/fapi/v1/trades", limit=1000, weight=5)


class _Row(msgspec.Struct, gc=False):
    """A trade as REST lists it. USD-M lists only those of the order book, as the parser takes only those."""

    id: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQUENCE)]
    price: str
    qty: str
    time: int
    isBuyerMaker: bool  # noqa: N815  (the venue's name)


_row = msgspec.json.Decoder(_Row)
_by_id = attrgetter("sequence")


def repair_spot(market: str, since: Sequence[Trade], until: Trade | None) -> FetchPlan:
    """Plan a repair of spot: ids have no holes, so one that REST does not list is missing, and the reason names it.

    It is final when nothing else is wrong: REST lists the ids before and after, so there is no such trade to be had.
    """
    return IdPlan("binance", market, 0, until, holes=False, known=_last(since)).by_id(SPOT_TRADES)


def repair_usdm(market: str, since: Sequence[Trade], until: Trade | None, *, has_key: bool) -> FetchPlan:
    """Plan a repair of USD-M: ids have holes, so one that REST does not list is absent.

    The latest 1,000 trades cost a quarter of 500 older ones, and a short interruption needs no others. If they do not
    reach back, there are older ones with an API key; without one the reason says so.
    """
    plan = IdPlan("binance-usdm", market, 0, until, holes=True, known=_last(since))
    return plan.latest(USDM_LATEST, USDM_TRADES if has_key else None)


def _last(since: Sequence[Trade]) -> Trade:
    """That of the greatest id: holes before it have been repaired, or are none."""
    return max(since, key=_by_id)


class IdPlan:
    """What REST lists from an id on. `first`: the first trade that it has listed."""

    def __init__(
        self, venue: str, market: str, begin: int, until: Trade | None, *, holes: bool, known: Trade | None = None
    ) -> None:
        """`begin`: the first id that is wanted, or, where it is known, `known`: the trade before that.

        `holes`: ids that REST leaves out are no trades.
        """
        self._symbol = symbol_of(venue, market)
        self._market = market
        self._until = until
        self._holes = holes
        self._next = begin if known is None else known.sequence + 1
        self._known = known
        self._missing: list[tuple[int, int]] = []
        self._bad: str | None = None
        self._shown: int | None = None
        self._bad_now: str | None = None
        self._told = 0
        self.first: Trade | None = None

    def by_id(self, endpoint: Endpoint) -> FetchPlan:
        """Page by id until `until` is reached, or, without one, until an answer is not full.

        What an answer cannot give is told before its rows, see `Missing`.
        """
        tries = 0
        while not self._is_reached():
            known = self._known  # is listed as well, or the answer says less than is known
            begin = self._next if known is None else known.sequence
            rows = yield from get(endpoint, self._symbol, self._market, {"fromId": str(begin)})
            is_known = known is None or is_listed(known, rows.good)
            new = self.take(rows)
            yield from self.told()
            if new:
                yield new
            if self._until is None and rows.total < endpoint.limit and (is_known or new or rows.bad is not None):
                break
            tries = 0 if new else tries + 1
            if tries == MAX_TRIES:
                return self._end_lagging(endpoint)
        return self.end(None)

    def read_until(
        self, endpoint: Endpoint, first: Rows[Trade] | None, until_us: int | None, newest: int
    ) -> Generator[Request | list[Trade] | Missing, Answer | None, None]:
        """Page by id until a time, µs, has been passed, or an answer is not full: nobody waits for REST here.

        `first`: the first page, if it has been asked for already. `newest`: the greatest id that was listed before.

        Raises ContractError when nothing is listed now.
        """
        while until_us is None or self._shown is None or self._shown < until_us:
            rows = first or (yield from get(endpoint, self._symbol, self._market, {"fromId": str(self._next)}))
            first = None
            if self.first is None and rows.good:  # where the market begins is no hole
                self._next = max(self._next, rows.good[0].sequence)
            new = self.take(rows)
            yield from self.told()
            if new:
                yield new
            if rows.total < endpoint.limit or not new:
                if not rows.total and self.first is None and self._next <= newest:
                    raise ContractError(f"{endpoint.path} lists nothing from {self._next} on, and had listed {newest}")
                return

    def latest(self, endpoint: Endpoint, older: Endpoint | None) -> FetchPlan:
        """Take the latest trades until they reach `until`; from `older`, if they do not reach back."""
        lost: str | None = None
        tries = 0
        while not self._is_reached():
            rows = yield from get(endpoint, self._symbol, self._market, {})
            if rows.total >= endpoint.limit and rows.good and rows.good[0].sequence > self._next:
                if older is not None:
                    return (yield from self.by_id(older))
                reason = (
                    f"the latest {endpoint.limit} trades of {self._market} reach back to id {rows.good[0].sequence} "
                    f"and not to {self._next}: set {API_KEY.setting}, with it older ones can be fetched"
                )
                lost = lost or reason
                yield Missing(reason, beyond_reach=True)
            is_known = self._known is None or is_listed(self._known, rows.good)
            new = self.take(rows)
            yield from self.told()
            if new:
                yield new
            if self._until is None and (is_known or new or rows.bad is not None):
                break
            tries = 0 if new else tries + 1
            if tries == MAX_TRIES:
                return self._end_lagging(endpoint, lost)
        return self.end(lost, beyond_reach=lost is not None)

    def told(self) -> Iterator[Missing]:
        """What was seen to be missing in the answer that was taken last."""
        missing = self._named(self._missing[self._told :])
        self._told = len(self._missing)
        if self._bad_now is not None or missing is not None:
            reason = "; ".join(filter(None, (self._bad_now, missing)))
            yield Missing(reason, final=self._bad_now is None)

    def take(self, rows: Rows[Trade]) -> list[Trade]:
        """Note what an answer lists, and ids that are left out in it. Gives the rows that are new."""
        self._bad = self._bad or rows.bad
        self._bad_now = rows.bad
        self._shown = latest(self._shown, rows.good, DISORDER_US)
        new = [trade for trade in rows.good if trade.sequence >= self._next]
        self.first = self.first or next(iter(new), None)
        if new and self._known is not None:
            self._known = new[-1]
        for trade in new:
            self._note_missing(trade.sequence - 1)
            self._next = trade.sequence + 1
        return new

    def _note_missing(self, last: int) -> None:
        if self._until is not None:
            last = min(last, self._until.sequence - 1)  # beyond it, the websocket delivers
        if not self._holes and last >= self._next:
            self._missing.append((self._next, last))

    def _is_reached(self) -> bool:
        return self._until is not None and self._next >= self._until.sequence

    def _end_lagging(self, endpoint: Endpoint, lost: str | None = None) -> RepairEnd:
        """What it does not list yet it may list later, though something else, `lost`, it never will."""
        came = "" if self._until is None else f", but {self._until.trade_id} came over the websocket"
        lagging = f"{endpoint.path} lists no readable trade of {self._market} from id {self._next} on{came}"
        return self.end("; ".join(filter(None, (lost, lagging))))._replace(is_told=False)

    def end(self, reason: str | None, *, beyond_reach: bool = False) -> RepairEnd:
        """How it ended; `reason`: why something is missing besides what was seen in the answers, told as that was."""
        missing = self._named(self._missing)
        why = "; ".join(filter(None, (self._bad, reason, missing))) or None
        return RepairEnd(
            why,
            self._shown,
            final=missing is not None and self._bad is None and reason is None,
            beyond_reach=beyond_reach,
            is_told=why is not None,
        )

    def _named(self, missing: Sequence[tuple[int, int]]) -> str | None:
        if not missing:
            return None
        named = [f"{first}" if first == last else f"{first} to {last}" for first, last in missing[:MAX_NAMED]]
        more = len(missing) - MAX_NAMED
        rest = f", and of {more} more stretches" if more > 0 else ""
        return f"{SPOT_TRADES.path} does not list the trades of {self._market} with id {', '.join(named)}{rest}"


def get(
    endpoint: Endpoint, symbol: str, market: str, parameters: dict[str, str]
) -> Generator[Request, Answer | None, Rows[Trade]]:
    """A page of trades in the order of ids, the most that one answer holds. Raises ContractError."""
    parameters = {"symbol": market, "limit": str(endpoint.limit), **parameters}
    answer = yield Request(endpoint.path, parameters, endpoint.weight, endpoint.api_key)
    assert answer is not None  # noqa: S101  (the runner answers every request)
    return read(endpoint, symbol, answer)


def read(endpoint: Endpoint, symbol: str, answer: Answer) -> Rows[Trade]:
    """The trades of an answer in the order of ids. Raises ContractError when it is no list."""
    rows = read_list(answer.body, partial(_read_row, symbol, received_at=answer.received_at), endpoint.path)
    return rows._replace(good=sorted(rows.good, key=_by_id))


def _read_row(symbol: str, raw: msgspec.Raw, received_at: int) -> Trade:
    """Read one trade as REST lists it. Raises one of `parsing.BAD_FRAME`."""
    row = _row.decode(raw)
    trade = Trade(
        symbol=symbol,
        trade_id=str(row.id),
        price=parse_decimal("price", row.price),
        size=parse_decimal("qty", row.qty),
        side=taker_side(buyer_is_maker=row.isBuyerMaker),
        traded_at=parse_time("time", row.time),
        received_at=received_at,
        sequence=row.id,
    )
    check_trade(trade)
    return trade

"""bitFlyer Lightning live: limits, subscriptions, and repair over REST.

Sources: https://bf-lightning-api.readme.io/docs/endpoint-json-rpc (websocket),
https://bf-lightning-api.readme.io/docs/limit (500 requests in 5 minutes from an address),
https://lightning.bitflyer.com/docs (`getexecutions`), and recordings.

    {"jsonrpc":"2.0","method":"subscribe","params":{"channel":"lightning_executions_BTC_JPY"},"id":1}
    {"jsonrpc":"2.0","id":1,"result":true}

`GET /v1/getexecutions?product_code=&count=&before=<id>&after=<id>` gives the newest first, both bounds exclusive. Its
rows are those of the websocket but for `exec_date`: no `Z`, 0 to 3 fraction digits.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from ashi.contracts.symbol import make_symbol
from ashi_ingest.venues.answers import MAX_TRIES, Rows, decode_answer, read_list, usable_markets
from ashi_ingest.venues.base import Acknowledged, Control, Limits, Refused, RepairEnd, Request, Subscription
from ashi_ingest.venues.bitflyer.messages import EXECUTIONS, BitFlyer, read_execution
from ashi_ingest.venues.parsing import BAD_FRAME

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from ashi.contracts.trade import Trade
    from ashi_ingest.venues.base import Answer, Repair
    from ashi_ingest.venues.parsing import FrameParser

LIMITS: Final = Limits(
    websocket_url="wss://ws.lightstream.bitflyer.com/json-rpc",
    rest_url="https://api.bitflyer.com",
    # Neither is documented: all of its products fit into one connection, and ten messages a second have never hurt.
    markets_per_connection=100,
    connect_interval_s=1.0,
    message_interval_s=0.1,
    paced_by="connection",
    acknowledges=True,
    refusal_s=10.0,
    silence_s=180.0,
    ping_interval_s=20.0,
    lifetime_s=None,
    request_interval_s=0.62,  # 484 in 5 minutes of the 500 allowed
)
COUNT: Final = 500
"""Rows of an answer, the most there are."""
CONTIGUOUS: Final = "FX_BTC_JPY"
"""Has ids of its own, with a few jumps of thousands. The spot products share one sequence."""
EXECUTIONS_PATH: Final = "/v1/getexecutions"
MARKETS_PATH: Final = "/v1/getmarkets"

INTERNAL_ERROR: Final = -32603
SERVER_ERRORS: Final = range(-32099, -31999)
"""What JSON-RPC 2.0 (https://www.jsonrpc.org/specification#error_object) leaves to the server, as -32603 is."""


class _Error(msgspec.Struct):
    code: int = 0
    message: str = ""


class _Response(msgspec.Struct):
    id: int | None = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: _Error | None = None


class _Market(msgspec.Struct):
    product_code: str


_response = msgspec.json.Decoder(_Response)
_markets = msgspec.json.Decoder(list[_Market])


class BitFlyerLive:
    """bitFlyer as live feeds need it: see `ashi_ingest.venues.base.Venue`."""

    name: Final = "bitflyer"
    limits: Final = LIMITS
    ordered_ids: Final = True

    def __init__(self, *, has_key: bool) -> None:
        """`has_key` is for venues that give more to whoever has a key; bitFlyer does not."""

    def parser(self) -> FrameParser:
        """A parser for one connection."""
        return BitFlyer()

    def contiguous(self, market: str) -> bool:
        """True for FX_BTC_JPY only."""
        return market == CONTIGUOUS

    def subscriptions(self, markets: Sequence[str], first_id: int) -> list[Subscription]:
        """One message for each market."""
        return [
            Subscription(request_id, (market,), _subscribe(market, request_id))
            for request_id, market in enumerate(markets, first_id)
        ]

    def control(self, frame: bytes) -> Control | None:
        """The answer to a subscription.

        Fatal for its market: an error that says that our request was wrong (-32602, invalid params: no such channel).
        Retryable: an error of the server's own, anything but `true` without an error, and an error without an id: what
        cannot be told from the rest of the feed must not end a market for ever.
        """
        try:
            response = _response.decode(frame)
        except BAD_FRAME:
            return None
        request_id = response.id
        if response.error is not None:
            code, message = response.error.code, response.error.message
            retryable = request_id is None or code == INTERNAL_ERROR or code in SERVER_ERRORS
            return Refused(request_id, None, f"bitFlyer answered error {code}: {message[:200]}", retryable)
        if request_id is None or response.result is msgspec.UNSET:
            return None
        if bytes(response.result) == b"true":
            return Acknowledged(request_id)
        said = bytes(response.result)[:60].decode()
        return Refused(request_id, None, f"bitFlyer answered {said} to a subscription, not true", retryable=True)

    def markets_request(self) -> Request:
        """All products of the Japanese exchange."""
        return Request(MARKETS_PATH, {})

    def read_markets(self, body: bytes) -> list[str]:
        """Their `product_code`: `[{"product_code":"BTC_JPY","market_type":"Spot"},…]`. Raises ContractError."""
        listed = decode_answer(_markets, body, MARKETS_PATH)
        return usable_markets(self.name, (market.product_code for market in listed))

    def repair(self, market: str, since: Sequence[Trade], until: Trade | None) -> Repair:
        """Plan how to get what happened after `since`; see `Venue.repair` and `_repair`."""
        return _repair(self.name, market, since, until)


def _subscribe(market: str, request_id: int) -> str:
    params = {"channel": EXECUTIONS + market}
    message = {"jsonrpc": "2.0", "method": "subscribe", "params": params, "id": request_id}
    return msgspec.json.encode(message).decode()


def _repair(venue: str, market: str, since: Sequence[Trade], until: Trade | None) -> Repair:
    """Ask for all there is; while that is more than an answer holds, fetch first what lies before the answer.

    Never more than two answers are in memory, however long the gap is. Ids that REST does not list are absent and not
    lost: the spot products share one sequence, and even contiguous ids have jumps.
    """
    after = _begin(since)
    bad: str | None = None
    tries = 0
    while tries < MAX_TRIES:
        newest = yield from _get(venue, market, after, None)
        bad = bad or newest.bad
        if newest.good:
            if newest.total >= COUNT:
                bad = (yield from _fetch_windows(venue, market, after, newest.good[0].sequence)) or bad
            yield newest.good
            after = newest.good[-1].sequence
        complete = newest.total < COUNT or not newest.good
        if complete if until is None else after >= until.sequence:
            return RepairEnd(bad)
        tries = 0 if newest.good else tries + 1
    wanted = "" if until is None else f"trade {until.trade_id}, which came over the websocket"
    return RepairEnd(bad or f"{EXECUTIONS_PATH} does not list {wanted}; its newest of {market} is {after}")


def _begin(since: Sequence[Trade]) -> int:
    """The id after which to begin: the smallest of `since`, since trades come a little out of the order of ids.

    The oldest quarter does not count. It stands there for the case that trades were out of order just where `since` was
    cut off: what is known there is not in `since`, and must not be fetched again.
    """
    return min(trade.sequence for trade in since[len(since) // 4 :])


def _fetch_windows(
    venue: str, market: str, after: int, before: int
) -> Generator[Request | list[Trade], Answer | None, str | None]:
    """What lies between two ids, oldest first, in windows of ids as wide as an answer can hold.

    Gives what was wrong with the first bad row. Ids may be thousands apart, so an empty window is no end.
    """
    width = COUNT
    bad: str | None = None
    while after + 1 < before:
        end = min(after + width + 1, before)
        rows = yield from _get(venue, market, after, end)
        ids = end - after - 1
        if rows.total >= COUNT and ids > COUNT:  # it may be cut: the window has more ids than an answer has rows
            width = max(ids // 4, COUNT)
            continue
        bad = bad or rows.bad
        if rows.good:
            yield rows.good
        after = end - 1
        if rows.total < COUNT // 4:
            width *= 2
    return bad


def _get(venue: str, market: str, after: int, before: int | None) -> Generator[Request, Answer | None, Rows[Trade]]:
    """The newest executions between the two ids, both exclusive, in the order of ids."""
    bounds = {"after": str(after)} if before is None else {"after": str(after), "before": str(before)}
    answer = yield Request(EXECUTIONS_PATH, {"product_code": market, "count": str(COUNT), **bounds})
    assert answer is not None  # noqa: S101  (the runner answers every request)
    read = partial(read_execution, make_symbol(venue, market), received_at=answer.received_at)
    rows = read_list(answer.body, read, EXECUTIONS_PATH)
    within = [trade for trade in rows.good if after < trade.sequence and (before is None or trade.sequence < before)]
    return rows._replace(good=sorted(within, key=_by_id))


def _by_id(trade: Trade) -> int:
    return trade.sequence

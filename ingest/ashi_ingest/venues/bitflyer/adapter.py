"""bitFlyer Lightning live: limits, subscriptions, markets.

Sources: https://bf-lightning-api.readme.io/docs/endpoint-json-rpc (websocket),
https://bf-lightning-api.readme.io/docs/limit (500 requests in 5 minutes from an address), and recordings.

    {"jsonrpc":"2.0","method":"subscribe","params":{"channel":"lightning_executions_BTC_JPY"},"id":1}
    {"jsonrpc":"2.0","id":1,"result":true}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from ashi_ingest.venues.answers import decode_answer
from ashi_ingest.venues.base import Acknowledged, Control, Limits, ListedMarket, Refused, Request, Subscription
from ashi_ingest.venues.bitflyer.history import history
from ashi_ingest.venues.bitflyer.messages import EXECUTIONS, BitFlyerParser
from ashi_ingest.venues.bitflyer.repair import DISORDER_US, repair
from ashi_ingest.venues.parsing import BAD_FRAME

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashi.contracts.trade import Trade
    from ashi_ingest.venues.base import FetchPlan
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
    request_window_s=300.0,
    disorder_s=DISORDER_US / 1e6,
)
CONTIGUOUS: Final = "FX_BTC_JPY"
"""Has ids of its own, with a few jumps of thousands. The spot products share one sequence."""
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


class BitFlyerVenue:
    """bitFlyer as live feeds need it: see `ashi_ingest.venues.base.Venue`."""

    name: Final = "bitflyer"
    limits: Final = LIMITS
    ordered_ids: Final = True
    statement: Final = None

    def __init__(self, *, has_key: bool) -> None:
        """`has_key` is for venues that give more to whoever has a key; bitFlyer does not."""

    def parser(self) -> FrameParser:
        """A parser for one connection."""
        return BitFlyerParser()

    def contiguous(self, market: str) -> bool:
        """True for FX_BTC_JPY only."""
        return market == CONTIGUOUS

    def subscriptions(self, markets: Sequence[str], first_id: int) -> list[Subscription]:
        """One message for each market."""
        return [
            Subscription(request_id, (market,), _message("subscribe", market, request_id))
            for request_id, market in enumerate(markets, first_id)
        ]

    def unsubscription(self, market: str, request_id: int) -> str:
        """`unsubscribe`, which is answered as a subscription is."""
        return _message("unsubscribe", market, request_id)

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
        result = bytes(response.result)[:60].decode(errors="replace")
        return Refused(request_id, None, f"bitFlyer answered {result} to a subscription, not true", retryable=True)

    def markets_request(self) -> Request:
        """All products of the Japanese exchange."""
        return Request(MARKETS_PATH, {})

    def read_markets(self, body: bytes) -> list[ListedMarket]:
        """Their `product_code`: `[{"product_code":"BTC_JPY","market_type":"Spot"},…]`. Raises ContractError.

        A halt is told elsewhere (`getboardstate`, market by market), and the steps of prices and sizes nowhere.
        """
        return [_listed(market.product_code) for market in decode_answer(_markets, body, MARKETS_PATH)]

    def repair(self, market: str, since: Sequence[Trade], until: Trade | None) -> FetchPlan:
        """Plan how to get what happened after `since`; see `Venue.repair` and `bitflyer.repair`."""
        return repair(self.name, market, since, until)

    def history(self, market: str, since_us: int, until_us: int | None) -> FetchPlan:
        """Plan how to get the trades of a stretch of time, of the last 31 days: see `Venue.history`."""
        return history(self.name, market, since_us, until_us)


def _listed(market: str) -> ListedMarket:
    """The currencies are in the name of a spot market (`ETH_BTC`) and of `FX_BTC_JPY`, not in that of a future."""
    base, _, quote = market.removeprefix("FX_").partition("_")
    named = bool(base and quote) and "_" not in quote
    return ListedMarket(market, base if named else None, quote if named else None, None, None, "trading")


def _message(method: str, market: str, request_id: int) -> str:
    params = {"channel": EXECUTIONS + market}
    message = {"jsonrpc": "2.0", "method": method, "params": params, "id": request_id}
    return msgspec.json.encode(message).decode()

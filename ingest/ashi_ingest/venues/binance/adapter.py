"""Binance live, spot and USD-M futures: limits, subscriptions, markets.

Sources: https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams (5 incoming messages a second,
1,024 streams, 24 hours, 300 connections in 5 minutes, `serverShutdown`),
https://developers.binance.com/docs/binance-spot-api-docs/rest-api/limits (a weight of 6,000 a minute), and under
https://developers.binance.com/docs/derivatives/usds-margined-futures/ : `general-info` (a weight of 2,400 a minute) and
`websocket-market-streams/Important-WebSocket-Change-Notice` (`/public` is the route that carries trades).

    {"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1}      {"result":null,"id":1}

An unknown stream is accepted without a word, so markets have to be checked against `markets_request`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from ashi_ingest.venues.answers import decode_answer, read_step
from ashi_ingest.venues.base import (
    Acknowledged,
    Closing,
    Control,
    Limits,
    ListedMarket,
    Refused,
    Request,
    Statement,
    Subscription,
)
from ashi_ingest.venues.binance.history import history_spot, history_usdm
from ashi_ingest.venues.binance.messages import TRADE_STREAM, BinanceParser
from ashi_ingest.venues.binance.repair import DISORDER_US, repair_spot, repair_usdm
from ashi_ingest.venues.parsing import BAD_FRAME

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashi.contracts.trade import Trade
    from ashi_ingest.venues.base import FetchPlan
    from ashi_ingest.venues.parsing import FrameParser

STREAMS_PER_MESSAGE: Final = 200
SHUTDOWN: Final = "serverShutdown"

SPOT_LIMITS: Final = Limits(
    websocket_url="wss://stream.binance.com:9443/stream",
    rest_url="https://api.binance.com",
    markets_per_connection=1024,
    connect_interval_s=1.0,  # 300 in 5 minutes
    message_interval_s=0.25,  # 4 a second, which leaves the fifth to pings and pongs
    paced_by="connection",
    acknowledges=True,
    refusal_s=10.0,
    silence_s=120.0,
    ping_interval_s=20.0,
    lifetime_s=24 * 3600.0,
    request_interval_s=0.02,  # half of the weight of 6,000 a minute
    request_window_s=60.0,
    address_weight=6000,
    used_header="X-MBX-USED-WEIGHT-1M",
    disorder_s=DISORDER_US / 1e6,
    # 418 lasts from 2 minutes to 3 days: {"code":-1003,"msg":"Way too much request weight used; IP banned until
    # 1659084000000. Please use WebSocket Streams…"}, not always with a Retry-After.
    banned_until=re.compile(r"banned until ([0-9]{13})\b"),
)
USDM_LIMITS: Final = replace(
    SPOT_LIMITS,
    websocket_url="wss://fstream.binance.com/public/stream",
    rest_url="https://fapi.binance.com",
    request_interval_s=0.05,  # half of the weight of 2,400 a minute
    address_weight=2400,
)


LIMITS: Final = {"binance": SPOT_LIMITS, "binance-usdm": USDM_LIMITS}
MARKETS: Final = {
    # Without who may trade what: that is four fifths of some 16 MB, which take 75 ms to be read instead of 20.
    "binance": Request("/api/v3/exchangeInfo", {"showPermissionSets": "false"}, weight=20),
    "binance-usdm": Request("/fapi/v1/exchangeInfo", {}),
}

CLOSED: Final = frozenset({"DELIVERED", "CLOSE"})
"""What the list of USD-M says of a market that is closed for good; spot has no word for that."""


STATEMENTS: Final = {
    "binance": Request("/api/v3/ticker/24hr", {"type": "MINI"}, weight=80),
    "binance-usdm": Request("/fapi/v1/ticker/24hr", {}, weight=40),
}
"""`24hr Ticker Price Change Statistics` of all markets: `lastId` is the last trade's, -1 without one in 24 hours."""


class _Error(msgspec.Struct):
    code: int = 0
    msg: str = ""


class _Event(msgspec.Struct):
    e: str = ""


class _Response(msgspec.Struct):
    id: int | None = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: _Error | None = None
    code: int | None = None
    msg: str = ""
    e: str = ""
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Filter(msgspec.Struct):
    filterType: str  # noqa: N815 - as the venue writes it
    tickSize: str | None = None  # noqa: N815
    stepSize: str | None = None  # noqa: N815


_NO_STEP: Final = _Filter("")


class _Market(msgspec.Struct):
    symbol: str
    status: str
    baseAsset: str = ""  # noqa: N815
    quoteAsset: str = ""  # noqa: N815
    filters: list[_Filter] = []


class _Markets(msgspec.Struct):
    symbols: list[_Market]


class _Statistics(msgspec.Struct):
    symbol: str
    lastId: int  # noqa: N815  (the venue's name)


_response = msgspec.json.Decoder(_Response)
_event = msgspec.json.Decoder(_Event)
_markets = msgspec.json.Decoder(_Markets)
_statistics = msgspec.json.Decoder(list[_Statistics])


class BinanceVenue:
    """Binance spot or USD-M as live feeds need it: see `ashi_ingest.venues.base.Venue`."""

    ordered_ids: Final = True

    def __init__(self, name: Literal["binance", "binance-usdm"], *, has_key: bool) -> None:
        """`has_key`: there is an API key, so that USD-M gives trades older than the latest thousand."""
        self.name: Final[str] = name
        self.limits: Final = LIMITS[name]
        self.statement: Final = Statement(STATEMENTS[name], partial(_read_statement, STATEMENTS[name].path))
        self._has_key = has_key

    def parser(self) -> FrameParser:
        """A parser for one connection."""
        return BinanceParser(self.name)

    def contiguous(self, market: str) -> bool:  # noqa: ARG002
        """True for all: spot never leaves an id out; USD-M does, but what it leaves out is told only by REST."""
        return True

    def subscriptions(self, markets: Sequence[str], first_id: int) -> list[Subscription]:
        """One message for up to 200 markets."""
        chunks = [markets[at : at + STREAMS_PER_MESSAGE] for at in range(0, len(markets), STREAMS_PER_MESSAGE)]
        return [
            Subscription(request_id, tuple(chunk), _message("SUBSCRIBE", chunk, request_id))
            for request_id, chunk in enumerate(chunks, first_id)
        ]

    def unsubscription(self, market: str, request_id: int) -> str:
        """`UNSUBSCRIBE`, which is answered as a subscription is."""
        return _message("UNSUBSCRIBE", [market], request_id)

    def control(self, frame: bytes) -> Control | None:
        """The answer to a subscription, or the announcement that the server goes down in 10 minutes.

        No error of Binance says that a market does not exist, so each is retryable.
        """
        try:
            response = _response.decode(frame)
            kind = response.e if response.data is msgspec.UNSET else _event.decode(response.data).e
        except BAD_FRAME:
            return None
        error = response.error
        if error is None and response.code is not None:
            error = _Error(response.code, response.msg)
        if error is not None:
            reason = f"Binance answered error {error.code}: {error.msg[:200]}"
            return Refused(response.id, None, reason, retryable=True)
        if kind == SHUTDOWN:
            return Closing("Binance announces that this server is going down")
        if response.id is not None and response.result is not msgspec.UNSET:
            return Acknowledged(response.id)
        return None

    def markets_request(self) -> Request:
        """All markets, also those that are not traded now."""
        return MARKETS[self.name]

    def read_markets(self, body: bytes) -> list[ListedMarket]:
        """All: `{"symbols":[{"symbol":"BTCUSDT","status":"TRADING","filters":[…],…},…]}`. Raises ContractError.

        Spot keeps those that are closed for good listed as `BREAK`, so these are in a halt.
        """
        return [_listed(market) for market in decode_answer(_markets, body, MARKETS[self.name].path).symbols]

    def repair(self, market: str, since: Sequence[Trade], until: Trade | None) -> FetchPlan:
        """Plan how to get what happened after `since`: see `Venue.repair` and `binance.repair`."""
        if self.name == "binance":
            return repair_spot(market, since, until)
        return repair_usdm(market, since, until, has_key=self._has_key)

    def history(self, market: str, since_us: int, until_us: int | None) -> FetchPlan:
        """Plan how to get the trades of a stretch of time: see `Venue.history` and `binance.history`."""
        if self.name == "binance":
            return history_spot(market, since_us, until_us)
        return history_usdm(market, since_us, until_us, has_key=self._has_key)


def _read_statement(path: str, body: bytes) -> dict[str, int]:
    """`[{"symbol":"BTCUSDT",…,"firstId":100,"lastId":200,"count":101},…]`. Raises ContractError."""
    return {market.symbol: market.lastId for market in decode_answer(_statistics, body, path)}


def _listed(market: _Market) -> ListedMarket:
    steps = {filter_.filterType: filter_ for filter_ in market.filters}
    prices, sizes = steps.get("PRICE_FILTER", _NO_STEP), steps.get("LOT_SIZE", _NO_STEP)
    return ListedMarket(
        market.symbol,
        market.baseAsset or None,
        market.quoteAsset or None,
        read_step(prices.tickSize),
        read_step(sizes.stepSize),
        "trading" if market.status == "TRADING" else "delisted" if market.status in CLOSED else "halted",
    )


def _message(method: str, markets: Sequence[str], request_id: int) -> str:
    # In lower case, but only what is ASCII: `İ` stays as it is.
    streams = [market.encode().lower().decode() + TRADE_STREAM for market in markets]
    return msgspec.json.encode({"method": method, "params": streams, "id": request_id}).decode()

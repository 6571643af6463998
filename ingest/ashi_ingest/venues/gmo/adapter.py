"""GMO Coin live: limits, subscriptions, markets.

Source: https://api.coin.z.com/docs/en/ (`#restrictions`: one subscription a second from each address; `#ws-trades`;
`#symbols`; `#error-codes`).

    {"command":"subscribe","channel":"trades","symbol":"BTC_JPY","option":"TAKER_ONLY"}

Without `TAKER_ONLY` every execution comes twice. A subscription is not answered unless it is refused, by a frame that
names no market: `{"error":"ERR-5003 Request too many."}`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from ashi_ingest.venues.answers import decode_answer, read_step
from ashi_ingest.venues.base import Control, Limits, ListedMarket, Refused, Request, Subscription
from ashi_ingest.venues.gmo.history import history
from ashi_ingest.venues.gmo.messages import TRADES, GmoParser
from ashi_ingest.venues.gmo.repair import LATE_US, repair
from ashi_ingest.venues.gmo.status import Message, check_status
from ashi_ingest.venues.parsing import BAD_FRAME

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashi.contracts.trade import Trade
    from ashi_ingest.venues.base import FetchPlan
    from ashi_ingest.venues.parsing import FrameParser

LIMITS: Final = Limits(
    websocket_url="wss://api.coin.z.com/ws/public/v1",
    rest_url="https://api.coin.z.com",
    markets_per_connection=100,  # nothing is documented; all of its markets fit into one connection
    connect_interval_s=1.0,
    message_interval_s=1.05,  # one a second, and they must not come closer to each other on their way
    paced_by="address",
    acknowledges=False,
    refusal_s=1.0,
    silence_s=180.0,  # three of the venue's pings, as it gives us
    ping_interval_s=20.0,
    lifetime_s=None,
    request_interval_s=0.5,  # nothing is documented; answers are cached for about a second
    disorder_s=LATE_US / 1e6,
)
SYMBOLS_PATH: Final = "/public/v1/symbols"

FATAL: Final = frozenset({"ERR-5106", "ERR-5207"})
"""Invalid parameter, and invalid symbol. All others are retryable: a feed must not end for a reason that passes."""


class _Error(msgspec.Struct):
    error: str | msgspec.UnsetType = msgspec.UNSET


class _Market(msgspec.Struct):
    symbol: str
    tickSize: str | None = None  # noqa: N815 - as the venue writes it
    sizeStep: str | None = None  # noqa: N815


class _Symbols(msgspec.Struct):
    status: int
    data: list[_Market] = []
    messages: list[Message] = []


_error = msgspec.json.Decoder(_Error)
_symbols = msgspec.json.Decoder(_Symbols)


class GmoVenue:
    """GMO Coin as live feeds need it: see `ashi_ingest.venues.base.Venue`."""

    name: Final = "gmo"
    limits: Final = LIMITS
    ordered_ids: Final = False
    statement: Final = None

    def __init__(self, *, has_key: bool) -> None:
        """`has_key` is for venues that give more to whoever has a key; the public interface of GMO Coin does not."""

    def parser(self) -> FrameParser:
        """A parser for one connection."""
        return GmoParser()

    def contiguous(self, market: str) -> bool:  # noqa: ARG002
        """False: there are no ids."""
        return False

    def subscriptions(self, markets: Sequence[str], first_id: int) -> list[Subscription]:
        """One message for each market. The ids are ours: the venue has none."""
        return [
            Subscription(
                request_id, (market,), _message({"command": "subscribe", "symbol": market, "option": "TAKER_ONLY"})
            )
            for request_id, market in enumerate(markets, first_id)
        ]

    def unsubscription(self, market: str, request_id: int) -> str:  # noqa: ARG002
        """`unsubscribe`, which is not answered."""
        return _message({"command": "unsubscribe", "symbol": market})

    def control(self, frame: bytes) -> Control | None:
        """A refusal of the subscription sent last. Fatal is what says that the market does not exist: see FATAL."""
        try:
            error = _error.decode(frame).error
        except BAD_FRAME:
            return None
        if error is msgspec.UNSET:
            return None
        code = error.partition(" ")[0]
        return Refused(None, None, f"GMO Coin answered {error[:200]}", retryable=code not in FATAL)

    def markets_request(self) -> Request:
        """The trading rules of all markets."""
        return Request(SYMBOLS_PATH, {})

    def read_markets(self, body: bytes) -> list[ListedMarket]:
        """Spot (`BTC`) and leverage (`BTC_JPY`), all in yen; a halt is not told. Raises ContractError.

        {"status":0,"data":[{"symbol":"BTC","sizeStep":"0.0001","tickSize":"1",…},…]}
        """
        symbols = decode_answer(_symbols, body, SYMBOLS_PATH)
        check_status(symbols.status, symbols.messages, SYMBOLS_PATH)
        return [
            ListedMarket(
                market.symbol,
                market.symbol.removesuffix("_JPY"),
                "JPY",
                read_step(market.tickSize),
                read_step(market.sizeStep),
                "trading",
            )
            for market in symbols.data
        ]

    def repair(self, market: str, since: Sequence[Trade], until: Trade | None) -> FetchPlan:
        """Plan how to get what happened after `since`: see `Venue.repair` and `ashi_ingest.venues.gmo.repair`."""
        return repair(self.name, market, since, until)

    def history(self, market: str, since_us: int, until_us: int | None) -> FetchPlan:
        """Plan how to get the trades of a stretch of time: see `Venue.history` and `ashi_ingest.venues.gmo.history`."""
        return history(self.name, market, since_us, until_us)


def _message(fields: dict[str, str]) -> str:
    return msgspec.json.encode({"channel": TRADES, **fields}).decode()

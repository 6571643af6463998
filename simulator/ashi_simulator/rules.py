"""The limits each venue documents, as the simulator enforces them. Times in seconds.

Sources: https://bf-lightning-api.readme.io/docs/limit, https://api.coin.z.com/docs/en/#restrictions,
https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams#websocket-limits and the like for USD-M.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

MEBIBYTE: Final = 1024 * 1024
DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Rules:
    """What one venue allows its clients; None where it documents no such limit.

    A test that has no patience gives the simulator rules with shorter times: `replace(RULES["gmo"], lifetime_s=5)`.

    Attributes:
        messages_per_s: messages (pings and pongs included) one connection may send within a second; one more and it is
            closed.
        subscribe_interval_s: least time between two subscriptions from one address, over all its connections; one
            that comes sooner is refused.
        streams: how many one connection may subscribe to.
        connections: how many one address may open within `connections_window_s`.
        lifetime_s: a connection is closed at this age.
        notice_s: how long before that the venue announces it.
        ping_interval_s: how often the venue pings.
        missed_pongs: after so many unanswered pings in a row it disconnects.
        unread_bytes: a client that leaves so much unread is dropped. Where the venue documents nothing of the kind
            this only keeps the simulator's own memory bounded.
        rest_weight: the sum of weights of the requests of one address within `rest_window_s`; above it, 429.
        needs_key: whether old trades are given only to who sends an API key.
        history_s: how far back REST lists trades; it refuses to go further.

    """

    messages_per_s: int | None = None
    subscribe_interval_s: float | None = None
    streams: int | None = None
    connections: int | None = None
    connections_window_s: float = 300.0
    lifetime_s: float | None = None
    notice_s: float | None = None
    ping_interval_s: float | None = None
    missed_pongs: int = 3
    unread_bytes: int = 64 * MEBIBYTE
    rest_weight: int | None = None
    rest_window_s: float = 60.0
    needs_key: bool = False
    history_s: float | None = None


_BINANCE: Final = Rules(
    messages_per_s=5,
    streams=1024,
    connections=300,
    lifetime_s=24 * 3600.0,
    notice_s=600.0,
    ping_interval_s=20.0,
    rest_weight=6000,
)

RULES: Final[Mapping[str, Rules]] = {
    "bitflyer": Rules(unread_bytes=4 * MEBIBYTE, rest_weight=500, rest_window_s=300.0, history_s=31 * DAY_S),
    "gmo": Rules(subscribe_interval_s=1.0, ping_interval_s=60.0),
    "binance": _BINANCE,
    "binance-usdm": Rules(
        messages_per_s=_BINANCE.messages_per_s,
        streams=_BINANCE.streams,
        connections=_BINANCE.connections,
        lifetime_s=_BINANCE.lifetime_s,
        notice_s=_BINANCE.notice_s,
        ping_interval_s=_BINANCE.ping_interval_s,
        rest_weight=2400,
        needs_key=True,
        history_s=30 * DAY_S,
    ),
}
"""By the name that begins the venue's symbols."""

DEFAULT_MARKETS: Final[Mapping[str, tuple[str, ...]]] = {
    "bitflyer": ("BTC_JPY", "FX_BTC_JPY", "ETH_JPY"),
    "gmo": ("BTC", "BTC_JPY", "ETH_JPY"),
    "binance": ("BTCUSDT", "ETHUSDT", "BNBUSDT"),
    "binance-usdm": ("BTCUSDT", "ETHUSDT", "BNBUSDT"),
}


def check_venue(venue: str) -> str:
    """Give `venue` back if it can be simulated. Raises UsageError that lists those that can."""
    if venue not in RULES:
        raise UsageError(f"venue {venue!r} cannot be simulated: choose one of {', '.join(RULES)}")
    return venue


def contiguous(venue: str, market: str) -> bool:
    """Whether the ids of its trades follow each other, so that a client can see from a hole that one is missing."""
    return venue.startswith("binance") or (venue == "bitflyer" and market.startswith("FX_"))

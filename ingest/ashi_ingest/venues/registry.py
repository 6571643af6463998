"""The venues Ashi understands, one module for each. Pure: bytes in, trades out, no I/O."""

from __future__ import annotations

from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol

from ashi_ingest.venues.binance.adapter import BinanceLive
from ashi_ingest.venues.binance.messages import Binance
from ashi_ingest.venues.bitflyer.adapter import BitFlyerLive
from ashi_ingest.venues.bitflyer.messages import BitFlyer
from ashi_ingest.venues.gmo.adapter import GmoLive
from ashi_ingest.venues.gmo.messages import Gmo
from ashi_ingest.venues.parsing import FrameParser, Parsed, Rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ashi_ingest.venues.base import Venue

__all__ = ["LIVE_VENUES", "VENUES", "FrameParser", "Parsed", "Rejected"]

VENUES: Final[Mapping[str, Callable[[], FrameParser]]] = MappingProxyType(
    {
        "bitflyer": BitFlyer,
        "gmo": Gmo,
        "binance": partial(Binance, "binance"),
        "binance-usdm": partial(Binance, "binance-usdm"),
    }
)
"""Every venue by the name that begins its symbols. Calling the value gives a parser for one feed: a connection or
a recording. They are made anew for each, because a venue without trade ids has to count as it reads."""


class _MakeLive(Protocol):
    def __call__(self, *, has_key: bool) -> Venue: ...


LIVE_VENUES: Final[Mapping[str, _MakeLive]] = MappingProxyType(
    {
        "bitflyer": BitFlyerLive,
        "gmo": GmoLive,
        "binance": partial(BinanceLive, "binance"),
        "binance-usdm": partial(BinanceLive, "binance-usdm"),
    }
)
"""The same venues as their live feeds need them. `has_key`: whether there is a Binance API key."""

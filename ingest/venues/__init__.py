"""The venues Ashi understands, one module for each. Pure: bytes in, trades out, no I/O."""

from __future__ import annotations

from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from ingest.venues.binance import Binance
from ingest.venues.bitflyer import BitFlyer
from ingest.venues.protocol import Parsed, Rejected, Venue

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["VENUES", "Parsed", "Rejected", "Venue"]

VENUES: Final[Mapping[str, Callable[[], Venue]]] = MappingProxyType(
    {
        "bitflyer": BitFlyer,
        "binance": partial(Binance, "binance"),
        "binance-usdm": partial(Binance, "binance-usdm"),
    }
)
"""Every venue by the name that begins its symbols. Calling the value gives a parser for one feed: a connection or
a recording. They are made anew for each, because a venue without trade ids has to count as it reads."""

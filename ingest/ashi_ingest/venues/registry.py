"""The only table of venues. A venue is a folder beside this module, and one line here.

Whoever has to know something of a venue by its name reads it from its description: commands, help texts, live workers,
replays, checks of klines.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from ashi_ingest.venues.binance import KLINE_FILE, SPOT, USDM
from ashi_ingest.venues.bitflyer import BITFLYER
from ashi_ingest.venues.gmo import GMO

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ashi_ingest.venues.base import VenueDescription

__all__ = ["KLINE_FILE", "KLINE_VENUES", "VENUES"]

_DESCRIPTIONS: Final = (
    BITFLYER,
    GMO,
    SPOT,
    USDM,
)

VENUES: Final[Mapping[str, VenueDescription]] = MappingProxyType({venue.name: venue for venue in _DESCRIPTIONS})
"""Every venue by the name that begins its symbols."""

KLINE_VENUES: Final = tuple(sorted(name for name, venue in VENUES.items() if venue.klines is not None))
"""The names of those that publish klines over REST."""

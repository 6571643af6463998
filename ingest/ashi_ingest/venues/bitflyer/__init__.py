"""bitFlyer Lightning."""

from __future__ import annotations

from typing import Final

from ashi_ingest.venues.base import VenueDescription
from ashi_ingest.venues.bitflyer.adapter import BitFlyerVenue
from ashi_ingest.venues.bitflyer.files import TRADE_FILE
from ashi_ingest.venues.bitflyer.messages import BitFlyerParser

BITFLYER: Final = VenueDescription(
    name="bitflyer",
    title="bitFlyer",
    example_market="BTC_JPY",
    busiest_markets=("BTC_JPY", "FX_BTC_JPY"),
    parser=BitFlyerParser,
    live=BitFlyerVenue,
    trade_file=TRADE_FILE,
)

"""GMO Coin."""

from __future__ import annotations

from typing import Final

from ashi_ingest.venues.base import VenueDescription
from ashi_ingest.venues.gmo.adapter import GmoVenue
from ashi_ingest.venues.gmo.files import TRADE_FILE
from ashi_ingest.venues.gmo.klines import GmoKlines
from ashi_ingest.venues.gmo.messages import GmoParser

GMO: Final = VenueDescription(
    name="gmo",
    title="GMO Coin",
    example_market="BTC_JPY",
    busiest_markets=("BTC", "BTC_JPY"),
    parser=GmoParser,
    live=GmoVenue,
    klines=GmoKlines(),
    trade_file=TRADE_FILE,
)

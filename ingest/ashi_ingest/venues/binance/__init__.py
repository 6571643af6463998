"""Binance: spot and USD-M futures."""

from __future__ import annotations

from functools import partial
from typing import Final

from ashi_ingest.venues.base import KlineFile, VenueDescription
from ashi_ingest.venues.binance.adapter import BinanceVenue
from ashi_ingest.venues.binance.files import trade_file
from ashi_ingest.venues.binance.klines import SPOT_KLINES, USDM_KLINES, read_row
from ashi_ingest.venues.binance.messages import BinanceParser, doubt
from ashi_ingest.venues.binance.repair import API_KEY

SPOT: Final = VenueDescription(
    name="binance",
    title="Binance spot",
    example_market="BTCUSDT",
    busiest_markets=("BTCUSDT", "ETHUSDT"),
    parser=partial(BinanceParser, "binance"),
    live=partial(BinanceVenue, "binance"),
    doubt=partial(doubt, "binance"),
    klines=SPOT_KLINES,
    trade_file=trade_file("binance"),
)
USDM: Final = VenueDescription(
    name="binance-usdm",
    title="Binance USD-M futures",
    example_market="BTCUSDT",
    busiest_markets=("BTCUSDT", "ETHUSDT"),
    parser=partial(BinanceParser, "binance-usdm"),
    live=partial(BinanceVenue, "binance-usdm"),
    doubt=partial(doubt, "binance-usdm"),
    klines=USDM_KLINES,
    api_key=API_KEY,
    trade_file=trade_file("binance-usdm"),
)
KLINE_FILE: Final = KlineFile("Binance", read_row)

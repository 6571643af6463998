"""The fault certification of each venue."""

import pytest
from venue_clock_certification import ClockCertification
from venue_fault_certification import FaultCertification
from venue_rest_fault_certification import RestFaultCertification

from ashi_ingest.venues.registry import VENUES

pytestmark = pytest.mark.slow


def test_every_venue_is_rehearsed() -> None:
    assert {suite.name for suite in FaultCertification.__subclasses__()} == set(VENUES)


class TestBitFlyerFaults(FaultCertification, RestFaultCertification, ClockCertification):
    name = "bitflyer"
    simulated = ("BTC_JPY", "FX_BTC_JPY", "ETH_JPY")


class TestGmoFaults(FaultCertification, RestFaultCertification, ClockCertification):
    name = "gmo"
    simulated = ("BTC", "BTC_JPY", "ETH_JPY")
    paced_apart_s = 1.0


class TestBinanceFaults(FaultCertification, RestFaultCertification, ClockCertification):
    name = "binance"
    simulated = ("BTCUSDT", "ETHUSDT", "BNBUSDT")


class TestBinanceUsdmFaults(FaultCertification, RestFaultCertification, ClockCertification):
    name = "binance-usdm"
    simulated = ("BTCUSDT", "ETHUSDT", "BNBUSDT")

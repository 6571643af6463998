"""The fault certification of each venue."""

from typing import Any

import pytest
from rehearsal import Rehearsal, Rehearsed
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


class TestBinanceUsdmWithoutKeyFaults(Rehearsed):
    """Without a key the venue lists the latest thousand trades of a market, and no older ones."""

    name = "binance-usdm"
    simulated = ("BTCUSDT", "ETHUSDT", "BNBUSDT")

    def rehearsal(self, rate: float = 3.0, **options: Any) -> Rehearsal:
        return super().rehearsal(rate, settings={"ASHI_BINANCE_API_KEY": ""}, **options)

    test_mute = FaultCertification.test_a_mute_market_is_found_and_subscribed_to_anew_and_its_neighbours_notice_nothing
    test_connections = FaultCertification.test_faults_of_connections_end_with_exact_gaps_too
    test_fifty_faults = FaultCertification.test_under_fifty_faults_every_trade_is_published_once_and_no_gap_stays_open

    @pytest.mark.parametrize(("fault", "rate"), [("mute", 70.0), ("drop", 70.0)])
    def test_what_is_older_than_the_latest_thousand_is_lost_and_no_more(self, fault: str, rate: float) -> None:
        market = self.simulated[0]

        async def act(run: Rehearsal) -> None:
            await run.pause(30)
            if fault == "mute":
                run.fault("mute", market=market)
            else:
                run.fault("refuse", seconds=25.0)
                run.fault("drop")
            await run.pause(70)

        run = Rehearsal(self.name, (market,), rate=rate, settings={"ASHI_BINANCE_API_KEY": ""}).run(act)
        run.assert_told_the_truth(missing=[market])
        run.assert_all_is_known()
        (gap,) = run.lost_gaps()
        assert run.reader.symbols[run.symbol(market)].missing()
        assert (gap.to_time or 0) - gap.from_time < 45_000_000

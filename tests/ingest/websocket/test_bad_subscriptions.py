"""One bad subscription does not hurt its neighbours: the sessions of all venues, against their simulators."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from toy_venue import Handler, session, until

from ashi.runtime.retry import Backoff
from ashi_ingest.venues.registry import VENUES
from ashi_simulator import Simulator

MARKETS = {
    "bitflyer": ["BTC_JPY", "FX_BTC_JPY", "ETH_JPY", "XRP_JPY"],
    "gmo": ["BTC", "ETH", "BTC_JPY", "ETH_JPY"],
    "binance": [f"M{number}USDT" for number in range(60)],
    "binance-usdm": [f"M{number}USDT" for number in range(60)],
}


class TradeHandler(Handler):
    """Counts the trades of each market, each by the parser of its venue."""

    def __init__(self, venue):
        super().__init__()
        self.parser = venue.parser()
        self.traded: dict[str, int] = {}

    def on_frame(self, connection, frame, received_ns):
        trades = self.parser.parse(frame, received_ns // 1000).trades
        for trade in trades:
            market = trade.symbol.partition(":")[2]
            self.traded[market] = self.traded.get(market, 0) + 1
        return bool(trades)


def quick():
    return Backoff(0.1, 0.2)


async def play(venue_name, fault, monkeypatch, check, fails_s):
    markets, culprit = MARKETS[venue_name], MARKETS[venue_name][2]
    venue = VENUES[venue_name].live(has_key=False)
    limits = replace(venue.limits, refusal_s=min(venue.limits.refusal_s, 0.5))
    monkeypatch.setattr(venue, "limits", limits, raising=False)
    async with Simulator(venue_name, markets, seed=1, rate=200) as simulator:
        simulator.start_market()
        simulator.fault(fault, market=culprit, seconds=fails_s)
        handler = TradeHandler(venue)
        async with session(venue, markets, None, url=simulator.websocket_url, handler=handler, backoff=quick):
            await until(lambda: handler.traded.keys() >= set(markets) - {culprit})
            await check(handler, culprit)
            assert simulator.limits()["connections"] == len(handler.connections)
            deaf = [end for end in handler.closed if end.reason == "unanswered"]
            assert len(handler.closed) == len(deaf) <= 1, "only a connection over which nothing at all came"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("venue_name", "fault", "fails_s"),
    [
        ("bitflyer", "subscribe_unanswered", 3.0),
        ("binance", "subscribe_unanswered", 8.0),
        ("binance", "subscribe_refused", 5.0),
    ],
)
def test_a_market_whose_subscription_fails_for_a_while_is_the_only_one_that_suffers(
    venue_name, fault, fails_s, monkeypatch
):
    async def check(handler, culprit):
        await until(lambda: len(handler.of("deferred")) >= 2)
        assert {market for _, market, _ in handler.of("deferred")} == {culprit}
        assert culprit not in handler.traded
        await until(lambda: culprit in handler.traded)
        assert handler.of("refused") == []

    asyncio.run(play(venue_name, fault, monkeypatch, check, fails_s))


@pytest.mark.parametrize("venue_name", ["bitflyer", "gmo"])
def test_a_market_that_the_venue_says_is_none_is_left_out_alone(venue_name, monkeypatch):
    async def check(handler, culprit):
        await until(lambda: handler.of("refused"))
        assert [market for market, _ in handler.of("refused")] == [culprit]
        assert handler.of("deferred") == []

    asyncio.run(play(venue_name, "subscribe_refused", monkeypatch, check, 8.0))

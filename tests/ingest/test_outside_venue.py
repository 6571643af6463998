"""A worker of each venue against venues that were written from the venues' own documentation, and nothing of ours."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from decimal import Decimal

import pytest

from ashi.contracts import decode_trade
from ashi.contracts.feed import FeedGap, decode_feed_gap, decode_feed_status, is_complete
from ashi.contracts.topics import FEED_GAPS, FEED_STATUS, TRADES
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.settings import Settings
from outside_venue.server import Venue
from outside_venue.truth import Trade

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

WINDOW_US = 1_000_000
MARKETS = {
    "bitflyer": {"FX_BTC_JPY": 8.0, "BTC_JPY": 8.0},
    "gmo": {"BTC": 2.0, "BTC_JPY": 2.0},
    "binance": {"BTCUSDT": 8.0, "ETHUSDT": 8.0},
    "binance-usdm": {"BTCUSDT": 8.0, "ETHUSDT": 8.0},
}

Identity = tuple[object, ...]


def identity(venue: str, trade: Trade) -> Identity:
    """What a reader can tell a trade by: GMO Coin has no ids."""
    if venue != "gmo":
        return (str(trade.id),)
    return trade.at_us // 1000, Decimal(trade.price), Decimal(trade.size), "buy" if trade.taker_buys else "sell"


class Reader:
    """Goes by the documented rule: status first, then the gaps, then the trades that it speaks of."""

    def __init__(self, settings: Settings, venue: Venue) -> None:
        self.settings = settings
        self.venue = venue
        self.gaps: dict[str, dict[int, FeedGap]] = {}
        self.trades: dict[str, Counter[Identity]] = {}
        self.claimed: set[tuple[str, int]] = set()

    async def look(self) -> None:
        """Read all there is; no window that is called complete now, and was not before, may lack a trade."""
        until = {}
        async for record in read_topic(self.settings, FEED_STATUS):
            status = decode_feed_status(record.value)
            until[status.symbol] = status.complete_until
        async for record in read_topic(self.settings, FEED_GAPS):
            gap = decode_feed_gap(record.value)
            of_symbol = self.gaps.setdefault(gap.symbol, {})
            if gap.from_time not in of_symbol or of_symbol[gap.from_time].updated_at < gap.updated_at:
                of_symbol[gap.from_time] = gap
        self.trades = {}
        async for record in read_topic(self.settings, TRADES):
            trade = decode_trade(record.value)
            key: Identity = (trade.trade_id,)
            if self.venue.venue == "gmo":
                key = (trade.traded_at // 1000, trade.price, trade.size, trade.side)
            self.trades.setdefault(trade.symbol, Counter())[key] += 1
        for symbol, complete_until in until.items():
            self._compare(symbol, complete_until)

    def _compare(self, symbol: str, complete_until: int | None) -> None:
        gaps = self.gaps.get(symbol, {})
        windows: dict[int, Counter[Identity]] = {}
        for trade in self.venue.truth.markets[symbol.partition(":")[2]].trades:
            opened = (trade.at_us - trade.at_us % 1000) // WINDOW_US * WINDOW_US
            windows.setdefault(opened, Counter())[identity(self.venue.venue, trade)] += 1
        for opened, made in windows.items():
            if opened + WINDOW_US <= min(gaps, default=0) or (symbol, opened) in self.claimed:
                continue  # before its first start
            if is_complete(opened, opened + WINDOW_US, complete_until, gaps.values()):
                self.claimed.add((symbol, opened))
                lacking = made - self.trades.get(symbol, Counter())
                assert not lacking, f"{symbol} {opened} is called complete and lacks {lacking}"

    def symbols(self) -> set[str]:
        """Those of which some window has been called complete."""
        return {symbol for symbol, _ in self.claimed}

    def missing(self, since: float) -> dict[str, int]:
        """How many trades made after `since` (s) are not published, by market."""
        found = {}
        for name, market in self.venue.truth.markets.items():
            made = Counter(identity(self.venue.venue, trade) for trade in market.trades if trade.made >= since)
            lacking = made - self.trades.get(f"{self.venue.venue}:{name}", Counter())
            if lacking:
                found[name] = lacking.total()
        return found

    def invented(self) -> Counter[Identity]:
        """What was published and never traded, or more often than it was."""
        found: Counter[Identity] = Counter()
        for symbol, published in self.trades.items():
            trades = self.venue.truth.markets[symbol.partition(":")[2]].trades
            found += published - Counter(identity(self.venue.venue, trade) for trade in trades)
        return found


@pytest.mark.parametrize("name", MARKETS)
def test_what_an_outsiders_venue_traded_is_published_and_no_window_is_called_complete_too_early(
    kafka_settings, start_stage, name
):
    async def run() -> None:
        venue = Venue(name, MARKETS[name], seed=1)
        reader = Reader(kafka_settings, venue)
        symbols = {f"{name}:{market}" for market in MARKETS[name]}
        await venue.start()
        websocket = f"ws://127.0.0.1:{venue.port}/" + {"bitflyer": "json-rpc", "gmo": "ws/public/v1"}.get(
            name, "stream"
        )
        addresses = {"ASHI_WEBSOCKET_URL": websocket, "ASHI_REST_URL": f"http://127.0.0.1:{venue.port}"}
        try:
            start_stage("ingest", name, *MARKETS[name], **addresses)
            while sum(len(connection.markets) for connection in venue.connections) < len(MARKETS[name]):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            await asyncio.sleep(3)
            since = time.time()
            venue.faults.lose_frames = dict.fromkeys(MARKETS[name], 1)
            venue.faults.rest_lag_s, venue.faults.rest_lag_until = 3.0, since + 6
            await asyncio.sleep(1)
            venue.cut()
            await reader.look()
            deadline = since + 45  # on a busy machine; it takes 8 s or so
            while time.time() < deadline:
                await reader.look()
                if time.time() > since + 6 and not reader.missing(since) and reader.symbols() == symbols:
                    break
                await asyncio.sleep(0.3)
            venue.pause()
            await asyncio.sleep(1)
            await reader.look()
            assert not reader.missing(since)
            assert not reader.invented()
            assert reader.symbols() == symbols
            assert not venue.violations
        finally:
            await venue.close()

    asyncio.run(run())


@pytest.mark.outside
@pytest.mark.parametrize("name", MARKETS)
def test_what_is_missed_while_only_a_part_of_an_outsiders_venue_fails_is_found(kafka_settings, start_stage, name):
    """A market goes mute; then it breaks off, refuses websockets, a subscription, and answers with empty lists."""

    async def run() -> None:
        venue = Venue(name, MARKETS[name], seed=2)
        reader = Reader(kafka_settings, venue)
        symbols = {f"{name}:{market}" for market in MARKETS[name]}
        first, second = MARKETS[name]
        await venue.start()
        websocket = f"ws://127.0.0.1:{venue.port}/" + {"bitflyer": "json-rpc", "gmo": "ws/public/v1"}.get(
            name, "stream"
        )
        addresses = {"ASHI_WEBSOCKET_URL": websocket, "ASHI_REST_URL": f"http://127.0.0.1:{venue.port}"}
        try:
            addresses["ASHI_MARKET_LIST_INTERVAL"] = "2s"  # a market that was refused is tried again after each list
            start_stage("ingest", name, *MARKETS[name], **addresses)
            while sum(len(connection.markets) for connection in venue.connections) < len(MARKETS[name]):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            await asyncio.sleep(3)
            since = time.time()
            venue.mute(second)
            venue.faults.rest_mode, venue.faults.rest_until = "empty", since + 7
            await asyncio.sleep(1.5)
            venue.faults.handshake_status, venue.faults.handshake_until = 503, since + 3
            venue.faults.refuse_subscription = {first: 1}
            venue.faults.late_subscription_s = {second: 1.0}
            venue.cut()
            deadline = since + 90  # on a busy machine; it takes 15 s or so
            while time.time() < deadline:
                await reader.look()
                if time.time() > since + 8 and not reader.missing(since):
                    break
                await asyncio.sleep(0.3)
            venue.faults.late_subscription_s = {}
            venue.pause()
            await asyncio.sleep(1)
            while time.time() < deadline and (reader.missing(since) or reader.symbols() != symbols):
                await asyncio.sleep(0.3)
                await reader.look()
            assert not reader.missing(since)
            assert not reader.invented()
            assert reader.symbols() == symbols
            assert not venue.violations
        finally:
            await venue.close()

    asyncio.run(run())

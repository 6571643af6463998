"""Symbols that begin in the past: `ashi ingest VENUE MARKET --since TIME`, rehearsed in virtual time."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from rehearsal import Rehearsal

from ashi.contracts import decode_trade
from ashi.contracts.errors import UsageError
from ashi.contracts.feed import is_complete
from ashi.contracts.topics import TRADES
from ashi.contracts.trade import EARLIEST_US, Trade
from ashi.runtime.settings import Settings
from ashi_ingest import worker as live
from ashi_ingest.feed.symbol.resume import is_late
from ashi_ingest.venues.registry import VENUES

pytestmark = pytest.mark.slow

MARKETS = {
    "bitflyer": ("FX_BTC_JPY", "BTC_JPY"),
    "gmo": ("BTC_JPY", "BTC"),
    "binance": ("BTCUSDT", "ETHUSDT"),
    "binance-usdm": ("BTCUSDT", "ETHUSDT"),
}
BEFORE_S = 500.0
SKIPPED_S = 100.0
MINUTE_US = 60_000_000
STOPPED = "stopped: the process stops"
"""The gap that the end of the run leaves."""


class FromThePast(Rehearsal):
    """The market has traded for some minutes; the worker begins a little after its first trade."""

    async def start(self, markets: Any = None, **options: Any) -> None:
        await super().start(markets, since_us=self.since_us, **options)

    @property
    def since_us(self) -> int:
        return self.traded_us + round(SKIPPED_S * 1e6)

    def published(self, market: str) -> list[Trade]:
        """In the order of the log."""
        key = self.symbol(market).encode()
        return [
            decode_trade(record.value)
            for record in self.kafka.log
            if record.topic == TRADES and record.key == key and record.value is not None
        ]

    def assert_one_whole_stream(self) -> None:
        """Everything since then, once, in the venue's order, nothing late; and a reader is told that it is whole."""
        assert not any(is_late(record) for record in self.kafka.log if record.topic == TRADES)
        for market in self.markets:
            truth = [each for each in self.sim.truth(markets=[market]) if each.traded_at >= self.since_us]
            published = [(each.trade_id, each.traded_at, each.price, each.size) for each in self.published(market)]
            assert published == [(each.trade_id, each.traded_at, each.price, each.size) for each in truth]
            symbol = self.reader.symbols[self.symbol(market)]
            gaps = [gap for gap in symbol.gaps.values() if gap.reason != STOPPED]
            status = self.states[self.symbol(market)]
            assert status is not None
            for opened in range(-(-self.since_us // MINUTE_US) * MINUTE_US, self.ended_us - MINUTE_US, MINUTE_US):
                assert is_complete(opened, opened + MINUTE_US, status.complete_until, gaps), "\n".join(map(str, gaps))
            assert not is_complete(self.since_us - 2, self.since_us - 1, status.complete_until, gaps)
            assert {gap.state for gap in gaps if gap.from_time != EARLIEST_US} == {"repaired"}
        self.reader.assert_never_misled()


def from_the_past(venue: str, **options: Any) -> FromThePast:
    return FromThePast(venue, MARKETS[venue], rate=4.0, before_s=BEFORE_S, quiet_s=100.0, **options)


@pytest.mark.parametrize("venue", MARKETS)
def test_a_symbol_that_begins_in_the_past_is_one_stream_from_then_on(venue: str) -> None:
    async def act(run: Rehearsal) -> None:
        await run.pause(60)
        run.fault("drop")
        await run.pause(60)

    run = from_the_past(venue)
    run.run(act)
    run.assert_one_whole_stream()


@pytest.mark.parametrize(("venue", "rate", "counts"), [("gmo", 5.0, (200, 600)), ("binance", 16.0, (900, 1900))])
def test_killed_on_the_way_it_goes_on_where_it_was_with_the_same_command(
    venue: str, rate: float, counts: tuple[int, int]
) -> None:
    async def act(run: Rehearsal) -> None:
        await run.pause(60)

    class Killed(FromThePast):
        async def start(self, markets: Any = None, **options: Any) -> None:
            for count in counts:
                await super().start(markets, **options)
                while sum(len(self.published(each)) for each in self.markets) <= count:
                    await self.pause(0.1)
                assert not self.sim.subscribed
                await self.kill()
            await super().start(markets, **options)
            await self.until(lambda: set(self.markets) <= set(self.sim.subscribed), 900)

    run = Killed(venue, MARKETS[venue], rate=rate, before_s=BEFORE_S, quiet_s=100.0)
    run.run(act)
    run.assert_one_whole_stream()


def test_the_weather_of_rest_makes_it_wait_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def act(run: Rehearsal) -> None:
        await run.pause(60)

    class Refused(FromThePast):
        async def start(self, markets: Any = None, **options: Any) -> None:
            await super().start(markets, **options)
            await self.until(lambda: len(self.published(self.markets[0])) > 550, 600)
            self.fault("rest_refuse", status=403, seconds=150.0)
            await self.until(lambda: set(self.markets) <= set(self.sim.subscribed), 600)

    run = Refused("bitflyer", MARKETS["bitflyer"], rate=4.0, before_s=BEFORE_S, quiet_s=100.0)
    run.run(act)
    run.assert_one_whole_stream()
    told = [record.getMessage() for record in caplog.records]
    assert any("history has to wait" in text and "403" in text for text in told)
    assert any("is fetched" in text and "requests and" in text and "are left" in text for text in told), (
        "the arithmetic"
    )


def test_a_symbol_that_has_trades_goes_on_after_them_and_it_is_said_what_to_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def act(run: Rehearsal) -> None:
        await run.pause(30)
        await run.stop()
        await run.pause_dead(60)  # type: ignore[attr-defined]
        await run.start(since_us=run.traded_us)
        await run.pause(60)

    class Twice(Rehearsal):
        async def pause_dead(self, seconds: float) -> None:
            await asyncio.sleep(seconds)

    run = Twice("gmo", MARKETS["gmo"], rate=4.0, before_s=60.0, quiet_s=100.0)
    run.run(act)
    (text,) = {
        record.message
        for record in caplog.records
        if "--since is not applied" in record.message and "BTC_JPY" in record.message
    }
    assert "ashi ingest backfill gmo BTC_JPY" in text
    published = [record for record in run.kafka.log if record.topic == TRADES]
    assert min(decode_trade(record.value or b"").traded_at for record in published) > run.traded_us + 50_000_000


@pytest.mark.parametrize(
    ("venue", "since_us", "environment", "words"),
    [
        ("gmo", 4_000_000_000_000_000, {}, "in the future"),
        ("gmo", 0, {}, "before any trade"),
        ("binance-usdm", 1_700_000_000_000_000, {}, "ASHI_BINANCE_API_KEY"),
    ],
)
def test_a_time_that_nothing_can_begin_at_is_refused(
    venue: str, since_us: int, environment: dict[str, str], words: str
) -> None:
    options = live.LiveOptions(venue, [VENUES[venue].example_market], since_us=since_us)
    with pytest.raises(UsageError, match=words):
        live.run_live(Settings.from_environment(environment), options)

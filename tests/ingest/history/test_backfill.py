"""`ashi ingest backfill`, rehearsed in virtual time beside a worker of the same symbols, and without one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace
from rehearsal import KEY, Rehearsal

from ashi.contracts import decode_trade
from ashi.contracts.errors import UsageError
from ashi.contracts.feed import FEED_GAP_SCHEMA, FeedGap, encode_feed, is_complete
from ashi.contracts.late_gaps import LATE_REASON, TAKEN_IN
from ashi.contracts.topics import FEED_GAPS, TRADES
from ashi.contracts.trade import EARLIEST_US
from ashi.runtime.kafka.producing.dead_letters import message_headers
from ashi.runtime.service import Service
from ashi.runtime.settings import Settings
from ashi_ingest.feed.symbol.resume import is_late
from ashi_ingest.history import backfill
from ashi_ingest.history.backfill import BackfillOptions, run_backfill
from ashi_ingest.history.settled_gaps import Span

pytestmark = pytest.mark.slow

MARKETS = {"bitflyer": ("FX_BTC_JPY", "BTC_JPY"), "gmo": ("BTC_JPY", "BTC"), "binance": ("BTCUSDT", "ETHUSDT")}
MARKETS["binance-usdm"] = MARKETS["binance"]
MINUTE_US = 60_000_000
BEFORE_S = 300.0


class Backfilled(Rehearsal):
    """The market has traded for some minutes when the worker is started, so its first trades are missing."""

    def late(self) -> list[Any]:
        return [
            decode_trade(record.value or b"") for record in self.kafka.log if record.topic == TRADES and is_late(record)
        ]

    async def backfill(
        self, from_us: int, to_us: int, *, stop_after_s: float | None = None, **settings: str
    ) -> tuple[list[str | None], list[str]]:
        """Gives why each market is not whole, and the lines."""
        environment = {"ASHI_REST_URL": self.sim.rest_url, **KEY, **settings}
        service = Service("ingest-backfill", Settings.from_environment(environment))
        if stop_after_s is not None:
            asyncio.get_running_loop().call_later(stop_after_s, service.stopping.set)
        lines: list[str] = []
        outcomes: list[Any] = []
        options = BackfillOptions(self.venue, self.markets, from_us, to_us)
        await backfill._run(service, options, Span(from_us, to_us), lines.append, outcomes)
        return [outcome.reason for outcome in outcomes], lines

    async def say(self, gap: FeedGap) -> None:
        """What other stages say of gaps."""
        message = gap.symbol.encode(), encode_feed(gap), message_headers(FEED_GAP_SCHEMA)
        await self.kafka.take(FEED_GAPS, 0, [message])

    def gaps_of(self, market: str) -> list[FeedGap]:
        return [gap for gap in self.reader.symbols[self.symbol(market)].gaps.values() if "process" not in gap.reason]

    def assert_whole_from(self, from_us: int) -> None:
        """Every trade stands there once, and a reader is told that nothing is missing since then, and no more."""
        self.reader.assert_truth(missing=[self.symbol(market) for market in self.markets])
        self.reader.assert_never_misled()
        for market in self.markets:
            symbol, status = self.reader.symbols[self.symbol(market)], self.states[self.symbol(market)]
            assert not [trade for trade in symbol.missing() if trade.traded_at >= from_us]
            assert status is not None
            gaps = self.gaps_of(market)
            for opened in range(-(-from_us // MINUTE_US) * MINUTE_US, self.ended_us - MINUTE_US, MINUTE_US):
                assert is_complete(opened, opened + MINUTE_US, status.complete_until, gaps), "\n".join(map(str, gaps))
            assert not is_complete(from_us - 2, from_us - 1, status.complete_until, gaps)


def backfilled(venue: str) -> Backfilled:
    return Backfilled(venue, MARKETS[venue], rate=4.0, before_s=BEFORE_S, quiet_s=100.0)


@pytest.mark.parametrize("venue", MARKETS)
def test_beside_a_worker_it_publishes_what_is_missing_once_and_the_gap_is_shortened(venue: str) -> None:
    begin: list[int] = []

    async def act(run: Rehearsal) -> None:
        assert isinstance(run, Backfilled)
        begin.append(run.traded_us + 60_000_000)
        await run.pause(150)
        symbol, begun = run.symbol(run.markets[0]), begin[0] + 1
        late = FeedGap(symbol, begun, begun + MINUTE_US, "lost", 0, LATE_REASON, run.now_us(), final=True)
        await run.say(late)
        reasons, lines = await run.backfill(begin[0], run.now_us() - MINUTE_US)
        assert run.reader.symbols[symbol].gaps[begun] == late, "it is `ashi rebuild` that ends it"
        await run.say(replace(late, state="repaired", reason=TAKEN_IN, updated_at=late.updated_at + 1, final=False))
        assert reasons == [None, None] or venue == "gmo", lines
        count = len(run.late())
        assert count > 300
        again, lines = await run.backfill(begin[0], run.now_us() - MINUTE_US)
        assert again == reasons
        assert len(run.late()) == count, "nothing twice"
        assert any("0 of them new" in line for line in lines)

    run = backfilled(venue)
    run.run(act)
    run.assert_whole_from(begin[0])
    assert {gap.from_time for market in run.markets for gap in run.gaps_of(market) if gap.state == "lost"} == {
        EARLIEST_US
    }


def test_stopped_in_the_middle_it_tells_what_is_known_and_the_same_command_does_the_rest() -> None:
    begin: list[int] = []

    async def act(run: Rehearsal) -> None:
        assert isinstance(run, Backfilled)
        begin.append(run.traded_us + 30_000_000)
        to_us = run.now_us() + 3_000_000
        await run.pause(60)
        reasons, _ = await run.backfill(begin[0], to_us, stop_after_s=6.0)
        assert reasons[0] is not None
        assert "told to stop" in reasons[0]
        some = len(run.late())
        assert some
        (left,) = [gap for gap in run.gaps_of(run.markets[0]) if gap.state == "lost" and gap.from_time != EARLIEST_US]
        assert begin[0] < left.from_time < to_us, "what is known is not lost any more"
        await run.backfill(begin[0], to_us)
        assert len(run.late()) > some

    run = backfilled("gmo")
    run.run(act)
    run.assert_whole_from(begin[0])


def test_when_patience_ends_it_says_why_and_no_gap_is_changed() -> None:
    async def act(run: Rehearsal) -> None:
        assert isinstance(run, Backfilled)
        begin_us, to_us = run.traded_us, run.now_us()
        await run.pause(30)
        before = [run.reader.symbols[run.symbol(market)].gaps[EARLIEST_US] for market in run.markets]
        run.fault("rest_refuse", status=403, seconds=3000.0)
        reasons, lines = await run.backfill(begin_us, to_us, ASHI_REPAIR_PATIENCE="2m")
        assert all(reason is not None and "403" in reason for reason in reasons)
        assert run.late() == []
        assert any("not all of it could be got" in line for line in lines)
        for market in run.markets:
            assert run.reader.symbols[run.symbol(market)].gaps[EARLIEST_US] in before

    run = backfilled("bitflyer")
    run.run(act)


def test_without_a_worker_it_continues_the_stream_where_it_joins_on_to_it_and_the_next_worker_goes_on() -> None:
    async def act(run: Rehearsal) -> None:
        assert isinstance(run, Backfilled)
        await run.pause(30)
        await run.stop()
        stopped_us = run.now_us()
        await asyncio.sleep(400)
        late = len(run.late())
        reasons, _ = await run.backfill(stopped_us - 10_000_000, stopped_us + 200_000_000)
        assert reasons == [None, None]
        assert len(run.late()) == late, "nothing newer stands before them"
        await run.backfill(stopped_us + 250_000_000, stopped_us + 300_000_000)
        assert len(run.late()) > late, "the next worker still has to fetch what lies before"
        await run.start()
        await run.pause(100)

    run = Backfilled("binance", MARKETS["binance"], rate=4.0, before_s=0.0, quiet_s=100.0)
    run.run(act)
    run.reader.assert_truth(copies=2)
    run.reader.assert_never_misled()
    for market in run.markets:
        twice = [trade_id for trade_id, count in run.reader.symbols[run.symbol(market)].published.items() if count > 1]
        assert set(twice) <= {trade.trade_id for trade in run.late()}, "only what did not join on"


def test_without_a_worker_what_the_venue_cannot_give_is_lost_before_the_stream_is_continued() -> None:
    """Without a key USD-M lists the latest thousand; the next worker goes on after the last of them."""

    async def act(run: Rehearsal) -> None:
        assert isinstance(run, Backfilled)
        await run.pause(30)
        await run.stop()
        stopped_us = run.now_us()
        await asyncio.sleep(400)
        (reason,), _ = await run.backfill(stopped_us - 10_000_000, run.now_us() - 20_000_000, ASHI_BINANCE_API_KEY="")
        assert reason is not None
        assert "KEY" in reason
        assert run.late() == []
        (lost,) = [gap for gap in run.gaps_of("BTCUSDT") if gap.state == "lost" and gap.from_time > EARLIEST_US]
        assert lost.from_time <= stopped_us < (lost.to_time or 0) < run.now_us() - 100_000_000
        await run.start()
        await run.pause(60)

    keyless = {"ASHI_BINANCE_API_KEY": ""}
    run = Backfilled("binance-usdm", ("BTCUSDT",), rate=8.0, quiet_s=100.0, settings=keyless)
    run.run(act)
    run.assert_told_the_truth(missing=["BTCUSDT"])
    assert run.reader.symbols["binance-usdm:BTCUSDT"].missing()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (BackfillOptions("nowhere", ["X"], 10**15), "no venue"),
        (BackfillOptions("gmo", [], 10**15), "name the markets"),
        (BackfillOptions("gmo", ["BTC"], 5), "before any trade"),
        (BackfillOptions("gmo", ["BTC"], 4 * 10**15), "is not a time in the past"),
        (BackfillOptions("gmo", ["BTC"], 1_700_000_000_000_000, 1_600_000_000_000_000), "is not a time in the past"),
    ],
)
def test_what_cannot_be_fetched_is_refused(options: BackfillOptions, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        run_backfill(Settings.from_environment({}), options, lambda _: None)

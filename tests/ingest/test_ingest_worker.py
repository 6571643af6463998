"""The life of a live worker without Kafka: what it asks before it begins, and how it ends."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from ashi.contracts.errors import BrokerError, BrokerUnreachableError, VenueError
from ashi.contracts.feed import FeedStatus, decode_feed_gap, decode_feed_status
from ashi.contracts.instrument import Instrument, decode_instrument
from ashi.contracts.trade import EARLIEST_US, Trade
from ashi.runtime import waiting
from ashi.runtime.retry import Backoff
from ashi.runtime.service import Service
from ashi.runtime.settings import Settings
from ashi_cli.main import main
from ashi_ingest import markets as markets_module
from ashi_ingest import running_feeds
from ashi_ingest import worker as live
from ashi_ingest.feed.reporting.reported import ReportedFeed
from ashi_ingest.feed.symbol.symbol_feed import SymbolFeed
from ashi_ingest.publish.acknowledged import LostTrades
from ashi_ingest.rest.client import RestError
from ashi_ingest.shard import Shard, shard_of
from ashi_ingest.venues.base import Answer

LISTED = b'[{"product_code":"BTC_JPY"},{"product_code":"FX_BTC_JPY"},{"product_code":"ETH_JPY"}]'
NOW_US = 1_723_161_254_340_863
NONE_OF_THEM = VenueError("no websocket connection can be made")


class Publisher:
    """Remembers what is said in `feed.status` and `feed.gaps`, and whether all of it was flushed."""

    def __init__(self):
        self.held = 0
        self.appended = None
        self.settled = asyncio.Event()
        self.states = {}
        self.gaps = []
        self.instruments = {}
        self.flushed = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.losses = []

    def take_losses(self):
        losses, self.losses = self.losses, []
        return losses

    def shares(self, symbol, lost):
        return symbol == "bitflyer:BTC_JPY" and lost.partition == 3

    mark = 0

    def expect(self, count):
        pass

    def is_acknowledged(self, symbol, mark):
        return True

    async def announce(self, topic, key, value, schema, on_acknowledged=lambda: None):
        on_acknowledged()
        self.flushed = False
        if topic == "feed.status":
            self.states[key] = decode_feed_status(value)
        elif topic == "instruments":
            self.instruments[key] = decode_instrument(value)
        else:
            self.gaps.append(decode_feed_gap(value))

    async def send_batches(self):
        pass

    async def flush(self):
        await self.gate.wait()
        self.flushed = True


class RestClient:
    """Gives the answers it was told to, the last one for ever; an exception is raised."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = 0

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        pass

    async def get(self, request):
        self.asked += 1
        await asyncio.sleep(0)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return Answer(answer, 0)


class Bench:
    """A worker of bitFlyer with everything around it made up, and what became of it."""

    handler: Any
    worker_session: Any

    def __init__(self, monkeypatch, markets, *answers, shard=None, session=None, redundant=False):
        self.publisher = Publisher()
        settings = Settings.from_environment({})
        self.service = Service("test", replace(settings, market_list_interval_us=2_000))
        self.sessions: list[Any] = []
        self.reported: dict[str, ReportedFeed] = {}
        self.session = session or self.wait
        self.asked_kafka = 0
        self.added: list[str] = []
        self.searched: list[list[str]] = []
        self.late: dict[str, list[Trade]] = {}
        self.removed: list[str] = []
        self.instruments: dict[str, Instrument] = {}
        self.kafka_is_away = lambda asked: False

        @asynccontextmanager
        async def open_publisher(*_, **__):
            yield self.publisher

        async def read_feed(settings, symbols):
            return {symbol: self.reported.get(symbol, ReportedFeed(None, ())) for symbol in symbols}

        async def read_resume_points(settings, symbols, reported, *, since=None, late=None, unread=None):
            self.searched.append(list(symbols))
            if late is not None:
                late.update(self.late)
            return {symbol: [] for symbol in self.searched[-1]}

        async def read_instruments(settings, venue):
            return self.instruments

        async def require_access(settings, access):
            self.asked_kafka += 1
            if self.kafka_is_away(self.asked_kafka):
                raise BrokerUnreachableError("cannot reach Kafka")

        async def follow_feeds(settings, reporter):
            await asyncio.Event().wait()

        this = self

        class Session:
            """Runs what the bench is told to run."""

            def __init__(self, venue, markets, handler, **_):
                this.sessions.append(list(markets))
                this.handler = handler
                self.markets = list(markets)
                this.worker_session = self

            async def run(self, stopping):
                await this.session(stopping)

            def add(self, markets):
                self.markets += markets
                this.added += markets

            def remove(self, market):
                self.markets.remove(market)
                this.removed.append(market)

        for name, fake in locals().items():
            for module in (live, running_feeds, waiting):
                if callable(fake) and hasattr(module, name):
                    monkeypatch.setattr(module, name, fake)
        monkeypatch.setattr(markets_module, "Backoff", lambda: Backoff(0.001, 0.002))
        monkeypatch.setattr(waiting, "Backoff", lambda **_: Backoff(0.001, 0.002))
        monkeypatch.setattr(live, "LOOK_INTERVAL_S", 0.005)
        self.worker = live._Worker(
            self.service, live.LiveOptions("bitflyer", markets, shard, redundant=redundant), None
        )
        self.rest = RestClient(*answers)
        monkeypatch.setattr(self.worker, "_rest", self.rest)

    async def wait(self, stopping):
        await stopping.wait()

    def away_until(self, asked):
        """Kafka cannot be reached before it was asked so often."""
        self.kafka_is_away = lambda now: now < asked

    async def run_until(self, condition):
        """Run until something is so, then stop."""
        task = asyncio.create_task(self.worker.run())
        async with asyncio.timeout(60):
            while not condition() and not task.done():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            self.service.stopping.set()
            await task


@pytest.fixture
def bench(monkeypatch):
    """Play a scenario with a worker that is made within the loop."""

    def play(scenario, markets, *answers, **options):
        async def main():
            await scenario(Bench(monkeypatch, markets, *answers, **options))

        asyncio.run(main())

    return play


def test_a_market_that_the_venue_does_not_list_is_left_out_and_said_to_be_down(bench):
    async def scenario(bench):
        await bench.run_until(lambda: bench.sessions)
        assert bench.sessions == [["BTC_JPY"]]
        assert bench.publisher.states["bitflyer:NOPE"].state == "down"
        assert "no such market" in bench.publisher.states["bitflyer:NOPE"].reason
        assert bench.publisher.states["bitflyer:BTC_JPY"].reason == "the worker has been stopped"
        assert bench.publisher.flushed

    bench(scenario, ["NOPE", "BTC_JPY", "BTC_JPY"], LISTED)


def test_a_market_in_lower_case_is_told_how_the_venue_writes_it(bench):
    async def scenario(bench):
        with pytest.raises(VenueError, match=r"none of the markets btc_jpy, nope; did you mean BTC_JPY\?$"):
            await bench.run_until(lambda: False)
        assert bench.publisher.states["bitflyer:btc_jpy"].reason == (
            "bitflyer has no such market; did you mean BTC_JPY?"
        )
        assert bench.publisher.states["bitflyer:nope"].reason == "bitflyer has no such market"

    bench(scenario, ["btc_jpy", "nope"], LISTED)


def test_what_is_fetched_is_recorded(bench):
    recorded: list[str] = []

    async def scenario(bench):
        async def session(stopping):
            bench.handler._publish_buffer._on_fetched(["a trade"])
            await stopping.wait()

        bench.session = session
        bench.worker._recorder = SimpleNamespace(fetched=recorded.extend, state=lambda *_: None)
        await bench.run_until(lambda: recorded)
        assert recorded == ["a trade"]

    bench(scenario, ["BTC_JPY"], LISTED)


@pytest.mark.parametrize("redundant", [False, True])
def test_a_worker_says_whether_it_is_one_of_several_on_purpose(bench, redundant):
    async def scenario(bench):
        await bench.run_until(lambda: bench.sessions)
        (worker,) = bench.publisher.states["bitflyer:BTC_JPY"].workers
        assert (worker.state, worker.redundant) == ("down", redundant)

    bench(scenario, ["BTC_JPY"], LISTED, redundant=redundant)


def test_the_command_line_says_whether_a_worker_is_one_of_several_on_purpose(monkeypatch):
    options = []

    def run_live(_, given):
        options.append(given)
        return 0

    monkeypatch.setattr(live, "run_live", run_live)
    assert [main(["ingest", "bitflyer", "BTC_JPY", *more]) for more in ([], ["--redundant"])] == [0, 0]
    assert [given.redundant for given in options] == [False, True]


def test_when_none_of_the_markets_exists_the_worker_says_so_everywhere_and_ends(bench):
    async def scenario(bench):
        with pytest.raises(VenueError, match="none of the markets NOPE, NEITHER: correct"):
            await bench.run_until(lambda: False)
        assert bench.sessions == []
        assert {name: status.state for name, status in bench.publisher.states.items()} == {
            "bitflyer:NOPE": "down",
            "bitflyer:NEITHER": "down",
        }
        assert bench.publisher.flushed

    bench(scenario, ["NOPE", "NEITHER"], LISTED)


@pytest.mark.parametrize(
    "answer",
    [
        b'{"status":5,"messages":[{"message_code":"ERR-5201","message_string":"MAINTENANCE."}]}',
        b"<html>",
        RestError("HTTP 503", 0.0),
        RestError("HTTP 451", None),
        RestError("HTTP 429", 3600.0),
    ],
    ids=["maintenance", "a web page", "unavailable", "for ever", "for an hour"],
)
def test_named_markets_are_read_unchecked_when_the_venue_does_not_list_its_own(bench, answer):
    async def scenario(bench):
        await bench.run_until(lambda: bench.sessions)
        assert bench.sessions == [["BTC_JPY"]]

    bench(scenario, ["BTC_JPY"], answer)


def test_all_markets_are_asked_for_until_the_venue_lists_them(bench):
    async def scenario(bench):
        await bench.run_until(lambda: bench.sessions)
        assert bench.sessions == [["BTC_JPY", "ETH_JPY", "FX_BTC_JPY"]]

    unavailable = [RestError("HTTP 503", 0.0)] * 5
    bench(scenario, [], *unavailable, b"<html>", b"[]", LISTED)


def test_all_markets_of_a_venue_that_will_never_list_them_is_an_error(bench):
    async def scenario(bench):
        with pytest.raises(VenueError, match="451"):
            await bench.run_until(lambda: False)

    bench(scenario, [], RestError("HTTP 451", None))


def test_a_worker_that_waits_for_the_list_is_alive_and_stops_at_once(bench):
    async def scenario(bench):
        beats = []
        beat = bench.service.health.beat

        def count_and_beat():
            beats.append(1)
            beat()

        bench.service.health.beat = count_and_beat
        await bench.run_until(lambda: len(beats) > 5)
        assert bench.sessions == []

    bench(scenario, [], RestError("HTTP 429", 3600.0))


def test_a_shard_reads_its_part_and_leaves_the_rest_to_others(bench):
    mine = [market for market in ("BTC_JPY", "ETH_JPY", "FX_BTC_JPY") if shard_of(f"bitflyer:{market}", 2) == 1]
    assert 0 < len(mine) < 3

    async def scenario(bench):
        await bench.run_until(lambda: bench.sessions)
        assert bench.sessions == [mine]

    bench(scenario, [], LISTED, shard=Shard(1, 2))


def test_a_shard_without_any_market_waits_ready_to_be_stopped(bench):
    """A StatefulSet may have more pods than there are markets; one that ends would be started again for ever."""
    empty = next(number for number in range(50) if shard_of("bitflyer:BTC_JPY", 50) != number)

    async def scenario(bench):
        await bench.run_until(lambda: bench.service.health.ready()[0])
        assert bench.service.health.ready() == (True, "no market belongs to this shard")
        assert bench.sessions == [[]]

    bench(scenario, ["BTC_JPY"], LISTED, shard=Shard(empty, 50))


def test_a_worker_whose_markets_were_all_refused_says_so_and_ends(bench):
    async def scenario(bench):
        async def refuse(stopping):
            bench.handler.on_refused("BTC_JPY", "no such channel")
            bench.worker_session.markets.clear()

        bench.session = refuse
        with pytest.raises(VenueError, match="none of the markets BTC_JPY"):
            await bench.run_until(lambda: False)
        assert bench.publisher.states["bitflyer:BTC_JPY"].reason == "no such channel"
        assert bench.publisher.flushed

    bench(scenario, ["BTC_JPY"], LISTED)


def test_a_connection_that_can_never_be_made_ends_the_worker_and_its_symbols_are_down(bench):
    async def scenario(bench):
        async def fail(stopping):
            raise NONE_OF_THEM

        bench.session = fail
        with pytest.raises(VenueError, match="no websocket"):
            await bench.run_until(lambda: False)
        assert "no websocket connection" in bench.publisher.states["bitflyer:BTC_JPY"].reason
        assert bench.publisher.flushed

    bench(scenario, ["BTC_JPY"], LISTED)


def test_a_stop_while_kafka_is_away_ends_in_time_and_says_so(bench, monkeypatch):
    monkeypatch.setattr(live, "FLUSH_BOUND_S", 0.05)

    async def scenario(bench):
        bench.publisher.gate.clear()
        with pytest.raises(BrokerError, match="the next start fetches them"):
            await bench.run_until(lambda: bench.sessions)

    bench(scenario, ["BTC_JPY"], LISTED)


def test_trades_of_a_symbol_that_is_being_fetched_from_the_past_and_are_gone_are_asked_for_when_it_is_there(
    bench, monkeypatch
):
    lost_times = []
    handed_over = {}

    class Beginnings:
        """Hands over when it is told to."""

        def __init__(self, venue, since_us, *, hand_over, **_):
            self.markets: list[str] = []
            handed_over["now"] = lambda: hand_over(self.markets.pop(0), [])

        def add(self, market, resume_point):
            self.markets.append(market)

        async def run(self):
            await asyncio.Event().wait()

        async def stop(self, reason):
            pass

    class Feeds(live.FeedSupervisor):
        def lose_time(self, *lost):
            lost_times.append(lost)

    monkeypatch.setattr(live, "Beginnings", Beginnings)
    monkeypatch.setattr(live, "FeedSupervisor", Feeds)

    async def scenario(bench):
        bench.worker._options = replace(bench.worker._options, since_us=NOW_US)
        bench.publisher.losses.append(LostTrades(3, NOW_US, 20, 22))

        def lost_gaps():
            return [gap for gap in bench.publisher.gaps if gap.state == "lost" and gap.from_time > EARLIEST_US]

        def asked_for():
            if lost_gaps() and handed_over:  # the first is BTC_JPY
                handed_over.pop("now")()
            return lost_times

        await bench.run_until(asked_for)
        [lost] = lost_gaps()
        assert (lost.symbol, lost.from_time) == ("bitflyer:BTC_JPY", NOW_US)
        assert lost_times == [("bitflyer:BTC_JPY", NOW_US, lost.to_time, lost.reason)]

    bench(scenario, ["BTC_JPY", "ETH_JPY"], LISTED)


def test_trades_that_are_gone_from_the_log_are_a_lost_gap_of_the_symbols_of_their_partition(bench):
    async def scenario(bench):
        bench.publisher.losses.append(LostTrades(3, 1_723_161_254_340_863, 20, 22))

        def lost_gaps():
            return [gap for gap in bench.publisher.gaps if gap.state == "lost" and gap.from_time > EARLIEST_US]

        await bench.run_until(lost_gaps)
        [lost] = lost_gaps()
        assert (lost.symbol, lost.from_time) == ("bitflyer:BTC_JPY", 1_723_161_254_340_863)
        assert lost.reason == "topic trades was cut or made anew at offset 20 of 22"
        assert lost.to_time > time.time_ns() // 1_000 - 60_000_000

    bench(scenario, ["BTC_JPY", "ETH_JPY"], LISTED)


def listing(*markets):
    return json.dumps([{"product_code": market} for market in markets]).encode()


def test_a_listing_is_read_and_a_delisting_is_down_and_both_are_published(bench):
    async def scenario(bench):
        await bench.run_until(lambda: bench.removed and bench.publisher.states["bitflyer:BTC_JPY"].reason)
        assert bench.sessions == [["BTC_JPY"]]
        assert bench.added == ["NEW_JPY"]
        assert bench.removed == ["BTC_JPY"]
        states = {symbol: instrument.state for symbol, instrument in bench.publisher.instruments.items()}
        assert states == {"bitflyer:BTC_JPY": "delisted", "bitflyer:NEW_JPY": "trading"}
        down = bench.publisher.states["bitflyer:BTC_JPY"]
        assert (down.state, down.reason) == ("down", "delisted: bitflyer does not list it any more")
        assert bench.publisher.states["bitflyer:NEW_JPY"].reason == "the worker has been stopped"

    bench(scenario, [], listing("BTC_JPY"), listing("BTC_JPY", "NEW_JPY"), listing("NEW_JPY"))


def test_the_log_is_searched_only_for_markets_that_were_read_before(bench):
    async def scenario(bench):
        status = FeedStatus("bitflyer:OLD_JPY", "down", NOW_US, "delisted", "7", NOW_US, NOW_US)
        bench.reported["bitflyer:OLD_JPY"] = ReportedFeed(status, ())
        await bench.run_until(lambda: bench.added)
        assert bench.added == ["NEW_JPY", "OLD_JPY"]
        assert bench.searched == [["bitflyer:BTC_JPY"], ["bitflyer:OLD_JPY"]]

    bench(scenario, [], listing("BTC_JPY"), listing("BTC_JPY", "NEW_JPY", "OLD_JPY"))


def test_a_market_that_is_read_again_knows_what_was_published_late(bench, monkeypatch):
    learned = []
    monkeypatch.setattr(SymbolFeed, "learn_late", lambda self, trades: learned.append((self.symbol, list(trades))))

    async def scenario(bench):
        trade = Trade("bitflyer:OLD_JPY", "6", Decimal(1), Decimal(1), "buy", NOW_US, NOW_US, 6)
        bench.late["bitflyer:OLD_JPY"] = [trade]
        status = FeedStatus("bitflyer:OLD_JPY", "down", NOW_US, "delisted", "7", NOW_US, NOW_US)
        bench.reported["bitflyer:OLD_JPY"] = ReportedFeed(status, ())
        await bench.run_until(lambda: bench.added)
        assert learned[-1] == ("bitflyer:OLD_JPY", [trade])

    bench(scenario, [], listing("BTC_JPY"), listing("BTC_JPY", "OLD_JPY"))


def test_what_was_delisted_while_no_worker_ran_is_down_if_it_was_read_before(bench):
    async def scenario(bench):
        for market in ("GONE_JPY", "UNREAD_JPY"):
            symbol = f"bitflyer:{market}"
            bench.instruments[market] = Instrument(symbol, None, None, None, None, "trading", NOW_US)
        status = FeedStatus("bitflyer:GONE_JPY", "connected", NOW_US, None, "7", NOW_US, NOW_US)
        bench.reported["bitflyer:GONE_JPY"] = ReportedFeed(status, ())
        await bench.run_until(lambda: len(bench.publisher.instruments) == 3)
        said = bench.publisher.states["bitflyer:GONE_JPY"]
        assert (said.state, said.last_trade_id) == ("down", "7")
        assert said.reason.startswith("delisted")
        assert "bitflyer:UNREAD_JPY" not in bench.publisher.states

    bench(scenario, [], listing("BTC_JPY"))


def test_a_named_market_that_is_listed_later_is_read_from_then_on(bench):
    async def scenario(bench):
        await bench.run_until(lambda: bench.added)
        assert bench.sessions == [["BTC_JPY"]]
        assert bench.added == ["ETH_JPY"]

    bench(scenario, ["BTC_JPY", "ETH_JPY"], *[listing("BTC_JPY", "XRP_JPY")] * 3, listing("BTC_JPY", "ETH_JPY"))


def test_a_worker_whose_markets_are_all_delisted_waits_unready_for_one_to_come_back(bench):
    async def scenario(bench):
        seen = []

        async def session(stopping):
            while bench.worker_session.markets and not stopping.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0.001)

        def note_and_see():
            seen.append(bench.service.health.ready())
            return bench.added

        bench.session = session
        await bench.run_until(note_and_see)
        assert (False, "all of its markets are delisted") in seen
        assert bench.removed == bench.added == ["BTC_JPY"]

    bench(scenario, ["BTC_JPY"], LISTED, *[listing("ETH_JPY")] * 10, LISTED)


def test_a_listing_while_kafka_is_away_waits_for_it(bench, monkeypatch):
    async def scenario(bench):
        reads = []
        read_feed = running_feeds.read_feed

        async def fail_once(settings, symbols):
            reads.append(list(symbols))
            if len(reads) == 1:
                raise BrokerUnreachableError("it went away")
            return await read_feed(settings, symbols)

        monkeypatch.setattr(running_feeds, "read_feed", fail_once)
        await bench.run_until(lambda: bench.added)
        assert bench.added == ["NEW_JPY"]
        assert reads == [["bitflyer:NEW_JPY"]] * 2

    bench(scenario, [], listing("BTC_JPY"), listing("BTC_JPY", "NEW_JPY"))


def test_a_worker_that_starts_while_kafka_is_away_waits_for_it_and_says_so_once(bench, caplog):
    async def scenario(bench):
        bench.away_until(20)
        said = []

        def note_and_see():
            said.append(bench.service.health.ready())
            return bench.sessions

        await bench.run_until(note_and_see)
        assert (False, "waiting for Kafka: cannot reach Kafka") in said
        assert bench.sessions == [["BTC_JPY"]]
        assert sum("Kafka is away" in record.getMessage() for record in caplog.records) == 1

    bench(scenario, ["BTC_JPY"], LISTED)


def test_kafka_that_goes_away_again_while_the_worker_begins_is_waited_for_as_well(bench, monkeypatch):
    async def scenario(bench):
        reads = []
        read_feed = live.read_feed

        async def fail_once(settings, symbols):
            reads.append(symbols)
            if len(reads) == 1:
                raise BrokerUnreachableError("it went away again")
            return await read_feed(settings, symbols)

        monkeypatch.setattr(live, "read_feed", fail_once)
        await bench.run_until(lambda: bench.sessions)
        assert bench.sessions == [["BTC_JPY"]]
        assert bench.asked_kafka == 2

    bench(scenario, ["BTC_JPY"], LISTED)


def test_kafka_that_is_lost_to_a_worker_that_works_is_not_the_start_any_more(bench):
    async def scenario(bench):
        async def fail(stopping):
            raise BrokerUnreachableError("what was handed over is gone")

        bench.session = fail
        with pytest.raises(BrokerUnreachableError):
            await bench.run_until(lambda: False)
        assert bench.asked_kafka == 1

    bench(scenario, ["BTC_JPY"], LISTED)

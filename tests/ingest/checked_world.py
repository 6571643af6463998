"""The feeds of one venue in virtual time: its market, its websocket, its REST interface, and what readers are told.

Everything of Ashi is real but Kafka and the network. The truth is what `World.trade` was called for.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Collection, Coroutine, Sequence
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from venue_certification import VenueCertification, certified
from venue_samples import FIRST_MS, Execution, Listed
from virtual_time import run_virtually

from ashi.contracts.feed import FeedGap, FeedStatus, decode_feed_gap, decode_feed_status, overlaps
from ashi.contracts.trade import EARLIEST_US, Trade
from ashi.runtime import retry as retry_module
from ashi_ingest.errors import Reason
from ashi_ingest.feed.repair.comparison import Times
from ashi_ingest.feed.reporting.reported import ReportedFeed
from ashi_ingest.feed.reporting.status import FeedReporter
from ashi_ingest.feed.supervisor import FeedSupervisor
from ashi_ingest.publish.backpressure import Backpressure
from ashi_ingest.rest.budget import FIRST, Urgency
from ashi_ingest.rest.client import RestError
from ashi_ingest.venues.base import Answer, Request
from ashi_ingest.venues.binance.adapter import BinanceVenue

VENUES = certified()
KEYLESS = "binance-usdm without a key"
MARKETS = [
    ("bitflyer", "BTC_JPY"),
    ("bitflyer", "FX_BTC_JPY"),
    ("gmo", "BTC_JPY"),
    ("binance", "BTCUSDT"),
    ("binance-usdm", "BTCUSDT"),
]
each_market = pytest.mark.parametrize(("venue", "market"), MARKETS)


def venue_of(name: str) -> VenueCertification:
    """The samples of a venue, which may be `KEYLESS`."""
    if name != KEYLESS:
        return VENUES[name]()
    samples = VENUES["binance-usdm"]()
    samples.venue = BinanceVenue("binance-usdm", has_key=False)
    return samples


Fate = Literal["comes", "late", "lost"]


class Kafka:
    """What was published, in its order."""

    def __init__(self) -> None:
        self.trades: list[Trade] = []
        self.late: list[Trade] = []
        self.held = 0
        self.appended = None

    def put(self, trades: Sequence[Trade], *, streamed: bool, late: bool = False) -> None:
        self.trades += trades
        if late:
            self.late += trades

    def reject(self, rejected: Sequence[Any], source: str) -> None:
        raise AssertionError(f"refused: {rejected}")

    async def room(self, most: int) -> None:
        pass


class Topics:
    """What readers of `feed.status` and `feed.gaps` know. All is acknowledged at once."""

    mark = 0

    def is_acknowledged(self, symbol: str, mark: int) -> bool:
        return True

    def __init__(self) -> None:
        self.status: FeedStatus | None = None
        self.gaps: dict[int, FeedGap] = {}

    async def announce(
        self, topic: str, key: str, value: bytes, schema: str, on_acknowledged: Callable[[], None] = lambda: None
    ) -> None:
        on_acknowledged()
        if topic == "feed.status":
            self.status = decode_feed_status(value)
        else:
            gap = decode_feed_gap(value)
            self.gaps[gap.from_time] = gap


class Socket:
    """The connection that is open, as the supervisor sees it. Mute, nothing comes of it until it is subscribed anew."""

    number = 0

    def __init__(self, world: World) -> None:
        Socket.number += 1
        self.number = Socket.number
        self.markets = (world.market,)
        self.open = True
        self.mute = False
        self.resubscribed: list[float] = []
        self._world = world
        world.feeds.on_open(self)

    def drop(self, reason: Reason) -> None:
        raise AssertionError(f"dropped: {reason}")

    def has_traded(self, market: str) -> None:
        pass

    def resubscribe(self, market: str) -> None:
        assert market == self._world.market
        self.resubscribed.append(self._world.now_s())
        self._world.after(0.2, self._resubscribed)

    def _resubscribed(self) -> None:
        if self.open:
            self.mute = False
            self._world.feeds.on_subscribed(self, self.markets)


class Rest:
    """REST, which lags by `lag_s`, or some answers by that and others by less, and does not answer while it `fails`.

    What it states of all markets has a last id that is greater by `stated_beyond`, and fails unless it `states`. It may
    leave this market out (`leaves_out`). Of the numbers in `bad` it lists rows that are no trades, those in `absent`
    not at all. `shows`: what an answer lists of what there is.
    """

    def __init__(self, world: World) -> None:
        self.lag_s = 0.0
        self.lags_evenly = True
        self.fails = False
        self._random = random.Random(1)
        self.states = True
        self.stated_beyond = 0
        self.leaves_out = False
        self.bad: set[int] = set()
        self.absent: set[int] = set()
        self.shows: Callable[[list[Listed]], list[Listed]] = lambda listed: listed
        self.requests: list[Request] = []
        self._rows: dict[int, list[str]] = {}
        self._world = world

    async def get(self, request: Request, urgency: Urgency = FIRST) -> Answer:
        self.requests.append(request)
        await asyncio.sleep(0.05)
        if self.fails or (not self.states and "ticker" in request.path):
            raise RestError("REST does not answer", 0.0)
        world = self._world
        lag_s = self.lag_s if self.lags_evenly else self.lag_s * self._random.choice([0.0, 0.3, 1.0, 1.0])
        listed = [
            Listed(each, [f'{{"bad":{each.number}}}'] if each.number in self.bad else self._rows_of(each))
            for each, happened_s in zip(world.happened, world.happened_s, strict=True)
            if happened_s + lag_s <= world.now_s() and each.number not in self.absent
        ]
        if "ticker/24hr" in request.path:
            last = listed[-1].execution.number + self.stated_beyond if listed else -1
            stated = [{"symbol": world.market, "lastId": last}, {"symbol": "OTHER", "lastId": 7}]
            body = json.dumps(stated[1:] if self.leaves_out else stated)
        else:
            body = world.samples.answer(request, self.shows(listed))
        return Answer(body.encode(), world.now_us())

    def _rows_of(self, execution: Execution) -> list[str]:
        """All that ever happened is listed in each answer, and a row never changes."""
        rows = self._rows.get(execution.number)
        if rows is None:
            rows = self._rows[execution.number] = self._world.samples.rows(execution)
        return rows


class World:
    """One market of a venue, read by a supervisor. Trades in it have numbers from 1 on."""

    def __init__(
        self,
        samples: VenueCertification,
        *,
        market: str | None = None,
        times: Times | None = None,
        published: Sequence[Execution] = (),
        lost: Collection[int] = (),
        read: int = 200,
        status: FeedStatus | None = None,
        gaps: Sequence[FeedGap] = (),
    ) -> None:
        """`published` before it begins, but for the numbers in `lost`, and what had been said last of it.

        `read`: so many of the last of them are known by their ids. `gaps`: that are lost.
        """
        self.samples = samples
        self.market = market or samples.market
        self.happened = list(published)
        self.happened_s = [float("-inf")] * len(published)
        self.kafka = Kafka()
        self.topics = Topics()
        self.topics.gaps.update({gap.from_time: gap for gap in gaps})
        self.rest = Rest(self)
        self._parser = samples.parser()
        self.truth: list[Trade] = []
        self.clock_ahead_ms = 0
        self._unpublished: dict[str, Trade] = {}
        self._seen = 0
        for execution in published:
            self._tell_truth(execution)
        resume_point = [trade for trade, each in zip(self.truth, published, strict=True) if each.number not in lost]
        self.kafka.trades += resume_point
        self._times = times
        self._start(resume_point[-read:], (), ReportedFeed(status, (), tuple(gaps)))

    def _start(self, resume_point: Sequence[Trade], late: Sequence[Trade], reported: ReportedFeed) -> None:
        """A worker is started, and has a connection at once."""
        symbol = f"{self.samples.name}:{self.market}"
        stand_in: Callable[[Any], Any] = lambda fake: fake  # noqa: E731
        self.reporter = FeedReporter(
            stand_in(self.topics), self.samples.name, {symbol: reported}, now_us=self.now_us, monotonic_s=self.now_s
        )
        self.feeds = FeedSupervisor(
            self.samples.venue,
            {self.market: resume_point},
            publish_buffer=stand_in(self.kafka),
            reporter=self.reporter,
            rest=stand_in(self.rest),
            recorder=None,
            backpressure=Backpressure(stand_in(self.kafka), 100_000),
            patience_s=10.0,
            now_us=self.now_us,
            monotonic_s=self.now_s,
            published=self._published_ids,
            late={symbol: late},
            comparison_times=self._times,
        )
        self._comparing = asyncio.create_task(self.feeds.compare())
        self.feeds.begin(symbol, reported.status, is_unread=len(self.kafka.trades) > len(resume_point))
        self.socket = Socket(self)
        self.feeds.on_subscribed(self.socket, self.socket.markets)

    async def _published_ids(self, symbol: str, from_us: int, until_us: int) -> set[str]:
        return {trade.trade_id for trade in self.kafka.trades if from_us <= trade.traded_at < until_us}

    async def kill(self) -> None:
        """The worker is killed: what it had not said is never said, what it had published stands in the topic."""
        self.socket.open = False
        self._comparing.cancel()
        await asyncio.gather(self._comparing, return_exceptions=True)
        await self.feeds.end_asking()

    def start_again(self) -> None:
        """The next worker is started: it goes on after what stands in the topics."""
        late = {trade.trade_id for trade in self.kafka.late}
        resume_point = [trade for trade in self.kafka.trades if trade.trade_id not in late][-200:]
        gaps = sorted(self.topics.gaps.values(), key=lambda gap: gap.from_time)
        lost = [gap for gap in gaps if gap.state == "lost" and not gap.final and gap.from_time > EARLIEST_US]
        reported = ReportedFeed(self.topics.status, tuple(gap for gap in gaps if gap.state == "open"), tuple(lost))
        self._start(resume_point, self.kafka.late[-200:], reported)

    # Time.

    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def now_us(self) -> int:
        return FIRST_MS * 1000 + round(self.now_s() * 1e6)

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(seconds, do)

    async def pass_time(self, seconds: float) -> None:
        """So long the worker does what it does, and readers look all the time."""
        until_s = self.now_s() + seconds
        while self.now_s() < until_s:
            await asyncio.sleep(min(0.1, until_s - self.now_s()))
            self.feeds.look()
            await self.reporter.flush()
            self.check()

    # What happens.

    def trade(self, fate: Fate = "comes", *, early_ms: int = 0, late_s: float = 0.5) -> None:
        """A trade happens now; its time says `early_ms` before, by the venue's clock, which may be ahead.

        It comes over the connection, late, or not at all.
        """
        number = self.happened[-1].number + 1 if self.happened else 1
        at_ms = self.now_us() // 1000 + self.clock_ahead_ms - early_ms
        execution = Execution(number, at_ms, str(5_860_000 + number % 7), taker=("buy", "sell")[number % 2])  # type: ignore[arg-type]
        self.happened.append(execution)
        self.happened_s.append(self.now_s())
        self._tell_truth(execution)
        frame = self.samples.frames(self.market, [execution])[0]
        socket = self.socket
        if fate != "lost":
            self.after(0.01 if fate == "comes" else late_s, lambda: self._deliver(socket, frame))

    def _deliver(self, socket: Socket, frame: bytes) -> None:
        if socket.open and not socket.mute:
            self.feeds.on_frames(socket, [frame], self.now_us() * 1000)

    def break_off(self, reason: Reason = Reason.LOST) -> None:
        self.socket.open = False
        self.feeds.on_closed(self.socket, reason, "it broke off", self.now_us() * 1000, replaced=False)

    def reconnect(self) -> None:
        self.socket = Socket(self)
        self.feeds.on_subscribed(self.socket, self.socket.markets)

    def discard_held(self) -> None:
        """Too much is held: what repairs bring again is discarded."""
        for feed in self.feeds._feeds.values():
            if feed.may_discard and feed.held:
                feed.discard_held()

    def _tell_truth(self, execution: Execution) -> None:
        for frame in self.samples.frames(self.market, [execution]):
            (trade,) = self._parser.parse(frame, self.now_us()).trades
            self.truth.append(trade)
            self._unpublished[trade.trade_id] = trade

    # What is known.

    @property
    def complete_until(self) -> int | None:
        return None if self.topics.status is None else self.topics.status.complete_until

    @property
    def state(self) -> tuple[str | None, str | None]:
        """The state of the feed, and its reason, as readers know them."""
        status = self.topics.status
        return (None, None) if status is None else (status.state, status.reason)

    def missing(self) -> list[Trade]:
        for trade in self.kafka.trades[self._seen :]:
            self._unpublished.pop(trade.trade_id, None)
        self._seen = len(self.kafka.trades)
        return list(self._unpublished.values())

    def check(self) -> None:
        """What a reader finds complete by the rule lacks nothing."""
        until = self.complete_until or 0
        doubtful = [gap for gap in self.topics.gaps.values() if gap.state != "repaired"]
        for trade in self.missing():
            if trade.traded_at < until:
                told = any(overlaps(gap, trade.traded_at, trade.traded_at + 1) for gap in doubtful)
                assert told, f"{trade.trade_id} is missing, complete_until is {until - trade.traded_at} µs later"


def run(world: Callable[[], World], play: Callable[[World], Coroutine[Any, Any, None]]) -> World:
    """Make a world and let `play` be played in it, while it compares: each time alike."""
    random.seed(1)  # waits have a share of chance

    async def main() -> World:
        made = world()
        try:
            await play(made)
        finally:
            await made.kill()
            await made.feeds.stop("the test ends")
        return made

    with pytest.MonkeyPatch.context() as patch:  # a busy machine changes nothing: patience is of virtual time too
        patch.setattr(retry_module, "time", SimpleNamespace(monotonic=lambda: asyncio.get_running_loop().time()))
        return run_virtually(main())


async def trade_fast(world: World, seconds: float, rate: int = 100) -> None:
    """So many trades a second happen; the worker does what it does meanwhile."""
    for number in range(round(seconds * rate)):
        world.trade()
        await asyncio.sleep(1 / rate)
        if number % 10 == 9:
            world.feeds.look()
            await world.reporter.flush()


async def trade_for(world: World, seconds: float, every_s: float = 1.0) -> None:
    for _ in range(round(seconds / every_s)):
        world.trade()
        await world.pass_time(every_s)


def ids(world: World) -> list[str]:
    return [trade.trade_id for trade in world.kafka.trades]


def all_once(world: World) -> bool:
    return sorted(ids(world)) == sorted(trade.trade_id for trade in world.truth)

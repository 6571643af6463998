"""When what is said of a feed may be said: through a real publisher, to a Kafka that acknowledges when it is told."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from decimal import Decimal
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from hypothesis import example, given
from hypothesis import strategies as st

from ashi.contracts.feed import HEARTBEAT_US, FeedGap, FeedStatus, decode_feed_gap, decode_feed_status, is_complete
from ashi.contracts.trade import Trade, decode_trade
from ashi.runtime.settings import Settings
from ashi_ingest.feed.reporting.claims import CompleteUntil
from ashi_ingest.feed.reporting.status import FeedReporter
from ashi_ingest.publish.buffer import PublishBuffer
from ashi_ingest.publish.publisher import Publisher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

T = 1_723_161_254_000_000
S, OTHER = "bitflyer:BTC_JPY", "bitflyer:ETH_JPY"
PARTITIONS = 3


class Batch:
    """Takes three trades."""

    def __init__(self) -> None:
        self.trades: list[Trade] = []

    def append(self, *, timestamp: None, key: bytes, value: bytes, headers: object) -> object:
        if len(self.trades) == 3:
            return None
        self.trades.append(decode_trade(value))
        return self

    def record_count(self) -> int:
        return len(self.trades)

    def close(self) -> None:
        pass


class Kafka:
    """What was sent to it, and what of it it has acknowledged: of each partition in order, else as it is told."""

    def __init__(self) -> None:
        self.unacknowledged: dict[str, list[tuple[asyncio.Future[Any], Any]]] = {}
        self.sent: list[FeedStatus | FeedGap] = []
        self.acknowledged: list[Any] = []
        self.at_once = False

    def create_batch(self) -> Batch:
        return Batch()

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> asyncio.Future[Any]:
        return self._take(f"{topic}/{partition}", batch.trades)

    async def send(self, topic: str, value: bytes, **_: object) -> asyncio.Future[Any]:
        message: FeedStatus | FeedGap
        message = decode_feed_status(value) if topic == "feed.status" else decode_feed_gap(value)
        self.sent.append(message)
        return self._take(topic, message)

    def _take(self, log: str, what: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.at_once:
            future.set_result(None)
        else:
            self.unacknowledged.setdefault(log, []).append((future, what))
        return future

    def acknowledge(self, which: int) -> None:
        """The oldest of one of the logs."""
        logs = [log for log, waiting in sorted(self.unacknowledged.items()) if waiting]
        if logs:
            future, what = self.unacknowledged[logs[which % len(logs)]].pop(0)
            self.acknowledged.append(what)
            future.set_result(SimpleNamespace(offset=-1))

    def has(self, trade_id: str) -> bool:
        return any(trade.trade_id == trade_id for what in self.acknowledged if isinstance(what, list) for trade in what)

    def claimed(self) -> int | None:
        """The most that anybody may have read of `S`: from what was sent, as it may be there already."""
        claims = [
            message.complete_until
            for message in self.sent
            if isinstance(message, FeedStatus) and message.symbol == S and message.complete_until is not None
        ]
        return max(claims, default=None)

    def may_seem_complete(self, window: tuple[int, int]) -> bool:
        """Whether some reader may take the window for complete: one that has read of each gap what suits best.

        What was acknowledged is read; what was sent since may be read already.
        """
        gaps: dict[int, list[FeedGap]] = {}
        for message in self.sent:
            if isinstance(message, FeedGap) and message.symbol == S:
                versions = gaps.setdefault(message.from_time, [])
                if message in self.acknowledged:
                    versions.clear()
                versions.append(message)
        known = [versions for versions in gaps.values() if any(version in self.acknowledged for version in versions)]
        return is_complete(*window, self.claimed(), []) and all(
            any(is_complete(*window, self.claimed(), [version]) for version in versions) for versions in known
        )


class Feed:
    """A symbol whose trades come, or are missed and fetched; one a microsecond."""

    def __init__(self) -> None:
        self.kafka = Kafka()
        self.now_us = T
        self.publisher = Publisher(Settings.from_environment({}), self.kafka, "bitflyer", PARTITIONS, live=True)
        self.buffer = PublishBuffer(self.publisher)
        self.reporter = FeedReporter(self.publisher, "bitflyer", now_us=lambda: self.now_us)
        self.reporter.set_state(S, "connected", None)
        self.happened: list[Trade] = []
        self.missed: list[Trade] = []
        self.lost: list[tuple[int, list[Trade]]] = []

    def trade(self, symbol: str = S) -> Trade:
        self.now_us += 1
        number = self.now_us - T
        trade = Trade(symbol, str(number), Decimal(1), Decimal(1), "buy", self.now_us, self.now_us, number)
        if symbol == S:
            self.happened.append(trade)
        return trade

    def come(self, symbol: str = S) -> None:
        self.buffer.put([self.trade(symbol)], streamed=True)

    def miss(self) -> None:
        self.missed.append(self.trade())
        self.reporter.open_gap(S, self.now_us, "it broke off")

    def end_gap(self, state: str) -> None:
        if self.missed:
            if state == "repaired":
                self.buffer.put(self.missed, streamed=False)
            else:
                self.lost.append((self.now_us + 1, self.missed))
            self.reporter.end_gap(S, self.now_us + 1, state, len(self.missed), "it broke off")  # type: ignore[arg-type]
            self.missed = []

    def find(self) -> None:
        """What had been given up can be had after all."""
        if self.lost:
            to_time, trades = self.lost.pop()
            self.buffer.put(trades, streamed=False)
            self.reporter.end_gap(S, to_time, "repaired", len(trades), "late", from_time=trades[0].traded_at)

    def claim(self) -> None:
        self.reporter.set_complete_until(S, self.missed[0].traded_at if self.missed else self.now_us + 1)

    def later(self) -> None:
        self.now_us += HEARTBEAT_US

    def check(self) -> None:
        for trade in self.happened:
            window = (trade.traded_at, trade.traded_at + 1)
            if not self.kafka.has(trade.trade_id):
                assert not self.kafka.may_seem_complete(window), f"trade {trade.trade_id} is not there"


@asynccontextmanager
async def settling() -> AsyncIterator[None]:
    yield
    for _ in range(6):
        await asyncio.sleep(0)


STEPS = (
    "come",
    "come",
    "other",
    "miss",
    "repaired",
    "lost",
    "find",
    "claim",
    "empty",
    "flush",
    "flush",
    "later",
    "kafka",
)


def steps(*names: str) -> list[tuple[str, int]]:
    return [(name, 0) for name in names]


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 5)), max_size=60))
@example(steps("miss", "lost", "claim", "flush", "later", "flush"))  # the gap is on its way
@example(steps("flush", "miss", "lost", "flush", "kafka", "kafka", "claim", "later", "flush", "find", "flush"))
def test_no_reader_is_told_too_much_at_any_moment_and_in_the_end_all_that_is_true(
    steps: Sequence[tuple[str, int]],
) -> None:
    async def main() -> None:
        feed = Feed()
        for step, number in steps:
            async with settling():
                match step:
                    case "other":
                        feed.come(OTHER)
                    case "repaired" | "lost":
                        feed.end_gap(step)
                    case "empty":
                        await feed.buffer.empty()
                    case "flush":
                        await feed.reporter.flush()
                    case "kafka":
                        feed.kafka.acknowledge(number)
                    case _:
                        getattr(feed, step)()
            feed.check()
        feed.end_gap("repaired")
        feed.claim()
        await feed.buffer.empty()
        closing = asyncio.create_task(feed.reporter.close())
        while not closing.done():
            async with settling():
                feed.kafka.acknowledge(0)
            feed.check()
        await closing
        assert feed.kafka.claimed() == feed.now_us + 1
        assert not any(feed.kafka.unacknowledged.values())

    asyncio.run(main())


def test_complete_until_waits_for_the_trades_before_it_and_for_no_others() -> None:
    async def main() -> None:
        feed = Feed()
        async with settling():
            feed.come()
            feed.claim()
            await feed.buffer.empty()
        feed.later()
        await feed.reporter.flush()
        assert feed.kafka.claimed() is None
        async with settling():  # the trades, the only log but feed.status
            feed.kafka.acknowledge(1)
        async with settling():
            feed.come()  # of another batch, which is not acknowledged
            await feed.buffer.empty()
        feed.later()
        await feed.reporter.flush()
        assert feed.kafka.claimed() == T + 2

    asyncio.run(main())


def test_however_often_it_is_claimed_what_is_acknowledged_is_said() -> None:
    complete = CompleteUntil()
    acknowledged = 0
    for number in range(1, 100):
        assert complete.claim(number, number)
        assert not complete.claim(number, number)
        if number % 10 == 0:  # ten claims behind
            acknowledged = number - 9
            complete.settle(lambda mark: mark <= acknowledged)  # noqa: B023
    assert complete.until is not None
    assert complete.until >= 80
    acknowledged = 99
    complete.settle(lambda mark: mark <= acknowledged)
    assert (complete.until, complete.is_settled) == (99, True)


def test_a_thousand_symbols_say_each_within_ten_seconds_that_they_live_and_not_all_at_once() -> None:
    async def main() -> None:
        feed = Feed()
        feed.kafka.at_once = True
        symbols = [f"binance:M{number}" for number in range(1_000)]
        for symbol in symbols:
            feed.reporter.set_state(symbol, "connected", None)
        counts: list[int] = []
        for _ in range(400):  # 40 s, ten times a second
            before = len(feed.kafka.sent)
            await feed.reporter.flush()
            counts.append(len(feed.kafka.sent) - before)
            feed.now_us += 100_000
        assert counts[0] == 1_001
        assert max(counts[1:]) < 40
        for symbol in symbols[:50]:
            times = [m.updated_at for m in feed.kafka.sent if isinstance(m, FeedStatus) and m.symbol == symbol]
            assert max(later - earlier for earlier, later in pairwise(times)) <= HEARTBEAT_US
            assert feed.now_us - times[-1] <= HEARTBEAT_US

    asyncio.run(main())

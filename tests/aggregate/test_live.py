"""Candles in progress: what is told, when, and what it may cost. The log and the clock are simulated."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from structlog.testing import capture_logs

from ashi.contracts import BrokerError, Candle, StateError, Trade, decode_trade, parse_timeframes
from ashi.contracts.candle import decode_candle
from ashi.contracts.records import live_candle_in
from ashi.runtime.kafka.cluster.log_identity import Difference
from ashi.runtime.kafka.connections.clients import partition_of
from ashi.runtime.kafka.producing.record_batches import OutgoingRecord
from ashi.runtime.metrics import aggregate as metrics
from ashi_aggregate import live
from ashi_aggregate.core.codec import StoredRow
from ashi_aggregate.core.window_state import WindowRules
from ashi_aggregate.cpu_share import LEAST_CORE, MOST_AHEAD_S, CpuShare
from ashi_aggregate.fencing import SessionGuard
from ashi_aggregate.live import LiveCandles
from kafka_topics.simulated_log import Broker, Crash, Record, Worker
from oracle import candles_of, timely, unique
from samples.hypothesis_strategies import START

NAMES = ["1m", "3m"]
TIMEFRAMES = parse_timeframes(",".join(NAMES))
RULES = WindowRules(TIMEFRAMES[0])
SECOND = 1_000_000
INTERVAL = SECOND // 4

Key = tuple[str, str, int]


def key_of(candle: Candle) -> Key:
    return candle.symbol, candle.timeframe, candle.open_time


class Unlimited(CpuShare):
    def has_left(self) -> bool:
        return True


@dataclass
class Post:
    """What was sent at once, and when, of some partitions of `trades`."""

    at: int
    partitions: set[int]
    candles: list[Candle]
    sent: asyncio.Future[None]


@dataclass(eq=False)
class Topic:
    """`candles.live`, and the worker that writes to it: what it posts must keep to the rules."""

    worker: Worker
    posts: list[Post] = field(default_factory=list)
    closed: set[Key] = field(default_factory=set)
    is_connected: bool = True
    is_known: bool = True

    async def connect(self) -> None:
        raise BrokerError("no broker is there")

    def partitions(self) -> int:
        if not self.is_known:
            raise BrokerError("the topic is not known")
        return self.worker.broker.partitions

    def post(self, records: Mapping[int, Sequence[OutgoingRecord]]) -> asyncio.Future[None]:
        candles = []
        for partition, those in records.items():
            assert those
            for key, value, headers in those:
                candle = live_candle_in(Record(0, key, value, 0, headers=headers))
                assert partition_of(candle.symbol.encode(), self.worker.broker.partitions) == partition
                candles.append(candle)
        partitions = set(records)  # there are as many as of `trades`, so each has its own
        assert all(post.sent.done() or not post.partitions & partitions for post in self.posts), "two are on their way"
        sent = asyncio.get_running_loop().create_future()
        self.posts.append(Post(self.worker.broker.now_us, partitions, candles, sent))
        return sent

    def settle(self, error: BaseException | None = None) -> None:
        for post in self.posts:
            if not post.sent.done():
                post.sent.set_result(None) if error is None else post.sent.set_exception(error)

    @property
    def updates(self) -> list[Candle]:
        return [candle for post in self.posts for candle in post.candles]


class Teller(Worker):
    """A worker that tells of candles in progress."""

    topic: Topic

    def __init__(
        self,
        broker: Broker,
        rules: WindowRules = RULES,
        share: CpuShare | None = None,
        guard: SessionGuard | None = None,
        **more: Any,
    ) -> None:
        def make(worker: Worker) -> LiveCandles:
            self.topic = Topic(worker)
            return LiveCandles(
                worker,
                self.topic,
                guard or SessionGuard(10**12),
                interval_us=INTERVAL,
                share=share or Unlimited(),
                now_s=lambda: broker.now_us / 1e6,
            )

        super().__init__(broker, TIMEFRAMES, rules, live=make, **more)

    async def send(self, topic: str, partition: int, records: Sequence[OutgoingRecord]) -> Any:
        if topic == "candles":
            self.topic.closed |= {key_of(decode_candle(value or b"")) for _, value, _ in records}
        return await super().send(topic, partition, records)

    async def tell(self, *, taken: bool = True) -> list[Candle]:
        """What is told now."""
        before = len(self.topic.updates)
        await self.pipeline.tell_progress()
        if taken:
            self.topic.settle()
        await asyncio.sleep(0)
        return self.topic.updates[before:]

    async def read_all(self) -> None:
        while any([await self.read(partition, 500) for partition in self.next]):
            pass


def a_trade(number: int, traded_at: int, symbol: str = "binance:A") -> Trade:
    return Trade(symbol, str(number), Decimal(number + 1), Decimal(1), "buy", traded_at, traded_at, number)


def publish(broker: Broker, *trades: Trade) -> None:
    broker.publish(list(trades), broker.append_time_ms())


class History:
    """Trades come with disorder, repetitions and pauses; workers read, are replaced, and tell of what they have."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.rules = WindowRules(
            TIMEFRAMES[0],
            lateness_us=self.random.choice([0, 2 * SECOND, 70 * SECOND]),
            horizon_us=self.random.choice([70, 120]) * SECOND,
        )
        self.broker = Broker(partitions=2)
        self.broker.now_us = START
        self.symbols = [f"binance:S{number}" for number in range(self.random.randint(1, 4))]
        self.log: list[Trade] = []
        self.quiet_close = self.random.random() < 0.5
        self.workers: list[Teller] = []
        self.failed = False

    def publish(self) -> None:
        rng = self.random
        for _ in range(rng.randint(0, 5)):
            if self.log and rng.random() < 0.1:
                trade = rng.choice(self.log[-20:])
            else:
                behind = rng.choice([0, 0, rng.randint(0, 2 * SECOND), rng.randint(0, 200 * SECOND)])
                trade = a_trade(len(self.log), max(self.broker.now_us - behind, START), rng.choice(self.symbols))
            self.log.append(trade)
            publish(self.broker, trade)

    async def live(self) -> None:
        rng = self.random
        for _ in range(rng.randint(1, 4)):
            worker = Teller(self.broker, self.rules, quiet_close=self.quiet_close, seed=rng.randint(0, 99))
            self.workers.append(worker)
            await worker.start()
            for _ in range(rng.randint(1, 60)):
                await self.step(worker)
            if rng.random() < 0.5:
                await worker.pipeline.settle()
                await self.tells_nothing(worker)
            await worker.pipeline.release()
            await self.tells_nothing(worker)
        self.workers.append(Teller(self.broker, self.rules, quiet_close=self.quiet_close))
        await self.finish(self.workers[-1])

    async def step(self, worker: Teller) -> None:
        rng = self.random
        self.broker.now_us += rng.choice([0, 20_000, 90_000, 300_000, 5 * SECOND, 40 * SECOND])
        self.publish()
        for partition in worker.next:
            if rng.random() < 0.7:
                await worker.read(partition, rng.choice([1, 3, 500]))
        if rng.random() < 0.3:
            await worker.pipeline.checkpoint()
        began = len(worker.topic.posts)
        await worker.pipeline.tell_progress()
        for post in worker.topic.posts[began:]:
            self.check_moment(worker, post)
        if rng.random() < 0.05:
            self.failed = True
            worker.topic.settle(BrokerError("not taken"))
        elif rng.random() < 0.7:
            worker.topic.settle()
        await asyncio.sleep(0)

    async def tells_nothing(self, worker: Teller) -> None:
        """All has been given away."""
        worker.topic.settle()
        self.broker.now_us += 2 * SECOND
        await asyncio.sleep(0)
        assert await worker.tell() == []

    def check_moment(self, worker: Teller, post: Post) -> None:
        """It is told by a worker that is at the end of the log or near it, of windows that it has not closed."""
        for partition in post.partitions:
            log, begin = self.broker.trades[partition], worker.next[partition]
            assert begin >= worker.pipeline._states[partition].live_from
            assert begin == len(log) or self.broker.now_us - log[begin - 1].timestamp * 1000 <= 2 * SECOND
        for candle in post.candles:
            assert key_of(candle) not in worker.topic.closed

    async def finish(self, worker: Teller) -> None:
        """Once nothing more comes, the last update of each window that is open holds all there is."""
        await worker.start()
        for _ in range(3):
            await worker.read_all()
            self.broker.now_us += 2 * SECOND
            await worker.tell()
        states = worker.pipeline._states.values()
        rows = [row for state in states for each in state.symbols.values() for row in each.rows]
        told = {key_of(candle): candle for teller in self.workers for candle in teller.topic.updates}
        newest = {}
        for row in rows:
            for candle in row.get_open_candles():
                assert told[key_of(candle)] == candle
                newest[candle.symbol, candle.timeframe] = candle
        last = {(candle.symbol, candle.timeframe): candle for candle in worker.topic.updates}
        assert all(last[key] == newest[key] for key in last.keys() & newest.keys()), "the last word is of the newest"
        assert await worker.tell() == [], "nothing has changed"
        await worker.pipeline.checkpoint()

    def check_all(self) -> None:
        oracles: dict[tuple[int, int], dict[Key, Any]] = {}
        logs = {
            number: [decode_trade(record.value or b"") for record in log] for number, log in self.broker.trades.items()
        }
        for worker in self.workers:
            times: dict[tuple[str, str], list[int]] = defaultdict(list)
            versions: dict[Key, int] = {}
            for post in worker.topic.posts:
                changed = set()
                for candle in post.candles:
                    place = partition_of(candle.symbol.encode(), self.broker.partitions), candle.version
                    if place not in oracles:
                        counted = timely(unique(logs[place[0]][: candle.version + 1]), "1m", self.rules.horizon_us)
                        oracles[place] = candles_of(counted, NAMES)
                    content = oracles[place][key_of(candle)]
                    assert {name: getattr(candle, name) for name in content} == content
                    if candle.version > versions.get(key_of(candle), -1):
                        versions[key_of(candle)] = candle.version
                        changed.add((candle.symbol, candle.timeframe))
                series = {(candle.symbol, candle.timeframe) for candle in post.candles}
                assert self.failed or changed == series, "told though nothing had changed"
                for each in series:
                    opens = [c.open_time for c in post.candles if (c.symbol, c.timeframe) == each]
                    assert opens == sorted(set(opens)), "oldest first, each once"
                    times[each].append(post.at)
            for those in times.values():
                assert all(after - before >= INTERVAL for before, after in pairwise(those))
        final: dict[Key, int] = defaultdict(int)
        for candle in self.broker.candles():
            final[key_of(candle)] = max(final[key_of(candle)], candle.version)
        for worker in self.workers:
            for candle in worker.topic.updates:
                assert final.get(key_of(candle), candle.version) >= candle.version


@pytest.mark.parametrize("seed", range(30))
def test_every_update_is_what_the_log_up_to_its_version_comes_to_and_comes_in_its_time(seed: int) -> None:
    history = History(seed)
    asyncio.run(history.live())
    history.check_all()


def minute(number: int) -> int:
    return START + number * 60 * SECOND


async def begun(*trades: Trade, partitions: int = 1, **more: Any) -> Teller:
    """A worker that has read these trades, has made them durable and told of them."""
    broker = Broker(partitions)
    broker.now_us = minute(0)
    worker = Teller(broker, **more)
    await worker.start()
    if trades:
        publish(broker, *trades)
        await worker.read_all()
        await worker.pipeline.checkpoint()
        await worker.tell()
        broker.now_us += INTERVAL
    return worker


async def told_of(worker: Teller, *trades: Trade) -> list[tuple[str, int, int]]:
    """What is told after these trades have been read: timeframe, minute of the window, count of its trades."""
    publish(worker.broker, *trades)
    await worker.read_all()
    return [
        (candle.timeframe, (candle.open_time - START) // (60 * SECOND), candle.trade_count)
        for candle in await worker.tell()
    ]


def test_what_changed_is_told_oldest_first_and_the_newest_window_last() -> None:
    async def scenario() -> None:
        worker = await begun(rules=WindowRules(TIMEFRAMES[0], lateness_us=60 * SECOND))
        at = minute(1)  # where a window of three minutes begins too
        assert at % (3 * 60 * SECOND) == 0
        assert await told_of(worker, a_trade(0, at)) == [("1m", 1, 1), ("3m", 1, 1)]
        worker.broker.now_us += INTERVAL
        assert await told_of(worker, a_trade(1, at + 61 * SECOND), a_trade(2, at + 1)) == [
            ("1m", 1, 2),
            ("1m", 2, 1),
            ("3m", 1, 3),
        ]
        worker.broker.now_us += INTERVAL
        assert await told_of(worker, a_trade(3, at + 2)) == [("1m", 1, 3), ("1m", 2, 1), ("3m", 1, 4)], (
            "the last word is of the newest window, though only the one before has changed"
        )
        worker.broker.now_us += INTERVAL
        closing = await told_of(worker, a_trade(4, at + 121 * SECOND))
        assert closing == [("1m", 3, 1), ("3m", 1, 5)], "the first is closed, and the next window's update follows"
        assert {key[1:] for key in worker.topic.closed} == {("1m", at)}
        worker.broker.now_us += 10 * SECOND
        assert await worker.tell() == [], "nothing has changed"

    asyncio.run(scenario())


def test_what_changes_while_an_update_is_on_its_way_is_told_once_as_it_is_then() -> None:
    async def scenario() -> None:
        worker = await begun(a_trade(0, minute(0)))
        publish(worker.broker, a_trade(1, minute(0) + 1))
        await worker.read_all()
        assert [candle.trade_count for candle in await worker.tell(taken=False)] == [2, 2]
        for number in range(2, 12):
            worker.broker.now_us += INTERVAL
            publish(worker.broker, a_trade(number, minute(0) + number))
            await worker.read_all()
            assert await worker.tell(taken=False) == []
            await worker.pipeline.checkpoint()
        assert worker.broker.committed or worker.pipeline.checkpoints == 11, "checkpoints do not wait for it"
        worker.topic.settle()
        await asyncio.sleep(0)
        assert [candle.trade_count for candle in await worker.tell()] == [12, 12]

    asyncio.run(scenario())


def test_what_kafka_does_not_take_is_told_anew_as_it_is_a_second_later() -> None:
    async def scenario() -> None:
        worker = await begun(a_trade(0, minute(0)))
        publish(worker.broker, a_trade(1, minute(0) + 1))
        await worker.read_all()
        await worker.tell(taken=False)
        worker.topic.settle(BrokerError("Kafka did not take messages for topic candles.live"))
        await asyncio.sleep(0)
        worker.broker.now_us += SECOND - 1
        assert await worker.tell() == []
        worker.broker.now_us += 1
        assert [candle.trade_count for candle in await worker.tell(taken=False)] == [2, 2], "though nothing has changed"
        worker.topic.settle(BrokerError("Kafka did not take messages for topic candles.live"))
        await asyncio.sleep(0)
        publish(worker.broker, a_trade(2, minute(0) + 2))
        await worker.read_all()
        worker.broker.now_us += SECOND
        assert [candle.trade_count for candle in await worker.tell()] == [3, 3]
        worker.topic.is_known = False
        worker.broker.now_us += SECOND
        assert await told_of(worker, a_trade(3, minute(0) + 3)) == []
        worker.topic.is_known = True
        worker.topic.is_connected = False
        worker.broker.now_us += SECOND
        assert await worker.tell() == []
        worker.topic.is_connected = True
        worker.broker.now_us += SECOND
        assert [candle.trade_count for candle in await worker.tell()] == [4, 4]

    asyncio.run(scenario())


def symbols_of_partitions(partitions: int, each: int = 1) -> list[list[str]]:
    """Symbols by the partition that they belong to, so many of each."""
    found: list[list[str]] = [[] for _ in range(partitions)]
    for number in range(100 * partitions * each):
        symbol = f"binance:S{number}"
        of_partition = found[partition_of(symbol.encode(), partitions)]
        if len(of_partition) < each:
            of_partition.append(symbol)
    return found


def test_a_partition_whose_updates_are_not_taken_holds_up_no_other() -> None:
    async def scenario() -> None:
        worker = await begun(partitions=2)
        (first,), (second,) = symbols_of_partitions(2)
        number = 0

        async def told(passed_us: int) -> list[tuple[str, int]]:
            """What is told, each symbol having traded; only the second partition's is taken."""
            nonlocal number
            worker.broker.now_us += passed_us
            for symbol in (first, second):
                publish(worker.broker, a_trade(number, minute(0) + number, symbol))
                number += 1
            await worker.read_all()
            candles = await worker.tell(taken=False)
            for post in worker.topic.posts:
                if post.partitions == {1} and not post.sent.done():
                    post.sent.set_result(None)
            await asyncio.sleep(0)
            return sorted((each.symbol, each.trade_count) for each in candles if each.timeframe == "1m")

        assert await told(0) == sorted([(first, 1), (second, 1)])
        assert await told(INTERVAL) == [(second, 2)], "of the first one is on its way"
        worker.topic.settle(BrokerError("no leader"))
        await asyncio.sleep(0)
        assert await told(INTERVAL) == [(second, 3)], "the first waits for a second"
        assert await told(INTERVAL) == [(second, 4)]
        assert metrics.live_interval_seconds._value.get() == INTERVAL / SECOND, "that is no want of CPU"
        assert await told(SECOND) == sorted([(first, 5), (second, 5)])

    asyncio.run(scenario())


def test_what_was_on_its_way_when_the_producer_ended_is_told_anew() -> None:
    async def scenario() -> None:
        worker = await begun(a_trade(0, minute(0)))
        publish(worker.broker, a_trade(1, minute(0) + 1))
        await worker.read_all()
        await worker.tell(taken=False)
        worker.topic.posts[-1].sent.cancel()
        await asyncio.sleep(0)
        worker.broker.now_us += INTERVAL
        assert [candle.trade_count for candle in await worker.tell()] == [2, 2]

    asyncio.run(scenario())


def test_a_symbol_whose_row_cannot_be_read_is_left_out_and_ends_nothing() -> None:
    async def scenario() -> None:
        names = ["binance:A", "binance:B", "binance:C"]
        first = await begun(*(a_trade(number, minute(0), symbol) for number, symbol in enumerate(names)))
        worker = Teller(first.broker)
        await worker.start()
        stored = worker.pipeline._states[0].symbols._stored
        stored["binance:B"] = [StoredRow(row.value[:-9], row.applied_offset, row.head) for row in stored["binance:B"]]
        with capture_logs() as logs:
            assert {candle.symbol for candle in await worker.tell()} == {"binance:A", "binance:C"}
            worker.broker.now_us += INTERVAL
            assert await worker.tell() == []
        (line,) = (line for line in logs if line["log_level"] == "error")
        assert (line["partition"], line["symbol"]) == (0, "binance:B")
        assert "a row in the changelog cannot be read" in line["error"]
        publish(worker.broker, a_trade(3, minute(0) + 1, "binance:B"))
        with pytest.raises(StateError):  # for whoever needs the row
            await worker.read_all()

    asyncio.run(scenario())


def test_a_worker_that_catches_up_tells_nothing_until_it_has() -> None:
    async def scenario() -> None:
        first = await begun(a_trade(0, minute(0)))
        publish(first.broker, *(a_trade(number, minute(0) + number) for number in range(1, 10)))
        worker = Teller(first.broker)
        await worker.start()
        for _ in range(8):
            await worker.read(0, 1)
            assert await worker.tell() == [], "what stood in the log has been told, or will be when all is read"
            await worker.pipeline.checkpoint()
        await worker.read(0, 1)
        await worker.pipeline.checkpoint()
        assert [candle.trade_count for candle in await worker.tell()] == [10, 10]
        publish(worker.broker, a_trade(10, minute(0) + 10), a_trade(11, minute(0) + 11))
        worker.broker.now_us += 2 * SECOND + 1000
        await worker.read(0, 1)
        assert await worker.tell() == [], "it has fallen behind"
        publish(worker.broker, a_trade(12, minute(0) + 12), a_trade(13, minute(0) + 13))
        await worker.read(0, 2)
        assert [candle.trade_count for candle in await worker.tell()] == [13, 13], "the last record came just now"

    asyncio.run(scenario())


def test_windows_that_may_lack_trades_are_not_told() -> None:
    async def scenario() -> None:
        broker = Broker(partitions=1)
        broker.now_us = minute(1)
        publish(broker, *(a_trade(number, minute(1)) for number in range(3)))
        broker.earliest[0] = 1
        worker = Teller(broker)
        await worker.start()
        await worker.read_all()
        assert await worker.tell() == []
        broker.now_us = minute(3)
        assert await told_of(worker, a_trade(3, minute(3))) == [("1m", 3, 1)], "that of three minutes began before"

    asyncio.run(scenario())


def test_what_the_worker_before_may_not_have_told_is_told_by_the_next() -> None:
    async def scenario() -> None:
        first = await begun(a_trade(0, minute(0), "binance:OLD"))
        first.broker.now_us += 61 * SECOND
        publish(first.broker, a_trade(1, minute(1), "binance:NEW"))
        await first.read_all()
        await first.pipeline.checkpoint()  # and is killed before it tells of it
        worker = Teller(first.broker)
        await worker.start()
        assert [(each.symbol, each.timeframe) for each in await worker.tell()] == [
            ("binance:NEW", "1m"),
            ("binance:NEW", "3m"),
        ]
        worker.broker.now_us += SECOND
        assert await worker.tell() == []

    asyncio.run(scenario())


def test_nothing_is_told_once_the_session_is_lost_or_partitions_are_given_away_or_a_step_was_broken_off() -> None:
    async def scenario() -> None:
        class LostError(Exception):
            pass

        clock, ended = [0.0], []

        def lose() -> None:
            ended.append(True)
            raise LostError

        guard = SessionGuard(10 * SECOND, clock=lambda: clock[0], lost=lose)
        worker = await begun(a_trade(0, minute(0)), guard=guard)
        before = len(worker.topic.posts)
        publish(worker.broker, a_trade(1, minute(0) + 1))
        await worker.read_all()
        clock[0] += 10.1
        with pytest.raises(LostError):
            await worker.tell()
        assert (len(worker.topic.posts), ended) == (before, [True])

        for give_up in ("settle", "release"):
            worker = await begun(a_trade(0, minute(0)))
            publish(worker.broker, a_trade(1, minute(0) + 1))
            await worker.read_all()
            await getattr(worker.pipeline, give_up)()
            assert await worker.tell() == []
            await worker.start()
            await worker.read_all()
            assert [candle.trade_count for candle in await worker.tell()] == [2, 2], "taken up again"

        worker = await begun(a_trade(0, minute(0)))
        publish(worker.broker, a_trade(1, minute(0) + 1), a_trade(2, minute(0) + 70 * SECOND))
        worker.crash_after = 0
        with pytest.raises(Crash):
            await worker.read_all()
        assert await worker.tell() == [], "what it has closed it may not have sent"

        worker = await begun(a_trade(0, minute(0)))
        publish(worker.broker, a_trade(1, minute(0) + 1))
        await worker.read_all()
        await worker.pipeline.condemn(0, Difference(worker.pipeline.known_records(0)[0], None, 0))
        assert await worker.tell() == [], "it is another log"

    asyncio.run(scenario())


class Turns(CpuShare):
    """Enough for one batch each time that it is asked for."""

    left = 0

    def has_left(self) -> bool:
        return self.left > 0

    def took(self, seconds: float) -> None:
        assert seconds > 0
        self.left -= 1


def test_others_have_their_turn_after_so_many_symbols_in_however_many_partitions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        share = Turns()
        worker = await begun(share=share, partitions=4)
        names = [symbol for symbols in symbols_of_partitions(4, each=3) for symbol in symbols]
        share.left = 100
        publish(worker.broker, *(a_trade(number, minute(0), symbol) for number, symbol in enumerate(names)))
        await worker.read_all()
        assert len(await worker.tell()) == 24
        monkeypatch.setattr(live, "SYMBOLS_AT_ONCE", 5)
        worker.broker.now_us += INTERVAL
        states = list(worker.pipeline._states.values())
        for state in states:
            state.live.wake(worker.broker.now_us / 1e6, 0.0)
            for symbol in state.symbols:  # of which there is nothing to tell
                state.live.changed(symbol, worker.broker.now_us / 1e6)
        left = []
        for _ in range(3):
            share.left = 1
            assert await worker.tell() == []
            left.append(sum(len(state.live) for state in states))
        assert left == [7, 2, 0]

    asyncio.run(scenario())


def test_where_its_share_of_the_cpu_does_not_do_each_symbol_has_its_turn_and_the_interval_grows() -> None:
    async def scenario(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(live, "SYMBOLS_AT_ONCE", 2)
        monkeypatch.setattr(live, "BYTES_AT_ONCE", 1_000)
        share = Turns()
        worker = await begun(share=share)
        symbols = [f"binance:S{number}" for number in range(8)]
        number, turns = 0, []
        for _ in range(24):
            for symbol in symbols:
                publish(worker.broker, a_trade(number, minute(0) + number, symbol))
                number += 1
            await worker.read_all()
            share.left = 1
            turns.append(sorted({candle.symbol for candle in await worker.tell()}))
            worker.broker.now_us += INTERVAL
        assert turns == [symbols[at : at + 2] for _ in range(6) for at in range(0, 8, 2)]
        assert metrics.live_interval_seconds._value.get() == pytest.approx(4 * INTERVAL / SECOND)
        share.left = 100
        assert [len(await worker.tell()) for _ in range(4)] == [4, 4, 4, 0], "all that is owed"
        assert metrics.live_interval_seconds._value.get() == INTERVAL / SECOND

    async def of_many_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(live, "BYTES_AT_ONCE", 1)
        share = Turns()
        worker = await begun(share=share, partitions=8)
        publish(worker.broker, *(a_trade(number, minute(0), f"binance:S{number}") for number in range(40)))
        await worker.read_all()
        for turns in (0, 2, 0, 3):
            share.left, before = turns, len(worker.topic.posts)
            again_s = await worker.pipeline.tell_progress()
            assert (len(worker.topic.posts) - before, share.left) == (turns, 0)
            assert again_s == live.LOOK_SOON_S

    with pytest.MonkeyPatch.context() as monkeypatch:
        asyncio.run(scenario(monkeypatch))
        asyncio.run(of_many_partitions(monkeypatch))


def test_a_share_of_the_cpu_is_never_more_than_that_however_it_is_taken() -> None:
    rng = random.Random(1)
    process_s = clock_s = taken_s = 0.0
    share = CpuShare(0.1, process_s=lambda: process_s, clock_s=lambda: clock_s)
    most_s = 0.01
    for _ in range(20_000):
        clock_s += rng.choice([0.0, 0.001, 0.025])
        process_s += rng.choice([0.0, 0.001, 0.02])
        while share.has_left() and rng.random() < 0.9:
            took_s = rng.uniform(0.0, most_s)
            share.took(took_s)
            taken_s += took_s
        assert taken_s <= 0.1 * max(process_s, 0) + 0.1 * LEAST_CORE * clock_s + MOST_AHEAD_S + most_s
    assert taken_s > 0.09 * process_s, "it can be had"
    clock_s += 1_000.0
    taken_s = 0.0
    while share.has_left():
        share.took(most_s)
        taken_s += most_s
    assert taken_s <= MOST_AHEAD_S + most_s, "what was not taken is not kept"
    share.took(1.0)
    clock_s += 0.9 / 0.1 / LEAST_CORE
    assert not share.has_left()
    clock_s += 0.2 / 0.1 / LEAST_CORE
    assert share.has_left()

"""Several workers on one symbol: what they say together, how they are told apart, and what one repairs for another."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashi.contracts.errors import BrokerError
from ashi.contracts.feed import (
    HEARTBEAT_US,
    REFUSED_REASON,
    STALE_AFTER_US,
    FeedGap,
    FeedStatus,
    decode_feed_gap,
    decode_feed_status,
)
from ashi.runtime.metrics.declare import REGISTRY
from ashi.runtime.retry import Backoff
from ashi.runtime.settings import Settings
from ashi_ingest.feed.reporting.follower import follow_feeds
from ashi_ingest.feed.reporting.partner_gaps import CLOCKS_US
from ashi_ingest.feed.reporting.partners import WorkerIdentity
from ashi_ingest.feed.reporting.report import LOST_GAPS
from ashi_ingest.feed.reporting.reported import ReportedFeed, read_feed
from ashi_ingest.feed.reporting.status import FeedReporter
from ashi_ingest.publish.publisher import open_publisher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = 1_723_161_254_000_000
S = "bitflyer:BTC_JPY"
SECOND = 1_000_000
STATES = ("connected", "silent", "repairing", "down")


class Topics:
    """Both topics and the time; what is sent is acknowledged at once, and read when a worker reads."""

    def __init__(self) -> None:
        self.now_us = T
        self.log: list[FeedStatus | FeedGap] = []
        self.workers: list[Worker] = []

    mark = 0

    def is_acknowledged(self, symbol: str, mark: int) -> bool:
        return True

    async def flush(self) -> None:
        pass

    async def announce(
        self, topic: str, key: str, value: bytes, schema: str, on_acknowledged: Callable[[], None] = lambda: None
    ) -> None:
        self.log.append(decode_feed_status(value) if topic == "feed.status" else decode_feed_gap(value))
        on_acknowledged()

    def worker(self, name: str, *, redundant: bool = False, clock_us: int = 0) -> Worker:
        worker = Worker(self, name, redundant, clock_us)
        self.workers.append(worker)
        return worker

    @property
    def status(self) -> FeedStatus:
        """What a reader knows: the last message of the symbol."""
        return [message for message in self.log if isinstance(message, FeedStatus)][-1]

    @property
    def gaps(self) -> dict[int, FeedGap]:
        """What a reader knows of gaps: of each the message with the greatest `updated_at`, the first of equals."""
        found: dict[int, FeedGap] = {}
        for message in self.log:
            if isinstance(message, FeedGap):
                before = found.get(message.from_time)
                if before is None or message.updated_at > before.updated_at:
                    found[message.from_time] = message
        return found

    async def go_on(self, seconds: float, *, alive: Sequence[Worker] | None = None) -> None:
        """So much time passes, in steps of a second."""
        for _ in range(round(seconds)):
            self.now_us += SECOND
            for _ in range(3):  # to and fro
                for worker in self.workers if alive is None else alive:
                    await worker.run()


class Worker:
    """What of a worker says how the feed is. `clock_us`: so much its clock is ahead."""

    def __init__(self, topics: Topics, name: str, redundant: bool, clock_us: int) -> None:
        self.topics = topics
        self.id = name
        self.read = len(topics.log)
        publisher: Any = topics
        reported = {}
        if topics.log:
            gaps = tuple(gap for gap in topics.gaps.values() if gap.state == "open")
            reported = {S: ReportedFeed(topics.status, gaps)}
        self.reporter = FeedReporter(
            publisher,
            name,
            reported,
            identity=WorkerIdentity(name, redundant),
            now_us=lambda: topics.now_us + clock_us,
            monotonic_s=lambda: topics.now_us / 1e6,
        )

    async def run(self) -> None:
        symbols = self.reporter.to_settle()
        log, self.read = self.topics.log[self.read :], len(self.topics.log)
        for message in log:
            if isinstance(message, FeedStatus):
                self.reporter.take_status(message)
            else:
                self.reporter.take_gap(message)
        self.reporter.settle(symbols)
        self.reporter.look_for_others()
        await self.reporter.flush()

    def set_state(self, state: Any, reason: str | None = None) -> None:
        self.reporter.set_state(S, state, reason)

    def shared_symbols(self, kind: str) -> float | None:
        return REGISTRY.get_sample_value("ashi_feed_shared_symbols", {"venue": self.id, "kind": kind})


def play(scenario: Callable[[Topics], Any]) -> None:
    asyncio.run(scenario(Topics()))


def test_a_partner_that_is_down_does_not_write_over_one_that_is_connected() -> None:
    async def scenario(topics: Topics) -> None:
        one = topics.worker("one", redundant=True)
        one.set_state("connected")
        await topics.go_on(12)
        two = topics.worker("two", redundant=True)
        two.set_state("down", "the worker has been started")
        for _ in range(40):
            await topics.go_on(1)
            assert (topics.status.state, topics.status.since) == ("connected", T)
        one.set_state("down", "it broke off")
        await topics.go_on(1)
        assert topics.status.state == "down"
        two.set_state("connected")
        await topics.go_on(1)
        assert (topics.status.state, topics.status.reason) == ("connected", None)
        assert [(worker.id, worker.state, worker.redundant) for worker in topics.status.workers] == [
            ("one", "down", True),
            ("two", "connected", True),
        ]

    play(scenario)


@pytest.mark.parametrize(("first", "second"), [(False, False), (True, False), (False, True)])
def test_rivals_are_seen_by_both_within_a_minute(first: bool, second: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(topics: Topics) -> None:
        one = topics.worker("one", redundant=first)
        one.set_state("connected")
        await topics.go_on(100)
        assert one.shared_symbols("rival") == 0
        two = topics.worker("two", redundant=second, clock_us=-600 * SECOND)
        two.set_state("connected")
        await topics.go_on(59)
        assert one.shared_symbols("rival") == two.shared_symbols("rival") == 1
        assert topics.status.state == "connected"
        assert topics.status.reason == (
            "2 workers read this symbol and not all were started with --redundant: one, two; each trade is published "
            "by each of them and counts once"
        )
        await topics.go_on(120, alive=[one])
        assert (topics.status.reason, [worker.id for worker in topics.status.workers]) == (None, ["one"])
        assert one.shared_symbols("rival") == 0

    play(scenario)
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 2


def test_a_pair_on_purpose_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(topics: Topics) -> None:
        pair = [topics.worker(name, redundant=True) for name in ("one", "two")]
        for worker in pair:
            worker.set_state("connected")
        await topics.go_on(60)
        for worker in pair:
            assert (worker.shared_symbols("rival"), worker.shared_symbols("redundant")) == (0, 1)
        assert topics.status.reason is None
        assert all(worker.redundant for worker in topics.status.workers)

    play(scenario)
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


def test_a_predecessor_that_was_killed_is_no_rival_and_does_not_stand_for_us_for_long(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(topics: Topics) -> None:
        topics.worker("before").set_state("connected")
        await topics.go_on(5)
        topics.workers.clear()
        after = topics.worker("after")
        after.set_state("repairing", "the worker has been started")
        await topics.go_on(2 * HEARTBEAT_US / SECOND + 1)
        assert topics.status.state == "repairing"
        await topics.go_on(60)
        assert after.shared_symbols("rival") == 0
        assert [worker.id for worker in topics.status.workers] == ["after"]

    play(scenario)
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


def test_what_one_has_checked_is_said_by_both() -> None:
    async def scenario(topics: Topics) -> None:
        one, two = (topics.worker(name, redundant=True) for name in ("one", "two"))
        one.set_state("connected")
        two.set_state("connected")
        await topics.go_on(20)
        one.reporter.set_complete_until(S, T + 5 * SECOND)
        await topics.go_on(20)
        topics.log.clear()
        one.read = two.read = 0
        await topics.go_on(10, alive=[two])
        assert topics.status.complete_until == T + 5 * SECOND
        assert [worker.complete_until for worker in topics.status.workers] == [T + 5 * SECOND, None]

    play(scenario)


async def pair(topics: Topics) -> tuple[Worker, Worker]:
    """Two that have been connected for a while."""
    one, two = (topics.worker(name, redundant=True) for name in ("one", "two"))
    one.set_state("connected")
    two.set_state("connected")
    await topics.go_on(30)
    return one, two


def test_what_a_partner_has_published_repairs_a_gap_of_one() -> None:
    async def scenario(topics: Topics) -> None:
        one, two = await pair(topics)
        begun = topics.now_us
        one.set_state("down", "it broke off")
        one.reporter.open_gap(S, begun, "it broke off")
        await topics.go_on(3)
        ended = topics.now_us
        one.reporter.end_gap(S, ended, "lost", 0, "the venue does not answer", from_time=begun)
        one.set_state("connected")
        two.reporter.set_complete_until(S, ended - 1)
        await topics.go_on(20)
        assert topics.gaps[begun].state == "lost"  # two has not checked to its end
        two.reporter.set_complete_until(S, ended)
        await topics.go_on(20)
        assert (topics.gaps[begun].state, topics.gaps[begun].to_time) == ("repaired", ended)

    play(scenario)


def test_what_both_have_missed_stays_missing() -> None:
    async def scenario(topics: Topics) -> None:
        one, two = await pair(topics)
        begun = topics.now_us
        for worker, shift in ((one, 0), (two, 1)):
            worker.reporter.open_gap(S, begun + shift, "it broke off")
        await topics.go_on(3)
        for worker, shift in ((one, 0), (two, 1)):
            worker.reporter.end_gap(S, topics.now_us, "lost", 0, "no answer", from_time=begun + shift)
            worker.reporter.set_complete_until(S, topics.now_us + SECOND)
        await topics.go_on(30)
        assert {gap.state for gap in topics.gaps.values()} == {"lost"}

    play(scenario)


@pytest.mark.parametrize("before_us", [0, CLOCKS_US + SECOND])
def test_a_partner_repairs_only_what_is_after_its_connection(before_us: int) -> None:
    async def scenario(topics: Topics) -> None:
        one, two = await pair(topics)
        two.set_state("repairing", "an id was missing")
        await topics.go_on(1)
        two.set_state("connected")
        await topics.go_on(1)
        connected = topics.now_us
        await topics.go_on(10)
        begun = connected + before_us
        one.reporter.end_gap(S, topics.now_us, "lost", 0, "no answer", from_time=begun)
        two.reporter.set_complete_until(S, topics.now_us)
        await topics.go_on(20)
        assert topics.gaps[begun].state == ("repaired" if before_us else "lost")

    play(scenario)


def test_the_gap_that_a_worker_leaves_for_good_is_closed_by_its_partner_when_it_has_checked() -> None:
    async def scenario(topics: Topics) -> None:
        one, two = await pair(topics)
        begun = topics.now_us
        one.reporter.open_gap(S, begun, "the worker has been stopped")
        one.set_state("down", "the worker has been stopped")
        await one.reporter.close()
        await topics.go_on(STALE_AFTER_US / SECOND + 5, alive=[two])
        assert topics.gaps[begun].to_time is None
        two.reporter.set_complete_until(S, topics.now_us)
        await topics.go_on(20, alive=[two])
        assert topics.gaps[begun].state == "repaired"
        assert topics.gaps[begun].to_time is not None
        assert [worker.id for worker in topics.status.workers] == ["two"]

    play(scenario)


def test_an_open_gap_of_one_that_lives_is_not_closed_and_none_that_was_not_covered() -> None:
    async def scenario(topics: Topics) -> None:
        one, two = await pair(topics)
        begun = topics.now_us
        one.reporter.open_gap(S, begun, "it broke off")
        one.set_state("down", "it broke off")
        await topics.go_on(10)
        two.reporter.set_complete_until(S, topics.now_us)
        await topics.go_on(20)
        assert topics.gaps[begun].state == "open"  # one lives, and says itself what becomes of its gap
        two.set_state("silent", "nothing has come")
        two.set_state("connected")  # later than the gap began
        await topics.go_on(STALE_AFTER_US / SECOND + 5, alive=[two])
        two.reporter.set_complete_until(S, topics.now_us)
        await topics.go_on(20, alive=[two])
        assert topics.gaps[begun].state == "open"

    play(scenario)


def test_a_gap_that_is_left_and_that_nobody_covers_is_handed_to_whom_asks_for_lost_times() -> None:
    """Such as what a predecessor still had on its way when it was killed, and its successor had not read."""

    async def scenario(topics: Topics) -> None:
        one, two = await pair(topics)
        left: list[tuple[str, int, int]] = []
        two.reporter.on_left_behind = lambda *gap: left.append(gap)
        two.set_state("silent", "nothing has come")
        two.set_state("connected")
        connected = topics.now_us
        begun = connected - 2 * SECOND
        one.reporter.open_gap(S, begun, "it broke off")
        await one.reporter.close()
        await topics.go_on(10)
        assert not left, "one lives, and says itself what becomes of its gap"
        await topics.go_on(STALE_AFTER_US / SECOND + 5, alive=[two])
        assert set(left) == {(S, begun, connected + CLOCKS_US)}

    play(scenario)


def test_a_gap_that_no_other_feed_has_left_is_not_closed_by_this_one() -> None:
    """One of ours whose trades nobody has published, and one of a record that the aggregate stage refused."""

    async def scenario(topics: Topics) -> None:
        one, two = await pair(topics)
        await topics.go_on(20)
        begun = topics.now_us
        for number in range(LOST_GAPS + 1):  # one more than are remembered
            lost = begun + 2 * number
            two.reporter.end_gap(S, lost + 1, "lost", 0, "no trade that can be read", from_time=lost)
        refused = begun - 7
        topics.log.append(FeedGap(S, refused, refused + 2, "lost", 0, f"{REFUSED_REASON}, see trades.dead", begun))
        await topics.go_on(10)
        await one.reporter.close()
        await topics.go_on(STALE_AFTER_US / SECOND + 5, alive=[two])
        two.reporter.set_complete_until(S, topics.now_us)
        await topics.go_on(10, alive=[two])
        assert {gap.state for gap in topics.gaps.values()} == {"lost"}
        assert len(topics.gaps) == LOST_GAPS + 2

    play(scenario)


@pytest.mark.parametrize("state", ["open", "lost"])
@pytest.mark.parametrize("covered", [True, False])
def test_a_gap_with_an_end_that_a_worker_leaves_is_closed_or_asked_for_by_the_one_that_goes_on(
    state: str, covered: bool
) -> None:
    """Nobody else ever would, until a worker is started."""

    async def scenario(topics: Topics) -> None:
        one, two = await pair(topics)
        left: list[tuple[str, int, int]] = []
        two.reporter.on_left_behind = lambda *gap: left.append(gap)
        await topics.go_on(20)
        begun = topics.now_us if covered else T - 100 * SECOND
        until = begun + 5 * SECOND
        if state == "open":
            one.reporter.bound_gap(S, begun, until, "REST does not answer")
        else:
            one.reporter.end_gap(S, until, "lost", 0, "REST did not answer", from_time=begun)
        final = until + 100
        one.reporter.end_gap(S, final + 1, "lost", 0, "there are none", from_time=final, final=True)
        await one.reporter.close()
        await topics.go_on(10)
        assert topics.gaps[begun].state == state, "one lives"
        assert not left
        await topics.go_on(STALE_AFTER_US / SECOND + 5, alive=[two])
        if covered:
            assert topics.gaps[begun].state == state, "it has not been checked yet"
            two.reporter.set_complete_until(S, until + SECOND)
            await topics.go_on(5, alive=[two])
            assert (topics.gaps[begun].state, topics.gaps[begun].to_time) == ("repaired", until)
            assert not left
        else:
            assert left == [(S, begun, until)]
        assert topics.gaps[final].state == "lost"

    play(scenario)


def test_the_gap_that_a_worker_leaves_is_open_until_its_partner_has_checked_past_its_beginning() -> None:
    async def scenario(topics: Topics) -> None:
        one, two = await pair(topics)
        begun = topics.now_us
        two.reporter.set_complete_until(S, begun)
        one.reporter.open_gap(S, begun, "the worker has been stopped")
        await one.reporter.close()
        await topics.go_on(STALE_AFTER_US / SECOND + 5, alive=[two])
        assert topics.gaps[begun].state == "open"

    play(scenario)


def test_a_gap_of_the_same_name_is_told_later_than_the_others_whatever_the_clocks_say() -> None:
    async def scenario(topics: Topics) -> None:
        one, two = topics.worker("one"), topics.worker("two", clock_us=40 * SECOND)
        for worker in (one, two):
            worker.set_state("connected")
            worker.reporter.open_gap(S, T, "it broke off")
        await topics.go_on(2)
        two.reporter.end_gap(S, T + SECOND, "repaired", 1, "it broke off")
        await topics.go_on(2)
        one.reporter.end_gap(S, T + 4 * SECOND, "lost", 0, "no answer")
        await topics.go_on(1)
        assert (topics.gaps[T].state, topics.gaps[T].to_time) == ("lost", T + 4 * SECOND)

    play(scenario)


@given(
    st.lists(
        st.tuples(st.sampled_from(["one", "two", "three"]), st.sampled_from([*STATES, "dies"]), st.integers(0, 15)),
        max_size=15,
    )
)
def test_in_the_end_the_last_message_says_the_best_state_of_those_that_live(
    steps: list[tuple[str, str, int]],
) -> None:
    async def scenario(topics: Topics) -> None:
        states: dict[str, str] = {}
        workers: dict[str, Worker] = {}
        for name, state, seconds in steps:
            if state == "dies":
                states.pop(name, None)
                workers.pop(name, None)
            else:
                worker = workers.get(name)
                if worker is None:
                    worker = workers[name] = topics.worker(f"{name}-{len(topics.workers)}", redundant=True)
                states[name] = state
                worker.set_state(state, state)
            await topics.go_on(seconds, alive=list(workers.values()))
        await topics.go_on(STALE_AFTER_US / SECOND + 11, alive=list(workers.values()))
        if workers:
            assert topics.status.state == min(states.values(), key=STATES.index)
            assert {worker.id for worker in topics.status.workers} == {worker.id for worker in workers.values()}
            assert topics.now_us - topics.status.updated_at <= HEARTBEAT_US

    play(scenario)


@pytest.mark.kafka
def test_workers_read_each_other_on_a_broker(kafka_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ashi_ingest.feed.reporting.heartbeats.BEAT_US", SECOND // 2)

    async def run(name: str, until: Callable[[FeedReporter], bool]) -> None:
        reported = await read_feed(kafka_settings, [S])
        async with open_publisher(kafka_settings, name, live=True) as publisher:
            reporter = FeedReporter(publisher, name, reported, identity=WorkerIdentity(name))
            following = asyncio.create_task(follow_feeds(kafka_settings, reporter))
            reporter.set_state(S, "connected", None)
            try:
                async with asyncio.timeout(30):
                    while not until(reporter):
                        reporter.look_for_others()
                        await reporter.flush()
                        await asyncio.sleep(0.05)
            finally:
                following.cancel()

    def rivals(name: str) -> float | None:
        return REGISTRY.get_sample_value("ashi_feed_shared_symbols", {"venue": name, "kind": "rival"})

    def both(_: FeedReporter) -> bool:
        return rivals("broker-one") == rivals("broker-two") == 1

    async def main() -> FeedStatus | None:
        await asyncio.gather(run("broker-one", both), run("broker-two", both))
        return (await read_feed(kafka_settings, [S]))[S].status

    status = asyncio.run(main())
    assert status is not None
    assert [worker.id for worker in status.workers] == ["broker-one", "broker-two"]


def test_what_others_say_is_begun_to_be_read_anew_whenever_it_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    class Follower:
        def __init__(self, _: object, topic: str) -> None:
            opened.append(topic)

        async def open(self, start: object) -> None:
            await asyncio.sleep(0.001)  # so that whoever waits for both is waiting already

        async def poll(self, wait_s: float) -> list[Any]:
            raise BrokerError("Kafka has not answered for 40 s")

        async def close(self) -> None:
            pass

    monkeypatch.setattr("ashi_ingest.feed.reporting.follower.TopicFollower", Follower)
    monkeypatch.setattr("ashi_ingest.feed.reporting.follower.Backoff", lambda: Backoff(0.001, 0.002))

    async def main() -> None:
        reporter: Any = SimpleNamespace(take_status=None, take_gap=None)
        following = asyncio.create_task(follow_feeds(Settings.from_environment({}), reporter))
        async with asyncio.timeout(60):
            while len(opened) < 10:
                assert not following.done(), following
                await asyncio.sleep(0.001)
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following

    asyncio.run(main())


def test_what_fails_while_it_is_told_to_end_does_not_keep_it_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    class Follower:
        def __init__(self, *_: object) -> None:
            pass

        async def open(self, start: object) -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                raise BrokerError("Kafka cannot be reached") from None

        async def close(self) -> None:
            pass

    monkeypatch.setattr("ashi_ingest.feed.reporting.follower.TopicFollower", Follower)

    async def main() -> None:
        reporter: Any = None
        following = asyncio.create_task(follow_feeds(Settings.from_environment({}), reporter))
        await asyncio.sleep(0.01)
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(60):
                await following

    asyncio.run(main())

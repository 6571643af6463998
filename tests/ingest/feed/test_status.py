"""What is said of feeds, with a publisher that remembers it; and reading it again, with a real Kafka."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ashi.contracts.feed import (
    HEARTBEAT_US,
    FeedGap,
    FeedStatus,
    FeedWorker,
    decode_feed_gap,
    decode_feed_status,
    encode_feed,
)
from ashi.contracts.trade import Trade
from ashi.runtime.kafka.connections.clients import make_producer
from ashi.runtime.metrics.declare import REGISTRY
from ashi_ingest.feed.reporting.heartbeats import BEAT_US
from ashi_ingest.feed.reporting.partners import WorkerIdentity
from ashi_ingest.feed.reporting.reported import ReportedFeed, read_feed
from ashi_ingest.feed.reporting.status import FeedReporter
from ashi_ingest.publish.publisher import open_publisher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ashi.runtime.settings import Settings

T = 1_723_161_254_000_000
S = "bitflyer:BTC_JPY"
OTHER = "bitflyer:FX_BTC_JPY"


ME = WorkerIdentity("this-host/1-ab")


def by_me(status: FeedStatus) -> FeedStatus:
    """As this worker says it."""
    return replace(status, workers=(FeedWorker(ME.id, status.state, status.updated_at),))


def trade(number: int, symbol: str = S) -> Trade:
    return Trade(symbol, str(number), Decimal(100), Decimal(1), "buy", T + number, T + number, number)


class Kafka:
    """Remembers what is announced, and has the clock."""

    def __init__(self) -> None:
        self.now_us = T
        self.statuses: list[FeedStatus] = []
        self.gaps: list[FeedGap] = []
        self.schemas: set[tuple[str, str]] = set()
        self.gate = asyncio.Event()
        self.gate.set()
        self.cancel_at: str | None = None

    async def announce(
        self,
        topic: str,
        key: str,
        value: bytes,
        schema: str,
        on_acknowledged: Callable[[], None] | None = None,
    ) -> None:
        await self.gate.wait()
        if topic == self.cancel_at:
            raise asyncio.CancelledError
        if on_acknowledged is not None:
            on_acknowledged()
        self.schemas.add((topic, schema))
        message: Any
        if topic == "feed.status":
            message = decode_feed_status(value)
            self.statuses.append(message)
        else:
            message = decode_feed_gap(value)
            self.gaps.append(message)
        assert key == message.symbol

    mark = 0

    def is_acknowledged(self, symbol: str, mark: int) -> bool:
        return True

    async def flush(self) -> None:
        pass

    def reporter(self, reported: dict[str, ReportedFeed] | None = None, venue: str = "bitflyer") -> FeedReporter:
        return FeedReporter(self, venue, reported, identity=ME, now_us=lambda: self.now_us)  # type: ignore[arg-type]

    def current(self) -> dict[tuple[str, int], FeedGap]:
        """The gaps as a reader takes them."""
        found: dict[tuple[str, int], FeedGap] = {}
        for gap in self.gaps:
            before = found.get((gap.symbol, gap.from_time))
            assert before is None or gap.updated_at > before.updated_at
            found[gap.symbol, gap.from_time] = gap
        return found


def test_many_changes_between_two_flushes_become_one_message() -> None:
    kafka = Kafka()
    reporter = kafka.reporter()

    async def main() -> None:
        reporter.set_state(S, "down", "starting")
        kafka.now_us += 5
        reporter.set_state(S, "repairing", "starting")
        kafka.now_us += 5
        reporter.set_state(S, "connected", None)
        reporter.on_trade(S, trade(1))
        reporter.on_trade(S, trade(2))
        kafka.now_us += 5
        await reporter.flush()
        await reporter.flush()

    asyncio.run(main())
    assert kafka.statuses == [by_me(FeedStatus(S, "connected", T + 10, None, "2", T + 2, T + 15))]
    assert kafka.schemas == {("feed.status", "ashi.feed-status.v1")}


def test_a_state_keeps_its_beginning_while_its_reason_changes() -> None:
    kafka = Kafka()
    reporter = kafka.reporter()

    async def main() -> None:
        reporter.set_state(S, "down", "closed")
        await reporter.flush()
        kafka.now_us += 7
        reporter.set_state(S, "down", "unreachable")
        await reporter.flush()
        kafka.now_us += 7
        reporter.set_state(S, "down", "unreachable")
        await reporter.flush()

    asyncio.run(main())
    assert [(each.since, each.reason, each.updated_at) for each in kafka.statuses] == [
        (T, "closed", T),
        (T, "unreachable", T + 7),
    ]


def test_a_status_that_stays_is_sent_within_ten_seconds_with_the_last_trade_and_without_one() -> None:
    kafka = Kafka()
    reporter = kafka.reporter()

    async def main() -> None:
        reporter.set_state(S, "connected", None)
        await reporter.flush()
        for number in range(1, 301):  # 30 s
            kafka.now_us += 100_000
            reporter.on_trade(S, trade(number))
            await reporter.flush()
        for _ in range(300):  # 30 s more, without a trade
            kafka.now_us += 100_000
            await reporter.flush()

    asyncio.run(main())
    times = [each.updated_at for each in kafka.statuses]
    assert times[0] == T
    assert kafka.now_us - times[-1] <= HEARTBEAT_US
    assert [later - earlier for earlier, later in pairwise(times[1:])] == [BEAT_US] * (len(times) - 2)
    assert times[1] - times[0] <= BEAT_US
    for each in kafka.statuses:
        assert each.last_trade_id == (str(min((each.updated_at - T) // 100_000, 300)) if each.updated_at > T else None)


def test_a_clock_that_is_set_back_does_not_silence_a_symbol() -> None:
    kafka = Kafka()
    reporter = kafka.reporter()

    async def main() -> None:
        reporter.set_state(S, "connected", None)
        await reporter.flush()
        kafka.now_us -= 3_600_000_000
        reporter.on_trade(S, trade(1))
        await reporter.flush()

    asyncio.run(main())
    assert [each.last_trade_id for each in kafka.statuses] == [None, "1"]


def test_a_change_of_state_is_sent_at_once_with_the_last_trade() -> None:
    kafka = Kafka()
    reporter = kafka.reporter()

    async def main() -> None:
        reporter.set_state(S, "connected", None)
        await reporter.flush()
        kafka.now_us += 1
        reporter.on_trade(S, trade(1))
        reporter.set_state(S, "silent", "nothing has come")
        await reporter.flush()

    asyncio.run(main())
    assert kafka.statuses[1] == by_me(FeedStatus(S, "silent", T + 1, "nothing has come", "1", T + 1, T + 1))


def test_what_is_complete_is_kept_over_restarts_and_never_goes_back() -> None:
    async def scenario() -> Kafka:
        kafka = Kafka()
        reporter = kafka.reporter()
        reporter.set_state(S, "connected", None)
        await reporter.flush()
        reporter.set_complete_until(S, T + 9)
        reporter.set_complete_until(S, T + 8)
        kafka.now_us += 10_000_000
        await reporter.flush()
        restarted = kafka.reporter({S: ReportedFeed(kafka.statuses[-1], ())})
        restarted.set_state(S, "down", "the worker has been started")
        await restarted.flush()
        return kafka

    assert [status.complete_until for status in asyncio.run(scenario()).statuses] == [None, T + 9, T + 9]


def test_nothing_is_said_of_a_symbol_before_it_has_a_state() -> None:
    kafka = Kafka()
    reporter = kafka.reporter({S: ReportedFeed(None, ())})

    async def main() -> None:
        reporter.on_trade(S, trade(1))
        await reporter.flush()
        assert kafka.statuses == []
        reporter.set_state(S, "connected", None)
        await reporter.flush()
        assert [each.last_trade_id for each in kafka.statuses] == ["1"]

    asyncio.run(main())


def test_a_gap_is_said_when_it_opens_and_when_it_ends() -> None:
    kafka = Kafka()
    reporter = kafka.reporter()

    async def main() -> None:
        reporter.open_gap(S, T - 50, "lost")
        await reporter.flush()
        kafka.now_us += 10
        reporter.end_gap(S, T + 9, "repaired", 17, "lost")
        await reporter.flush()
        await reporter.flush()

    asyncio.run(main())
    assert kafka.gaps == [
        FeedGap(S, T - 50, None, "open", 0, "lost", T),
        FeedGap(S, T - 50, T + 9, "repaired", 17, "lost", T + 10),
    ]
    assert kafka.schemas == {("feed.gaps", "ashi.feed-gap.v1")}


def test_a_gap_that_opens_and_ends_between_two_flushes_is_one_message() -> None:
    kafka = Kafka()
    reporter = kafka.reporter()

    async def main() -> None:
        reporter.open_gap(S, T - 50, "lost")
        reporter.end_gap(S, T, "lost", 3, "the venue does not answer")
        reporter.end_gap(OTHER, T, "repaired", 2, "5 ids were missing", from_time=T - 9)
        await reporter.flush()

    asyncio.run(main())
    assert [(g.symbol, g.from_time, g.to_time, g.state, g.trades_recovered) for g in kafka.gaps] == [
        (S, T - 50, T, "lost", 3),
        (OTHER, T - 9, T, "repaired", 2),
    ]


def test_a_gap_that_nobody_opened_begins_with_the_last_trade() -> None:
    kafka = Kafka()
    reporter = kafka.reporter()

    async def main() -> None:
        reporter.on_trade(S, trade(1))
        reporter.end_gap(S, T + 9, "repaired", 0, "starting")
        reporter.end_gap(OTHER, T + 9, "repaired", 0, "starting")
        await reporter.flush()

    asyncio.run(main())
    assert [(g.symbol, g.from_time, g.to_time) for g in kafka.gaps] == [(S, T + 1, T + 9), (OTHER, T + 9, T + 9)]


def test_while_a_gap_is_open_a_later_one_is_part_of_it() -> None:
    kafka = Kafka()
    reporter = kafka.reporter()

    async def main() -> None:
        reporter.open_gap(S, T, "closed")
        await reporter.flush()
        reporter.open_gap(S, T + 5, "unreachable")
        await reporter.flush()
        reporter.end_gap(S, T + 9, "repaired", 1, "closed")
        await reporter.flush()

    asyncio.run(main())
    assert [(g.from_time, g.state) for g in kafka.gaps] == [(T, "open"), (T, "repaired")]


def test_a_gap_that_began_before_one_that_is_open_is_told_too_and_both_end() -> None:
    kafka = Kafka()
    reporter = kafka.reporter()

    async def main() -> None:
        reporter.open_gap(S, T, "closed")
        reporter.open_gap(S, T - 5, "crashed")
        await reporter.flush()
        reporter.end_gap(S, T + 9, "repaired", 4, "crashed")
        await reporter.flush()

    asyncio.run(main())
    assert [(g.from_time, g.state, g.trades_recovered) for g in kafka.gaps] == [
        (T, "open", 0),
        (T - 5, "open", 0),
        (T - 5, "repaired", 4),
        (T, "repaired", 0),
    ]


def test_a_hole_that_ends_leaves_an_interruption_open() -> None:
    kafka = Kafka()
    reporter = kafka.reporter()

    async def main() -> None:
        reporter.open_gap(S, T, "closed")
        reporter.end_gap(S, T - 3, "repaired", 1, "an id was missing", from_time=T - 4)
        await reporter.flush()

    asyncio.run(main())
    assert {(g.from_time, g.state) for g in kafka.gaps} == {(T, "open"), (T - 4, "repaired")}


def test_a_gap_never_ends_before_it_begins_although_two_clocks_are_at_work() -> None:
    kafka = Kafka()
    reporter = kafka.reporter()

    async def main() -> None:
        reporter.open_gap(S, T, "closed")
        reporter.end_gap(S, T - 400_000, "repaired", 0, "closed")
        await reporter.flush()

    asyncio.run(main())
    assert [(g.from_time, g.to_time) for g in kafka.gaps] == [(T, T)]


def test_a_gap_that_was_open_before_a_restart_keeps_its_beginning_and_ends_even_if_the_clock_went_back() -> None:
    kafka = Kafka()
    before = [FeedGap(S, T - 900 + n, None, "open", 0, "closed", T + 5_000) for n in range(2)]
    status = FeedStatus(S, "down", T - 800, "closed", "41", T - 1_000, T + 4_000)
    reporter = kafka.reporter({S: ReportedFeed(status, tuple(before)), OTHER: ReportedFeed(None, ())})

    async def main() -> None:
        reporter.open_gap(S, T - 850, "starting")
        reporter.set_state(S, "repairing", "starting")
        await reporter.flush()
        assert kafka.gaps == []
        assert kafka.statuses[-1].last_trade_id == "41"
        assert kafka.statuses[-1].last_traded_at == T - 1_000
        reporter.end_gap(S, T, "repaired", 6, "starting")
        await reporter.flush()

    asyncio.run(main())
    kafka.gaps = before + kafka.gaps
    assert [(g.from_time, g.to_time, g.state, g.trades_recovered) for g in kafka.current().values()] == [
        (T - 900, T, "repaired", 6),
        (T - 899, T, "repaired", 0),
    ]


def test_what_was_not_sent_when_a_flush_was_cancelled_is_sent_by_the_next() -> None:
    kafka = Kafka()
    reporter = kafka.reporter()

    async def main() -> None:
        reporter.open_gap(S, T, "closed")
        reporter.set_state(S, "down", "closed")
        kafka.cancel_at = "feed.gaps"
        with pytest.raises(asyncio.CancelledError):
            await reporter.flush()
        assert kafka.gaps == []
        kafka.cancel_at = "feed.status"
        with pytest.raises(asyncio.CancelledError):
            await reporter.flush()
        assert len(kafka.gaps) == 1
        assert kafka.statuses == []
        kafka.cancel_at = None
        await reporter.flush()

    asyncio.run(main())
    assert [g.state for g in kafka.gaps] == ["open"]
    assert [s.state for s in kafka.statuses] == ["down"]


def test_what_changes_while_it_is_being_sent_is_sent_next_and_in_order() -> None:
    kafka = Kafka()
    reporter = kafka.reporter()

    async def main() -> None:
        kafka.gate.clear()
        reporter.set_state(S, "down", "closed")
        reporter.open_gap(S, T, "closed")
        first = asyncio.create_task(reporter.flush())
        await asyncio.sleep(0)
        kafka.now_us += 1
        reporter.set_state(S, "connected", None)
        reporter.end_gap(S, T + 1, "repaired", 0, "closed")
        second = asyncio.create_task(reporter.flush())
        await asyncio.sleep(0)
        kafka.gate.set()
        await asyncio.gather(first, second)

    asyncio.run(main())
    assert [g.state for g in kafka.gaps] == ["open", "repaired"]
    assert [s.state for s in kafka.statuses] == ["connected"]


def test_the_gauge_counts_symbols_by_their_state() -> None:
    kafka = Kafka()
    reporter = kafka.reporter(venue="gauged")

    def counted() -> dict[str, float]:
        values = {
            state: REGISTRY.get_sample_value("ashi_feed_symbols", {"venue": "gauged", "state": state})
            for state in ("connected", "silent", "repairing", "down")
        }
        return {state: value for state, value in values.items() if value}

    reporter.set_state(S, "down", "starting")
    reporter.set_state(OTHER, "down", "starting")
    assert counted() == {"down": 2}
    reporter.set_state(S, "connected", None)
    reporter.set_state(S, "connected", None)
    assert counted() == {"down": 1, "connected": 1}
    reporter.set_state(OTHER, "repairing", "starting")
    reporter.set_state(S, "silent", "nothing has come")
    assert counted() == {"repairing": 1, "silent": 1}


actions = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.integers(-50, 50)),
        st.tuples(st.just("end"), st.integers(-50, 50)),
        st.tuples(st.just("hole"), st.integers(-50, 50)),
        st.tuples(st.just("flush"), st.just(0)),
        st.tuples(st.just("clock"), st.integers(-100, 100)),
        st.tuples(st.just("restart"), st.just(0)),
    ),
    max_size=40,
)


@given(actions)
def test_whatever_happens_no_gap_stays_open_and_readers_see_the_last_message(steps: Sequence[tuple[str, int]]) -> None:
    kafka = Kafka()
    reporter = kafka.reporter()

    async def main() -> None:
        nonlocal reporter
        for action, value in steps:
            match action:
                case "open":
                    reporter.open_gap(S, T + value, "why")
                case "end":
                    reporter.end_gap(S, T + value, "repaired", 1, "why")
                case "hole":
                    reporter.end_gap(S, T + value, "lost", 1, "why", from_time=T + value - 3)
                case "clock":
                    kafka.now_us += value
                case "flush":
                    await reporter.flush()
                case _:
                    await reporter.flush()
                    still = tuple(gap for gap in kafka.current().values() if gap.state == "open")
                    said = max((gap.updated_at for gap in kafka.gaps), default=T)
                    reporter = kafka.reporter({S: ReportedFeed(FeedStatus(S, "down", T, "x", None, None, said), still)})
        reporter.end_gap(S, T + 60, "repaired", 1, "why")
        await reporter.flush()

    asyncio.run(main())
    assert all(gap.state != "open" for gap in kafka.current().values())


@pytest.mark.kafka
def test_what_was_said_is_read_again_after_a_restart(kafka_settings: Settings) -> None:
    now = T

    async def main() -> None:
        nonlocal now
        assert await read_feed(kafka_settings, [S]) == {S: ReportedFeed(None, ())}
        async with open_publisher(kafka_settings, "bitflyer", live=True) as publisher:
            reporter = FeedReporter(publisher, "bitflyer", identity=ME, now_us=lambda: now)
            for symbol in (S, OTHER, "bitflyer:ETH_JPY"):
                reporter.set_state(symbol, "connected", None)
                reporter.on_trade(symbol, trade(7, symbol))
            await reporter.flush()
            now += 1
            reporter.end_gap(S, T + 3, "lost", 0, "too old", from_time=T + 2)
            reporter.open_gap(OTHER, T + 20, "closed")
            await reporter.flush()
            now += 1
            reporter.set_state(OTHER, "down", "closed")
            reporter.open_gap(OTHER, T + 10, "closed")
            await reporter.flush()
        found = await read_feed(kafka_settings, [S, OTHER, "bitflyer:XRP_JPY"])
        assert found == {
            S: ReportedFeed(
                by_me(FeedStatus(S, "connected", T, None, "7", T + 7, T)),
                (),
                (FeedGap(S, T + 2, T + 3, "lost", 0, "too old", T + 1),),
            ),
            OTHER: ReportedFeed(
                by_me(FeedStatus(OTHER, "down", T + 2, "closed", "7", T + 7, T + 2)),
                (
                    FeedGap(OTHER, T + 10, None, "open", 0, "closed", T + 2),
                    FeedGap(OTHER, T + 20, None, "open", 0, "closed", T + 1),
                ),
            ),
            "bitflyer:XRP_JPY": ReportedFeed(None, ()),
        }
        async with open_publisher(kafka_settings, "bitflyer", live=True) as publisher:
            reporter = FeedReporter(publisher, "bitflyer", found, now_us=lambda: now)
            reporter.end_gap(OTHER, T + 30, "repaired", 2, "closed")
            await reporter.flush()
        assert (await read_feed(kafka_settings, [OTHER]))[OTHER].gaps == ()

    asyncio.run(main())


@pytest.mark.kafka
def test_messages_that_cannot_be_read_are_passed_over_with_a_warning(
    kafka_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    status = FeedStatus(S, "connected", T, None, None, None, T)
    gap = FeedGap(S, T, None, "open", 0, "closed", T + 5)

    async def main() -> None:
        producer = make_producer(kafka_settings)
        await producer.start()
        try:
            for topic, value in (
                ("feed.status", encode_feed(status)),
                ("feed.status", b"\xff"),
                ("feed.status", None),
                ("feed.gaps", encode_feed(gap)),
                ("feed.gaps", b"{}"),
                # An older message that came later does not count.
                ("feed.gaps", encode_feed(FeedGap(S, T, T + 1, "repaired", 0, "closed", T + 4))),
            ):
                await producer.send_and_wait(topic, value, key=S.encode())
        finally:
            await producer.stop()
        assert await read_feed(kafka_settings, [S]) == {S: ReportedFeed(status, (gap,))}

    asyncio.run(main())
    # As text or as a dict, by how another test has set up the logs.
    warnings = [record.getMessage() for record in caplog.records if "passed over" in record.getMessage()]
    assert len(warnings) == 2
    assert any("feed.status/" in line for line in warnings)
    assert any("feed.gaps/" in line for line in warnings)

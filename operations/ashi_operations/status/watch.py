"""Looking at a deployment again and again: what topics say is kept up in the background, the rest is asked each time.

A look is bounded in time. A part that Kafka does not answer is missing from it, with the reason; the others are there.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from ashi.contracts.errors import AshiError, BrokerError, ContractError
from ashi.contracts.records import candle_in, feed_gap_in, feed_status_in, is_loaded
from ashi.contracts.symbol import split_symbol
from ashi.contracts.timeframe import SECOND_US, parse_timeframes
from ashi.contracts.topics import (
    CANDLES,
    CANDLES_DEAD,
    FEED_GAPS,
    FEED_STATUS,
    TRADES_DEAD,
    TRADES_LATE,
    topic_specs,
)
from ashi.runtime.kafka.cluster.survey import Survey
from ashi.runtime.kafka.connections.naming import kafka_name
from ashi.runtime.kafka.consuming.records import read_between
from ashi.runtime.kafka.consuming.tail import TopicTail
from ashi.runtime.wall_clock import now_us
from ashi_aggregate.epoch import current_epoch
from ashi_operations.status.candles import KEPT_US, CandleWindow
from ashi_operations.status.feeds import FeedTable
from ashi_operations.status.gaps import KEPT_US as GAPS_US
from ashi_operations.status.gaps import GapTable
from ashi_operations.status.groups import ask_groups
from ashi_operations.status.judge import Ground, problems_of, unreachable
from ashi_operations.status.snapshot import Snapshot, Unknown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from ashi.contracts.feed import FeedStatus
    from ashi.runtime.kafka.cluster.survey import ClusterView
    from ashi.runtime.settings import Settings

LOOK_S: Final = 10.0
"""How long one look may take; the first one has as long again for what the topics have said before."""
RECENT_MS: Final = 75_000
"""Feeds that live have said something within so long; what was said before is read behind that."""
LETTERS_MS: Final = 3_600_000
LAST_CANDLES: Final = 30
"""Of each partition, however old."""

UNHEARD_OF: Final = (
    "no worker has ever told of a feed of it, and no candle of it came lately: is this its venue's name?"
)

_T = TypeVar("_T")


class Watch:
    """One deployment, looked at from when it is started until it is closed."""

    def __init__(self, settings: Settings, symbols: Collection[str] = ()) -> None:
        """`symbols`: only these are told of, each whatever it is; none: all."""
        self._settings = settings
        self._symbols = frozenset(symbols) or None
        now = now_us()
        self._feeds = FeedTable()
        self._gaps = GapTable()
        self._candles = CandleWindow(now - KEPT_US)
        self._tails = {
            FEED_STATUS: self._tail(FEED_STATUS, self._take_status, now // 1_000 - RECENT_MS),
            FEED_GAPS: self._tail(FEED_GAPS, self._take_gap, (now - GAPS_US) // 1_000),
            CANDLES: self._tail(CANDLES, self._take_candle, (now - KEPT_US) // 1_000, LAST_CANDLES),
        }
        self._past_feeds: dict[bytes, Any] = {}
        self._past_reason: str | None = "topic feed.status is still being read"
        self._survey: Survey | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._epoch: tuple[int, int] | None = None
        self._clocks: dict[str, float] = {}

    def start(self) -> None:
        """Begin to read the topics, within a running loop."""
        work = [*(tail.run() for tail in self._tails.values()), self._read_past()]
        self._tasks = [asyncio.create_task(each) for each in work]

    async def close(self) -> None:
        """End it. May be called at any time."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._survey is not None:
            await self._survey.close()

    async def wait_for_past(self, timeout_s: float) -> None:
        """Wait until what the topics have said before is read; for so long at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*(tail.settled.wait() for tail in self._tails.values()))
                if self._tails[FEED_STATUS].caught_up.is_set():
                    await asyncio.wait([self._tasks[-1]])

    async def wait_for_clock(self, timeout_s: float) -> None:
        """Wait until a record has come that tells how this machine's clock is; for so long at most."""
        waits = [asyncio.create_task(tail.heard.wait()) for tail in self._tails.values()]
        try:
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    @property
    def clock_ahead_s(self) -> float | None:
        """How far this machine's clock is ahead of the brokers', at most; None: nothing has come to tell by."""
        clocks = [tail.clock_ahead_s for tail in self._tails.values() if tail.clock_ahead_s is not None]
        return min(clocks, default=None)

    @property
    def ingest_clocks(self) -> dict[str, float]:
        """How far the clocks of the ingest workers of each venue are ahead of the brokers', s: at least so far."""
        return dict(self._clocks)

    @property
    def knows_feeds(self) -> bool:
        """Whether any feed has ever said anything."""
        return len(self._feeds) > 0

    async def look(self, timeout_s: float = LOOK_S) -> Snapshot:
        """How it is now. Raises nothing but for mistakes of ours: what cannot be known is told."""
        unknown: list[Unknown] = []
        try:
            async with asyncio.timeout(timeout_s):
                asked = await self._connected()
                cluster = await asked.cluster()
        except (AshiError, TimeoutError) as error:
            await self._disconnect()
            return self._nothing(str(error) or f"Kafka gives no answer in {timeout_s:g} s")
        now = now_us()

        async def part(what: str, work: Awaitable[_T]) -> _T | None:
            try:
                async with asyncio.timeout(timeout_s):
                    return await work
            except (AshiError, TimeoutError) as error:
                unknown.append(Unknown(what, str(error) or f"Kafka gives no answer in {timeout_s:g} s"))
                return None

        groups, letters, _ = await asyncio.gather(
            part("stages and stores", ask_groups(asked, cluster, self._settings, now // 1_000)),
            part("dead letters", self._letters(asked, cluster, now // 1_000)),
            part("the epoch", self._read_epoch()),
        )
        return self._snapshot(cluster, groups, letters, unknown, now_us())

    def _snapshot(
        self,
        cluster: ClusterView,
        groups: tuple[list[Any], list[Unknown]] | None,
        letters: dict[str, int] | None,
        unknown: list[Unknown],
        now_us: int,
    ) -> Snapshot:
        lateness_us, finest_us = self._epoch or (self._settings.allowed_lateness_us, 0)
        found, told = groups or (None, [])
        unknown = [*unknown, *told]
        for topic, what in ((FEED_STATUS, "feeds"), (CANDLES, "candles and their delay"), (FEED_GAPS, "gaps")):
            tail = self._tails[topic]
            if tail.trouble is not None or not tail.caught_up.is_set():
                unknown.append(Unknown(what, tail.trouble or f"topic {topic} is still being read"))
        if self._past_reason is not None and self._tails[FEED_STATUS].caught_up.is_set():
            unknown.append(Unknown("feeds of which nothing was heard for a minute", self._past_reason))
        read = {topic: tail.caught_up.is_set() for topic, tail in self._tails.items()}
        if self._past_reason is None and read[CANDLES]:
            unknown += [Unknown(f"symbol {symbol}", UNHEARD_OF) for symbol in self._unheard_of()]
        ground = Ground(
            self._settings.kafka_bootstrap,
            self._settings.topic_prefix,
            lateness_us,
            finest_us,
            [
                kafka_name(self._settings, spec.name)
                for spec in topic_specs(1, self._settings.timeframes)
                if spec.name not in cluster.topics
            ],
        )
        snapshot = Snapshot(
            at=now_us,
            kafka=self._settings.kafka_bootstrap,
            brokers=len(cluster.brokers),
            partitions_without_leader=[
                f"{kafka_name(self._settings, topic)}/{number}"
                for topic, view in sorted(cluster.topics.items())
                for number in view.leaderless
            ],
            feeds=self._feeds.view(now_us, self._symbols) if read[FEED_STATUS] else None,
            stages=None if found is None else [group for group in found if group.stage != "sink"],
            stores=None if found is None else [group for group in found if group.stage == "sink"],
            delay=self._candles.delay(now_us, lateness_us) if read[CANDLES] else None,
            candles=self._candles.newest(self._symbols) if read[CANDLES] else None,
            gaps=self._gaps.view(now_us, self._symbols) if read[FEED_GAPS] else None,
            dead_letters=letters,
            clock_ahead=self.clock_ahead_s,
            problems=[],
            unknown=unknown,
        )
        return _judged(snapshot, ground)

    def _unheard_of(self) -> list[str]:
        """Of the symbols that were asked for by name those of which Kafka has nothing."""
        with_candles = {candle.symbol for candle in self._candles.newest(self._symbols)}
        return sorted(
            symbol for symbol in self._symbols or () if symbol not in self._feeds and symbol not in with_candles
        )

    def _nothing(self, reason: str) -> Snapshot:
        return Snapshot(
            at=now_us(),
            kafka=self._settings.kafka_bootstrap,
            brokers=None,
            partitions_without_leader=[],
            feeds=None,
            stages=None,
            stores=None,
            delay=None,
            candles=None,
            gaps=None,
            dead_letters=None,
            clock_ahead=None,
            problems=[unreachable(reason)],
            unknown=[Unknown("everything", "Kafka cannot be reached, and nothing else is asked")],
        )

    def _tail(self, topic: str, take: Callable[[Any], None], since_ms: int, last: int = 0) -> TopicTail:
        return TopicTail(self._settings, topic, take, since_ms=since_ms, last=last)

    def _take_status(self, record: Any) -> None:
        with suppress(ContractError):  # `ashi sink` puts it aside with the reason, and the letters are counted
            status = feed_status_in(record)
            self._feeds.take(status)
            self._take_clock(status, record.timestamp * 1_000)

    def _take_clock(self, status: FeedStatus, appended_us: int) -> None:
        """The message was made before it was appended: by the worker's clock, and by the brokers'."""
        ahead_s = (status.updated_at - appended_us) / SECOND_US
        venue, _ = split_symbol(status.symbol)
        # What was on its way for long makes a clock look behind, so the greatest difference is the nearest.
        self._clocks[venue] = max(ahead_s, self._clocks.get(venue, ahead_s))

    def _take_gap(self, record: Any) -> None:
        with suppress(ContractError):
            self._gaps.take(feed_gap_in(record))

    def _take_candle(self, record: Any) -> None:
        if is_loaded(record):  # of long ago: it says nothing of how candles come
            return
        with suppress(ContractError):
            self._candles.take(candle_in(record), record.timestamp * 1_000)

    async def _read_past(self) -> None:
        """The feeds that have been silent for longer: of each the last record from before what is recent."""
        tail = self._tails[FEED_STATUS]
        await tail.caught_up.wait()
        newest: dict[bytes | None, Any] = {}
        try:
            begin = dict.fromkeys(tail.begins, 0)
            async for _, records in read_between(self._settings, FEED_STATUS, begin, tail.begins):
                for record in records:
                    newest[record.key] = record
        except BrokerError as error:
            self._past_reason = str(error)
            return
        for record in newest.values():
            self._take_status(record)
        self._past_reason = None

    async def _connected(self) -> Survey:
        if self._survey is None:
            asked = Survey(self._settings)
            try:
                await asked.open()
            except BaseException:
                await asked.close()
                raise
            self._survey = asked
        return self._survey

    async def _disconnect(self) -> None:
        asked, self._survey = self._survey, None
        if asked is not None:
            await asked.close()

    async def _letters(self, asked: Survey, cluster: ClusterView, now_ms: int) -> dict[str, int]:
        counts: dict[str, int] = {}
        for topic in (TRADES_LATE, TRADES_DEAD, CANDLES_DEAD):
            if topic not in cluster.topics:
                continue
            view = cluster.topics[topic]
            led = {each["partition"] for each in view.partitions} - set(view.leaderless)
            ranges = await asked.ranges(topic, sorted(led))
            since = await asked.offsets_at(topic, ranges, now_ms - LETTERS_MS)
            counts[topic] = sum(max(ranges[number].end - since[number], 0) for number in ranges)
        return counts

    async def _read_epoch(self) -> None:
        """Lateness and the shortest timeframe, as the state has them; once."""
        if self._epoch is None and (epoch := await current_epoch(self._settings)) is not None:
            finest = parse_timeframes(",".join(epoch.timeframes))[0]
            self._epoch = epoch.allowed_lateness_us, finest.length_us


def _judged(snapshot: Snapshot, ground: Ground) -> Snapshot:
    return msgspec.structs.replace(snapshot, problems=problems_of(snapshot, ground))

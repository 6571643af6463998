"""Reads the topics once for all pages: what closes, what is in progress, what feeds, venues and strategies say.

It goes on whatever becomes of Kafka: while that is away it waits, and when it is back reads on where it was, so nothing
is missed. Where that cannot be (the topic was made anew, or its records have expired), it says so to who holds candles.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from ashi.client import (
    Reader,
    read_candles,
    read_feed_gaps,
    read_feed_status,
    read_instruments,
    read_live_candles,
    read_signals,
)
from ashi.contracts.access import CHART
from ashi.contracts.errors import BrokerError, BrokerUnreachableError, StateError
from ashi.contracts.topics import CANDLES, CANDLES_LIVE, FEED_GAPS, FEED_STATUS, INSTRUMENTS, SIGNALS
from ashi.runtime.kafka.cluster.ends import stable_ends
from ashi.runtime.kafka.cluster.offsets import time_within
from ashi.runtime.kafka.connections.clients import assigned_consumer
from ashi.runtime.logs import get_logger, get_weather_logger
from ashi.runtime.metrics import chart as metrics
from ashi.runtime.service import run_until_first_ends
from ashi.runtime.waiting import start_when_kafka_is_there
from ashi_chart.lag import TopicLag

if TYPE_CHECKING:
    from ashi.client import Position, Since, UnreadableRecord
    from ashi.contracts.candle import Candle
    from ashi.contracts.feed import FeedGap, FeedStatus
    from ashi.contracts.instrument import Instrument
    from ashi.contracts.signal import Signal
    from ashi.runtime.service import Service
    from ashi_chart.wire import KafkaState

AGAIN_S: Final = 5.0
"""So long after the reading was broken off it begins again."""
WATCH_S: Final = 2.0
"""So often Kafka is asked where its topics end."""
SILENT_S: Final = 4.0
"""Kafka is down that does not answer for so long."""
LAGGING_S: Final = 5.0
"""Who is so far behind is told to be: what is shown is old."""
MOST_AT_START: Final = 500_000
"""So many records of a topic are read at the start, at most: some twenty seconds'."""

_log = get_logger(__name__)
_weather = get_weather_logger(__name__)


class Listener(Protocol):
    """Who is given what the hub reads."""

    def take_closed(self, candle: Candle) -> None:
        """A candle has closed, or was corrected; it may come again."""

    def take_live(self, candle: Candle) -> None:
        """So far has a candle come whose window is open."""

    def take_said(self, message: FeedStatus | FeedGap | Instrument | Signal) -> None:
        """What is said of a symbol; it may come again."""

    def begin_anew(self, reason: str) -> None:
        """Topic `candles` is another one now, or something of it was missed: what was read of it says nothing."""

    def on_kafka(self, state: KafkaState, lag_s: float) -> None:
        """How Kafka is, and how far the reading is behind it, seconds."""


class Hub:
    """One reader of each topic."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._position: Position | None = None
        self._state: KafkaState = "down"

    @property
    def state(self) -> KafkaState:
        """How Kafka is."""
        return self._state

    async def run(self, service: Service) -> None:
        """Read until the service stops.

        Raises BrokerError when Kafka is there and lacks a topic or refuses us.
        """
        while not service.stopping.is_set():
            try:
                await start_when_kafka_is_there(service, CHART, lambda on_begun: self._read(service, on_begun))
            except StateError as error:
                self._position = None
                _log.warning("topic candles is read anew", reason=str(error))
                self._listener.begin_anew(str(error))
            except BrokerUnreachableError as error:
                _log.warning("reading again", reason=str(error))
            self._tell("down", 0.0)
            await service.pause(AGAIN_S)

    async def _read(self, service: Service, on_begun: Callable[[], None]) -> None:
        async with AsyncExitStack() as opened:
            topics = {topic: _Topic(service, topic, make, opened) for topic, make in _TOPICS.items()}
            await _all(
                *(topics[topic].read_up(self._listener.take_said) for topic in _SAID if topic != FEED_GAPS),
                topics[CANDLES].open(self._position or "now"),
                topics[CANDLES_LIVE].open_at_start(),
            )
            # A status rests on the gaps that were told before it: they are read after it, and before anything is shown
            # that would be called complete without them.
            await topics[FEED_GAPS].read_up(self._listener.take_said)
            on_begun()
            self._tell("ok", 0.0)
            service.health.set_ready(True, "reading candles")
            _log.info("reading candles")
            try:
                await run_until_first_ends(
                    topics[CANDLES].pass_on(self._listener.take_closed),
                    topics[CANDLES_LIVE].follow(self._listener.take_live),
                    *(topics[topic].follow(self._listener.take_said) for topic in _SAID),
                    self._watch(service, topics),
                    service.stopping.wait(),
                )
            finally:
                self._position = topics[CANDLES].position

    async def _watch(self, service: Service, topics: Mapping[str, _Topic]) -> None:
        """See how Kafka is, and how far behind we are."""
        lags = {topic: TopicLag() for topic in (CANDLES, CANDLES_LIVE)}
        while True:
            try:
                async with AsyncExitStack() as opened:
                    asked = [
                        (topic, *await opened.enter_async_context(assigned_consumer(service.settings, topic)))
                        for topic in lags
                    ]
                    while True:
                        lag_s = 0.0
                        for topic, consumer, partitions in asked:
                            async with asyncio.timeout(SILENT_S):
                                ends = await stable_ends(consumer, partitions)
                            now_s = time.monotonic()
                            lags[topic].note(now_s, {at.partition: end for at, end in ends.items()})
                            lag_s = max(lag_s, lags[topic].seconds(now_s, topics[topic].position.offsets))
                        self._tell("lagging" if lag_s > LAGGING_S else "ok", lag_s)
                        await asyncio.sleep(WATCH_S)
            except (BrokerError, TimeoutError) as error:
                _weather.warning("Kafka does not say where its topics end: %s", error)
                self._tell("down", 0.0)
                await asyncio.sleep(WATCH_S)

    def _tell(self, state: KafkaState, lag_s: float) -> None:
        self._state = state
        metrics.chart_lag_seconds.set(math.nan if state == "down" else lag_s)
        self._listener.on_kafka(state, lag_s)


class _Topic:
    """The reading of one topic."""

    def __init__(self, service: Service, name: str, make: Callable[..., Reader[Any]], opened: AsyncExitStack) -> None:
        """`opened`: closes the readers at the end."""
        self._service = service
        self._name = name
        self._make = partial(make, service.settings, on_unreadable=_tell_of)
        self._opened = opened
        self._reader: Reader[Any] | None = None

    @property
    def position(self) -> Position:
        """How far it has been read."""
        assert self._reader is not None, "not open"  # noqa: S101
        return self._reader.position

    async def start(self) -> Since:
        """From where on it is read at the start: its beginning, unless that is too much."""
        since = await time_within(self._service.settings, self._name, MOST_AT_START)
        if since is None:
            return "beginning"
        _log.warning("a topic is not read from its beginning, as it holds too much", topic=self._name, since_us=since)
        return since

    async def read_up(self, take: Callable[[Any], None]) -> None:
        """Read what there is; it is then open where that ended."""
        async with self._make(since=await self.start(), follow=False) as reader:
            async for message in reader:
                take(message)
            await self.open(reader.position)

    async def open_at_start(self) -> None:
        """Connect and go to where it is read from at the start."""
        await self.open(await self.start())

    async def open(self, since: Since) -> None:
        """Connect and go there."""
        self._reader = await self._opened.enter_async_context(self._make(since=since))

    async def pass_on(self, take: Callable[[Any], None]) -> None:
        """Hand on what comes."""
        assert self._reader is not None, "not open"  # noqa: S101
        async for message in self._reader:
            take(message)

    async def follow(self, take: Callable[[Any], None]) -> None:
        """Hand on what comes; where records are gone that were still to be read, go on with those that there are."""
        while True:
            try:
                await self.pass_on(take)
            except StateError as error:
                _log.warning("a topic is read anew", topic=self._name, reason=str(error))
            await asyncio.sleep(AGAIN_S)
            await self.open(await self.start())


_SAID: Final = (FEED_GAPS, FEED_STATUS, INSTRUMENTS, SIGNALS)
_TOPICS: Final[Mapping[str, Callable[..., Reader[Any]]]] = {
    FEED_GAPS: read_feed_gaps,
    FEED_STATUS: read_feed_status,
    INSTRUMENTS: read_instruments,
    SIGNALS: read_signals,
    CANDLES: partial(read_candles, remember=1, loaded=False),  # what is so old is read of the store
    CANDLES_LIVE: partial(read_live_candles, remember=1),
}


async def _all(*parts: Coroutine[None, None, object]) -> None:
    """Run all to their ends. Raises what one of them fails of, when all have ended."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _tell_of(record: UnreadableRecord) -> None:
    metrics.chart_unreadable.inc()
    _weather.warning("the record %s is passed over, it cannot be read: %s", record.place, record.error)

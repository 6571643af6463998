"""Reading what other workers say of the same symbols, while this one runs: topics `feed.status` and `feed.gaps`."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, TypeVar

from ashi.contracts.errors import BrokerError, ContractError, StateError
from ashi.contracts.feed import FeedGap, FeedStatus
from ashi.contracts.records import feed_gap_in, feed_status_in
from ashi.contracts.topics import FEED_GAPS, FEED_STATUS
from ashi.runtime.kafka.consuming.follow import TopicFollower
from ashi.runtime.logs import get_weather_logger
from ashi.runtime.retry import Backoff
from ashi.runtime.service import run_until_first_ends

if TYPE_CHECKING:
    from collections.abc import Callable

    from ashi.contracts.records import KafkaRecord
    from ashi.runtime.kafka.consuming.follow import Start
    from ashi.runtime.settings import Settings
    from ashi_ingest.feed.reporting.status import FeedReporter

BEFORE_S: Final = 120.0
"""Gaps are read from so long before the start on: clocks differ, and one that is read twice is known. Of how a feed was
before, nothing is read: whoever lives says so again within ten seconds, and who does not is not to seem alive."""
POLL_S: Final = 0.5
SETTLE_EVERY_S: Final = 1.0

_Message = TypeVar("_Message", FeedStatus, FeedGap)

_weather = get_weather_logger(__name__)


async def follow_feeds(settings: Settings, reporter: FeedReporter) -> None:
    """Hand `reporter` what is said of its symbols, for ever, and let it settle what others have published.

    What cannot be read is begun anew: without it the worker does its own work all the same.
    """
    backoff = Backoff()
    while True:
        try:
            await run_until_first_ends(_follow_status(settings, reporter), _follow_gaps(settings, reporter))
        except (BrokerError, StateError) as error:
            wait_s = backoff.next_s()
            _weather.warning(
                "what other workers say cannot be read, beginning again", reason=str(error), wait_s=round(wait_s, 3)
            )
            await asyncio.sleep(wait_s)


async def _follow_status(settings: Settings, reporter: FeedReporter) -> None:
    follower = await _open(settings, FEED_STATUS, "end")
    try:
        while True:
            await _take(follower, reporter, feed_status_in, reporter.take_status)
    finally:
        await follower.close()


async def _follow_gaps(settings: Settings, reporter: FeedReporter) -> None:
    follower = await _open(settings, FEED_GAPS, int((time.time() - BEFORE_S) * 1_000))
    settle_at = time.monotonic()
    try:
        while True:
            await _take(follower, reporter, feed_gap_in, reporter.take_gap)
            if time.monotonic() >= settle_at:
                symbols = reporter.to_settle()
                if symbols:  # a gap that was told before what they say of the time after it must be known
                    await _read_to_end(follower, reporter)
                    reporter.settle(symbols)
                settle_at = time.monotonic() + SETTLE_EVERY_S
    finally:
        await follower.close()


async def _open(settings: Settings, topic: str, start: Start) -> TopicFollower:
    follower = TopicFollower(settings, topic)
    try:
        await follower.open(start)
    except BaseException:
        await follower.close()
        raise
    return follower


async def _read_to_end(follower: TopicFollower, reporter: FeedReporter) -> None:
    ends = await follower.ends()
    while any(follower.positions.get(number, 0) < end for number, end in ends.items()):
        await _take(follower, reporter, feed_gap_in, reporter.take_gap)


async def _take(
    follower: TopicFollower,
    reporter: FeedReporter,
    message_in: Callable[[KafkaRecord], _Message],
    take: Callable[[_Message], None],
) -> None:
    for record in await follower.poll(POLL_S):
        if record.value is None or not reporter.reads(record.key):
            continue
        try:
            take(message_in(record))
        except ContractError:  # whoever reads the topic at a start says so
            continue

"""What the topics say of feeds when a worker starts: `feed.status` and `feed.gaps`, up to their end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ashi.contracts.errors import ContractError
from ashi.contracts.feed import FeedGap, FeedStatus
from ashi.contracts.records import feed_gap_in, feed_status_in
from ashi.contracts.topics import FEED_GAPS, FEED_STATUS
from ashi.contracts.trade import EARLIEST_US
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from ashi.contracts.records import KafkaRecord
    from ashi.runtime.settings import Settings

_Message = TypeVar("_Message", FeedStatus, FeedGap)

_log = get_logger(__name__)


class ReportedFeed(NamedTuple):
    """What the topics say of a symbol: its last status, and the gaps that are still open, the oldest first.

    `lost`: those that are lost and not final, since it was first read.
    """

    status: FeedStatus | None
    gaps: tuple[FeedGap, ...]
    lost: tuple[FeedGap, ...] = ()


async def read_feed(settings: Settings, symbols: Iterable[str]) -> dict[str, ReportedFeed]:
    """What `feed.status` and `feed.gaps` say of each symbol, up to their end as of the call.

    A message that breaks the contract is passed over with a warning in the log.

    Raises:
        BrokerError: Kafka cannot be reached or lacks a topic.

    """
    statuses: dict[str, FeedStatus] = {}

    async def read_statuses() -> None:
        async for status in _read(settings, FEED_STATUS, feed_status_in):
            statuses[status.symbol] = status

    _, gaps = await asyncio.gather(read_statuses(), read_gaps(settings))
    opened: dict[str, list[FeedGap]] = {}
    lost: dict[str, list[FeedGap]] = {}
    for gap in gaps:
        if gap.state == "open":
            opened.setdefault(gap.symbol, []).append(gap)
        elif gap.state == "lost" and not gap.final and gap.from_time > EARLIEST_US:
            lost.setdefault(gap.symbol, []).append(gap)
    return {
        symbol: ReportedFeed(statuses.get(symbol), tuple(opened.get(symbol, ())), tuple(lost.get(symbol, ())))
        for symbol in symbols
    }


async def read_unrepaired(settings: Settings, symbols: Iterable[str]) -> dict[str, list[FeedGap]]:
    """The gaps of each symbol that are open or lost, the oldest first. Raises BrokerError as `read_feed` does."""
    found: dict[str, list[FeedGap]] = {symbol: [] for symbol in symbols}
    for gap in await read_gaps(settings):
        if gap.symbol in found and gap.state != "repaired":
            found[gap.symbol].append(gap)
    return found


async def read_gaps(settings: Settings) -> list[FeedGap]:
    """What was said last of each gap, by symbol and beginning. Raises BrokerError as `read_feed` does."""
    gaps: dict[tuple[str, int], FeedGap] = {}
    async for gap in _read(settings, FEED_GAPS, feed_gap_in):
        before = gaps.get((gap.symbol, gap.from_time))
        if before is None or gap.updated_at >= before.updated_at:
            gaps[gap.symbol, gap.from_time] = gap
    return [gap for _, gap in sorted(gaps.items())]


async def _read(
    settings: Settings, topic: str, message_in: Callable[[KafkaRecord], _Message]
) -> AsyncIterator[_Message]:
    async for record in read_topic(settings, topic):
        if record.value is None:  # what compaction is told to forget
            continue
        try:
            message = message_in(record)
        except ContractError as error:
            _log.warning(
                "message is not readable, passed over",
                source=f"{topic}/{record.partition}/{record.offset}",
                reason=str(error),
            )
        else:
            yield message

"""What topic `trades` has of one symbol and a stretch of time, read there by time, and on while it grows."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from ashi.contracts.topics import TRADES
from ashi.runtime.kafka.cluster.ends import stable_ends
from ashi.runtime.kafka.connections.clients import assigned_consumer, partition_of
from ashi.runtime.kafka.consuming.records import fetch_to
from ashi_ingest.feed.symbol.resume import is_late, trade_of
from ashi_ingest.history.known_trades import KnownTrades

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ashi.contracts.trade import Trade
    from ashi.runtime.settings import Settings
    from ashi_ingest.venues.base import Venue

BEFORE_MS: Final = 120_000
"""A trade is appended after it happened, but clocks may differ by so much."""


class TopicStretch:
    """What the topic has of a symbol.

    Attributes:
        newest: the trade that a worker goes on after: the newest one that is not late. None: there is none.

    """

    def __init__(
        self, consumer: Any, partition: Any, symbol: str, *, venue: Venue, market: str, stretch: tuple[int, int]
    ) -> None:
        """`stretch`: from when (inclusive) to when (exclusive) trades are looked for, µs by the time of trade."""
        self.newest: Trade | None = None
        self._consumer = consumer
        self._partition = partition
        self._key = symbol.encode()
        self._venue = venue
        self._since_us, self._until_us = stretch
        self._known = KnownTrades(contiguous=venue.contiguous(market))

    def __contains__(self, trade: Trade) -> bool:
        return trade in self._known

    def is_after_newest(self, trade: Trade) -> bool:
        """Whether it would be the newest of all."""
        return self.newest is None or self._age(trade) > self._age(self.newest)

    def note(self, trade: Trade, *, late: bool) -> None:
        """It is there, or is being published now."""
        if self._since_us <= trade.traded_at < self._until_us:
            self._known.add(trade)
        if not late and self.is_after_newest(trade):
            self.newest = trade

    async def read_on(self) -> None:
        """Read up to the end of the topic as it is now, or, if it is cut meanwhile, as it is then.

        Raises BrokerError.
        """
        end = (await stable_ends(self._consumer, [self._partition]))[self._partition]
        async for record in fetch_to(self._consumer, self._partition, end):
            trade = trade_of(record) if record.key == self._key else None
            if trade is not None:
                self.note(trade, late=is_late(record))

    def _age(self, trade: Trade) -> int:
        return trade.sequence if self._venue.ordered_ids else trade.traded_at


@asynccontextmanager
async def topic_trades(
    settings: Settings, venue: Venue, market: str, symbol: str, *, stretch: tuple[int, int], newest: Trade | None
) -> AsyncIterator[TopicStretch]:
    """What the topic has, to be read from the beginning of the stretch on. `newest`: the one published last, if known.

    Raises:
        BrokerError: Kafka cannot be reached or lacks the topic.

    """
    async with assigned_consumer(settings, TRADES) as (consumer, partitions):
        partition = partitions[partition_of(symbol.encode(), len(partitions))]
        consumer.pause(*(other for other in partitions if other is not partition))
        time_ms = max(stretch[0] // 1_000 - BEFORE_MS, 0)
        entry = (await consumer.offsets_for_times({partition: time_ms})).get(partition)
        ends = await stable_ends(consumer, [partition])
        consumer.seek(partition, ends[partition] if entry is None else entry.offset)
        trades = TopicStretch(consumer, partition, symbol, venue=venue, market=market, stretch=stretch)
        trades.newest = newest
        yield trades

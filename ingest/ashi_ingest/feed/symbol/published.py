"""Which trades of a time stand in topic `trades`: read from the log, when something older is to be published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ashi.contracts.topics import TRADES
from ashi.runtime.kafka.cluster.ends import stable_ends
from ashi.runtime.kafka.connections.clients import assigned_consumer, partition_of
from ashi.runtime.kafka.consuming.records import fetch_to
from ashi_ingest.feed.symbol.resume import BEFORE_MS, trade_of

if TYPE_CHECKING:
    from ashi.runtime.settings import Settings

AHEAD_MS: Final = 60_000
"""A trade may be stamped so much later than it was appended."""
MAX_RECORDS: Final = 1_000_000
"""Offsets that are looked at from there on, some 10 s of reading: trades that were appended still later, because they
were missed as well, may be published once more. Each counts once."""


async def read_published_ids(settings: Settings, symbol: str, from_us: int, until_us: int) -> set[str]:
    """The ids of the trades of a symbol in topic `trades` that were traded from a time on until another, µs.

    Raises:
        BrokerError: Kafka cannot be reached or lacks the topic.

    """
    ids: set[str] = set()
    async with assigned_consumer(settings, TRADES) as (consumer, partitions):
        partition = partitions[partition_of(symbol.encode(), len(partitions))]
        consumer.pause(*partitions)
        since_ms = max(from_us // 1_000 - AHEAD_MS - BEFORE_MS, 0)
        entry = (await consumer.offsets_for_times({partition: since_ms})).get(partition)
        if entry is None:
            return ids
        end = min((await stable_ends(consumer, [partition]))[partition], entry.offset + MAX_RECORDS)
        consumer.seek(partition, entry.offset)
        consumer.resume(partition)
        async for record in fetch_to(consumer, partition, end):
            trade = trade_of(record) if record.key == symbol.encode() else None
            if trade is not None and from_us <= trade.traded_at < until_us:
                ids.add(trade.trade_id)
    return ids

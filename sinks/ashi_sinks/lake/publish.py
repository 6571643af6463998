"""What a lake has kept, back into the topics of a Kafka that has lost it: trades, and what was said of feeds.

Each symbol's trades go in the order of their times, each once, so that none is late. It may be broken off and given
again: what a symbol's newest trade in the topic has behind it is left out. Their header says since when they are all
there, so that no worker takes the window in which they begin for whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from ashi.contracts.errors import ContractError, StorageError
from ashi.contracts.feed import FEED_GAP_SCHEMA, FEED_STATUS_SCHEMA, encode_feed
from ashi.contracts.records import SINCE_HEADER, trade_in
from ashi.contracts.topics import FEED_GAPS, FEED_STATUS, TRADES
from ashi.contracts.trade import TRADE_SCHEMA, encode_trade
from ashi.runtime.kafka.cluster.topics import partition_counts, require_topics
from ashi.runtime.kafka.connections.clients import make_producer, partition_of
from ashi.runtime.kafka.connections.naming import kafka_name
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.kafka.producing.dead_letters import message_headers
from ashi.runtime.kafka.producing.record_batches import RecordBatches
from ashi_sinks.lake.reader import LakeReader
from ashi_sinks.lake.trades import LakeTrades

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Sequence

    from ashi.contracts.feed import FeedGap, FeedStatus
    from ashi.contracts.trade import Trade
    from ashi.runtime.kafka.producing.dead_letters import Headers
    from ashi.runtime.kafka.producing.record_batches import OutgoingRecord
    from ashi.runtime.settings import Settings
    from ashi_sinks.lake.location import Lake
    from ashi_sinks.lake.query import Snapshot

BATCH: Final = 5_000
EARLIEST_US: Final = 10**15
LATEST_US: Final = 2**53


class _Newest(NamedTuple):
    """The time of the newest trade of a symbol that the topic has, µs, and the ids of those of that time."""

    traded_at: int
    ids: set[str]


async def publish_lake(
    settings: Settings,
    lake: Lake,
    *,
    symbols: Collection[str] = (),
    start: int | None = None,
    end: int | None = None,
    tell: Callable[[str], None],
) -> None:
    """Publish the trades of a time [`start`, `end`), µs, of these symbols, of all if empty; then what feeds have said.

    `tell` is given a sentence for each symbol. Raises StorageError without such tables, BrokerError.
    """
    await require_topics(settings, [TRADES, FEED_GAPS, FEED_STATUS])
    partitions = (await partition_counts(settings))[TRADES]
    newest = await _newest_trades(settings)
    table, reader = LakeTrades(lake), LakeReader(lake)
    producer = make_producer(settings)
    await producer.start()
    batches = RecordBatches(producer, settings)
    try:
        await table.open()
        snapshot = await table.snapshot()
        chosen = sorted(symbols) or await table.symbols()
        if not chosen:
            raise StorageError(f"the lake has no trades: keep them with `ashi sink lake --topic {TRADES}`")
        since = max(start or 0, await table.missing_until(snapshot))
        headers = [*message_headers(TRADE_SCHEMA), *([(SINCE_HEADER, str(since).encode())] if since else [])]
        total = 0
        for symbol in chosen:
            sent = left_out = 0
            bounds = (EARLIEST_US if start is None else start, LATEST_US if end is None else end)
            async for trades in trades_in_order(table, snapshot, symbol, *bounds):
                new = [trade for trade in trades if _is_new(trade, newest.get(symbol))]
                left_out += len(trades) - len(new)
                for place in range(0, len(new), BATCH):
                    records = [_record(trade, headers) for trade in new[place : place + BATCH]]
                    acknowledged = await batches.send(TRADES, partition_of(symbol.encode(), partitions), records)
                    sent += len(records)
            if sent:
                await acknowledged
            total += sent
            rest = f"; {left_out:,} were left out, as the topic has newer ones" if left_out else ""
            tell(f"{symbol}: {sent:,} trades published{rest}")
        gaps, statuses = await _said_of_feeds(reader, chosen)
        for topic, schema, messages in (
            (FEED_GAPS, FEED_GAP_SCHEMA, gaps),
            (FEED_STATUS, FEED_STATUS_SCHEMA, statuses),
        ):
            for message in messages:
                key = message.symbol.encode()
                await producer.send(topic, encode_feed(message), key, headers=message_headers(schema))
        await producer.flush()
        tell(
            f"{total:,} trades of {len(chosen):,} symbols, {len(gaps):,} gaps and {len(statuses):,} statuses of feeds "
            f"published to {kafka_name(settings, TRADES)}, {kafka_name(settings, FEED_GAPS)} and "
            f"{kafka_name(settings, FEED_STATUS)}"
        )
    finally:
        batches.close()
        await producer.stop()
        await table.close()
        await reader.close()


async def _newest_trades(settings: Settings) -> dict[str, _Newest]:
    newest: dict[str, _Newest] = {}
    async for record in read_topic(settings, TRADES):
        try:
            trade = trade_in(record)
        except ContractError:
            continue
        known = newest.get(trade.symbol)
        if known is None or trade.traded_at > known.traded_at:
            newest[trade.symbol] = _Newest(trade.traded_at, {trade.trade_id})
        elif trade.traded_at == known.traded_at:
            known.ids.add(trade.trade_id)
    return newest


def _is_new(trade: Trade, newest: _Newest | None) -> bool:
    if newest is None or trade.traded_at > newest.traded_at:
        return True
    return trade.traded_at == newest.traded_at and trade.trade_id not in newest.ids


def _record(trade: Trade, headers: Headers) -> OutgoingRecord:
    return trade.symbol.encode(), encode_trade(trade), headers


async def trades_in_order(
    table: LakeTrades, snapshot: Snapshot, symbol: str, start: int, end: int
) -> AsyncIterator[list[Trade]]:
    """The trades of a symbol by their times, each once: of copies the one that the topic had first."""
    before: set[str] = set()
    async for begin, until in table.spans(snapshot, symbol, start, end):
        first: dict[str, Trade] = {}
        async for row in table.read(symbol, begin, until, snapshot):
            if row.trade.trade_id not in before:  # a copy may be stamped a little later, beyond the border
                first.setdefault(row.trade.trade_id, row.trade)
        before = set(first)
        yield sorted(first.values(), key=lambda trade: (trade.traded_at, trade.sequence))


async def _said_of_feeds(reader: LakeReader, symbols: Sequence[str]) -> tuple[list[FeedGap], list[FeedStatus]]:
    """What the lake has of feeds, where it keeps candles too."""
    try:
        await reader.open()
    except StorageError:
        return [], []
    gaps = [gap for symbol in symbols for gap in await reader.gaps(symbol)]
    return gaps, [status for status in await reader.statuses() if status.symbol in set(symbols)]

"""What a worker writes to Kafka: candles, late and dead letters, rows and markers; and the wait until it is safe."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Final

from ashi.contracts.candle import CANDLE_SCHEMA, Candle, encode_candle
from ashi.contracts.feed import FEED_GAP_SCHEMA, FeedGap, encode_feed
from ashi.contracts.timeframe import Timeframe
from ashi.contracts.topics import AGGREGATE_APP, CANDLES, FEED_GAPS, TRADES, TRADES_DEAD, TRADES_LATE, changelog_topic
from ashi.runtime.kafka.connections.clients import partition_of
from ashi.runtime.kafka.producing.dead_letters import Headers, dead_letter, message_headers
from ashi.runtime.kafka.producing.record_batches import OutgoingRecord
from ashi.runtime.logs import get_logger
from ashi.runtime.metrics import aggregate as metrics
from ashi.runtime.metrics.common import dead_letters
from ashi.runtime.metrics.declare import serve_from_zero
from ashi.runtime.settings.parsers import format_duration
from ashi_aggregate.chunk import REJECTIONS, Chunk, LogRecord, RejectedRecord
from ashi_aggregate.core.symbol import LateTrade
from ashi_aggregate.core.window_state import LateReason, WindowRules
from ashi_aggregate.delays import Awaited, time_acknowledgment
from ashi_aggregate.late_gaps import late_gaps
from ashi_aggregate.protocols import Acknowledged, KafkaLog, StateTable
from ashi_aggregate.refused import gap_of

_CANDLE_HEADERS: Final = message_headers(CANDLE_SCHEMA)
_GAP_HEADERS: Final = message_headers(FEED_GAP_SCHEMA)
_NO_HEADERS: Final[Headers] = []

CANDLES_AT_ONCE: Final = 300
"""So many are encoded before others have their turn, a millisecond or two; what is encoded goes out meanwhile. And so
many are still in the processor's cache as they are encoded after they have been made."""

_log = get_logger(__name__)


class Output:
    """Sends at once and remembers what has not been acknowledged yet. Each method raises what a send raises."""

    def __init__(self, kafka: KafkaLog, rules: WindowRules, timeframes: Sequence[Timeframe]) -> None:
        """`timeframes`: the finest first."""
        self._kafka = kafka
        self._rules = rules
        self._timeframes = timeframes
        self._unacknowledged: list[Awaitable[Acknowledged]] = []
        # By the identity of a candle, which is not another's as long as the candle is kept here.
        self._encoded: dict[int, tuple[Candle, bytes]] = {}
        self._encoded_before: dict[int, tuple[Candle, bytes]] = {}
        serve_from_zero(metrics.trades_late, *((reason.value,) for reason in LateReason))
        serve_from_zero(dead_letters, *(("aggregate", kind) for kind in REJECTIONS))

    def encode_ahead(self, candles: Iterable[Candle]) -> None:
        """Encode candles that will be sent soon, these very objects; those that will not be: `forget_encoded`."""
        for candle in candles:
            self._encoded[id(candle)] = candle, encode_candle(candle)

    def forget_encoded(self) -> None:
        """Of those encoded ahead forget what was before the last call: they were not sent, as their windows changed."""
        self._encoded_before, self._encoded = self._encoded, {}

    async def send_candles(self, candles: Sequence[Candle], kind: str, awaited: Awaited | None = None) -> None:
        """Send candles to topic `candles`; `kind` is closed or corrected, for the metric.

        The delays of those that were `awaited` are measured, of None no one's.
        """
        for begin in range(0, len(candles), CANDLES_AT_ONCE):
            some = candles[begin : begin + CANDLES_AT_ONCE]
            by_partition = self._candle_records(some, await self._kafka.partitions_of(CANDLES))
            sent = await self._send_to(CANDLES, by_partition)
            if awaited is not None:
                time_acknowledgment(sent, awaited.dues(some, self._rules.lateness_us))
            for timeframe, count in Counter(candle.timeframe for candle in some).items():
                metrics.candles_emitted.labels(timeframe, kind).inc(count)

    async def send_late(self, chunk: Chunk, late: Sequence[tuple[LogRecord, LateTrade]]) -> None:
        """Send late trades, with the records they came in, to topic `trades.late`, and say what lacks them.

        Topic `feed.gaps` learns of the times whose candles are not complete for them.
        """
        if not late:
            return
        letters = []
        for record, trade in late:
            place = {"partition": str(chunk.partition), "offset": str(record.offset)}
            letters.append(_letter(TRADES_LATE, chunk, record, explain_late(self._rules, trade), **place))
            metrics.trades_late.labels(trade.reason.value).inc()
        await self._send(TRADES_LATE, letters, chunk.partition)
        await self._send_gaps(late_gaps(late, self._timeframes, self._rules.epoch))

    async def send_rejected(self, chunk: Chunk, rejected: Sequence[RejectedRecord]) -> None:
        """Send records that are no trades to topic `trades.dead`, and say what may be missing for them.

        Topic `feed.gaps` learns of each that tells its symbol and its time.
        """
        if not rejected:
            return
        first = f"{_source(chunk, rejected[0].record)}: {rejected[0].reason[:300]}"
        _log.warning("records are no trades, sent to trades.dead", count=len(rejected), first=first)
        for each in rejected:
            dead_letters.labels("aggregate", each.kind).inc()
        await self._send(
            TRADES_DEAD, [_letter(TRADES_DEAD, chunk, each.record, each.reason) for each in rejected], chunk.partition
        )
        await self._send_gaps(gap for each in rejected if (gap := gap_of(each)) is not None)

    async def _send_gaps(self, gaps: Iterable[FeedGap]) -> None:
        await self._send(FEED_GAPS, [(gap.symbol.encode(), encode_feed(gap), _GAP_HEADERS) for gap in gaps])

    async def put(self, table: StateTable, partition: int, rows: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Keep rows or a marker in their table and send them to the changelog; None takes one away from both.

        `rows`: keys and values.
        """
        for key, value in rows:
            table.put(partition, key, value)
        records = [(key, value, _NO_HEADERS) for key, value in rows]
        self._unacknowledged.append(await self._kafka.send(changelog_topic(table.name), partition, records))

    async def _send(
        self, topic: str, records: Iterable[OutgoingRecord], home: int = 0
    ) -> Sequence[Awaitable[Acknowledged]]:
        """Send records to the partitions of their keys; those without a key to `home`, if the topic has so many.

        Gives what completes when those of each partition are acknowledged.
        """
        partitions = await self._kafka.partitions_of(topic)
        by_partition: dict[int, list[OutgoingRecord]] = defaultdict(list)
        for record in records:
            key = record[0]
            by_partition[home % partitions if key is None else partition_of(key, partitions)].append(record)
        return await self._send_to(topic, by_partition)

    def _candle_records(self, candles: Iterable[Candle], partitions: int) -> dict[int, list[OutgoingRecord]]:
        """The records of candles by partition. Those of a symbol follow each other, mostly."""
        by_partition: dict[int, list[OutgoingRecord]] = defaultdict(list)
        symbol, key = None, b""
        records: list[OutgoingRecord] = []
        for candle in candles:
            if candle.symbol != symbol:
                symbol = candle.symbol
                key = symbol.encode()
                records = by_partition[partition_of(key, partitions)]
            ahead = self._encoded.pop(id(candle), None) or self._encoded_before.pop(id(candle), None)
            records.append((key, encode_candle(candle) if ahead is None else ahead[1], _CANDLE_HEADERS))
        return by_partition

    async def _send_to(
        self, topic: str, by_partition: Mapping[int, Sequence[OutgoingRecord]]
    ) -> Sequence[Awaitable[Acknowledged]]:
        sent = []
        for partition, those in by_partition.items():
            sent.append(await self._kafka.send(topic, partition, those))
            self._unacknowledged.append(sent[-1])
        return sent

    async def acknowledged(self) -> Sequence[Acknowledged]:
        """Wait until all that was sent is acknowledged, and give what Kafka says of it, in order.

        One for each partition of a topic and each call: a marker that was put is one. The error of a failed send ends
        the worker.
        """
        pending = list(self._unacknowledged)
        # Shielded and kept until then: whoever is cancelled here has not seen them acknowledged, and another will wait.
        acknowledged = await asyncio.gather(*map(asyncio.shield, pending))
        del self._unacknowledged[: len(pending)]
        return acknowledged


def _letter(topic: str, chunk: Chunk, record: LogRecord, reason: str, **more: str) -> OutgoingRecord:
    letter = dead_letter(
        topic,
        key=record.key,
        value=record.value,
        reason=reason,
        source=_source(chunk, record),
        consumer=AGGREGATE_APP,
        **more,
    )
    return letter.key, letter.value, letter.headers


def _source(chunk: Chunk, record: LogRecord) -> str:
    return f"{TRADES}/{chunk.partition}/{record.offset}"


def explain_late(rules: WindowRules, late: LateTrade) -> str:
    """Why a trade is late, in words."""
    trade = late.trade
    if late.reason is LateReason.BEYOND_HORIZON:
        return (
            f"traded_at {trade.traded_at} is beyond the correction horizon of {format_duration(rules.horizon_us)}: "
            f"trades of {trade.symbol} had already reached {late.stream_time}"
        )
    return (
        f"traded_at {trade.traded_at} is in a window that was given up: {trade.symbol} has had too many scattered "
        "trade ids within the correction horizon to tell whether this one has been counted; a shorter "
        "ASHI_CORRECTION_HORIZON keeps fewer"
    )

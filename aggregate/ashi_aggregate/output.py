"""What a worker writes to Kafka: candles, late and dead letters, rows and markers; and the wait until it is safe."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Final

from ashi.contracts.candle import CANDLE_SCHEMA, Candle, encode_candle
from ashi.contracts.feed import FEED_GAP_SCHEMA, encode_feed
from ashi.contracts.topics import AGGREGATE_APP, CANDLES, FEED_GAPS, TRADES, TRADES_DEAD, TRADES_LATE, changelog_topic
from ashi.runtime.kafka.dead_letters import Headers, dead_letter, message_headers
from ashi.runtime.logs import get_logger
from ashi.runtime.metrics import aggregate as metrics
from ashi.runtime.metrics.common import dead_letters
from ashi.runtime.settings.parsers import format_duration
from ashi_aggregate.chunk import Chunk, LogRecord, RejectedRecord
from ashi_aggregate.core.symbol import LateTrade
from ashi_aggregate.core.window_state import LateReason, WindowRules
from ashi_aggregate.protocols import Acknowledged, KafkaLog, StateTable
from ashi_aggregate.refused import gap_of

_CANDLE_HEADERS: Final = message_headers(CANDLE_SCHEMA)
_GAP_HEADERS: Final = message_headers(FEED_GAP_SCHEMA)

_log = get_logger(__name__)


class Output:
    """Sends at once and remembers what has not been acknowledged yet. Each method raises what a send raises."""

    def __init__(self, kafka: KafkaLog, rules: WindowRules) -> None:
        self._kafka = kafka
        self._rules = rules
        self._unacknowledged: list[Awaitable[Acknowledged]] = []

    async def send_candles(self, candles: Sequence[Candle], kind: str) -> None:
        """Send candles to topic `candles`; `kind` is closed or corrected, for the metric."""
        for candle in candles:
            await self._send(CANDLES, candle.symbol.encode(), encode_candle(candle), _CANDLE_HEADERS)
            metrics.candles_emitted.labels(candle.timeframe, kind).inc()

    async def send_late(self, chunk: Chunk, late: Sequence[tuple[LogRecord, LateTrade]]) -> None:
        """Send late trades, with the records they came in, to topic `trades.late`."""
        for record, trade in late:
            place = {"partition": str(chunk.partition), "offset": str(record.offset)}
            await self._send_dead_letter(TRADES_LATE, chunk, record, explain_late(self._rules, trade), **place)
            metrics.trades_late.labels(trade.reason.value).inc()

    async def send_rejected(self, chunk: Chunk, rejected: Sequence[RejectedRecord]) -> None:
        """Send records that are no trades to topic `trades.dead`, and say what may be missing for them.

        Topic `feed.gaps` learns of each that tells its symbol and its time.
        """
        if rejected:
            first = f"{_source(chunk, rejected[0].record)}: {rejected[0].reason[:300]}"
            _log.warning("records are no trades, sent to trades.dead", count=len(rejected), first=first)
        for each in rejected:
            await self._send_dead_letter(TRADES_DEAD, chunk, each.record, each.reason)
            dead_letters.labels("aggregate", each.kind).inc()
            gap = gap_of(each)
            if gap is not None:
                await self._send(FEED_GAPS, gap.symbol.encode(), encode_feed(gap), _GAP_HEADERS)

    async def _send_dead_letter(self, topic: str, chunk: Chunk, record: LogRecord, reason: str, **more: str) -> None:
        letter = dead_letter(
            topic,
            key=record.key,
            value=record.value,
            reason=reason,
            source=_source(chunk, record),
            consumer=AGGREGATE_APP,
            **more,
        )
        await self._send(letter.topic, letter.key, letter.value, letter.headers)

    async def put(self, table: StateTable, partition: int, key: bytes, value: bytes | None) -> None:
        """Keep a row or marker in its table and send it to the changelog; None takes it away from both."""
        table.put(partition, key, value)
        await self._send(changelog_topic(table.name), key, value, [], partition)

    async def _send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers, partition: int | None = None
    ) -> None:
        self._unacknowledged.append(
            await self._kafka.send(topic, key=key, value=value, headers=headers, partition=partition)
        )

    async def acknowledged(self) -> Sequence[Acknowledged]:
        """Wait until all that was sent is acknowledged, and give what Kafka says of it, in order.

        The error of a failed send ends the worker.
        """
        pending, self._unacknowledged = self._unacknowledged, []
        return await asyncio.gather(*pending) if pending else ()


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

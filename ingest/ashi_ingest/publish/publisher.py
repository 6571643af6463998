"""Publishing trades to `trades`, and what could not be read to `trades.dead`; for live feeds, their status as well.

Trades go in batches that are filled here, one for each partition: measured on one core, aiokafka's `send` costs 9.4 µs
a message (a coroutine and a future each), its batches 1.5 µs. A symbol's trades share a partition, and a partition's
batches are sent one after another, so their order is kept, whichever tasks publish; the producer is idempotent, so a
retry repeats nothing.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ashi.contracts.errors import BrokerError
from ashi.contracts.topics import FEED_GAPS, FEED_STATUS, TRADES, TRADES_DEAD
from ashi.contracts.trade import TRADE_SCHEMA, Trade, encode_trade
from ashi.runtime.kafka.clients import explain, lacks_room, make_producer, partition_of
from ashi.runtime.kafka.dead_letters import dead_letter, message_headers
from ashi.runtime.kafka.topics import require_topics
from ashi.runtime.metrics import ingest as metrics
from ashi.runtime.metrics.common import dead_letters
from ashi_ingest.publish.partition_batches import Batch, PartitionBatches

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable

    from ashi.runtime.settings import Settings
    from ashi_ingest.venues.parsing import Rejected

MAX_IN_FLIGHT: Final = 256
"""Batches and single messages that Kafka has yet to acknowledge; whoever publishes more waits. Bounds the memory."""
ACKNOWLEDGMENT_TIMEOUT_S: Final = 40.0
"""Longest wait for the next acknowledgment, but of a live publisher. An idempotent producer of aiokafka never gives
up by itself, not even when it is stopped."""
CLOSE_TIMEOUT_S: Final = 8.0
"""Longest wait of a live publisher at its end. What Kafka has not taken by then, the next start repairs."""
STOP_TIMEOUT_S: Final = 5.0
"""For a producer that may still hold what Kafka does not take. One that was flushed stops at once."""

_AGAIN: Final = "do it again: a trade that is published twice counts once"


@asynccontextmanager
async def open_publisher(settings: Settings, venue: str, *, live: bool = False) -> AsyncIterator[Publisher]:
    """A publisher of one venue's trades. At the end of the block all is confirmed, unless the block itself failed.

    `live` is for live feeds: once open, it waits for Kafka for ever, and only at its end no longer than 8 s.

    Raises:
        BrokerError: Kafka cannot be reached, lacks a topic, or did not take a message.

    """
    await require_topics(settings, [TRADES, TRADES_DEAD, *([FEED_STATUS, FEED_GAPS] if live else [])])
    producer = make_producer(settings, patient=live)
    await producer.start()
    try:
        publisher = Publisher(settings, producer, venue, len(await producer.partitions_for(TRADES)), live=live)
        try:
            yield publisher
            await publisher.close()
        finally:
            publisher.abandon()
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await producer.stop()


class Publisher:
    """Pipelines messages to Kafka: no call waits for its own, and a failure of any is raised by a later call.

    Attributes:
        published: trades that Kafka has acknowledged.
        dead: dead letters that Kafka has acknowledged.

    """

    def __init__(self, settings: Settings, producer: Any, venue: str, partitions: int, *, live: bool = False) -> None:
        """Publish through a started aiokafka `producer`; `partitions` is the number of those of `trades`."""
        self.published = 0
        self.dead = 0
        self._accepted = 0
        self._settings = settings
        self._producer = producer
        self._venue = venue
        self._live = live
        self._headers = message_headers(TRADE_SCHEMA)
        self._lanes = [PartitionBatches(number) for number in range(partitions)]
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._outstanding = 0
        self._progress = asyncio.Event()
        self._failure: BrokerError | None = None

    @property
    def held(self) -> int:
        """Trades that were handed over and that Kafka has not acknowledged yet."""
        return self._accepted - self.published

    async def publish(self, trades: Collection[Trade], *, live: bool = False) -> None:
        """Publish trades, those of a symbol in the order given; one call at a time for a symbol.

        They go out when a batch is full, or by `send_batches` or `flush`. Waits only when too much is in flight.
        `live`: the time from their receipt to their acknowledgment is measured (not so that of repaired ones). One
        that is cancelled may have been published in part; then the publisher takes no more.

        Raises:
            BrokerError: Kafka did not take these trades, or an earlier message.

        """
        self._check()
        self._accepted += len(trades)
        try:
            for trade in trades:
                key, value = trade.symbol.encode(), encode_trade(trade)
                lane = self._lanes[partition_of(key, len(self._lanes))]
                while (batch := lane.filling) is None or not self._append(batch, key, value):
                    if batch is None:
                        await self._begin(lane)
                    elif batch.builder.record_count():
                        self._send(lane)
                    else:
                        raise BrokerError(
                            f"trade {trade.trade_id} of {trade.symbol} does not fit an empty batch of the producer"
                        )
                if self._live:
                    batch.note(trade, live)
        except asyncio.CancelledError as error:
            # What was not put in is a hole, which later trades would hide from the next start.
            self._fail(TRADES, error)
            raise

    async def send_batches(self) -> None:
        """Let batches that are not full go out; none of them waits for its acknowledgment here.

        A partition whose last batch the producer has not begun to send follows when it has, with what has come by
        then: the slower Kafka is, the fuller the batches.

        Raises:
            BrokerError: Kafka did not take an earlier message.

        """
        self._check()
        for lane in self._lanes:
            if lane.filling is not None and lane.task is not None:
                lane.hurry = True
            elif lane.filling is not None:
                self._send(lane)

    async def reject(self, rejected: Iterable[Rejected], source: str) -> None:
        """Publish what could not be read, with the reason. `source` is where it stands: `recording:/p/file.gz:123`.

        Raises:
            BrokerError: Kafka did not take it, or an earlier message.

        """
        for bad in rejected:
            key = (bad.symbol or self._venue).encode()
            letter = dead_letter(
                TRADES_DEAD, key=key, value=bad.value, reason=bad.reason, source=source, venue=self._venue
            )
            await self._single(letter.topic, letter.key, letter.value, letter.headers)

    async def announce(self, topic: str, key: str, value: bytes, schema: str) -> None:
        """Send one message of the contract `schema`, such as `ashi.feed-status.v1`, after those sent before it.

        Raises:
            BrokerError: Kafka did not take it, or an earlier message.

        """
        await self._single(topic, key.encode(), value, message_headers(schema))

    async def flush(self) -> None:
        """Send what is left and wait until Kafka has acknowledged everything.

        Raises:
            BrokerError: it did not take something.

        """
        for lane in self._lanes:
            self._send(lane)
        while self._outstanding and self._failure is None:
            self._progress.clear()
            await self._in_time(self._progress.wait())
        self._check()

    async def close(self) -> None:
        """`flush`, for the last time: a live publisher waits 8 s here and not for ever.

        Raises:
            BrokerError: Kafka did not take something.

        """
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S if self._live else None):
                await self.flush()
        except TimeoutError:
            raise BrokerError(
                f"Kafka at {self._settings.kafka_bootstrap} has not acknowledged {self.held} trades within "
                f"{CLOSE_TIMEOUT_S:g} s of the end. They are fetched again at the next start: start when Kafka answers"
            ) from None

    def abandon(self) -> None:
        """Give up what the producer has not been given yet. For the end of a publisher that failed."""
        for lane in self._lanes:
            if lane.task is not None:
                lane.task.cancel()

    def _append(self, batch: Batch, key: bytes, value: bytes) -> bool:
        return batch.builder.append(timestamp=None, key=key, value=value, headers=self._headers) is not None

    async def _begin(self, lane: PartitionBatches) -> None:
        """Begin a batch, unless another task has done so meanwhile."""
        await self._take_slot()
        if lane.filling is None:
            lane.filling = Batch(self._producer.create_batch())
            self._outstanding += 1
        else:
            self._slots.release()

    async def _take_slot(self) -> None:
        if self._slots.locked():
            # Batches that fill slowly could hold all slots.
            for lane in self._lanes:
                self._send(lane)
        await self._in_time(self._slots.acquire())
        try:
            self._check()
        except BrokerError:
            self._slots.release()
            raise

    def _send(self, lane: PartitionBatches) -> None:
        lane.seal()
        if lane.waiting and lane.task is None:
            lane.task = asyncio.create_task(self._drive(lane))

    async def _drive(self, lane: PartitionBatches) -> None:
        """Hand the batches of a partition to the producer, each when it has begun to send the one before."""
        while lane.waiting and self._failure is None:
            batch = lane.waiting.popleft()
            count = batch.builder.record_count()
            done = partial(self._trades_acknowledged, batch, count)
            await self._deliver(
                TRADES, partial(self._producer.send_batch, batch.builder, TRADES, partition=lane.number), done
            )
            if lane.hurry and not lane.waiting:
                lane.seal()
        # After a failure the rest stays unsent: a later trade must not hide that an earlier one is missing.
        while lane.waiting:
            lane.waiting.popleft()
            self._settle()
        lane.task = None

    async def _single(self, topic: str, key: bytes | None, value: bytes, headers: list[tuple[str, bytes]]) -> None:
        await self._take_slot()
        self._outstanding += 1
        done = self._letter_acknowledged if topic == TRADES_DEAD else lambda: None
        await self._deliver(topic, partial(self._producer.send, topic, value, key=key, headers=headers), done)
        self._check()

    async def _deliver(
        self, topic: str, send: Callable[[], Awaitable[asyncio.Future[Any]]], done: Callable[[], None]
    ) -> None:
        """Hand something to the producer and see to it that its acknowledgment is counted or its failure kept."""
        try:
            future = await self._hand_over(send)
        except BaseException as error:
            self._settle()
            if not isinstance(error, Exception):
                raise
            self._fail(topic, error)
            return

        def settled(future: asyncio.Future[Any]) -> None:
            if future.cancelled():
                self._fail(topic, None)
            elif (error := future.exception()) is not None:
                self._fail(topic, error)
            else:
                done()
            self._settle()

        future.add_done_callback(settled)

    async def _hand_over(self, send: Callable[[], Awaitable[asyncio.Future[Any]]]) -> asyncio.Future[Any]:
        while True:
            try:
                return await send()
            except Exception as error:
                if not (self._live and lacks_room(error)):
                    raise

    def _settle(self) -> None:
        self._outstanding -= 1
        self._slots.release()
        self._progress.set()

    def _trades_acknowledged(self, batch: Batch, count: int) -> None:
        self.published += count
        metrics.trades_published.labels(self._venue).inc(count)
        now_us = time.time_ns() // 1_000
        if batch.traded_at is not None:
            metrics.trade_delay_seconds.labels(self._venue).observe(max(now_us - batch.traded_at, 0) / 1e6)
        if batch.received_at is not None:
            metrics.frame_to_ack_seconds.labels(self._venue).observe(max(now_us - batch.received_at, 0) / 1e6)

    def _letter_acknowledged(self) -> None:
        self.dead += 1
        dead_letters.labels("ingest", "unreadable").inc()

    def _fail(self, topic: str, error: BaseException | None) -> None:
        if self._failure is None:
            self._failure = self._undelivered(topic, error)
            self._failure.__cause__ = error

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _in_time(self, waiting: Awaitable[Any]) -> None:
        """Wait for Kafka to get on: for ever in a live feed."""
        try:
            async with asyncio.timeout(None if self._live else ACKNOWLEDGMENT_TIMEOUT_S):
                await waiting
        except TimeoutError:
            raise self._silence() from None

    def _silence(self) -> BrokerError:
        return BrokerError(
            f"Kafka at {self._settings.kafka_bootstrap} has acknowledged nothing for {ACKNOWLEDGMENT_TIMEOUT_S:g} s. "
            f"Look at the broker's log, then {_AGAIN}"
        )

    def _undelivered(self, topic: str, error: BaseException | None) -> BrokerError:
        cancelled = error is None or isinstance(error, asyncio.CancelledError)
        if error is not None and (explained := explain(error, self._settings)) is not None:
            return explained
        reason = "it was cancelled" if cancelled else str(error) or type(error).__name__
        return BrokerError(
            f"Kafka at {self._settings.kafka_bootstrap} did not take messages for topic {topic} ({reason}). "
            f"Look at the broker's log, then {_AGAIN}"
        )

"""Publishing trades to `trades`, and what could not be read to `trades.dead`.

Trades go in batches that are filled here, one for each partition: measured on one core, aiokafka's `send` costs 9.4 µs
a message (a coroutine and a future each), its batches 1.5 µs. A symbol's trades share a partition, and a partition's
batches are sent one after another, so their order is kept; the producer is idempotent, so a retry repeats nothing.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ashi.contracts.errors import BrokerError
from ashi.contracts.topics import TRADES, TRADES_DEAD
from ashi.contracts.trade import TRADE_SCHEMA, Trade, encode_trade
from ashi.runtime import metrics
from ashi.runtime.deadletter import dead_letter, message_headers
from ashi.runtime.kafka import explain, make_producer, partition_of
from ashi.runtime.topics import require_topics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from ashi.runtime.settings import Settings
    from ingest.venues.protocol import Rejected

MAX_IN_FLIGHT: Final = 256
"""Batches and dead letters that Kafka has yet to acknowledge; whoever publishes more waits. Bounds the memory."""
ACKNOWLEDGMENT_TIMEOUT_S: Final = 40.0
"""Longest wait for the next acknowledgment. An idempotent producer of aiokafka never gives up by itself, not even when
it is stopped."""
STOP_TIMEOUT_S: Final = 5.0
"""For a producer that may still hold what Kafka does not take. One that was flushed stops at once."""

_AGAIN: Final = "do it again: a trade that is published twice counts once"


@asynccontextmanager
async def open_publisher(settings: Settings, venue: str) -> AsyncIterator[Publisher]:
    """A publisher of one venue's trades. At the end of the block all is confirmed, unless the block itself failed.

    Raises:
        BrokerError: Kafka cannot be reached, lacks a topic, or did not take a message.

    """
    await require_topics(settings, [TRADES, TRADES_DEAD])
    producer = make_producer(settings)
    await producer.start()
    try:
        publisher = Publisher(settings, producer, venue, len(await producer.partitions_for(TRADES)))
        yield publisher
        await publisher.flush()
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

    def __init__(self, settings: Settings, producer: Any, venue: str, partitions: int) -> None:
        """Publish through a started aiokafka `producer`; `partitions` is the number of those of `trades`."""
        self.published = 0
        self.dead = 0
        self._settings = settings
        self._producer = producer
        self._venue = venue
        self._partitions = partitions
        self._headers = message_headers(TRADE_SCHEMA)
        self._batches: dict[int, Any] = {}
        self._in_flight: set[asyncio.Future[Any]] = set()
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._failure: BrokerError | None = None

    async def publish(self, trades: Iterable[Trade]) -> None:
        """Publish trades, those of a symbol in the order given. They go out when a batch is full, or by `flush`.

        Raises:
            BrokerError: Kafka did not take these trades, or an earlier message.

        """
        for trade in trades:
            key, value = trade.symbol.encode(), encode_trade(trade)
            partition = partition_of(key, self._partitions)
            batch = self._batches.get(partition)
            if batch is not None and self._append(batch, key, value):
                continue
            if batch is not None:
                await self._send(partition)
            batch = self._batches[partition] = self._producer.create_batch()
            if not self._append(batch, key, value):
                raise BrokerError(
                    f"trade {trade.trade_id} of {trade.symbol} does not fit an empty batch of the producer"
                )

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
            send = partial(self._producer.send, letter.topic, letter.value, key=letter.key, headers=letter.headers)
            await self._track(TRADES_DEAD, 1, send)

    async def flush(self) -> None:
        """Send what is left and wait until Kafka has acknowledged everything.

        Raises:
            BrokerError: it did not take something.

        """
        for partition in list(self._batches):
            await self._send(partition)
        while self._in_flight:
            acknowledged, _ = await asyncio.wait(
                self._in_flight, timeout=ACKNOWLEDGMENT_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED
            )
            if not acknowledged:
                raise self._silence()
        self._check()

    def _append(self, batch: Any, key: bytes, value: bytes) -> bool:
        return batch.append(timestamp=None, key=key, value=value, headers=self._headers) is not None

    async def _send(self, partition: int) -> None:
        batch = self._batches.pop(partition)
        send = partial(self._producer.send_batch, batch, TRADES, partition=partition)
        await self._track(TRADES, batch.record_count(), send)

    async def _track(self, topic: str, count: int, send: Callable[[], Awaitable[asyncio.Future[Any]]]) -> None:
        """Hand something to the producer and see to it that its acknowledgment is counted or its failure raised."""
        try:
            async with asyncio.timeout(ACKNOWLEDGMENT_TIMEOUT_S):
                await self._slots.acquire()
        except TimeoutError:
            raise self._silence() from None
        try:
            future = await send()
        except Exception as error:
            raise self._undelivered(topic, error) from error

        def done(future: asyncio.Future[Any]) -> None:
            self._in_flight.discard(future)
            self._slots.release()
            self._acknowledged(topic, count, future)

        self._in_flight.add(future)
        future.add_done_callback(done)
        self._check()

    def _acknowledged(self, topic: str, count: int, future: asyncio.Future[Any]) -> None:
        if future.cancelled() or (error := future.exception()) is not None:
            self._failure = self._failure or self._undelivered(topic, None if future.cancelled() else error)
        elif topic == TRADES:
            self.published += count
            metrics.trades_published.labels(self._venue).inc(count)
        else:
            self.dead += count
            metrics.dead_letters.labels("ingest", "unreadable").inc(count)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _silence(self) -> BrokerError:
        return BrokerError(
            f"Kafka at {self._settings.kafka_bootstrap} has acknowledged nothing for {ACKNOWLEDGMENT_TIMEOUT_S:g} s. "
            f"Look at the broker's log, then {_AGAIN}"
        )

    def _undelivered(self, topic: str, error: BaseException | None) -> BrokerError:
        if error is not None and (explained := explain(error, self._settings)) is not None:
            return explained
        reason = "it was cancelled" if error is None else str(error) or type(error).__name__
        return BrokerError(
            f"Kafka at {self._settings.kafka_bootstrap} did not take messages for topic {topic} ({reason}). "
            f"Look at the broker's log, then {_AGAIN}"
        )

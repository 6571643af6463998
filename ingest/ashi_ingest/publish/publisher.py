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
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ashi.contracts.access import INGEST, REPLAY
from ashi.contracts.errors import BrokerError
from ashi.contracts.topics import TRADES, TRADES_DEAD
from ashi.contracts.trade import TRADE_SCHEMA, Trade, encode_trade
from ashi.runtime.kafka.cluster.access import require_access, rights_named
from ashi.runtime.kafka.cluster.writers_time import warn_of_writers_time
from ashi.runtime.kafka.connections.clients import make_producer, partition_of
from ashi.runtime.kafka.producing.dead_letters import dead_letter, message_headers
from ashi.runtime.logs import get_logger
from ashi.runtime.metrics import ingest as metrics
from ashi.runtime.metrics.common import dead_letters
from ashi.runtime.metrics.declare import serve_from_zero
from ashi_ingest.publish.deliveries import Deliveries
from ashi_ingest.publish.partition_batches import PartitionBatches, ProducerBatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterable

    from ashi.runtime.kafka.producing.encoded_batches import EncodedBatch
    from ashi.runtime.settings import Settings
    from ashi_ingest.publish.acknowledged import LostTrades
    from ashi_ingest.venues.parsing import Rejected

CLOSE_TIMEOUT_S: Final = 8.0
"""Longest wait of a live publisher at its end. What Kafka has not taken by then, the next start repairs."""
STOP_TIMEOUT_S: Final = 5.0
"""For a producer that may still hold what Kafka does not take. One that was flushed stops at once."""

CONSUMER: Final = "ashi-ingest"
"""Who writes the dead letters of frames, in their headers."""
LATE_HEADER: Final = "ashi.late"
"""Of a trade that was missed, and published after later ones of its symbol."""

_log = get_logger(__name__)


@asynccontextmanager
async def open_publisher(settings: Settings, venue: str, *, live: bool = False) -> AsyncIterator[Publisher]:
    """A publisher of one venue's trades. At the end of the block all is confirmed, unless the block itself failed.

    `live` is for live feeds: once open, it waits for Kafka for ever, and only at its end no longer than 8 s.

    Raises:
        BrokerError: Kafka cannot be reached, lacks a topic, or did not take a message.

    """
    access = INGEST if live else REPLAY
    await require_access(settings, access)
    await warn_of_writers_time(settings, list(access.topics))
    producer = make_producer(settings, patient=live)
    await producer.start()
    try:
        publisher = Publisher(settings, producer, venue, len(await producer.partitions_for(TRADES)), live=live)
        try:
            async with rights_named(settings, access):
                yield publisher
                await publisher.close()
        finally:
            publisher.abandon()
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await producer.stop()


LOG_APPEND_TIME: Final = 1
"""Kafka's number for a timestamp that is the broker's (KIP-32)."""


class Appended(NamedTuple):
    """When Kafka appended something by its clock, and when the acknowledgment came by ours, µs."""

    at: int
    acknowledged_at: int


class Publisher:
    """Pipelines messages to Kafka: no call waits for its own, and a failure of any is raised by a later call.

    Attributes:
        published: trades that Kafka has acknowledged.
        dead: dead letters that Kafka has acknowledged.
        appended: when the last trades were appended, where the topic takes append time; None before the first.

    """

    def __init__(self, settings: Settings, producer: Any, venue: str, partitions: int, *, live: bool = False) -> None:
        """Publish through a started aiokafka `producer`; `partitions` is the number of those of `trades`.

        `live`: for live feeds, see `open_publisher`.
        """
        self.published = 0
        self.dead = 0
        self.appended: Appended | None = None
        self._accepted = 0
        self._expected = 0
        self._batched = 0
        self._settings = settings
        self._producer = producer
        self._venue = venue
        self._live = live
        self._headers = message_headers(TRADE_SCHEMA)
        self._late_headers = [*self._headers, (LATE_HEADER, b"1")]
        self._partitions = [PartitionBatches(partition) for partition in range(partitions)]
        self._places: dict[str, tuple[bytes, PartitionBatches]] = {}
        self._deliveries = Deliveries(settings, patient=live)
        self._losses: list[LostTrades] = []
        serve_from_zero(dead_letters, ("ingest", "unreadable"))

    @property
    def held(self) -> int:
        """Trades that were handed over and that Kafka has not acknowledged yet."""
        return self._accepted - self.published

    @property
    def settled(self) -> asyncio.Event:
        """Set whenever Kafka has acknowledged something. Whoever waits for that clears it first."""
        return self._deliveries.settled

    @property
    def mark(self) -> int:
        """A place in the sequence of all trades that were announced by `expect`, for `is_acknowledged`."""
        return self._expected

    def expect(self, count: int) -> None:
        """So many further trades of a live feed will be published, after all that were expected before."""
        self._expected += count

    def is_acknowledged(self, symbol: str, mark: int) -> bool:
        """Whether Kafka has acknowledged all trades of a symbol that were expected up to `mark`, or has none of them.

        It may say so later than it is: it looks at the batches of the symbol's partition, which have others too.
        """
        if self._batched < mark:
            return False
        _, batches = self._places.get(symbol) or self._place(symbol)
        return not batches.unacknowledged or batches.unacknowledged[0].first >= mark

    async def publish(self, trades: Collection[Trade], *, streamed: bool = False, late: bool = False) -> None:
        """Publish trades, those of a symbol in the order given; one call at a time for a symbol.

        They go out when a batch is full, or by `send_batches` or `flush`. Waits only when too much is in flight.
        `streamed`: they came over a connection, so the time from their receipt to their acknowledgment is measured
        (not so that of fetched ones). `late`: they were missed, and later ones of the symbol have been published since;
        their records say so by a header, as no worker goes on after them. One that is cancelled may have been published
        in part; then the publisher takes no more.

        Raises:
            BrokerError: Kafka did not take these trades, or an earlier message.

        """
        self._deliveries.check()
        self._accepted += len(trades)
        headers = self._late_headers if late else self._headers
        try:
            for trade in trades:
                key, batches = self._places.get(trade.symbol) or self._place(trade.symbol)
                value = encode_trade(trade)
                while (batch := batches.filling) is None or (
                    batch.builder.append(timestamp=None, key=key, value=value, headers=headers) is None
                ):
                    if batch is None:
                        await self._begin(batches)
                    elif batch.builder.record_count():
                        self._send(batches)
                    else:
                        raise BrokerError(
                            f"trade {trade.trade_id} of {trade.symbol} does not fit an empty batch of the producer"
                        )
                if self._live:
                    batch.note(trade, streamed)
                    self._batched += 1
        except asyncio.CancelledError as error:
            # What was not put in is a hole, which later trades would hide from the next start.
            self._deliveries.fail(TRADES, error)
            raise

    def partition_of(self, symbol: str) -> int:
        """The partition of `trades` that a symbol's are in. May be called in any thread."""
        return partition_of(symbol.encode(), len(self._partitions))

    async def publish_encoded(self, partition: int, batch: EncodedBatch) -> None:
        """Publish a batch of trades that is made already, after all that was published to the partition before.

        It goes out at once. Waits only when too much is in flight. Not for live feeds: when its trades happened is not
        looked at, so their delay is not measured.

        Raises:
            BrokerError: Kafka did not take an earlier message.

        """
        self._deliveries.check()
        await self._take_slot()
        batches = self._partitions[partition]
        batches.seal()
        self._accepted += batch.record_count()
        batches.begin(ProducerBatch(batch, self._batched))
        self._send(batches)

    async def send_batches(self) -> None:
        """Let batches that are not full go out; none of them waits for its acknowledgment here.

        A partition whose last batch the producer has not begun to send follows when it has, with what has come by
        then: the slower Kafka is, the fuller the batches.

        Raises:
            BrokerError: Kafka did not take an earlier message.

        """
        self._deliveries.check()
        for batches in self._partitions:
            if batches.filling is not None and batches.sending is not None:
                batches.hurry = True
            elif batches.filling is not None:
                self._send(batches)

    async def reject(self, rejected: Iterable[Rejected], source: str) -> None:
        """Publish what could not be read, with the reason. `source` is where it stands: `recording:/p/file.gz:123`.

        Raises:
            BrokerError: Kafka did not take it, or an earlier message.

        """
        for bad in rejected:
            key = (bad.symbol or self._venue).encode()
            letter = dead_letter(
                TRADES_DEAD,
                key=key,
                value=bad.value,
                reason=bad.reason,
                source=source,
                consumer=CONSUMER,
                venue=self._venue,
            )
            await self._single(letter.topic, letter.key, letter.value, letter.headers, self._letter_acknowledged)

    async def announce(
        self,
        topic: str,
        key: str,
        value: bytes,
        schema: str,
        on_acknowledged: Callable[[], None] | None = None,
    ) -> None:
        """Send one message of the contract `schema`, such as `ashi.feed-status.v1`, after those sent before it.

        `on_acknowledged` is called when Kafka has it.

        Raises:
            BrokerError: Kafka did not take it, or an earlier message.

        """
        await self._single(topic, key.encode(), value, message_headers(schema), on_acknowledged)

    async def flush(self) -> None:
        """Send what is left and wait until Kafka has acknowledged everything.

        Raises:
            BrokerError: it did not take something.

        """
        for batches in self._partitions:
            self._send(batches)
        await self._deliveries.wait_for_all()

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
        for batches in self._partitions:
            if batches.sending is not None:
                batches.sending.cancel()

    def _place(self, symbol: str) -> tuple[bytes, PartitionBatches]:
        """The key of a symbol's trades, and the batches of its partition; to be remembered, as it is asked for each."""
        key = symbol.encode()
        place = self._places[symbol] = key, self._partitions[partition_of(key, len(self._partitions))]
        return place

    async def _begin(self, batches: PartitionBatches) -> None:
        """Begin a batch, unless another task has done so meanwhile."""
        await self._take_slot()
        if batches.filling is None:
            batches.begin(ProducerBatch(self._producer.create_batch(), self._batched))
        else:
            self._deliveries.give_up()

    async def _take_slot(self) -> None:
        if self._deliveries.full:
            # Batches that fill slowly could hold all slots.
            for batches in self._partitions:
                self._send(batches)
        await self._deliveries.take_slot()

    def _send(self, batches: PartitionBatches) -> None:
        batches.seal()
        if batches.waiting and batches.sending is None:
            batches.sending = asyncio.create_task(self._send_waiting(batches))

    async def _send_waiting(self, batches: PartitionBatches) -> None:
        """Hand the batches of a partition to the producer, each when it has begun to send the one before."""
        while batches.waiting and self._deliveries.failure is None:
            batch = batches.waiting.popleft()
            await self._deliveries.deliver(
                TRADES,
                partial(self._producer.send_batch, batch.builder, TRADES, partition=batches.partition),
                partial(self._trades_acknowledged, batches, batch, batch.builder.record_count()),
            )
            if batches.hurry and not batches.waiting:
                batches.seal()
        # After a failure the rest stays unsent: a later trade must not hide that an earlier one is missing.
        while batches.waiting:
            batches.waiting.popleft()
            self._deliveries.give_up()
        batches.sending = None

    async def _single(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: list[tuple[str, bytes]],
        on_acknowledged: Callable[[], None] | None,
    ) -> None:
        await self._take_slot()
        await self._deliveries.deliver(
            topic,
            partial(self._producer.send, topic, value, key=key, headers=headers),
            lambda _: on_acknowledged() if on_acknowledged is not None else None,
        )
        self._deliveries.check()

    def _trades_acknowledged(self, batches: PartitionBatches, batch: ProducerBatch, count: int, place: Any) -> None:
        self.published += count
        batches.unacknowledged.remove(batch)
        # Without a place: the producer had sent it before, and the broker does not know any more where that is.
        known_place = place is not None and place.offset >= 0
        if known_place:
            self._look_for_loss(batches, place.offset, count, batch.traded_at or 0)
        metrics.trades_published.labels(self._venue).inc(count)
        now_us = time.time_ns() // 1_000
        if known_place and place.timestamp_type == LOG_APPEND_TIME:
            self.appended = Appended(place.timestamp * 1_000, now_us)
        if batch.traded_at is not None:
            metrics.trade_delay_seconds.labels(self._venue).observe(max(now_us - batch.traded_at, 0) / 1e6)
        if batch.received_at is not None:
            metrics.frame_to_ack_seconds.labels(self._venue).observe(max(now_us - batch.received_at, 0) / 1e6)

    def _look_for_loss(self, batches: PartitionBatches, offset: int, count: int, traded_at: int) -> None:
        lost = batches.acknowledged.add(offset, count, traded_at)
        if lost is None:
            return
        what = (
            f"{TRADES}/{lost.partition} was acknowledged up to offset {lost.end} and now goes on at {lost.begin}: it "
            "was cut or made anew, and trades that were in it are gone"
        )
        _log.error(what, venue=self._venue)
        if self._live:
            self._losses.append(lost)
        else:
            self._deliveries.fail(TRADES, BrokerError(what))

    def take_losses(self) -> list[LostTrades]:
        """What a live publisher has seen to be gone from `trades` since the last call, though it was acknowledged."""
        losses, self._losses = self._losses, []
        return losses

    def shares(self, symbol: str, lost: LostTrades) -> bool:
        """Whether the trades of a symbol are in the partition that has lost some."""
        return partition_of(symbol.encode(), len(self._partitions)) == lost.partition

    def _letter_acknowledged(self) -> None:
        self.dead += 1
        dead_letters.labels("ingest", "unreadable").inc()

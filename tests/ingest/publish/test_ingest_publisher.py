"""The publisher with a producer that is told when to acknowledge and when to fail, and, live, with a real Kafka.

Replays against a real one are in test_replay_kafka.py.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaTimeoutError, NotLeaderForPartitionError
from kafka_in_memory import BatchBuilder
from msgspec.structs import replace

from ashi.contracts.errors import BrokerError
from ashi.contracts.topics import TopicSpec, topic_specs
from ashi.contracts.trade import Trade, decode_trade
from ashi.runtime.kafka.cluster.topics import create_topics
from ashi.runtime.kafka.connections.clients import admin_client, make_producer, partition_of, partitions_of_topics
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.metrics.declare import REGISTRY
from ashi.runtime.settings import Settings
from ashi_cli.onemachine.broker import Broker
from ashi_ingest.publish import buffer as buffer_module
from ashi_ingest.publish import deliveries as deliveries_module
from ashi_ingest.publish import publisher as module
from ashi_ingest.publish.acknowledged import MOST_STRETCHES, AcknowledgedOffsets, LostTrades
from ashi_ingest.publish.publisher import Publisher, open_publisher
from ashi_ingest.venues.parsing import Rejected

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

SETTINGS = Settings.from_environment({})
PARTITIONS = 8


class Producer:
    """Remembers what it was given; acknowledges at once unless told to hold or to fail."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, BatchBuilder]] = []
        self.letters: list[dict[str, Any]] = []
        self.held: list[asyncio.Future[Any]] = []
        self.hold = False
        self.refusal: Exception | None = None
        self.room = asyncio.Event()  # while it is not set, no batch is taken
        self.room.set()
        self.refused = 0
        self.offsets: list[int] | None = None  # of the next batches, where a test says so

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder(most=2)

    async def send_batch(self, batch: BatchBuilder, topic: str, *, partition: int) -> asyncio.Future[Any]:
        assert topic == "trades"
        assert batch.closed, "the producer lingers with a batch that is open"
        await self.room.wait()
        self.sent.append((partition, batch))
        return self._future()

    async def send(self, topic: str, value: bytes, **more: Any) -> asyncio.Future[Any]:
        assert topic != "trades"
        self.letters.append({"topic": topic, "value": value, **more})
        return self._future()

    timestamp_type = 1
    append_time_ms = 1_723_161_300_000

    def _place(self) -> SimpleNamespace:
        assert self.offsets
        return SimpleNamespace(
            offset=self.offsets.pop(0), timestamp=self.append_time_ms, timestamp_type=self.timestamp_type
        )

    def _future(self) -> asyncio.Future[Any]:
        if self.refusal is not None:
            self.refused += 1
            raise self.refusal
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.hold:
            self.held.append(future)
        else:
            future.set_result(self._place() if self.offsets else None)
        return future


def trade(number: int, symbol: str = "binance:ETHUSDT") -> Trade:
    time = 1_723_161_254_340_863
    return Trade(symbol, str(number), Decimal("2683.80"), Decimal("0.1"), "buy", time, time, number)


def make(producer: Producer, *, live: bool = False, partitions: int = PARTITIONS) -> Publisher:
    return Publisher(SETTINGS, producer, "binance", partitions, live=live)


def sent_numbers(producer: Producer, symbol: str = "binance:ETHUSDT") -> list[int]:
    """The numbers of the trades of a symbol, in the order in which the producer got them."""
    given = (decode_trade(value) for _, batch in producer.sent for _, value, _ in batch.messages)
    return [each.sequence for each in given if each.symbol == symbol]


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 10))


async def steps() -> None:
    """Let every task go on until it waits for an acknowledgment."""
    for _ in range(50):
        await asyncio.sleep(0)


@contextmanager
def slots(count: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deliveries_module, "MAX_IN_FLIGHT", count)
        yield


def test_trades_of_a_symbol_keep_their_order_in_its_partition() -> None:
    producer = Producer()
    symbols = ["binance:ETHUSDT", "binance:BTCUSDT", "binance:XRPUSDT"]
    given = [trade(number, symbols[number % 3]) for number in range(20)]

    async def main() -> None:
        publisher = make(producer)
        await publisher.publish(given[:7])
        await publisher.publish(given[7:])
        await publisher.flush()
        assert publisher.published == 20

    run(main())
    for symbol in symbols:
        found = []
        for partition, batch in producer.sent:
            for key, value, headers in batch.messages:
                assert partition == partition_of(key, PARTITIONS)
                assert headers == [("content-type", b"application/json"), ("schema", b"ashi.trade.v1")]
                if key == symbol.encode():
                    found.append(decode_trade(value))
        assert found == [each for each in given if each.symbol == symbol]


def test_what_is_rejected_goes_to_the_dead_letters_with_its_reason() -> None:
    producer = Producer()

    async def main() -> None:
        publisher = make(producer)
        await publisher.reject(
            [Rejected(b"\xff", "not valid UTF-8"), Rejected(b"{}", "size -1 is negative", "binance:ETHUSDT")],
            "recording:/data/a.gz:7",
        )
        await publisher.flush()
        assert publisher.dead == 2
        assert publisher.published == 0

    run(main())
    assert [(letter["key"], letter["value"]) for letter in producer.letters] == [
        (b"binance", b"\xff"),
        (b"binance:ETHUSDT", b"{}"),
    ]
    headers = dict(producer.letters[1]["headers"])
    assert headers["ashi.reason"] == b"size -1 is negative"
    assert headers["ashi.source"] == b"recording:/data/a.gz:7"
    assert headers["ashi.venue"] == b"binance"


def test_nothing_counts_as_published_before_it_is_acknowledged() -> None:
    producer = Producer()
    producer.hold = True

    async def main() -> None:
        publisher = make(producer)
        await publisher.publish([trade(1), trade(2), trade(3)])
        flushing = asyncio.create_task(publisher.flush())
        await steps()
        assert len(producer.held) == 2
        assert publisher.published == 0
        assert not flushing.done()
        producer.held[0].set_result(None)
        await asyncio.sleep(0)
        assert publisher.published == 2
        assert not flushing.done()
        producer.held[1].set_result(None)
        await flushing
        assert publisher.published == 3

    run(main())


def test_a_failed_delivery_is_raised_by_flush_even_when_later_ones_succeed() -> None:
    producer = Producer()
    producer.hold = True

    async def main() -> None:
        publisher = make(producer)
        await publisher.publish([trade(number) for number in range(5)])
        await steps()
        producer.held[0].set_exception(RuntimeError("broker is on fire"))
        producer.held[1].set_result(None)
        with pytest.raises(BrokerError, match=r"did not take messages for topic trades .*broker is on fire"):
            await publisher.flush()
        assert publisher.published == 2

    run(main())


def test_a_failed_delivery_is_raised_by_a_later_publish() -> None:
    producer = Producer()
    producer.hold = True

    async def main() -> None:
        publisher = make(producer)
        await publisher.publish([trade(number) for number in range(3)])
        await steps()
        producer.held[0].set_exception(ConnectionError("gone"))
        await asyncio.sleep(0)
        with pytest.raises(BrokerError, match=r"Kafka at 127\.0\.0\.1:9092"):
            await publisher.publish([trade(number) for number in range(3, 9)])

    run(main())


def test_a_refused_send_is_a_broker_error() -> None:
    producer = Producer()
    producer.refusal = RuntimeError("closed")

    async def main() -> None:
        with pytest.raises(BrokerError, match=r"topic trades.dead \(closed\)"):
            await make(producer).reject([Rejected(b"x", "why")], "here")

    run(main())


def test_whoever_publishes_more_than_may_be_in_flight_waits() -> None:
    producer = Producer()
    producer.hold = True

    async def main() -> None:
        with slots(2):
            publisher = make(producer)
        publishing = asyncio.create_task(publisher.publish([trade(number) for number in range(20)]))
        await steps()
        assert len(producer.sent) == 2, "a third batch must wait for an acknowledgment"
        assert not publishing.done()
        producer.hold = False
        for future in producer.held:
            future.set_result(None)
        await publishing
        await publisher.flush()
        assert publisher.published == 20

    run(main())


def test_a_broker_that_falls_silent_is_an_error_and_not_a_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries_module, "ACKNOWLEDGMENT_TIMEOUT_S", 0.01)
    producer = Producer()
    producer.hold = True

    async def main() -> None:
        with slots(2):
            publisher = make(producer)
        await publisher.publish([trade(1)])
        with pytest.raises(BrokerError, match=r"acknowledged nothing for 0\.01 s"):
            await publisher.flush()
        with pytest.raises(BrokerError, match=r"acknowledged nothing for 0\.01 s"):
            await publisher.reject([Rejected(b"x", "why")] * 2, "here")

    run(main())


def test_after_a_failed_delivery_no_later_trade_of_the_partition_is_sent() -> None:
    producer = Producer()
    producer.hold = True

    async def main() -> None:
        publisher = make(producer, live=True)
        await publisher.publish([trade(number) for number in range(3)])
        await steps()
        producer.room.clear()
        await publisher.publish([trade(number) for number in range(3, 9)])
        producer.held[0].set_exception(RuntimeError("too large"))
        await steps()
        producer.room.set()
        with pytest.raises(BrokerError, match="too large"):
            await publisher.flush()
        with pytest.raises(BrokerError, match="too large"):
            await publisher.send_batches()

    run(main())
    # One batch was already on its way into the producer.
    assert sent_numbers(producer) == [0, 1, 2, 3]


def test_batches_that_are_not_full_go_out_without_waiting_for_an_acknowledgment() -> None:
    producer = Producer()
    producer.hold = True

    async def main() -> None:
        publisher = make(producer, live=True)
        for number in range(3):
            await publisher.publish([trade(number)])
            await publisher.send_batches()
            await steps()
            assert sent_numbers(producer) == list(range(number + 1))
        assert publisher.held == 3
        for future in producer.held:
            future.set_result(None)
        await publisher.flush()
        assert publisher.held == 0
        assert publisher.published == 3

    run(main())


def test_what_comes_while_the_producer_is_busy_follows_by_itself() -> None:
    producer = Producer()

    async def main() -> None:
        publisher = make(producer, live=True)
        producer.room.clear()
        for number in range(6):
            await publisher.publish([trade(number)])
            await publisher.send_batches()
        await steps()
        assert producer.sent == []
        assert publisher.held == 6
        producer.room.set()
        await steps()
        assert sent_numbers(producer) == list(range(6))
        assert [batch.record_count() for _, batch in producer.sent] == [1, 2, 2, 1]

    run(main())


def test_tasks_that_publish_at_the_same_time_lose_nothing_and_keep_each_symbol_in_order() -> None:
    producer = Producer()
    producer.hold = True
    symbols = [f"binance:S{number}USDT" for number in range(5)]

    async def publish_slowly(publisher: Publisher, symbol: str) -> None:
        for start in range(0, 12, 3):
            await publisher.publish([trade(number, symbol) for number in range(start, start + 3)])
            await publisher.send_batches()

    async def main() -> None:
        with slots(3):
            publisher = make(producer, live=True, partitions=1)
        tasks = [asyncio.create_task(publish_slowly(publisher, symbol)) for symbol in symbols]
        while publisher.published < 60:
            await steps()
            if all(task.done() for task in tasks):
                await publisher.send_batches()
            if producer.held:
                producer.held.pop(0).set_result(None)
        await asyncio.gather(*tasks)

    run(main())
    assert [sent_numbers(producer, symbol) for symbol in symbols] == [list(range(12))] * 5


def test_room_in_the_buffer_is_given_by_the_acknowledgment_that_makes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffer_module, "LINGER_S", 0.0)
    producer = Producer()
    producer.hold = True

    async def main() -> None:
        publisher = make(producer, live=True)
        buffer = buffer_module.PublishBuffer(publisher)
        running = asyncio.create_task(buffer.run())
        buffer.put([trade(number) for number in range(5)], streamed=True)
        waiting = [asyncio.create_task(buffer.room(most)) for most in (3, 1)]
        await steps()
        assert [task.done() for task in waiting] == [False, False]
        assert buffer.held == 5
        for done in ([True, False], [True, True]):
            producer.held.pop(0).set_result(None)  # a batch of two
            await steps()
            assert [task.done() for task in waiting] == done
        running.cancel()

    run(main())


def test_batches_that_fill_slowly_do_not_take_the_place_of_those_that_are_full() -> None:
    producer = Producer()
    symbols = [f"binance:S{number}USDT" for number in range(40)]

    async def main() -> None:
        with slots(2):
            publisher = make(producer, partitions=40)
        await publisher.publish([trade(1, symbol) for symbol in symbols])
        await publisher.flush()
        assert publisher.published == 40

    run(main())
    assert len({partition for partition, _ in producer.sent}) > 2


def test_a_live_publisher_waits_for_as_long_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries_module, "ACKNOWLEDGMENT_TIMEOUT_S", 0.001)
    monkeypatch.setattr(deliveries_module, "ROOM_CAP_S", 0.0)
    producer = Producer()
    producer.refusal = KafkaTimeoutError()

    async def main() -> None:
        publisher = make(producer, live=True)
        await publisher.publish([trade(1)])
        flushing = asyncio.create_task(publisher.flush())
        letter = asyncio.create_task(publisher.reject([Rejected(b"x", "why")], "here"))
        for _ in range(100):
            await asyncio.sleep(0.001)
        assert producer.refused >= 100
        assert not flushing.done()
        assert not letter.done()
        producer.refusal = None
        await flushing
        await letter
        assert publisher.published == 1

    # A real producer waits before it says that it has no room; the one here must let others go on.
    async def send_batch(batch: BatchBuilder, topic: str, *, partition: int) -> asyncio.Future[Any]:
        await asyncio.sleep(0)
        return await Producer.send_batch(producer, batch, topic, partition=partition)

    async def send(topic: str, value: bytes, **more: Any) -> asyncio.Future[Any]:
        await asyncio.sleep(0)
        return await Producer.send(producer, topic, value, **more)

    monkeypatch.setattr(producer, "send_batch", send_batch)
    monkeypatch.setattr(producer, "send", send)
    run(main())
    assert sent_numbers(producer)[-1:] == [1]


def test_a_producer_without_room_is_an_error_to_a_publisher_that_is_not_live() -> None:
    producer = Producer()
    producer.refusal = KafkaTimeoutError()

    async def main() -> None:
        publisher = make(producer)
        await publisher.publish([trade(1)])
        with pytest.raises(BrokerError, match="cannot reach Kafka"):
            await publisher.flush()
        assert producer.refused == 1

    run(main())


def test_after_a_publish_that_was_cancelled_nothing_is_sent_that_would_hide_what_is_missing() -> None:
    producer = Producer()
    producer.hold = True

    async def main() -> None:
        with slots(1):
            publisher = make(producer, live=True)
        publishing = asyncio.create_task(publisher.publish([trade(number) for number in range(6)]))
        await steps()
        publishing.cancel()
        await asyncio.wait([publishing])
        producer.held[0].set_result(None)
        with pytest.raises(BrokerError, match="it was cancelled"):
            await publisher.publish([trade(6)])
        with pytest.raises(BrokerError, match="it was cancelled"):
            await publisher.flush()

    run(main())
    assert sent_numbers(producer) == [0, 1]


def test_a_message_whose_sender_is_cancelled_takes_no_place_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries_module, "ROOM_CAP_S", 0.0)
    producer = Producer()
    producer.refusal = KafkaTimeoutError()

    async def send(topic: str, value: bytes, **more: Any) -> asyncio.Future[Any]:
        await asyncio.sleep(0)
        return await Producer.send(producer, topic, value, **more)

    async def main() -> None:
        producer.send = send  # type: ignore[method-assign]
        with slots(1):
            publisher = make(producer, live=True)
        announcing = asyncio.create_task(publisher.announce("feed.status", "k", b"{}", "s"))
        await steps()
        announcing.cancel()
        await asyncio.wait([announcing])
        producer.refusal = None
        await publisher.publish([trade(1)])
        await publisher.flush()
        assert publisher.published == 1

    run(main())
    assert producer.refused > 1


def test_even_a_live_publisher_ends_and_says_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLOSE_TIMEOUT_S", 0.01)
    producer = Producer()
    producer.hold = True

    async def main() -> None:
        publisher = make(producer, live=True)
        await publisher.publish([trade(1), trade(2), trade(3)])
        with pytest.raises(BrokerError, match=r"not acknowledged 3 trades within 0\.01 s of the end"):
            await publisher.close()
        assert sent_numbers(producer) == [1, 2, 3]

    run(main())


def observed(name: str, venue: str) -> tuple[float, float]:
    """How many values a histogram has, and their sum."""
    count, total = (REGISTRY.get_sample_value(f"ashi_{name}_{part}", {"venue": venue}) for part in ("count", "sum"))
    return count or 0.0, total or 0.0


def test_the_time_to_the_acknowledgment_is_that_of_the_oldest_live_trade() -> None:
    now = time.time_ns() // 1_000

    def at(number: int, received_s: float, traded_s: float) -> Trade:
        received, traded = now - round(received_s * 1e6), now - round(traded_s * 1e6)
        return Trade("v:M", str(number), Decimal(1), Decimal(1), "buy", traded, received, number)

    async def main() -> None:
        publisher = Publisher(SETTINGS, Producer(), "timed", PARTITIONS, live=True)
        await publisher.publish([at(1, 5_000, 9_000)])
        await publisher.flush()
        assert observed("frame_to_ack_seconds", "timed") == (0, 0)
        await publisher.publish([at(2, 5_000, 9_000)])
        await publisher.publish([at(3, 100, 200)], streamed=True)
        await publisher.flush()
        assert observed("frame_to_ack_seconds", "timed") == (1, pytest.approx(100, abs=20))
        await publisher.publish([at(4, 60, 200), at(5, 100, 100)], streamed=True)
        await publisher.flush()
        assert observed("frame_to_ack_seconds", "timed") == (2, pytest.approx(200, abs=20))
        assert observed("trade_delay_seconds", "timed") == (3, pytest.approx(18_200, abs=60))

    run(main())


def test_a_replay_measures_no_time_of_frames_that_are_years_old() -> None:
    async def main() -> None:
        publisher = Publisher(SETTINGS, Producer(), "replayed", PARTITIONS)
        await publisher.publish([trade(1)])
        await publisher.flush()

    run(main())
    assert observed("trade_delay_seconds", "replayed") == (0, 0)


def test_what_is_announced_goes_to_its_topic_with_its_schema() -> None:
    producer = Producer()

    async def main() -> None:
        publisher = make(producer, live=True)
        await publisher.announce("feed.status", "binance:ETHUSDT", b"{}", "ashi.feed-status.v1")
        await publisher.flush()
        assert (publisher.published, publisher.dead, publisher.held) == (0, 0, 0)

    run(main())
    (letter,) = producer.letters
    assert (letter["topic"], letter["key"], letter["value"]) == ("feed.status", b"binance:ETHUSDT", b"{}")
    assert letter["headers"] == [("content-type", b"application/json"), ("schema", b"ashi.feed-status.v1")]


@pytest.mark.parametrize("patient", [True, False])
def test_only_a_patient_producer_keeps_a_batch_whose_partition_has_had_no_leader_for_long(patient: bool) -> None:
    async def main() -> None:
        producer = make_producer(SETTINGS, patient=patient, request_timeout_ms=1)
        producer._txn_manager.set_pid_and_epoch(1, 0)
        batch = producer.create_batch()
        batch.append(timestamp=None, key=b"k", value=b"v")
        future = await producer._message_accumulator.add_batch(batch, TopicPartition("trades", 0), 1)
        await asyncio.sleep(0.01)
        _, no_leader = producer._message_accumulator.drain_by_nodes(ignore_nodes=set())
        assert no_leader
        await steps()
        if patient:
            assert not future.done()
        else:
            assert isinstance(future.exception(), NotLeaderForPartitionError)

    run(main())


async def read_trades(settings: Settings) -> list[Trade]:
    return [decode_trade(record.value) async for record in read_topic(settings, "trades")]


@pytest.mark.kafka
def test_a_live_publisher_needs_the_topics_of_the_feed(kafka_settings: Settings) -> None:
    async def main() -> None:
        async with admin_client(kafka_settings) as client:
            await client.delete_topics(["feed.gaps"])
            while "feed.gaps" in await partitions_of_topics(client):  # noqa: ASYNC110 - Kafka gives no sign
                await asyncio.sleep(0.05)
        async with open_publisher(kafka_settings, "binance") as publisher:
            await publisher.publish([trade(1)])
        with pytest.raises(BrokerError, match=r"has no topic feed\.gaps: create all"):
            async with open_publisher(kafka_settings, "binance", live=True):
                raise AssertionError("it must not open")

    run(main())


@pytest.mark.kafka
def test_trades_sent_one_by_one_and_by_several_tasks_arrive_once_and_in_order(kafka_settings: Settings) -> None:
    symbols = [f"binance:S{number}USDT" for number in range(12)]

    async def publish(publisher: Publisher, symbol: str) -> None:
        for number in range(300):
            await publisher.publish([trade(number, symbol)], streamed=True)
            await publisher.send_batches()
            if number % 10 == 0:
                await asyncio.sleep(0)

    async def main() -> None:
        async with open_publisher(kafka_settings, "binance", live=True) as publisher:
            await asyncio.gather(*(publish(publisher, symbol) for symbol in symbols))
        assert publisher.held == 0
        found = await read_trades(kafka_settings)
        for symbol in symbols:
            assert [each for each in found if each.symbol == symbol] == [trade(n, symbol) for n in range(300)]

    asyncio.run(main())


@pytest.mark.kafka
def test_a_live_publisher_outlasts_a_kafka_that_is_away_for_longer_than_a_request_may_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "make_producer", partial(make_producer, request_timeout_ms=1_500))
    broker = Broker(tmp_path)
    broker.start(child=True, fresh=True)
    port = int(broker.bootstrap.rpartition(":")[2])
    settings = Settings.from_environment({"ASHI_KAFKA_BOOTSTRAP": broker.bootstrap, "ASHI_PARTITIONS": "3"})
    specs: tuple[TopicSpec, ...] = topic_specs(3, settings.timeframes)
    symbols = ["binance:ETHUSDT", "binance:BTCUSDT", "binance:XRPUSDT"]

    async def main() -> None:
        await create_topics(settings, specs)
        async with open_publisher(settings, "binance", live=True) as publisher:
            for number in range(200):
                if number == 50:
                    await publisher.flush()
                    broker.stop()
                    away_since = time.monotonic()
                if number == 150:
                    await asyncio.sleep(away_since + 5 - time.monotonic())
                    assert publisher.held == 300
                    broker.start(port=port, child=True)
                await publisher.publish([trade(number, symbol) for symbol in symbols], streamed=True)
                await publisher.send_batches()
                await asyncio.sleep(0.001)
            await publisher.flush()
            assert publisher.published == 600
        found = await read_trades(settings)
        for symbol in symbols:
            assert [each for each in found if each.symbol == symbol] == [trade(n, symbol) for n in range(200)]

    try:
        asyncio.run(main())
    finally:
        broker.stop()


def published_at(offsets: list[int], *, live: bool) -> Publisher:
    """A publisher that has published a trade a batch, a second after the other, acknowledged at these offsets."""
    producer = Producer()
    producer.offsets = offsets
    publisher = make(producer, live=live, partitions=1)

    async def scenario() -> None:
        for number in range(len(offsets)):
            await publisher.publish([replace(trade(number), traded_at=number * 1_000_000)])
            await publisher.flush()

    asyncio.run(scenario())
    return publisher


@pytest.mark.parametrize(
    ("offsets", "lost"),
    [
        ([7, 8, 20, 21], []),
        ([7, 8, 20, 21, 20], [LostTrades(0, 2_000_000, 20, 22)]),
        ([7, 8, 20, 21, 21], [LostTrades(0, 3_000_000, 21, 22)]),
        ([7, 8, 20, 21, 0, 1, 1], [LostTrades(0, 0, 0, 22), LostTrades(0, 5_000_000, 1, 2)]),
        ([7, 8, -1, 9], []),
    ],
    ids=["grows", "cut", "cut-by-one", "made-anew-and-cut", "a-retry-without-a-place"],
)
def test_an_offset_acknowledged_below_an_earlier_one_says_which_trades_are_gone(
    offsets: list[int], lost: list[LostTrades]
) -> None:
    publisher = published_at(offsets, live=True)
    assert publisher.take_losses() == lost
    assert publisher.take_losses() == []
    assert publisher.shares("binance:ETHUSDT", LostTrades(0, 0, 0, 0))


@pytest.mark.parametrize(("kind", "offset"), [(1, 7), (0, 7), (1, -1)], ids=["append-time", "writers-time", "no-place"])
def test_when_kafka_appended_the_last_trades_is_known_where_it_says_so(
    monkeypatch: pytest.MonkeyPatch, kind: int, offset: int
) -> None:
    monkeypatch.setattr(Producer, "timestamp_type", kind)
    before_us = time.time_ns() // 1_000
    appended = published_at([offset], live=True).appended
    if (kind, offset) != (1, 7):
        assert appended is None
        return
    assert appended is not None
    assert appended.at == Producer.append_time_ms * 1_000
    assert before_us <= appended.acknowledged_at <= time.time_ns() // 1_000


def test_a_replay_into_a_log_that_is_cut_fails_and_says_to_do_it_again() -> None:
    with pytest.raises(BrokerError, match=r"acknowledged up to offset 9 and now goes on at 3.*do it again"):
        published_at([7, 8, 3], live=False)


def test_what_was_acknowledged_long_ago_is_remembered_in_bounded_memory() -> None:
    acknowledged = AcknowledgedOffsets(3)
    for number in range(100_000):
        assert acknowledged.add(number * 2, 2, number) is None
    assert len(acknowledged._stretches) <= MOST_STRETCHES
    lost = acknowledged.add(50_000, 2, 100_000)
    assert lost is not None
    assert 24_900 < lost.from_time <= 25_000

"""The publisher with a producer that is told when to acknowledge and when to fail; test_replay_kafka.py: Kafka."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from ashi.contracts.errors import BrokerError
from ashi.contracts.trade import Trade, decode_trade
from ashi.runtime.kafka import partition_of
from ashi.runtime.settings import Settings
from ingest import publisher as module
from ingest.publisher import Publisher
from ingest.venues import Rejected

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

SETTINGS = Settings.from_environment({})
PARTITIONS = 8


class Batch:
    """Takes two messages."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, bytes, list[tuple[str, bytes]]]] = []

    def append(self, *, timestamp: None, key: bytes, value: bytes, headers: list[tuple[str, bytes]]) -> object:
        if len(self.messages) == 2:
            return None
        self.messages.append((key, value, headers))
        return self

    def record_count(self) -> int:
        return len(self.messages)


class Producer:
    """Remembers what it was given; acknowledges at once unless told to hold or to fail."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, Batch]] = []
        self.letters: list[dict[str, Any]] = []
        self.held: list[asyncio.Future[None]] = []
        self.hold = False
        self.refusal: Exception | None = None

    def create_batch(self) -> Batch:
        return Batch()

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> asyncio.Future[None]:
        assert topic == "trades"
        self.sent.append((partition, batch))
        return self._future()

    async def send(self, topic: str, value: bytes, **more: Any) -> asyncio.Future[None]:
        assert topic == "trades.dead"
        self.letters.append({"value": value, **more})
        return self._future()

    def _future(self) -> asyncio.Future[None]:
        if self.refusal is not None:
            raise self.refusal
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.hold:
            self.held.append(future)
        else:
            future.set_result(None)
        return future


def trade(number: int, symbol: str = "binance:ETHUSDT") -> Trade:
    time = 1_723_161_254_340_863
    return Trade(symbol, str(number), Decimal("2683.80"), Decimal("0.1"), "buy", time, time, number)


def make(producer: Producer) -> Publisher:
    return Publisher(SETTINGS, producer, "binance", PARTITIONS)


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 10))


async def steps() -> None:
    """Let every task go on until it waits for an acknowledgment."""
    for _ in range(50):
        await asyncio.sleep(0)


@contextmanager
def slots(count: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_IN_FLIGHT", count)
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
        producer.held[0].set_exception(RuntimeError("broker is on fire"))
        producer.hold = False
        producer.held[1].set_result(None)
        with pytest.raises(BrokerError, match=r"did not take messages for topic trades .*broker is on fire"):
            await publisher.flush()
        assert publisher.published == 3

    run(main())


def test_a_failed_delivery_is_raised_by_a_later_publish() -> None:
    producer = Producer()
    producer.hold = True

    async def main() -> None:
        publisher = make(producer)
        await publisher.publish([trade(number) for number in range(3)])
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
    monkeypatch.setattr(module, "ACKNOWLEDGMENT_TIMEOUT_S", 0.01)
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

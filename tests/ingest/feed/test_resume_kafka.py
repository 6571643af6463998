"""Reading resume points from the end of topic `trades`, with a real Kafka."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from ashi.contracts.errors import BrokerError
from ashi.contracts.feed import FeedStatus
from ashi.contracts.trade import Trade, encode_trade
from ashi.runtime.kafka.cluster.offsets import end_offsets
from ashi.runtime.kafka.connections.clients import admin_client, make_producer, partition_of, partitions_of_topics
from ashi_ingest.feed.reporting.reported import ReportedFeed
from ashi_ingest.feed.symbol import resume as module
from ashi_ingest.feed.symbol.resume import read_resume_points
from ashi_ingest.feed.symbol.sequencer import RESUME_TRADES
from ashi_ingest.publish.publisher import LATE_HEADER
from kafka_topics.fresh_topics import PARTITIONS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from ashi.runtime.settings import Settings

T = 1_723_161_254_000_000
BUSY = "binance:BTCUSDT"

pytestmark = pytest.mark.kafka


def neighbours(count: int) -> list[str]:
    """Symbols on the partition of BUSY."""
    names = (f"binance:N{number}USDT" for number in range(10_000))
    same = [
        name for name in names if partition_of(name.encode(), PARTITIONS) == partition_of(BUSY.encode(), PARTITIONS)
    ]
    return same[:count]


RARE, OTHER, ABSENT = neighbours(3)


def trade(number: int, symbol: str = BUSY, traded_at: int | None = None) -> Trade:
    at = T + number if traded_at is None else traded_at
    return Trade(symbol, str(number), Decimal(100), Decimal(1), "buy", at, at, number)


@asynccontextmanager
async def producing(settings: Settings, **options: Any) -> AsyncIterator[Any]:
    producer = make_producer(settings, **options)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def publish(producer: Any, trades: Sequence[Trade], headers: Sequence[tuple[str, bytes]] = ()) -> None:
    """All in the order given, and acknowledged."""
    sent = [
        await producer.send("trades", encode_trade(each), key=each.symbol.encode(), headers=headers) for each in trades
    ]
    await asyncio.gather(*sent)


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_WINDOW", 10)


def test_the_last_200_of_each_symbol_come_in_the_order_of_the_log(kafka_settings: Settings) -> None:
    symbols = [f"binance:S{number}USDT" for number in range(12)]
    trades = [trade(number, symbol) for number in range(450) for symbol in symbols]

    async def main() -> None:
        async with producing(kafka_settings) as producer:
            await publish(producer, trades)
        found = await read_resume_points(kafka_settings, [*symbols, "binance:NEVER"])
        for symbol in symbols:
            assert found.pop(symbol) == [trade(number, symbol) for number in range(250, 450)]
        assert found == {"binance:NEVER": []}

    asyncio.run(main())


@pytest.mark.usefixtures("small_windows")
def test_back_to_a_time_more_than_200_are_read_of_the_symbols_that_want_it(
    kafka_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that must be compared since 300 trades ago, one since the beginning but for the bound, one not at all."""
    monkeypatch.setattr(module, "MAX_UNCOMPARED", 380)
    symbols = [BUSY, RARE, OTHER]
    since = {BUSY: T + 150, RARE: T - 1}

    async def main() -> None:
        async with producing(kafka_settings) as producer:
            await publish(producer, [trade(number, symbol) for number in range(450) for symbol in symbols])
        found = await read_resume_points(kafka_settings, symbols, None, since=since)
        assert found[BUSY] == [trade(number) for number in range(450)][-len(found[BUSY]) :]
        assert 300 < len(found[BUSY]) <= 380
        assert found[RARE] == [trade(number, RARE) for number in range(70, 450)]
        assert found[OTHER] == [trade(number, OTHER) for number in range(250, 450)]

    asyncio.run(main())


def test_an_empty_log_has_no_resume_points(kafka_settings: Settings) -> None:
    assert asyncio.run(read_resume_points(kafka_settings, [BUSY, RARE])) == {BUSY: [], RARE: []}
    assert asyncio.run(read_resume_points(kafka_settings, [])) == {}


def test_nothing_goes_on_after_trades_that_were_missed_and_came_late(kafka_settings: Settings) -> None:
    """Else a worker would fetch and publish again all that came between."""

    async def main() -> None:
        async with producing(kafka_settings) as producer:
            await publish(producer, [trade(n) for n in (1, 2, 8, 9)])
            await publish(producer, [trade(n) for n in range(3, 8)], [(LATE_HEADER, b"1")])
        found = await read_resume_points(kafka_settings, [BUSY])
        assert [each.sequence for each in found[BUSY]] == [1, 2, 8, 9]

    asyncio.run(main())


@pytest.mark.usefixtures("small_windows")
def test_a_symbol_that_trades_rarely_is_found_windows_further_back(kafka_settings: Settings) -> None:
    log = [trade(n, RARE) for n in range(3)]
    log += [trade(n) for n in range(300)]
    log += [trade(n, RARE) for n in range(3, 5)]
    log += [trade(n) for n in range(300, 333)]
    log += [trade(5, RARE)]
    log += [trade(n) for n in range(333, 337)]

    async def main() -> None:
        async with producing(kafka_settings) as producer:
            await publish(producer, log)
        found = await read_resume_points(kafka_settings, [BUSY, RARE, ABSENT])
        assert found[RARE] == [trade(n, RARE) for n in range(6)]
        assert found[BUSY] == [trade(n) for n in range(337 - RESUME_TRADES, 337)]
        assert found[ABSENT] == []

    asyncio.run(main())


@pytest.mark.usefixtures("small_windows")
def test_what_is_no_trade_of_the_symbol_is_passed_over(kafka_settings: Settings) -> None:
    async def main() -> None:
        async with producing(kafka_settings) as producer:
            for n in range(30):
                await publish(producer, [trade(n)])
                partition = partition_of(BUSY.encode(), PARTITIONS)
                for key, value in (
                    (BUSY.encode(), b"\xff"),
                    (BUSY.encode(), None),
                    (BUSY.encode(), encode_trade(trade(n, RARE))),
                    (None, encode_trade(trade(n))),
                    (b"\xff", b"{}"),
                ):
                    await producer.send("trades", value, key=key, partition=partition)
            await producer.flush()
        assert await read_resume_points(kafka_settings, [BUSY]) == {BUSY: [trade(n) for n in range(30)]}

    asyncio.run(main())


@pytest.mark.usefixtures("small_windows")
def test_markers_of_transactions_end_no_window_early_and_hold_none_up(kafka_settings: Settings) -> None:
    async def main() -> None:
        async with producing(kafka_settings, transactional_id="t") as producer:
            for n in range(25):
                async with producer.transaction():
                    await publish(producer, [trade(n)])
        partition = partition_of(BUSY.encode(), PARTITIONS)
        # A trade and a marker each; Kafka answers before the last marker stands.
        while (await end_offsets(kafka_settings, "trades"))[partition] != 50:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        assert await read_resume_points(kafka_settings, [BUSY]) == {BUSY: [trade(n) for n in range(25)]}

    asyncio.run(main())


@pytest.mark.usefixtures("small_windows")
def test_records_that_retention_has_deleted_are_not_waited_for(kafka_settings: Settings) -> None:
    async def main() -> None:
        async with producing(kafka_settings) as producer:
            await publish(producer, [trade(n) for n in range(100)])
        await delete_before(kafka_settings, partition_of(BUSY.encode(), PARTITIONS), 63)
        assert await read_resume_points(kafka_settings, [BUSY, RARE]) == {
            BUSY: [trade(n) for n in range(63, 100)],
            RARE: [],
        }

    asyncio.run(main())


async def delete_before(settings: Settings, partition: int, offset: int) -> None:
    async with admin_client(settings) as client:
        await client.delete_records({TopicPartition("trades", partition): RecordsToDelete(before_offset=offset)})


def status(number: int, symbol: str, traded_at: int) -> ReportedFeed:
    return ReportedFeed(FeedStatus(symbol, "down", T, "stopped", str(number), traded_at, traded_at), ())


def test_beyond_the_bound_a_symbol_is_found_by_the_time_of_its_last_trade(
    kafka_settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Kafka stamps `trades` when it appends, so the trades here are of now."""
    monkeypatch.setattr(module, "FIRST_WINDOW", 10)
    monkeypatch.setattr(module, "MAX_RECORDS", 50)

    async def main() -> None:
        async with producing(kafka_settings) as producer:
            began = time.time_ns() // 1_000
            rare = [trade(n, RARE, began) for n in range(4)]
            await publish(producer, [trade(n) for n in range(20)] + rare + [trade(n) for n in range(20, 220)])
        symbols = [BUSY, RARE, OTHER, ABSENT]
        without = await read_resume_points(kafka_settings, symbols)
        assert without[RARE] == []
        reported = {
            RARE: status(2, RARE, began),  # lags behind the log by one trade
            OTHER: status(1, OTHER, began),  # not in the log at all
            ABSENT: ReportedFeed(None, ()),
        }
        found = await read_resume_points(kafka_settings, symbols, reported)
        assert found[RARE] == rare
        assert found[OTHER] == found[ABSENT] == []
        assert found[BUSY] == without[BUSY] == [trade(n) for n in range(170, 220)]

    asyncio.run(main())
    (warning,) = [record.getMessage() for record in caplog.records if "is not in topic trades" in record.getMessage()]
    assert OTHER in warning


def test_several_symbols_beyond_the_bound_are_found_one_after_the_other(
    kafka_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_RECORDS", 50)
    monkeypatch.setattr(module, "AFTER_MS", -1)

    async def main() -> None:
        async with producing(kafka_settings) as producer:
            began = time.time_ns() // 1_000
            rare = [trade(n, symbol, began) for n in range(3) for symbol in (RARE, OTHER, ABSENT)]
            await publish(producer, rare + [trade(n) for n in range(200)])
        reported = {symbol: status(2, symbol, began) for symbol in (RARE, OTHER, ABSENT)}
        found = await read_resume_points(kafka_settings, list(reported), reported)
        for symbol in reported:
            assert found[symbol] == [each for each in rare if each.symbol == symbol]

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_kafka_without_the_topic_is_told(kafka_settings: Settings) -> None:
    async def main() -> None:
        async with admin_client(kafka_settings) as client:
            await client.delete_topics(["trades"])
            while "trades" in await partitions_of_topics(client):  # noqa: ASYNC110 - Kafka gives no sign
                await asyncio.sleep(0.05)
        with pytest.raises(BrokerError, match="no topic 'trades': run `ashi topics create`"):
            await read_resume_points(kafka_settings, [BUSY])

    asyncio.run(main())

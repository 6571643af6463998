"""An election that is not clean, on three real brokers: the log ends before what a worker has read, and grows again.

Sinks, feeds and readers are here too, and not where their code is, because the brokers take longer than the tests.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from aggregate_kafka import aggregated, at, candles, check, ended, messages, publish, steady_trades
from aiokafka import TopicPartition
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.metadata import MetadataRequest

from ashi.client import read_candles
from ashi.contracts import Candle, StateError, decode_trade
from ashi.contracts.candle import encode_candle
from ashi.contracts.errors import BrokerUnreachableError
from ashi.contracts.feed import FeedGap, decode_feed_gap
from ashi.contracts.topics import CANDLES, FEED_GAPS, TRADES
from ashi.runtime.kafka.cluster.offsets import committed_offsets, end_offsets
from ashi.runtime.kafka.cluster.topics import require_topics
from ashi.runtime.kafka.connections import clients
from ashi.runtime.kafka.connections.clients import make_producer
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.settings import Settings
from ashi_simulator import Simulator, TrueTrade
from kafka_topics.fresh_topics import delete_topics
from servers import kafka_cluster
from servers.kafka_cluster import patiently, until, within
from servers.subscribing import until_subscribed

START_US = 1_700_000_040_000_000
pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def brokers(tmp_path_factory):
    with kafka_cluster.cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def unsafe():
    """The topics that are cut by the election."""
    return (TRADES,)


@pytest.fixture
def kafka_settings(brokers, unsafe):
    """Settings of the cluster, so that stages are started against it."""
    settings = Settings.from_environment({"ASHI_KAFKA_BOOTSTRAP": brokers.bootstrap, "ASHI_PARTITIONS": "4"})
    brokers.start_those_killed()
    asyncio.run(delete_topics(settings))
    asyncio.run(kafka_cluster.create_deployment(settings, *unsafe))
    return settings


def test_a_log_that_is_cut_under_a_worker_and_outgrows_what_it_has_read_stops_it_at_every_start(
    brokers, kafka_settings, start_stage
):
    log = steady_trades(3_000, seed=10)

    async def scenario() -> None:
        await publish(kafka_settings, log[:1_000])
        worker = start_stage("aggregate", ASHI_SESSION_TIMEOUT="60s", ASHI_PARTITIONS="4")
        await aggregated(kafka_settings)
        brokers.kill(3)
        await kafka_cluster.isr_of(kafka_settings, TRADES, {2})
        await publish(kafka_settings, log[1_000:1_200])
        await patiently(lambda: aggregated(kafka_settings))
        read = await patiently(lambda: end_offsets(kafka_settings, TRADES))
        before = await patiently(lambda: candles(kafka_settings))
        worker.signal(signal.SIGSTOP)  # so that its next fetch comes only when the log is longer than it was
        brokers.kill(2)
        brokers.start(3)
        await asyncio.to_thread(brokers.wait_until_ready, 3)
        await kafka_cluster.leader_of(kafka_settings, TRADES, 3)
        await publish(kafka_settings, [at(trade, trade.traded_at + 900_000_000) for trade in log[1_200:]])
        grown = await patiently(lambda: end_offsets(kafka_settings, TRADES))
        assert all(grown[number] > end for number, end in read.items() if end), (read, grown)
        worker.signal(signal.SIGCONT)
        texts = [await ended(worker)]
        while len(texts) < 2 or "cannot reach Kafka" in texts[-1]:  # it may have asked the broker that was killed
            texts.append(await ended(start_stage("aggregate", ASHI_PARTITIONS="4")))
            assert len(texts) < 6
        for text in (texts[0], texts[-1]):
            assert "is not the log that its state has read: offset" in text
            assert "ashi aggregate reconfigure" in text
        after = await patiently(lambda: candles(kafka_settings))
        assert after == before, "something was folded on top of another log"

    asyncio.run(scenario())


def test_whoever_has_a_rack_reads_from_the_copy_there_and_an_aggregate_worker_makes_the_same_of_it(
    brokers, kafka_settings, start_stage
):
    log = steady_trades(2_000, seed=12)

    async def nodes_read_from(settings: Settings) -> set[int]:
        """The brokers that records of trades come from."""
        nodes, count = set(), 0
        consumer = clients.make_consumer(settings, group_id=None)
        await consumer.start()
        send = consumer._client.send

        async def send_and_note(node: int, request: Any, **options: Any) -> Any:
            response = await send(node, request, **options)
            if isinstance(request, FetchRequest) and any(part[-1] for _, parts in response.topics for part in parts):
                nodes.add(node)
            return response

        consumer._client.send = send_and_note
        consumer.assign([TopicPartition(TRADES, number) for number in range(4)])
        while count < len(log):
            count += sum(map(len, (await consumer.getmany(timeout_ms=1_000)).values()))
        await consumer.stop()
        return nodes

    async def scenario() -> None:
        await kafka_cluster.leader_of(kafka_settings, TRADES, 2)
        await publish(kafka_settings, log)
        assert await nodes_read_from(kafka_settings) == {2}
        assert await nodes_read_from(replace(kafka_settings, kafka_rack="rack-3")) == {3}
        worker = start_stage("aggregate", ASHI_PARTITIONS="4", ASHI_KAFKA_RACK="rack-3")
        await aggregated(kafka_settings)
        await check(kafka_settings, log)
        assert worker.process.poll() is None

    asyncio.run(scenario())


async def ask_the_third(settings: Settings, _topic: str) -> None:
    """A request that only broker 3 may be asked, as the administrator of a topic that it leads."""
    async with clients.admin_client(settings) as client:
        await client._send_request_to_node(3, MetadataRequest([]))


async def begin(settings: Settings, topic: str) -> None:
    """As every stage does before clients are started that would try broker 3 for ever."""
    await require_topics(settings, [topic])


@pytest.mark.parametrize(
    "ask", [begin, end_offsets, ask_the_third], ids=["a-stage-that-begins", "a-consumer", "an-administrator"]
)
def test_a_third_broker_that_cannot_be_reached_is_named_within_the_bound_of_a_start(
    brokers, kafka_settings, ask, monkeypatch
):
    topic = "a-topic-of-broker-3"
    asyncio.run(kafka_cluster.create_on(kafka_settings, topic, 3))

    async def partitions_of(*_: object) -> list[TopicPartition]:
        # Who asks any broker for them may find by chance at once what the offsets' question must find.
        return [TopicPartition(topic, 0)]

    monkeypatch.setattr(clients, "partitions_of", partitions_of)
    monkeypatch.setattr(clients, "START_TIMEOUT_S", 4.0)
    outside = replace(kafka_settings, kafka_bootstrap=brokers.outside)
    started = time.monotonic()
    with pytest.raises(BrokerUnreachableError, match=f"sends us on to {brokers.outside_of_3}, its broker 3"):
        asyncio.run(ask(outside, topic))
    assert time.monotonic() - started < 20


def some_candles(first: int, count: int) -> list[Candle]:
    """One-minute candles of eight symbols, so many of each; their volume tells those of one minute apart."""
    return [
        Candle(
            symbol=f"binance:S{number}",
            timeframe="1m",
            open_time=START_US + minute * 60_000_000,
            close_time=START_US + (minute + 1) * 60_000_000,
            **dict.fromkeys(("open", "high", "low", "close", "quote_volume", "taker_buy_quote_volume"), Decimal(1)),
            volume=Decimal(first + 1),
            taker_buy_volume=Decimal(0),
            trade_count=1,
            first_trade_id="7",
            last_trade_id="7",
            version=minute,
        )
        for minute in range(first, first + count)
        for number in range(8)
    ]


async def publish_candles(settings: Settings, candles: list[Candle]) -> None:
    producer = make_producer(settings)
    await producer.start()
    await asyncio.gather(
        *[await producer.send(CANDLES, encode_candle(candle), candle.symbol.encode()) for candle in candles]
    )
    await producer.stop()


async def taken(reader: AsyncIterator[Candle], count: int) -> int:
    """Take so many candles of a reader."""
    return len([await anext(reader) for _ in range(count)])


async def grown(settings: Settings, topic: str) -> dict[int, int]:
    return await patiently(lambda: end_offsets(settings, topic))


async def refused_again(start: Callable[[], Any], words: str) -> None:
    """Each start ends with these words; it may have asked the broker that was killed first."""
    for _ in range(5):
        text = await ended(start())
        if "cannot reach Kafka" not in text:
            break
    assert words in text, text[-3000:]


@pytest.mark.parametrize("unsafe", [(TRADES, CANDLES)], ids=["trades-and-candles"])
def test_a_log_that_is_cut_under_a_sink_a_reader_and_a_feed_and_outgrows_what_they_know_is_noticed_by_each(
    brokers, kafka_settings, start_stage, tmp_path
):
    group, market = "ashi-sink-sqlite", "BTCUSDT"
    elsewhere = {"ASHI_SESSION_TIMEOUT": "60s", "ASHI_STORAGE": f"sqlite:///{tmp_path}/candles.db"}

    async def stored_all() -> bool:
        # An empty store commits the beginning of all partitions.
        return await committed_offsets(kafka_settings, group, CANDLES) == await end_offsets(kafka_settings, CANDLES)

    async def is_published(trades: Iterable[TrueTrade]) -> bool:
        found = {decode_trade(record.value).trade_id async for record in read_topic(kafka_settings, TRADES)}
        return {trade.trade_id for trade in trades} <= found

    async def scenario(simulator: Simulator) -> None:
        def start_feed() -> Any:
            return start_stage(
                "ingest",
                "binance",
                market,
                ASHI_WEBSOCKET_URL=simulator.websocket_url,
                ASHI_REST_URL=simulator.rest_url,
                ASHI_BINANCE_API_KEY="a-key-the-simulator-takes",
            )

        sink, feed, reader = start_stage("sink", "sqlite", **elsewhere), start_feed(), read_candles(kafka_settings)
        await within("80 candles are published", publish_candles(kafka_settings, some_candles(0, 10)))
        await within("80 candles are read", taken(reader, 80))
        await until_subscribed(simulator, [market], feed)
        simulator.start_market()
        await until("80 candles are stored", stored_all)
        await until("50 trades are published", lambda: is_published(simulator.truth()[:50]))
        brokers.kill(3)
        for topic in (TRADES, CANDLES):
            await kafka_cluster.isr_of(kafka_settings, topic, {2})
        await within("40 candles are published to 2", publish_candles(kafka_settings, some_candles(10, 5)))
        await within("40 candles are read from 2", taken(reader, 40))
        await until("40 candles of 2 are stored", stored_all)
        position, happened = reader.position, simulator.truth()
        await until("what has happened is published to 2", lambda: is_published(happened))
        known = await grown(kafka_settings, CANDLES)
        traded = sum((await grown(kafka_settings, TRADES)).values())
        sink.signal(signal.SIGSTOP)  # and the reader: so that their next fetch comes when the log is longer than it was
        assert reader._follower is not None
        consumer = reader._follower._consumer
        consumer.pause(*consumer.assignment())
        brokers.kill(2)
        brokers.start(3)
        await asyncio.to_thread(brokers.wait_until_ready, 3)
        for topic in (TRADES, CANDLES):
            await kafka_cluster.leader_of(kafka_settings, topic, 3)
        assert sum((await grown(kafka_settings, CANDLES)).values()) == 80
        cut_off = traded - sum((await grown(kafka_settings, TRADES)).values())
        await within("160 candles are published to 3", publish_candles(kafka_settings, some_candles(20, 20)))
        assert all(end > known[number] for number, end in (await grown(kafka_settings, CANDLES)).items() if end)

        sink.signal(signal.SIGCONT)
        assert f"is not the log any more that group {group} has read: offset" in await ended(sink)
        await refused_again(lambda: start_stage("sink", "sqlite", **elsewhere), "held a record of")

        consumer.resume(*consumer.assignment())
        for reading in (reader, read_candles(kafka_settings, since=position)):
            with pytest.raises(StateError, match=r"offset \d+ held a record of .* was cut or the topic made anew"):
                await within("a reader notices that the log was cut", anext(reading))
        assert reader.position == position

        assert "has lost records that it had acknowledged" in await ended(feed)
        feed = start_feed()
        await asyncio.to_thread(feed.wait_for, '"event":"repaired"')
        await simulator.stop_market()
        await until("all trades are published", lambda: is_published(simulator.truth()))

        async def last_gap() -> FeedGap:
            return decode_feed_gap((await messages(kafka_settings, FEED_GAPS))[-1].value)

        async def is_repaired() -> bool:  # said once Kafka has the trades
            return (await last_gap()).state == "repaired"

        await until("the gap is said to be repaired", is_repaired)
        assert (await patiently(last_gap)).trades_recovered >= cut_off > 0

    async def main() -> None:
        async with Simulator("binance", [market], rate=100) as simulator:
            await scenario(simulator)

    asyncio.run(main())

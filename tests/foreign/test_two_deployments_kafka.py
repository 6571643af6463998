"""Two deployments on one Kafka beside somebody else's topic `trades`: by `ASHI_TOPIC_PREFIX` none sees another."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka.admin import AdminClient, NewTopic
from foreign_client import ForeignProducer
from foreign_samples import NAMES, SYMBOLS, make_trades, records_of
from waiting import all_committed

from ashi.client import Settings, kafka_settings, read_candles
from ashi.contracts import Trade, decode_trade
from ashi.contracts.topics import (
    AGGREGATE_APP,
    CANDLES,
    FEED_GAPS,
    FEED_STATUS,
    TRADES,
    TRADES_DEAD,
    state_topics,
    topic_specs,
)
from ashi.runtime.kafka.cluster.offsets import end_offsets
from ashi.runtime.kafka.cluster.topics import partition_counts
from ashi.runtime.kafka.consuming.groups import members
from ashi.runtime.kafka.consuming.records import read_topic
from ashi_aggregate.epoch import require_epoch
from ashi_cli.onemachine.broker import Broker
from ashi_simulator import Simulator
from kafka_topics.fresh_topics import delete_topics
from oracle import candles_of, closed, stored, timely

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(180)]

PREFIXES = ("staging.", "production-")
MARKET = "BTCUSDT"
SINK_GROUP = "ashi-sink-sqlite"
GARBAGE = [(TRADES, b"invoice", b"\x00\xffnot a trade"), (TRADES, None, None), (TRADES, b"binance:S0USDT", b'{"n": 1}')]


@pytest.fixture(name="kafka_settings")
def shared(kafka: Broker) -> Settings:
    """A Kafka that belongs to others: there is a topic `trades` with two partitions, and garbage in it."""
    settings = Settings.from_environment({"ASHI_KAFKA_BOOTSTRAP": kafka.bootstrap})
    asyncio.run(delete_topics(settings))
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for created in admin.create_topics([NewTopic(TRADES, 2, 1)]).values():
        created.result(30)
    ForeignProducer(settings).send(GARBAGE)
    return settings


def topics_of(admin: AdminClient) -> set[str]:
    return {name for name in admin.list_topics(timeout=30).topics if not name.startswith("__")}


def test_two_deployments_and_somebody_elses_trades_do_not_see_each_other(
    kafka_settings: Settings, start_stage: Any, ashi: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    admin = AdminClient({"bootstrap.servers": kafka_settings.kafka_bootstrap})
    logs = {prefix: make_trades(1_500, seed=11 + number) for number, prefix in enumerate(PREFIXES)}
    names = [spec.name for spec in topic_specs(1, kafka_settings.timeframes)]
    for prefix in PREFIXES:
        monkeypatch.setenv("ASHI_TOPIC_PREFIX", prefix)
        assert ashi("topics", "check")[1].splitlines()[0] == (
            f"topic {prefix}trades is missing: create it with `ashi topics create`"
        ), "the other deployment's topics, and somebody else's, are not its own"
        status, out, _ = ashi("topics", "create")
        assert (status, out.splitlines()[0]) == (0, f"created {prefix}trades")
        assert ashi("topics", "check") == (0, f"all {len(names)} topics are as they must be\n", "")
    assert topics_of(admin) == {TRADES, *(prefix + name for prefix in PREFIXES for name in names)}

    async def runs() -> None:
        foreign = ForeignProducer(kafka_settings)
        for prefix, log in logs.items():
            foreign.send(
                [(prefix + topic, key, value) for topic, key, value in records_of(log)]
            )  # as its producer would
        foreign.send([(PREFIXES[0] + TRADES, b"binance:S0USDT", b"no trade")])
        stages = [stage for prefix in PREFIXES for stage in start_one(prefix)]
        for prefix, log in logs.items():
            await check_one(prefix, log)
        stages += await feed_all()
        for stage in stages:
            assert stage.process.poll() is None, stage.log.read_text()[-3_000:]
            stage.signal(signal.SIGTERM)
        for stage in stages:
            assert await asyncio.to_thread(stage.process.wait, 30) == 0, stage.log.read_text()[-3_000:]

    def start_one(prefix: str) -> list[Any]:
        env = {"ASHI_TOPIC_PREFIX": prefix, "ASHI_CHECKPOINT_INTERVAL": "100ms"}
        return [start_stage("aggregate", **env), start_stage("sink", "sqlite", ASHI_STORAGE=store_of(prefix), **env)]

    async def feed_all() -> list[Any]:
        """One feed for each, of the same market; each publishes all of it, and goes on from its own only."""
        async with Simulator("binance", [MARKET], rate=50) as venue:
            env = {"ASHI_WEBSOCKET_URL": venue.websocket_url, "ASHI_REST_URL": venue.rest_url}
            feeds = [start_stage("ingest", "binance", MARKET, ASHI_TOPIC_PREFIX=prefix, **env) for prefix in PREFIXES]
            for feed in feeds:
                await asyncio.to_thread(feed.wait_for, '"event":"connected"')
            venue.start_market()
            while len(venue.truth()) < 30:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            await venue.stop_market()
            happened = {trade.trade_id for trade in venue.truth()}
            for prefix in PREFIXES:
                chosen = kafka_settings_of(kafka_settings, prefix)
                while not happened <= await ids_of_market(chosen):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
                symbols = {record.key async for record in read_topic(chosen, FEED_STATUS)}
                assert symbols == {f"binance:{MARKET}".encode()}
        return feeds

    def store_of(prefix: str) -> str:
        return f"sqlite:///{tmp_path}/{prefix}candles.db"

    async def check_one(prefix: str, log: list[Trade]) -> None:
        chosen = kafka_settings_of(kafka_settings, prefix)
        await all_committed(chosen, AGGREGATE_APP, TRADES)
        await all_committed(chosen, SINK_GROUP, CANDLES, FEED_GAPS, FEED_STATUS)
        found = [candle async for candle in read_candles(chosen, symbols=SYMBOLS, follow=False)]
        assert stored(found) == closed(candles_of(timely(log, "1m", 120_000_000), NAMES), log, 2_000_000)
        letters = [letter async for letter in read_topic(chosen, TRADES_DEAD)]
        assert [letter.value for letter in letters] == ([b"no trade"] if prefix == PREFIXES[0] else [])
        for letter in letters:
            assert dict(letter.headers)["ashi.source"].startswith(b"trades/")
        assert set(await partition_counts(chosen)) == set(names)
        assert await members(chosen, AGGREGATE_APP) == 1
        assert held_by(prefix + AGGREGATE_APP) == {
            prefix + TRADES,
            *(prefix + each for each in state_topics(chosen.timeframes)),
        }
        assert held_by(prefix + SINK_GROUP) == {prefix + each for each in (CANDLES, FEED_GAPS, FEED_STATUS)}

    def held_by(group: str) -> set[str]:
        """The topics of a group's members, as tools show them, and as the broker expires offsets by."""
        [asked] = admin.describe_consumer_groups([group]).values()
        return {at.topic for member in asked.result(30).members for at in member.assignment.topic_partitions}

    asyncio.run(runs())
    for prefix in PREFIXES:
        monkeypatch.setenv("ASHI_TOPIC_PREFIX", prefix)
        status, out, err = ashi("verify", store_of(prefix), "--trades", "--json")
        assert status == 0, out + err
        assert json.loads(out.splitlines()[-1])["summary"]["compared"] > 100
    status, out, err = ashi("aggregate", "reconfigure")  # of the one whose prefix is set
    assert status == 0, out + err
    epochs = [asyncio.run(require_epoch(kafka_settings_of(kafka_settings, prefix))).epoch for prefix in PREFIXES]
    assert epochs == [0, 1]
    # What others see: nothing of theirs was touched, and all of Ashi's has the names that it was given.
    assert topics_of(admin) == {TRADES, *(prefix + name for prefix in PREFIXES for name in names)}
    assert sum(asyncio.run(end_offsets(kafka_settings, TRADES)).values()) == len(GARBAGE)
    groups = {group.group_id for group in admin.list_consumer_groups().result().valid}
    ours = {prefix + group for prefix in PREFIXES for group in (AGGREGATE_APP, SINK_GROUP)}
    assert ours <= groups
    for group in ours:
        [asked] = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]).values()
        committed = {partition.topic for partition in asked.result(30).topic_partitions}
        prefix = next(prefix for prefix in PREFIXES if group.startswith(prefix))
        assert committed
        assert all(topic.startswith(prefix) for topic in committed), committed


async def ids_of_market(settings: Settings) -> set[str]:
    symbol = f"binance:{MARKET}".encode()
    records = [record async for record in read_topic(settings, TRADES) if record.key == symbol]
    return {decode_trade(record.value).trade_id for record in records}


def kafka_settings_of(shared: Settings, prefix: str) -> Settings:
    return kafka_settings(shared.kafka_bootstrap, topic_prefix=prefix)

"""What the version before wrote is read, continued and written the same by this one: on a log in memory."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import Any

import msgspec
import pytest
from recorded import (
    PARTITIONS,
    RECONFIGURED,
    STOPPED_AFTER,
    TIMEFRAMES,
    WAVES,
    Recorded,
    comparable,
    is_list,
    read_json,
    read_state,
    recorded_log,
)

from ashi.contracts import decode_candle, encode_candle, parse_timeframes
from ashi.contracts.topics import FEED_GAPS, META, TRADES, state_topics
from ashi_aggregate.epoch import Epoch
from kafka_topics.simulated_log import Broker, Record, Worker

LOG = recorded_log()
TIMEFRAMES_PARSED = parse_timeframes(TIMEFRAMES)
WRITTEN = ("candles", "trades.late", "trades.dead", *state_topics(TIMEFRAMES_PARSED))


def epoch_of(wave: int) -> Epoch:
    """The newest epoch that the topic held after a wave."""
    last = [
        record
        for record in LOG
        if record.topic == META and record.wave <= wave and (record.key or b"").startswith(b"epoch")
    ][-1]
    return msgspec.json.decode(last.value or b"", type=Epoch)


def broker_after(wave: int) -> Broker:
    """The log as it stood after a wave; after none it is empty."""
    broker = Broker(PARTITIONS)
    for record in LOG:
        if record.wave > wave:
            continue
        if record.topic == TRADES:
            broker.trades[record.partition].append(in_memory(record))
        elif record.topic.endswith("-changelog"):
            assert record.value is not None, "nothing is deleted from a changelog"
            broker.keep(record.topic, record.partition, record.key, record.value, record.headers)
    offsets = read_json("offsets.json")[str(min(wave, WAVES))]["ashi-aggregate"] if wave else {}
    broker.committed = {int(where.rpartition("/")[2]): offset for where, offset in offsets.items()}
    return broker


def in_memory(record: Recorded) -> Record:
    return Record(record.offset, record.key, record.value, record.timestamp, record.timestamp_type)


def take_in(broker: Broker, wave: int) -> None:
    """A new worker reads what a wave brought, as one chunk of each partition, and makes a checkpoint."""
    for record in LOG:
        if record.topic == TRADES and record.wave == wave:
            broker.trades[record.partition].append(in_memory(record))

    async def run() -> None:
        worker = Worker(broker, TIMEFRAMES_PARSED, epoch_of(wave).rules())
        await worker.start()
        for partition in range(PARTITIONS):
            await worker.read(partition, len(LOG))
        await worker.pipeline.checkpoint()

    asyncio.run(run())


def continued(before: int, wave: int) -> dict[str, Any]:
    """What is written when a wave comes on top of the log as the version before left it."""
    broker = broker_after(before)
    old = {place: len(sent) for place, sent in broker.topics.items()}
    take_in(broker, wave)
    for place, count in old.items():
        del broker.topics[place][:count]
    return written(broker)


def written(broker: Broker) -> dict[str, Any]:
    messages = [
        (topic, partition, key, value, headers)
        for (topic, partition), sent in broker.topics.items()
        for key, value, headers in sent
    ]
    return by_topic(messages)


def recorded(waves: range) -> dict[str, Any]:
    return by_topic(
        (record.topic, record.partition, record.key, record.value, record.headers)
        for record in LOG
        if record.wave in waves and record.topic in WRITTEN
    )


def by_topic(messages: Any) -> dict[str, Any]:
    """Of each key what was written, in order; of letters, whose keys do not order them, how often each.

    Between keys there is no order: Python's sets have none. The changelogs' partitions are the worker's choice.
    """
    found: dict[str, Any] = {topic: defaultdict(list) for topic in WRITTEN}
    for topic, partition, key, value, headers in messages:
        if topic == FEED_GAPS or is_list(key):  # version 0.1.0 told of no gap where it refused a record
            continue
        if topic.startswith("trades."):
            # Version 0.1.0 quoted a record without a value as one with an empty one.
            found[topic][None].append((key, value or b"", tuple(comparable(topic, headers))))
        else:
            place = partition if topic.endswith("-changelog") else None
            found[topic][place, key].append((read_state(topic, value), list(headers)))
    for topic in ("trades.late", "trades.dead"):
        found[topic] = Counter(found[topic][None])
    return found


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for topic in WRITTEN:
        assert found[topic] == wanted[topic], f"topic {topic} differs"


def test_the_recorded_log_holds_what_it_is_to_show() -> None:
    candles = [
        decode_candle(record.value or b"") for record in LOG if record.topic == "candles" and record.wave <= WAVES
    ]
    versions = Counter((candle.symbol, candle.timeframe, candle.open_time) for candle in candles)
    assert max(versions.values()) > 1, "no candle was corrected"
    assert any(candle.trade_count == 0 for candle in candles), "no window was quiet"
    for topic in WRITTEN:
        assert {record.wave for record in LOG if record.topic == topic} & {STOPPED_AFTER + 1, WAVES}, topic
    rows = b"".join(record.value or b"" for record in LOG if record.topic.endswith("-1m-changelog"))
    assert b'"numbers":[' in rows
    assert b'"texts":["' in rows


@pytest.mark.parametrize("wave", range(1, WAVES + 1))
def test_a_worker_writes_what_the_version_before_wrote(wave: int) -> None:
    """From an empty log on, and on top of the rows and markers that the version before wrote up to any wave."""
    assert_same(continued(wave - 1, wave), recorded(range(wave, wave + 1)))


def test_all_waves_taken_in_by_this_version_leave_the_rows_of_the_version_before() -> None:
    broker = Broker(PARTITIONS)
    for wave in range(1, WAVES + 1):
        take_in(broker, wave)
    assert_same(written(broker), recorded(range(1, WAVES + 1)))


def test_the_state_is_built_anew_in_an_epoch_that_the_version_before_began() -> None:
    """Its rows and markers of the first epoch say nothing any more; offsets that were committed do not either."""
    assert epoch_of(RECONFIGURED).epoch == 2, "an epoch is left out for what was rebuilt"
    assert_same(continued(WAVES, RECONFIGURED), recorded(range(RECONFIGURED, RECONFIGURED + 1)))


def test_recorded_candles_are_read_and_written_byte_for_byte() -> None:
    candles = [record for record in LOG if record.topic == "candles"]
    for record in candles:
        candle = decode_candle(record.value or b"")
        assert record.key == candle.symbol.encode()
        assert encode_candle(candle) == record.value
    assert {tuple(record.headers) for record in candles} == {
        (("content-type", b"application/json"), ("schema", b"ashi.candle.v1"))
    }

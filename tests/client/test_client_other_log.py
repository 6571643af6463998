"""A reader knows which log it has read: positions, and readers at work, while the log is cut or the topic made anew."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from aiokafka.errors import KafkaConnectionError
from client_kafka import BOUND_S, collect, run, take, versions
from client_samples import BTC, a_candle, a_status, send

from ashi.client import Position, read_candles, read_feed_status
from ashi.contracts import StateError
from ashi.contracts.candle import encode_candle
from ashi.contracts.topics import CANDLES, FEED_STATUS, TopicSpec
from ashi.runtime.kafka.cluster.log_identity import LogProbe
from ashi.runtime.kafka.cluster.topics import create_topics
from ashi.runtime.kafka.connections.clients import admin_client, make_producer, partition_of
from ashi.runtime.kafka.consuming import follow
from ashi.runtime.kafka.consuming.follow import TopicFollower
from kafka_topics.made_anew import delete, make_anew

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashi.client import Candle
    from ashi.runtime.settings import Settings


async def read_to(settings: Settings, count: int) -> Position:
    """Where a reader is that has read so many, stored and read back."""
    async with read_candles(settings) as candles:
        await take(candles, count)
        return Position.from_json(candles.position.to_json())


async def restored(settings: Settings, candles: Sequence[Candle]) -> None:
    """Topic `candles` made again of these, each with the time it had before, as a restore does it."""
    await delete(settings, CANDLES)
    spec = TopicSpec(CANDLES, settings.partitions, {"message.timestamp.type": "CreateTime"})
    await create_topics(settings, [spec])
    producer = make_producer(settings)
    await producer.start()
    for number, candle in enumerate(candles):
        key, at = candle.symbol.encode(), 1_700_000_000_000 + number
        partition = partition_of(key, settings.partitions)
        await producer.send_and_wait(CANDLES, encode_candle(candle), key, partition=partition, timestamp_ms=at)
    await producer.stop()


def test_a_position_is_not_one_of_a_topic_made_anew_however_long_it_is(kafka_settings: Settings) -> None:
    async def main() -> None:
        [*_, last] = await send(kafka_settings, *(a_candle(minute) for minute in range(5)))
        position = await read_to(kafka_settings, 5)
        assert position.last_read[last.partition].offset == 4
        await make_anew(kafka_settings, CANDLES)
        await send(kafka_settings, *(a_candle(minute, 7) for minute in range(20)))
        for _ in range(2):
            with pytest.raises(StateError, match=rf"{CANDLES}/{last.partition} .*offset 4 held .* now holds"):
                await anext(read_candles(kafka_settings, since=position))
        # Of an earlier version: no more is known than how far it had come; from here on it is.
        old = Position(CANDLES, position.offsets)
        async with read_candles(kafka_settings, since=old, follow=False) as candles:
            assert candles.position.last_read[last.partition].offset == 4
            assert [minute async for minute in candles] == [a_candle(minute, 7) for minute in range(5, 20)]
            assert candles.position.last_read[last.partition].offset == 19
            assert candles.position.topic_id != position.topic_id

    run(main())


def test_a_log_cut_below_a_position_is_told_from_one_restored_record_by_record(kafka_settings: Settings) -> None:
    async def main() -> None:
        was = [a_candle(minute) for minute in range(5)]
        await restored(kafka_settings, was)
        position = await read_to(kafka_settings, 5)
        await restored(kafka_settings, [*was, a_candle(5)])
        since_then = await collect(read_candles(kafka_settings, since=position, follow=False))
        assert since_then == [a_candle(5)]
        await restored(kafka_settings, [*was[:3], *(a_candle(minute, 8) for minute in range(3, 9))])
        with pytest.raises(StateError, match=r"offset 4 held a record of 1700000000004 ms .* now holds one of"):
            await anext(read_candles(kafka_settings, since=position))
        await restored(kafka_settings, was[:3])
        with pytest.raises(StateError, match="it ends at 3, before 5"):
            await anext(read_candles(kafka_settings, since=position))

    run(main())


def test_where_all_that_was_read_has_expired_the_topics_id_tells(kafka_settings: Settings) -> None:
    async def expired() -> None:
        [*_, last] = await send(kafka_settings, *(a_candle(minute) for minute in range(10)))
        async with admin_client(kafka_settings) as client:
            at = TopicPartition(CANDLES, last.partition)
            await client.delete_records({at: RecordsToDelete(before_offset=5)})

    async def main() -> None:
        await send(kafka_settings, *(a_candle(minute) for minute in range(5)))
        position = await read_to(kafka_settings, 5)
        now = msgspec.structs.replace(position, last_read={}, topic_id=None)
        await expired()
        assert len(await collect(read_candles(kafka_settings, since=position, follow=False))) == 10
        await make_anew(kafka_settings, CANDLES)
        await expired()
        with pytest.raises(StateError, match=f"the topic's id was {position.topic_id} and is "):
            await anext(read_candles(kafka_settings, since=position))
        assert versions(await collect(read_candles(kafka_settings, since=now, follow=False)))[0] == (5, 1)

    run(main())


def test_a_topic_made_anew_under_a_reader_and_outgrown_is_noticed_before_anything_of_it_is_handed_out(
    kafka_settings: Settings,
) -> None:
    async def main() -> None:
        await send(kafka_settings, *(a_candle(minute) for minute in range(5)))
        async with read_candles(kafka_settings) as candles:
            await take(candles, 5)
            before = candles.position
            assert candles._follower is not None
            consumer = candles._follower._consumer
            consumer.pause(*consumer.assignment())  # as one that is frozen
            await asyncio.sleep(follow.LOOK_EVERY_S)
            await make_anew(kafka_settings, CANDLES)
            await send(kafka_settings, *(a_candle(minute, 7) for minute in range(20)))
            consumer.resume(*consumer.assignment())
            with pytest.raises(StateError, match=r"offset 4 held .* the log was cut or the topic made anew"):
                await take(candles, 1)
            assert candles.position == before

    run(main())


def test_whoever_follows_a_compacted_topic_goes_on_when_what_it_read_last_is_gone(
    kafka_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    standing, identify = LogProbe.standing, follow.identify

    async def compacted(probe: LogProbe, offsets: Any) -> Any:
        return {number: now._replace(found={}) for number, now in (await standing(probe, offsets)).items()}

    async def elected(*arguments: Any) -> Any:
        now = await identify(*arguments)
        return now._replace(leader_epochs={number: epoch + 1 for number, epoch in now.leader_epochs.items()})

    async def main() -> None:
        follower = TopicFollower(kafka_settings, FEED_STATUS)
        try:
            await follower.open("beginning")
            await send(kafka_settings, a_status(1))
            assert len(await follower.poll(BOUND_S)) == 1
            monkeypatch.setattr(LogProbe, "standing", compacted)
            monkeypatch.setattr(follow, "identify", elected)
            await asyncio.sleep(follow.LOOK_EVERY_S)
            await send(kafka_settings, a_status(2))
            assert len(await follower.poll(BOUND_S)) == 1
        finally:
            await follower.close()

    run(main())


@pytest.mark.parametrize("gone", [True, False], ids=["gone", "another"])
def test_of_a_compacted_topic_a_record_that_is_gone_says_nothing_and_another_in_its_place_does(
    kafka_settings: Settings, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    standing = LogProbe.standing

    async def compacted(probe: LogProbe, offsets: Any) -> Any:
        return {
            number: now._replace(
                found={} if gone else {at: msgspec.structs.replace(each, checksum=1) for at, each in now.found.items()}
            )
            for number, now in (await standing(probe, offsets)).items()
        }

    async def main() -> None:
        await send(kafka_settings, a_status(1), a_status(2), a_candle(0), a_candle(1))
        async with read_feed_status(kafka_settings, symbols=[BTC]) as statuses:
            await take(statuses, 1)
            status_position = statuses.position
        position = await read_to(kafka_settings, 1)
        monkeypatch.setattr(LogProbe, "standing", compacted)
        if gone:
            later = await collect(read_feed_status(kafka_settings, since=status_position, follow=False))
            assert later == [a_status(2)]
        else:
            with pytest.raises(StateError, match=r"offset 0 held a record of .* and now holds one of"):
                await anext(read_feed_status(kafka_settings, since=status_position))
        with pytest.raises(StateError, match=r"offset 0 held a record of .* and now holds"):
            await anext(read_candles(kafka_settings, since=position))

    run(main())


def test_while_kafka_does_not_say_which_log_it_is_records_wait_and_none_is_lost(
    kafka_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    identify, failures = follow.identify, 0

    async def failing(*arguments: Any) -> Any:
        nonlocal failures
        failures += 1
        if failures < 4:
            raise KafkaConnectionError("no broker is known")
        return await identify(*arguments)

    async def main() -> None:
        await send(kafka_settings, *(a_candle(minute) for minute in range(5)))
        async with read_candles(kafka_settings) as candles:
            monkeypatch.setattr(follow, "identify", failing)
            monkeypatch.setattr(follow, "PAUSE_S", 0.05)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.08):
                    await anext(candles)
            assert candles.position.offsets == dict.fromkeys(range(kafka_settings.partitions), 0)
            assert versions(await take(candles, 5)) == [(minute, 1) for minute in range(5)]
            assert failures == 4

    run(main())

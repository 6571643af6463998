"""The traps of docs/faust.md about state and changelogs: each twice, as in `test_faust_traps`."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from faust.streams import _current_event
from faust.types import TP
from faust.types.tuples import FutureMessage, PendingMessage
from faust_apps import (
    MINUTE,
    PARTITIONS,
    RULES,
    TIMEFRAMES,
    TP0,
    WAIT_S,
    opened,
    our_app,
    plain_app,
    ticks,
)
from faust_fakes import HeldWorker, consumer_of, fetched_by, message, records, stream_of, trade

from ashi.contracts import StateError
from ashi.contracts.topics import CANDLES, MARKERS_TABLE, changelog_topic, table_name
from ashi.runtime.kafka.connections.clients import partition_of
from ashi.runtime.kafka.consuming.spans import Span
from ashi_aggregate.chunk import Chunk
from ashi_aggregate.core.codec import Marker, encode
from ashi_aggregate.partition import marker_key
from kafka_topics.simulated_log import Broker, Worker


def changelog_event(partition: int, key: bytes, value: bytes | None) -> Any:
    return SimpleNamespace(
        key=key, value=value, message=SimpleNamespace(partition=partition, key=key, value=value, offset=0)
    )


# State and changelog


def test_faust_sends_the_changelog_before_the_offset_is_acknowledged_and_ashi_counts_nothing_twice():
    """Trap: after a crash the state is ahead of the committed offset, and plain sums count records again."""

    async def faust_sends() -> None:
        app = plain_app()
        consumer, _ = consumer_of(app)
        consumer.topic_partitions = lambda _topic: None
        consumer.key_partition = lambda _topic, _key, partition=None: partition
        table = app.Table("sums", default=int, partitions=8)
        current = message(0)
        event = app.create_event(b"k", 1, [], current)
        token = _current_event.set(lambda: event)
        try:
            table["a"] += 1
        finally:
            _current_event.reset(token)
        assert app.producer.buffer.size == 1, "Faust sends the changelog later"
        assert not current.acked

    asyncio.run(faust_sends())

    async def candles(crash: bool) -> list[Any]:
        broker = Broker(partitions=1)
        broker.publish([trade("binance:A", n * 20_000_000, n) for n in range(10)])
        worker = Worker(broker, TIMEFRAMES, RULES)
        await worker.start()
        while await worker.read(0, 4):
            await worker.pipeline.checkpoint()
            if crash:
                broker.committed[0] = 0  # the rows are durable, the offset never was
                worker = Worker(broker, TIMEFRAMES, RULES)
                await worker.start()
                assert worker.next == {0: 0}
                break
        await worker.run_to_end()
        return [(candle.open_time, candle.volume, candle.version) for candle in broker.candles()]

    once, twice = asyncio.run(candles(crash=False)), asyncio.run(candles(crash=True))
    assert len(once) > 2
    assert dict.fromkeys(twice) == dict.fromkeys(once)


def test_faust_commits_though_a_changelog_record_was_not_written_and_ashi_does_not():
    """Trap: a commit does not wait for the changelog; that a send failed is only logged."""

    async def faust_commits() -> None:
        app = plain_app()
        consumer, thread = consumer_of(app)
        consumer.ack(message(0))
        topic = app.topic("sums-changelog")
        promise = FutureMessage(PendingMessage(topic, b"k", b"v", 0, None, [], None, None, None))
        await topic.publish_message(promise)
        assert not promise.done()
        await consumer.commit()
        assert thread.commits == [{TP0: 1}], "Faust waits for the changelog"
        app._producer.futures[0].set_exception(RuntimeError("not written"))
        await ticks()
        assert isinstance(promise.exception(), RuntimeError)
        assert not app.crashed

    asyncio.run(faust_commits())

    async def ashi_does_not() -> None:
        broker = Broker(partitions=1)
        broker.publish([trade("binance:A", n * MINUTE, n) for n in range(5)])
        worker = HeldWorker(broker, TIMEFRAMES, RULES)
        await worker.start()
        await worker.read_all(0)
        checkpoint = asyncio.create_task(worker.pipeline.checkpoint())
        await ticks()
        assert worker.acknowledge_all() == {CANDLES}
        await ticks()
        worker.waiting[0].set_exception(RuntimeError("not written"))
        await ticks()
        assert isinstance(checkpoint.exception(), RuntimeError), "the error of a failed send ends the worker"
        assert worker.durable == {}
        assert worker.acknowledged == 0
        assert worker.pipeline.checkpoints == 0

    asyncio.run(ashi_does_not())


def test_a_checkpoint_goes_from_candles_to_rows_to_the_marker_and_each_waits_for_the_one_before():
    """Trap: Faust neither waits for what was sent nor orders it."""

    async def scenario() -> None:
        broker = Broker(partitions=1)
        broker.publish([trade("binance:A", n * MINUTE, n) for n in range(5)])
        worker = HeldWorker(broker, TIMEFRAMES, RULES)
        await worker.start()
        await worker.read_all(0)
        checkpoint = asyncio.create_task(worker.pipeline.checkpoint())
        steps = []
        for _ in range(3):
            await ticks()
            assert worker.durable == {}
            assert worker.acknowledged == worker.pipeline.checkpoints == 0
            steps.append(worker.acknowledge_all())
        await ticks()
        assert steps == [
            {CANDLES},
            {changelog_topic(table_name(timeframe)) for timeframe in TIMEFRAMES},
            {changelog_topic(MARKERS_TABLE)},
        ]
        assert checkpoint.done()
        assert worker.durable == {0: 5}
        assert worker.acknowledged == worker.pipeline.checkpoints == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("way", ["plain", "take"])
def test_faust_acknowledges_an_event_whose_processing_raised_and_ashi_does_not(way):
    """Trap: `take()` and plain iteration acknowledge in a `finally`."""

    async def plain(stream: Any) -> None:
        async for _ in stream:
            raise RuntimeError

    async def take(stream: Any) -> None:
        async for _ in stream.take(1, within=WAIT_S):
            raise RuntimeError

    async def processed_by(app: Any, agent: Any) -> Any:
        consumer_of(app)
        failing = message(0, value=Chunk(0, 0, 1, records(0, 1)))
        stream = stream_of(app, failing)
        task = asyncio.create_task(agent(stream))
        done, _ = await asyncio.wait([task], timeout=WAIT_S)
        assert done
        assert isinstance(task.exception(), RuntimeError)
        await stream.stop()  # finishes what the exception has left behind
        await ticks()
        return failing

    async def scenario() -> None:
        assert (await processed_by(plain_app(), plain if way == "plain" else take)).acked, "Faust no longer does so"
        app = our_app()

        async def on_chunk(*_: Any) -> None:
            raise RuntimeError

        app.pipeline.on_chunk = on_chunk  # type: ignore[assignment]
        assert not (await processed_by(app, app.agents["aggregate"].fun)).acked

    asyncio.run(scenario())


def test_faust_cannot_set_a_row_outside_an_event_and_ashi_writes_rows_to_the_trades_partition():
    """Trap: `table[key] = row` needs a current event; `use_partitioner` hashes the table's key instead."""

    async def scenario() -> None:
        app = plain_app()
        with pytest.raises(TypeError, match="outside of stream iteration"):
            app.Table("rows", partitions=8)["a"] = 1
        assert app.Table("hashed", partitions=8, use_partitioner=True).partition_for_key("a") is None

        broker = Broker(partitions=PARTITIONS)
        symbols = [f"binance:S{number}" for number in range(24)]
        broker.publish([trade(symbol, 0) for symbol in symbols])
        worker = Worker(broker, TIMEFRAMES, RULES)
        await worker.start()
        await worker.run_to_end()  # checkpoints run outside any event
        markers = {
            (partition, key)
            for (topic, partition), sent in broker.topics.items()
            if topic == changelog_topic(MARKERS_TABLE)
            for key, _, _ in sent
            if b"-symbols-" not in (key or b"")
        }
        assert markers == {(number, marker_key(number)) for number in broker.trades if broker.trades[number]}
        assert any(partition_of(key or b"", PARTITIONS) != partition for partition, key in markers)

    asyncio.run(scenario())


def test_faust_writes_keys_of_type_str_in_quotes_and_ashis_keys_are_bytes():
    """Trap: the quotes are part of what is hashed, so a row goes to another partition than its trades."""
    faust_app = plain_app()
    table = faust_app.Table("sums", key_type=str, partitions=PARTITIONS)
    key = b"binance:S0"
    on_the_wire = faust_app.router._get_serialized_key(table, key.decode())
    assert on_the_wire == b'"binance:S0"', "Faust's keys of type str have no quotes any more"
    assert partition_of(on_the_wire, PARTITIONS) != partition_of(key, PARTITIONS)

    app = our_app()
    for name in [MARKERS_TABLE, *(table_name(timeframe) for timeframe in TIMEFRAMES)]:
        assert app.router._get_serialized_key(app.tables[name], key) == key
        assert app.tables[name].key_serializer == app.tables[name].value_serializer == "raw"


def test_faust_keeps_the_last_row_written_and_ashi_the_one_with_the_greatest_position():
    """Trap: a worker that was declared dead may write an older row later; nothing fences it off."""
    new, old = encode(Marker(20)), encode(Marker(10))
    batch = [changelog_event(0, b"k", new), changelog_event(0, b"k", old)]
    faust_table = plain_app().Table("rows", key_type=bytes, value_type=bytes, partitions=PARTITIONS)
    faust_table.apply_changelog_batch(batch)
    assert faust_table.data[b"k"] == old, "Faust knows by itself which row is older"

    table = our_app().tables[MARKERS_TABLE]
    table.restore(0, [(b"k", new), (b"k", old)])
    assert table.rows(0) == {b"k": new}
    table.restore(0, [(b"k", encode(Marker(20, begins_at=1)))])
    assert table.rows(0) == {b"k": encode(Marker(20, begins_at=1))}, "of two with one offset the later is as good"
    table.restore(1, [(b"k", old)])
    assert table.rows(1) == {b"k": old}, "partitions do not mix"
    table.restore(0, [(b"k", None)])
    assert table.rows(0) == {}


def test_faust_only_logs_what_is_wrong_with_a_changelog_and_ashi_ends():
    """Trap: what a table raises while it recovers becomes a warning, and the recovery goes on without the record."""

    async def faust_recovers() -> None:
        app = opened(plain_app())
        table = app.Table("rows", key_type=bytes, value_type=bytes, partitions=PARTITIONS)
        table.apply_changelog_batch = raising
        tp = TP(table.changelog_topic_name, 0)
        recovery = app.tables.recovery
        recovery.add_active(table, tp)
        recovery.buffer_sizes[tp] = 1
        recovery.active_highwaters[tp] = 5
        event = changelog_event(0, b"k", b"no row")
        event.message.tp = tp
        app.tables.changelog_queue.put_nowait(event)
        slurping = asyncio.create_task(recovery._slurp_changelogs(recovery))
        await ticks()
        assert recovery.active_offsets[tp] == 0
        assert not slurping.done(), "Faust stops at it by itself"
        slurping.cancel()

    def raising(_: Any) -> None:
        raise StateError("this is no row")

    asyncio.run(faust_recovers())

    async def ashi_recovers() -> None:
        app = our_app()
        told: list[BaseException] = []

        async def crash(error: BaseException) -> None:
            told.append(error)

        app.crash = crash
        consumer, thread = consumer_of(app)
        changelog = TP(changelog_topic(MARKERS_TABLE), 0)
        consumer._active_partitions.add(changelog)
        thread.fetched = {changelog: Span(0, 2, [(b"k", encode(Marker(1))), (b"k", b"no row")])}
        with pytest.raises(StateError, match="no row"):
            await fetched_by(consumer)
        assert len(told) == 1

    asyncio.run(ashi_recovers())


def test_faust_waits_for_the_last_offset_of_a_changelog_and_ashi_tells_it_how_far_it_has_read():
    """Trap: a recovery ends with the record before the end, and there may be none: compacted, aborted, or a marker."""

    async def scenario() -> None:
        app = our_app()
        consumer, thread = consumer_of(app)
        changelog = TP(changelog_topic(MARKERS_TABLE), 0)
        consumer._active_partitions.add(changelog)
        recovery = app.tables.recovery
        recovery.add_active(app.tables[MARKERS_TABLE], changelog)
        recovery.active_highwaters[changelog] = 9  # the end is 10
        for fetched, last in ((Span(0, 4, [(b"k", encode(Marker(1)))]), 3), (Span(4, 10, []), 9)):
            thread.fetched = {changelog: fetched}
            [(_, message)] = await fetched_by(consumer)
            assert message.offset == last
            recovery.active_offsets[changelog] = message.offset
            assert recovery.need_recovery() == (last < 9)

    asyncio.run(scenario())


def test_faust_keeps_the_rows_of_partitions_that_were_given_away_and_ashi_drops_them():
    """Trap: the memory store knows the partition of a row only if a recovery brought it, not if an agent wrote it."""

    async def scenario() -> None:
        faust_table = plain_app().Table("rows", key_type=bytes, value_type=bytes, partitions=PARTITIONS)
        faust_table.data[b"k"] = b"stale"  # what `table[k] = v` comes down to
        owned = {TP(faust_table.changelog_topic_name, 0)}
        await faust_table.on_recovery_completed(owned, set())
        assert faust_table.data.get(b"k") == b"stale", "Faust drops them by itself"

        table = our_app().tables[MARKERS_TABLE]
        for partition in range(3):
            table.put(partition, b"k", b"row")
        await table.on_recovery_completed({TP(table.changelog_topic_name, 1)}, set())
        assert [dict(table.rows(partition)) for partition in range(3)] == [{}, {b"k": b"row"}, {}]

    asyncio.run(scenario())

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import time
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.errors import KafkaError
from sink_certification import a_candle, a_gap, opened, oracle, stored, stored_gaps, until
from sink_kafka import many_candles, publish

from ashi.contracts.candle import encode_candle
from ashi.contracts.errors import StateError
from ashi.contracts.topics import CANDLES, CANDLES_DEAD, FEED_GAPS, topic_specs
from ashi.runtime.kafka.cluster import offsets
from ashi.runtime.kafka.cluster.offsets import committed_offsets, end_offsets
from ashi.runtime.kafka.cluster.topics import create_topics
from ashi.runtime.kafka.connections.clients import METADATA_AGE_MS, admin_client, make_consumer, partition_of
from ashi.runtime.kafka.consuming.groups import commit
from ashi.runtime.kafka.consuming.records import read_topic
from ashi_sinks import read_log
from ashi_sinks.consumer import KafkaSinkConsumer
from ashi_sinks.sqlite.reader import SqliteReader
from ashi_sinks.sqlite.sink import SqliteSink
from ashi_sinks.worker import sink_group
from servers import forked_stages
from servers.stages import get, served_at

COMMAND = "import sys; from ashi.runtime.settings import Settings; from ashi_sinks.worker import run_sink; " + (
    "import sys; from ashi.runtime.settings import Settings; from ashi_sinks.worker import run_sink; "
    + ("sys.exit(run_sink(Settings.from_environment(), 'sqlite', from_beginning='--from-beginning' in sys.argv))")
)
GROUP = sink_group("sqlite")
ROOT = Path(__file__).parents[2]


class Process:
    """A sink worker as users start it."""

    def __init__(self, path, bootstrap, *arguments, **environment):
        self.log = path.with_suffix(".log")
        with self.log.open("ab") as log:
            self.child = forked_stages.start(
                [sys.executable, "-c", COMMAND, *arguments],
                cwd=ROOT,
                stdout=log,
                stderr=log,
                env=os.environ
                | {
                    "ASHI_KAFKA_BOOTSTRAP": bootstrap,
                    "ASHI_STORAGE": f"sqlite:///{path}",
                    "ASHI_SESSION_TIMEOUT": "6s",
                    "ASHI_LOG_FORMAT": "json",
                    "ASHI_METRICS_PORT": "0",
                    **environment,
                },
            )

    def says(self, text):
        return text in self.log.read_text()

    @property
    def address(self):
        """Where it says whether it is ready: the first line of its log that has it."""
        return served_at(self.log.read_text())

    def kill(self):
        self.child.kill()
        self.child.wait()

    def stop(self):
        self.child.terminate()
        return self.child.wait(30)


@contextmanager
def running(path, settings, *arguments, **environment):
    process = Process(path, settings.kafka_bootstrap, *arguments, **environment)
    try:
        yield process
    except BaseException as error:
        error.add_note(process.log.read_text())
        raise
    finally:
        process.kill()


async def count(path):
    try:
        async with opened(SqliteReader(path)) as reader:
            return await reader.count()
    except Exception:  # not made yet
        return -1


async def everything_is_committed(settings):
    for topic in (CANDLES, FEED_GAPS):
        committed = await committed_offsets(settings, GROUP, topic)
        ends = await end_offsets(settings, topic)
        if not all(committed.get(partition, 0) == end for partition, end in ends.items()):
            return False
    return True


async def unread(settings):
    """How many candles the group has not committed."""
    return sum((await end_offsets(settings, CANDLES)).values()) - sum(
        (await committed_offsets(settings, GROUP, CANDLES)).values()
    )


@asynccontextmanager
async def rows_of(path):
    async with opened(SqliteReader(path)) as reader:
        yield await stored(reader)


@pytest.mark.kafka
def test_a_worker_killed_in_mid_stream_and_started_again_leaves_the_oracles_rows(kafka_settings, tmp_path):
    path = tmp_path / "candles.db"
    candles = many_candles(400)
    wanted = oracle(candles)

    async def scenario():
        await publish(kafka_settings, candles)
        for share in (4, 2):
            with running(path, kafka_settings, ASHI_SINK_BATCH_SIZE="20") as process:
                await until(lambda share=share: _at_least(path, len(wanted) // share))
                process.kill()
            assert await count(path) < len(wanted), "killed too late to prove anything"
        with running(path, kafka_settings) as process:
            await until(lambda: everything_is_committed(kafka_settings))
            assert process.stop() == 0
        async with rows_of(path) as rows:
            assert rows == wanted

    asyncio.run(scenario())


async def _at_least(path, rows):
    return await count(path) >= rows


@pytest.mark.kafka
@pytest.mark.timeout(240)
def test_partitions_that_move_between_workers_in_mid_stream_lose_and_double_nothing(kafka_settings, tmp_path):
    path, second_path = tmp_path / "candles.db", tmp_path / "second.db"
    candles = many_candles(400)
    quarters = [candles[at::4] for at in range(4)]
    wanted = oracle(candle for quarter in quarters for candle in quarter)
    store = {"ASHI_SINK_BATCH_SIZE": "20", "ASHI_STORAGE": f"sqlite:///{path}"}

    async def scenario():
        await publish(kafka_settings, quarters[0])
        with running(path, kafka_settings, **store) as first:
            await until(lambda: _at_least(path, 100))
            with running(second_path, kafka_settings, **store) as second:

                async def flows_until_both_have_partitions():
                    if await unread(kafka_settings) < len(quarters[1]):  # a busy machine stores less than is published
                        await publish(kafka_settings, quarters[1])  # again and again
                    return second.says('"storing candles"')

                await until(flows_until_both_have_partitions)
                await publish(kafka_settings, quarters[2])
                assert first.stop() == 0
                await publish(kafka_settings, quarters[3])
                await until(lambda: everything_is_committed(kafka_settings), 120)
                assert second.stop() == 0
        async with rows_of(path) as rows:
            assert rows == wanted

    asyncio.run(scenario())


@pytest.mark.kafka
def test_what_was_read_before_a_rebalance_is_not_committed_after_it(kafka_settings):
    """Else a worker that was frozen takes the group back to where it was, behind what another has committed."""

    async def scenario():
        await publish(kafka_settings, many_candles(40))
        first, second = (KafkaSinkConsumer(kafka_settings, "a-group", [CANDLES], CANDLES_DEAD) for _ in range(2))
        await first.start()
        old: dict[Any, int] = {}
        while not old:
            for assigned, span in (await first.poll(10, 0.5)).items():
                old[assigned] = span.end
        joining = asyncio.create_task(second.start())
        while not joining.done():
            await first.poll(1, 0.1)
        await joining
        await second.close()
        while not {read.partition for read in old} <= set(first._consumer.assignment()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        assert await first.commit(old)
        assert not await committed_offsets(kafka_settings, "a-group", CANDLES)
        fresh: dict[Any, int] = {}
        while not {read.partition for read in old} <= {read.partition for read in fresh}:
            for assigned, span in (await first.poll(1_000, 0.5)).items():
                fresh[assigned] = span.end
        assert await first.commit(old)
        assert not await committed_offsets(kafka_settings, "a-group", CANDLES)
        assert await first.commit(fresh)
        assert set(await committed_offsets(kafka_settings, "a-group", CANDLES)) >= {
            read.partition.partition for read in old
        }
        await first.close()

    asyncio.run(scenario())


def test_what_is_no_candle_or_gap_goes_to_candles_dead_with_headers_and_the_rest_is_stored(kafka_settings, tmp_path):
    path = tmp_path / "candles.db"
    good = [a_candle(minute) for minute in range(3)]
    key = good[0].symbol.encode()
    nan = encode_candle(a_candle(3)).replace(b'"high":"100"', b'"high":"NaN"')
    too_many = encode_candle(a_candle(4, trade_count=2**63))
    values = [b"\xff garbage", nan, too_many]
    garbage = [(CANDLES, key, value) for value in values]
    messages = [good[0], garbage[0], good[1], garbage[1], garbage[2], good[2], a_gap(), (FEED_GAPS, key, b"no gap")]

    async def scenario():
        await publish(kafka_settings, messages)
        with running(path, kafka_settings) as process:
            await until(lambda: everything_is_committed(kafka_settings))
            assert process.stop() == 0
        async with rows_of(path) as rows:
            assert rows == good
        async with opened(SqliteReader(path)) as reader:
            assert await stored_gaps(reader) == [a_gap()]
        return [record async for record in read_topic(kafka_settings, CANDLES_DEAD)]

    letters = asyncio.run(scenario())
    [dead_gap] = [record for record in letters if record.value == b"no gap"]
    dead = [record for record in letters if record is not dead_gap]
    partition = partition_of(key, kafka_settings.partitions)
    assert [(record.key, record.value) for record in dead] == [(key, value) for value in values]
    assert dict(dead_gap.headers)["ashi.source"].decode() == f"feed.gaps/{partition}/1"
    assert b"not a feed gap" in dict(dead_gap.headers)["ashi.reason"]
    headers = [dict(record.headers) for record in dead]
    assert [header["ashi.source"].decode() for header in headers] == [f"candles/{partition}/{at}" for at in (1, 3, 4)]
    assert b"not a candle" in headers[0]["ashi.reason"]
    assert b"high NaN" in headers[1]["ashi.reason"]
    assert b"too large" in headers[2]["ashi.reason"]
    assert all(int(header["ashi.failed_at"]) > 1_600_000_000_000_000 for header in headers)


@pytest.mark.kafka
def test_sigterm_while_the_store_is_locked_ends_the_worker_and_the_next_one_stores_all(kafka_settings, tmp_path):
    path = tmp_path / "candles.db"
    candles = [a_candle(minute) for minute in range(100)]

    async def scenario():
        with running(path, kafka_settings) as process:
            await until(lambda: process.says("reading topics candles, feed.gaps and feed.status from their beginning"))
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                await publish(kafka_settings, candles)
                await until(lambda: process.says("the store is away, trying again"))
                assert process.stop() == 0
                assert process.says("stopped while the store was away")
        with running(path, kafka_settings) as process:
            await until(lambda: everything_is_committed(kafka_settings))
            assert process.stop() == 0
        async with rows_of(path) as rows:
            assert rows == candles

    asyncio.run(scenario())


@pytest.mark.kafka
def test_a_store_that_was_deleted_is_filled_again_from_the_beginning(kafka_settings, tmp_path):
    path = tmp_path / "candles.db"
    candles = [a_candle(minute) for minute in range(100)]
    gaps = [a_gap(minute) for minute in range(3)]

    async def scenario():
        await publish(kafka_settings, [*candles, *gaps])
        for _ in range(2):
            with running(path, kafka_settings) as process:
                await until(lambda: _at_least(path, len(candles)))
                await until(lambda: everything_is_committed(kafka_settings))
                assert process.stop() == 0
            async with opened(SqliteReader(path)) as reader:
                assert (await stored(reader), await stored_gaps(reader)) == (candles, gaps)
            path.unlink()

    asyncio.run(scenario())


@pytest.mark.kafka
def test_a_second_store_of_a_kind_is_warned_about_and_has_all_with_a_group_of_its_own(kafka_settings, tmp_path):
    first, second = tmp_path / "first.db", tmp_path / "second.db"
    candles = [a_candle(minute) for minute in range(100)]

    async def scenario():
        await publish(kafka_settings, candles)
        with running(first, kafka_settings) as process:
            await until(lambda: everything_is_committed(kafka_settings))
            assert not process.says("a group of its own")
            with running(tmp_path / "warned.db", kafka_settings) as warned:
                await until(lambda: warned.says("give this one a group of its own by ASHI_SINK_GROUP"))
                assert warned.stop() == 0
            with running(second, kafka_settings, ASHI_SINK_GROUP="another") as other:
                await until(lambda: _at_least(second, len(candles)))
                assert not other.says("a group of its own")
                assert not other.says("its group has read nothing")
                assert other.stop() == 0
            with running(second, kafka_settings, ASHI_SINK_GROUP="a-third") as forgotten:
                await until(lambda: forgotten.says("the store has something and its group has read nothing"))
                assert forgotten.stop() == 0
            assert process.stop() == 0
            assert not process.says("its group has read nothing")
        for path in (first, second):
            async with rows_of(path) as rows:
                assert rows == candles

    asyncio.run(scenario())


@pytest.mark.kafka
def test_after_an_upgrade_candles_go_on_from_what_was_committed_and_gaps_begin_at_their_beginning(
    kafka_settings, tmp_path
):
    path = tmp_path / "candles.db"
    key = a_candle().symbol.encode()
    before = [a_candle(0), (CANDLES, key, b"read by the version before, and not read again"), a_candle(1)]

    async def as_the_version_before():
        """It read `candles` only, in the same group, into a file that knows no gaps."""
        async with opened(SqliteSink(path)) as sink:
            await sink.write([a_candle(0), a_candle(1)])
        with closing(sqlite3.connect(path)) as db:
            for later in ("feed_gaps", "feed_status", "venue_candles"):
                db.execute(f"DROP TABLE {later}")
            db.execute("PRAGMA user_version = 1")
        await publish(kafka_settings, [*before, a_gap(0)])
        consumer = make_consumer(kafka_settings, CANDLES, group_id=GROUP)
        await consumer.start()
        try:
            assert await commit(consumer, await consumer.end_offsets(consumer.assignment()))
        finally:
            await consumer.stop()

    async def scenario():
        await as_the_version_before()
        await publish(kafka_settings, [a_candle(2), a_gap(1)])
        with running(path, kafka_settings) as process:
            await until(lambda: everything_is_committed(kafka_settings))
            assert process.stop() == 0
            assert not process.says("the store is empty")
        async with opened(SqliteReader(path)) as reader:
            assert await stored(reader) == [a_candle(minute) for minute in range(3)]
            assert await stored_gaps(reader) == [a_gap(0), a_gap(1)]
        assert [record.value async for record in read_topic(kafka_settings, CANDLES_DEAD)] == []

    asyncio.run(scenario())


@pytest.mark.kafka
def test_a_deployment_without_topic_feed_gaps_is_told_to_create_it(kafka_settings, tmp_path):
    async def remove_topic():
        async with admin_client(kafka_settings) as client:
            await client.delete_topics([FEED_GAPS])

            async def is_gone():
                return FEED_GAPS not in await client.list_topics()

            await until(is_gone)

    asyncio.run(remove_topic())
    with running(tmp_path / "candles.db", kafka_settings) as process:
        assert process.child.wait(60) == 1
        assert process.says("has no topic feed.gaps: create all with `ashi topics create`, then start again")


@pytest.mark.processes
def test_a_worker_whose_store_cannot_be_made_says_why_and_exits_with_1(tmp_path):
    process = Process(tmp_path / "candles.db", "127.0.0.1:9", ASHI_STORAGE="sqlite:////proc/nowhere/candles.db")
    try:
        assert process.child.wait(60) == 1
        assert process.says("folder /proc/nowhere cannot be made")
        assert not process.says("Traceback")
    finally:
        process.kill()


@pytest.mark.kafka
@pytest.mark.slow
def test_a_topic_made_anew_under_a_running_sink_is_stored_again_soon_and_ready_says_no_meanwhile(
    kafka_settings, tmp_path
):
    path = tmp_path / "candles.db"

    async def ready(process):
        return await asyncio.to_thread(get, f"{process.address}/ready")

    async def scenario():
        await publish(kafka_settings, [a_candle(0)])
        with running(path, kafka_settings) as process:
            await until(lambda: _at_least(path, 1))
            status, said = await ready(process)
            assert (status, said) == (200, "storing candles\n")
            async with admin_client(kafka_settings) as client:
                await client.delete_topics([CANDLES])

            async def refuses(what):
                status, said = await ready(process)
                return status == 503 and what in said

            await until(lambda: refuses("topic candles is missing: make it with `ashi topics create`"))
            await create_topics(kafka_settings, topic_specs(kafka_settings.partitions, kafka_settings.timeframes))
            began = time.monotonic()
            await publish(kafka_settings, [a_candle(1)])
            await until(lambda: _at_least(path, 2))
            assert time.monotonic() - began < 2 * METADATA_AGE_MS / 1_000

            async def is_ready():
                return await ready(process) == (200, "storing candles\n")

            await until(is_ready)
            assert process.stop() == 0
            assert process.says("all partitions are read again")

    asyncio.run(scenario())


@pytest.mark.kafka
@pytest.mark.slow
def test_a_log_that_is_not_the_one_that_was_read_is_refused_at_every_start_until_somebody_decides(
    kafka_settings, tmp_path
):
    """What a restore leaves: the group stands where it stood, and the topic, longer than before, is another one."""
    path = tmp_path / "candles.db"
    old, new = [a_candle(minute, version=7) for minute in range(20)], [a_candle(minute, 8) for minute in range(10, 60)]

    async def restore(committed):
        await renew(kafka_settings, CANDLES)
        await publish(kafka_settings, new)
        consumer = make_consumer(kafka_settings, CANDLES, group_id=GROUP)
        await consumer.start()
        assert await commit(consumer, {TopicPartition(CANDLES, number): each for number, each in committed.items()})
        await consumer.stop()

    async def scenario():
        await publish(kafka_settings, old)
        with running(path, kafka_settings) as process:
            await until(lambda: everything_is_committed(kafka_settings))
            assert process.stop() == 0
        await restore(await offsets.committed(kafka_settings, GROUP, CANDLES))
        for start in range(2):
            with running(path, kafka_settings) as process:
                assert process.child.wait(60) == 1
                said = process.log.read_text()
                assert said.count("is not the log any more that group ashi-sink-sqlite has read") == start + 1
        for words in ("candles/", "held a record of", "and now holds one of", "--from-beginning", "`ashi verify`"):
            assert words in said
        assert "Traceback" not in said
        async with rows_of(path) as rows:
            assert rows == old
        with running(path, kafka_settings, "--from-beginning") as process:
            await until(lambda: _at_least(path, 60))
            await until(lambda: everything_is_committed(kafka_settings))
            assert process.stop() == 0
        async with rows_of(path) as rows:
            assert rows == oracle([*old, *new])

    asyncio.run(scenario())


@pytest.mark.kafka
def test_nothing_more_is_committed_once_what_was_committed_last_does_not_stand_any_more(kafka_settings, monkeypatch):
    """As after an election that was not clean: the log goes on, and its records below are others."""

    async def scenario():
        await publish(kafka_settings, [a_candle(minute) for minute in range(20)])
        consumer = KafkaSinkConsumer(kafka_settings, "a-group", [CANDLES], CANDLES_DEAD)
        await consumer.start()

        async def read(most):
            while not (fetched := await consumer.poll(most, 0.5)):
                pass
            return {assigned: span.end for assigned, span in fetched.items()}

        assert await consumer.commit(await read(10))
        before = await offsets.committed(kafka_settings, "a-group", CANDLES)
        standing = consumer._probes[CANDLES].standing

        async def other_records(asked):
            return {
                number: now._replace(found={at: each.__class__(at, 1, 1) for at, each in now.found.items()})
                for number, now in (await standing(asked)).items()
            }

        monkeypatch.setattr(consumer._probes[CANDLES], "standing", other_records)
        monkeypatch.setattr(read_log, "LOOK_EVERY_S", 0.0)
        more = await read(5)
        for _ in range(2):
            with pytest.raises(StateError, match=r"offset 9 held a record of .* and now holds one of 1 ms"):
                await consumer.commit(more)
        assert await offsets.committed(kafka_settings, "a-group", CANDLES) == before
        await consumer.close()

    asyncio.run(scenario())


@pytest.mark.kafka
def test_a_consumer_whose_fetches_have_died_is_an_error_and_not_a_topic_without_messages(kafka_settings, monkeypatch):
    def die(*_):
        raise ValueError("nothing can be fetched")

    async def scenario():
        consumer = KafkaSinkConsumer(kafka_settings, "a-group", [CANDLES], CANDLES_DEAD)
        await consumer.start()
        monkeypatch.setattr(Fetcher, "_get_actions_per_node", die)

        async def poll():
            for _ in range(20):
                await consumer.poll(10, 0.5)

        with pytest.raises(KafkaError, match="data retrieval"):
            await poll()
        with suppress(KafkaError):
            await consumer.close()

    asyncio.run(scenario())


async def renew(settings, topic):
    """Delete a topic and make it anew."""
    async with admin_client(settings) as client:
        await client.delete_topics([topic])

        async def is_gone():
            return topic not in await client.list_topics()

        await until(is_gone)
    await create_topics(settings, topic_specs(settings.partitions, settings.timeframes))

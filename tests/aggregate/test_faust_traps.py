"""Each trap of docs/faust.md twice: that the pinned Faust still has it, and that Ashi does not fall into it.

When a test fails after a version has been raised, its message or comment says whether the workaround may go or must
change. Faust's own code is run in this process wherever that is possible, on its own classes without a broker.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tomllib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import aiokafka
import faust
import mode
import pytest
from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import IllegalStateError, KafkaConnectionError
from aiokafka.producer.message_accumulator import BatchBuilder
from faust.sensors.prometheus import PrometheusMonitor
from faust.streams import _current_event
from faust.transport.drivers import aiokafka as driver
from faust.transport.producer import ProducerBuffer
from faust.types import TP
from faust.types.tuples import ConsumerMessage, FutureMessage, PendingMessage
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
    record,
    ticks,
)

from ashi.contracts import StateError, Trade, encode_trade
from ashi.contracts.topics import CANDLES, MARKERS_TABLE, TRADES, changelog_topic, table_name
from ashi.runtime.kafka.connections.clients import make_producer, murmur2_partitioner, partition_of
from ashi.runtime.kafka.consuming.spans import Span
from ashi.runtime.kafka.producing.record_batches import OutgoingRecord, RecordBatches
from ashi.runtime.settings import Settings
from ashi_aggregate.chunk import Chunk
from ashi_aggregate.core.codec import Marker, encode
from ashi_aggregate.faust import transport
from ashi_aggregate.faust.app import AggregateApp
from ashi_aggregate.faust.transport import ChunkSchema
from ashi_aggregate.fencing import SessionGuard
from ashi_aggregate.partition import PartitionOffsets, marker_key
from ashi_aggregate.worker import _progress
from ashi_cli.onemachine.children import spawn, stop_all
from kafka_topics.simulated_log import Broker, Record, Worker
from samples.hypothesis_strategies import START


class FakeThread:
    """What a Faust consumer asks of Kafka: partitions' first, committed and end offsets, and a fetch."""

    def __init__(self, *owned: int, tells_spans: bool = True) -> None:
        self.tells_spans = tells_spans  # as Ashi's does, and Faust's own does not
        self.owned = {TP(TRADES, number) for number in owned or (0,)}
        self.committed: dict[TP, int | None] = dict.fromkeys(self.owned, 0)
        self.earliest: dict[TP, int] = dict.fromkeys(self.owned, 0)
        self.end: dict[TP, int] = dict.fromkeys(self.owned, 100)
        self.fetched: dict[TP, Any] = {}
        self.sought: list[tuple[TP, int]] = []
        self.commits: list[dict[TP, int]] = []

    def assignment(self) -> set[TP]:
        return self.owned

    async def seek_to_committed(self) -> dict[TP, int | None]:
        return self.committed

    async def seek_wait(self, partitions: dict[TP, int]) -> None:
        self.sought += partitions.items()

    async def earliest_offsets(self, *partitions: TP) -> dict[TP, int]:
        return {tp: self.earliest[tp] for tp in partitions}

    async def highwaters(self, *partitions: TP) -> dict[TP, int]:
        return {tp: self.end[tp] for tp in partitions}

    def highwater(self, tp: TP) -> int:
        return self.end[tp]

    async def getmany(self, _active: set[TP], _timeout: float) -> Any:
        return spans_of(self.fetched) if self.tells_spans else self.fetched

    async def call_thread(self, function: Any, *arguments: Any) -> Any:
        return await function(*arguments)

    async def commit(self, offsets: dict[TP, int]) -> bool:
        self.commits.append(dict(offsets))
        return True


class FakeProducer:
    """Takes what is sent, and acknowledges it or fails as the test says."""

    def __init__(self, app: Any) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.futures: list[asyncio.Future[Any]] = []
        self.buffer = ProducerBuffer()
        self.buffer.app = app

    async def maybe_start(self) -> None:
        return None

    def send_soon(self, promise: Any) -> None:
        self.buffer.put(promise)

    async def flush(self) -> None:
        return None

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder(128 * 1024, 0)

    async def send_batch(self, batch: BatchBuilder, topic: str, *, partition: int) -> asyncio.Future[Any]:
        return await self.send(topic, value=batch.record_count(), partition=partition)

    async def send(self, topic: str, key: Any = None, value: Any = None, **options: Any) -> asyncio.Future[Any]:
        self.sent.append((topic, {"key": key, "value": value} | options))
        self.futures.append(asyncio.get_running_loop().create_future())
        return self.futures[-1]


def consumer_of(app: Any, *owned: int) -> tuple[Any, Any]:
    """The application's consumer, with all of its bookkeeping, over a fake Kafka."""
    consumer = app.consumer
    thread = consumer._thread = FakeThread(*owned, tells_spans=isinstance(app, AggregateApp))
    consumer._active_partitions = set(thread.owned)
    app._producer = FakeProducer(app)
    return consumer, thread


def records(begin: int, end: int) -> list[Any]:
    return [record(offset) for offset in range(begin, end)]


def span(begin: int, end: int) -> Span:
    return Span(begin, end, records(begin, end))


def spans_of(fetched: Mapping[TP, Any]) -> dict[TP, Span]:
    """Fetches that began at their first record and ended after their last; of changelogs keys and values."""

    def span_of(tp: TP, found: list[Any]) -> Span:
        bare = found if tp.topic == TRADES else [(each.key, each.value) for each in found]
        return Span(found[0].offset, found[-1].offset + 1, bare)

    return {tp: found if isinstance(found, Span) else span_of(tp, found) for tp, found in fetched.items()}


def message(offset: int, *, generation: int = 0, value: Any = b"v", tp: TP = TP0) -> ConsumerMessage:
    return ConsumerMessage(
        tp.topic, tp.partition, offset, 0.0, 1, [], b"k", value, None, tp=tp, generation_id=generation
    )


async def fetched_by(consumer: Any) -> list[tuple[TP, Any]]:
    return [item async for item in consumer.getmany(1.0)]


async def drain(consumer: Any, *messages: Any) -> None:
    """Let Faust's own fetch loop handle these messages, as one fetch, and acknowledge each in order."""
    fetcher = SimpleNamespace(_stopped=asyncio.Event())

    async def getmany(timeout: float) -> AsyncIterator[Any]:  # noqa: ASYNC109
        for each in messages:
            yield each.tp, each
        fetcher._stopped.set()

    async def callback(each: Any) -> None:
        consumer.ack(each)

    consumer.getmany, consumer.callback = getmany, callback
    await consumer._drain_messages(fetcher)
    del consumer.getmany


def stream_of(app: Any, *messages: Any) -> Any:
    """A stream of `trades` in which these messages wait, as the fetch loop delivers them."""
    stream = app.topic(TRADES, schema=ChunkSchema()).stream()
    for each in messages:
        each.incref()
        app.consumer.track_message(each)
        stream.channel.queue.put_nowait(app.create_event(each.key, each.value, each.headers, each))
    return stream


def trade(symbol: str, at: int, number: int = 0) -> Trade:
    return Trade(symbol, str(number), Decimal(5), Decimal(1), "buy", START + at, START + at, number)


def changelog_event(partition: int, key: bytes, value: bytes | None) -> Any:
    return SimpleNamespace(
        key=key, value=value, message=SimpleNamespace(partition=partition, key=key, value=value, offset=0)
    )


class HeldWorker(Worker):
    """A worker whose sends stay unacknowledged until the test says otherwise."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.topics: list[str] = []
        self.places: list[tuple[str, bytes | None, int]] = []
        self.waiting: list[asyncio.Future[Any]] = []
        self.durable: dict[int, int] = {}
        self.acknowledged = 0

    async def send(self, topic: str, partition: int, records: Sequence[OutgoingRecord]) -> Awaitable[Any]:
        self.topics.append(topic)
        self.places += [(topic, key, partition) for key, _, _ in records]
        self.waiting.append(asyncio.get_running_loop().create_future())
        return self.waiting[-1]

    def mark_durable(self, partition: int, end: int) -> None:
        self.durable[partition] = end

    async def read_all(self, partition: int) -> None:
        async def acknowledge() -> None:
            self.acknowledged += 1

        log = self.broker.trades[partition]
        await self.pipeline.on_chunk(Chunk(partition, 0, len(log), log), acknowledge)

    def acknowledge_all(self) -> set[str]:
        """Acknowledge what has been sent so far; gives to which topics that was."""
        waiting, self.waiting = self.waiting, []
        sent, self.topics = self.topics, []
        for each in waiting:
            each.set_result(SimpleNamespace(timestamp=0, timestamp_type=1))
        return set(sent)


# The versions


def test_what_is_installed_are_exactly_the_versions_that_are_pinned():
    """All below holds for these versions, and nobody knows for which others."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    pins = dict(line.split("==") for line in extras["worker"] + extras["aggregate"] if "==" in line)
    assert {"faust-streaming", "mode-streaming", "aiokafka"} <= set(pins)
    assert pins == {name: version(name) for name in pins}


def test_the_application_avoids_what_its_settings_can_avoid():
    """Traps that a setting avoids: undeclared topics, a leader topic, standbys, threads, the web application."""
    conf, faust_conf = our_app().conf, plain_app().conf
    assert (conf.topic_allow_declare, faust_conf.topic_allow_declare) == (False, True)
    assert (conf.web_enabled, faust_conf.web_enabled) == (False, True)
    assert conf.stream_wait_empty
    assert (conf.table_standby_replicas, faust_conf.table_standby_replicas) == (0, 1)
    assert conf.topic_disable_leader
    assert conf.consumer_auto_offset_reset == "earliest"
    assert conf.producer_acks == -1
    assert not conf.producer_threaded
    assert conf.processing_guarantee.name == "AT_LEAST_ONCE"


# Windowed tables


def test_faust_closes_the_windows_of_one_partition_only_and_ashi_those_of_each():
    """Trap: `on_window_close` goes by one number for all partitions, and pops the row before it is called."""

    async def faust_closes() -> tuple[list[str], dict]:
        closed: list[str] = []

        async def on_close(key: Any, value: Any) -> None:
            assert key not in table.data, "the row is popped before the callback"
            closed.append(key[0])

        table = plain_app().Table("windows", partitions=2, on_window_close=on_close)
        table.tumbling(60.0, expires=1.0)
        for partition, symbol in enumerate(["a", "b"]):
            key = (symbol, (60.0, 119.9))
            table.data[key] = 1
            table._maybe_set_key_ttl(key, partition)
        await table._del_old_keys()
        return closed, dict(table.data)

    assert asyncio.run(faust_closes()) == (["a"], {}), "Faust's windowed tables no longer lose windows"

    async def ashi_closes() -> list[str]:
        symbols = ["binance:S0", "binance:S1"]
        broker = Broker(partitions=2)
        assert {partition_of(symbol.encode(), 2) for symbol in symbols} == {0, 1}
        broker.publish([trade(symbol, 0) for symbol in symbols])
        worker = Worker(broker, TIMEFRAMES, RULES)
        await worker.start()
        await worker.run_to_end()
        assert broker.candles() == [], "the windows are open, however late it is by the wall clock"
        broker.publish([trade(symbol, 2 * MINUTE, 1) for symbol in symbols])
        recovered = Worker(broker, TIMEFRAMES, RULES)
        await recovered.start()
        await recovered.run_to_end()
        return sorted(candle.symbol for candle in broker.candles() if candle.open_time == START)

    assert asyncio.run(ashi_closes()) == ["binance:S0", "binance:S1"]


# One event at a time


def test_faust_delivers_a_fetch_one_record_at_a_time_and_ashi_in_one_chunk():
    """Trap: what Faust does for each event costs more than folding it."""

    async def scenario() -> None:
        faust_consumer, thread = consumer_of(plain_app())
        thread.fetched = {TP0: records(0, 100)}
        assert len(await fetched_by(faust_consumer)) == 100

        consumer, thread = consumer_of(our_app(), 0, 1)
        consumer._next = {TP0: 0, TP(TRADES, 1): 0}
        changelog = TP(changelog_topic(MARKERS_TABLE), 0)
        consumer._active_partitions.add(changelog)
        thread.fetched = {
            TP0: records(0, 100),
            TP(TRADES, 1): [record(offset, 1) for offset in range(10)],
            changelog: [record(offset, 0, changelog.topic) for offset in range(3)],
        }
        items = await fetched_by(consumer)
        assert [(tp, each.offset) for tp, each in items] == [
            (TP0, 99),
            (TP(TRADES, 1), 9),
            (changelog, 2),
        ]
        assert consumer.app.tables[MARKERS_TABLE].rows(0) == {b"k": encode(Marker(2))}
        chunk = items[0][1].value
        assert (chunk.partition, chunk.begin, chunk.end, len(chunk.records)) == (0, 0, 100, 100)
        event = await ChunkSchema().compile(consumer.app)(items[0][1])
        assert event.value is chunk

    asyncio.run(scenario())


# Around a rebalance: the guard of positions


def test_faust_resumes_partitions_before_it_has_sought_their_positions():
    """Trap: a fetch between the two delivers records from beyond the committed offset. Look at tables/recovery.py."""

    async def scenario() -> list[str]:
        app = plain_app()
        consumer, _ = consumer_of(app)
        calls: list[str] = []

        async def perform_seek() -> None:
            calls.append("perform_seek")

        consumer.resume_partitions = lambda _tps: calls.append("resume_partitions")
        consumer.perform_seek = perform_seek
        consumer.resume_flow = lambda: calls.append("resume_flow")

        async def maybe_start() -> None:
            return None

        app._fetcher = SimpleNamespace(maybe_start=maybe_start)
        app.on_rebalance_end = lambda: None
        await app.tables.recovery.on_recovery_completed(app.consumer_generation_id)
        return calls

    assert asyncio.run(scenario()) == ["resume_partitions", "perform_seek", "resume_flow"], (
        "Recovery.on_recovery_completed has another order: see whether the transport's guard is still needed"
    )


def test_faust_commits_over_a_hole_and_ashi_reads_it_again():
    """Trap: Faust takes every hole in the offsets for compaction, and commits over it."""

    async def scenario() -> None:
        faust_consumer, _ = consumer_of(plain_app())
        await drain(faust_consumer, *(message(offset) for offset in (0, 1, 2, 118)))
        assert faust_consumer._new_offset(TP0) == 119, "Faust no longer commits over a hole"

        consumer, thread = consumer_of(our_app())
        consumer._next[TP0] = 3
        thread.fetched = {TP0: records(118, 120)}
        assert await fetched_by(consumer) == []
        assert thread.sought == [(TP0, 3)]

    asyncio.run(scenario())


def test_a_chunk_of_a_partition_whose_next_offset_is_not_known_is_dropped():
    """Trap: a fetch from before the positions were sought."""

    async def scenario() -> None:
        consumer, thread = consumer_of(our_app())
        thread.fetched = {TP0: records(50, 60)}
        assert await fetched_by(consumer) == []
        assert thread.sought == []
        assert TP0 not in consumer._next

    asyncio.run(scenario())


def test_chunks_follow_each_other_without_hole_or_overlap():
    """Trap: a fetch from before the seek can begin earlier than what is wanted next."""

    async def scenario() -> None:
        consumer, thread = consumer_of(our_app())
        consumer._next[TP0] = 5
        spans = []
        for begin, end in [(0, 10), (10, 12), (8, 12), (11, 20)]:
            thread.fetched = {TP0: records(begin, end)}
            chunks = [each.value for _, each in await fetched_by(consumer)]
            spans += [(chunk.begin, chunk.end, [each.offset for each in chunk.records]) for chunk in chunks]
        assert spans == [(5, 10, [5, 6, 7, 8, 9]), (10, 12, [10, 11]), (12, 20, list(range(12, 20)))]
        assert thread.sought == []

    asyncio.run(scenario())


def test_offsets_that_no_reader_gets_are_no_hole_and_are_read_once():
    """Trap: Faust cannot tell records it skipped from offsets that a transaction's markers took.

    Where the client stood tells it: it goes on past them, and a race skips records without having stood before them.
    """

    async def scenario() -> None:
        consumer, thread = consumer_of(our_app())
        consumer._next[TP0] = 3
        spans = []
        for fetched in [
            Span(3, 9, records(5, 8)),  # markers before and after what it holds
            Span(9, 12, ()),  # nothing but markers
            Span(2, 20, [*records(2, 4), *records(13, 20)]),
        ]:
            thread.getmany = returning({TP0: fetched})
            chunks = [each.value for _, each in await fetched_by(consumer)]
            spans += [(chunk.begin, chunk.end, [each.offset for each in chunk.records]) for chunk in chunks]
        assert spans == [(3, 9, [5, 6, 7]), (9, 12, []), (12, 20, list(range(13, 20)))]
        assert thread.sought == []
        assert consumer._last[TP0].offset == 19

    asyncio.run(scenario())


def returning(fetched: Any) -> Any:
    async def getmany(*_: Any) -> Any:
        return fetched

    return getmany


def test_a_hole_is_read_again_however_often_it_comes():
    """Trap: a race skips records, and Faust takes the hole for compaction."""

    async def scenario() -> None:
        consumer, thread = consumer_of(our_app())
        consumer._next[TP0] = 3
        for fetch in range(1, 9):
            assert await consumer._continue(TP0, span(5, 9)) is None
            assert thread.sought == [(TP0, 3)] * fetch
            assert consumer._next[TP0] == 3
        chunk = await consumer._continue(TP0, span(3, 9))
        assert (chunk.begin, chunk.end, len(chunk.records)) == (3, 9, 6)

    asyncio.run(scenario())


def test_records_that_expired_before_they_were_read_stop_the_worker():
    """Trap: Faust goes on at what the log still has, as if nothing had been lost."""

    async def scenario() -> None:
        consumer, thread = consumer_of(our_app())
        consumer._next[TP0] = 3
        thread.earliest[TP0] = 5
        with pytest.raises(StateError, match="records 3 to 4 of trades/0 expired"):
            await consumer._continue(TP0, span(5, 9))
        assert thread.sought == []

    asyncio.run(scenario())


@pytest.mark.parametrize("event", ["revoked", "assigned"])
def test_the_next_offsets_are_forgotten_when_partitions_come_or_go(event):
    """Trap: what is fetched around a rebalance continues nothing, not even in a partition that stays here."""

    async def scenario() -> None:
        app = our_app()
        consumer, thread = consumer_of(app, 0, 1)
        consumer._next = {TP0: 3, TP(TRADES, 1): 4}
        seen: list[dict] = []

        async def meanwhile(*_: Any) -> None:
            seen.append(dict(consumer._next))

        consumer._on_partitions_revoked = consumer._on_partitions_assigned = meanwhile
        if event == "revoked":
            await consumer.on_partitions_revoked({TP(TRADES, 1)})
        else:
            await consumer.on_partitions_assigned({TP0, TP(TRADES, 1)}, 1)
        assert seen == [{}], "they are forgotten before anything else happens"
        thread.fetched = {TP0: records(3, 9)}
        assert await fetched_by(consumer) == []

    asyncio.run(scenario())


def test_the_next_offsets_are_forgotten_while_positions_are_sought_and_known_again_afterwards():
    """Trap: partitions are fetched from while their positions are still being sought."""

    async def scenario() -> None:
        app = our_app()
        consumer, thread = consumer_of(app, 0, 1)
        consumer._next = {TP0: 90, TP(TRADES, 1): 90}
        consumer._durable[TP0] = 90
        during: list[dict] = []

        async def seek_to_committed() -> dict[TP, int]:
            during.append(dict(consumer._next))
            return thread.committed

        async def resume(partitions: Any) -> dict[int, int]:
            during.append(dict(consumer._next))
            assert partitions == {0: PartitionOffsets(40, 10, 100), 1: PartitionOffsets(None, 0, 100)}
            return {0: 30, 1: 0}

        thread.seek_to_committed, app.resume = seek_to_committed, resume
        thread.committed = {TP0: 40, TP(TRADES, 1): None}
        thread.earliest = {TP0: 10, TP(TRADES, 1): 0}
        await consumer.perform_seek()
        assert during == [{}, {}]
        # Not the committed offset but what the state says.
        assert consumer._next == {TP0: 30, TP(TRADES, 1): 0}
        assert sorted(thread.sought) == [(TP0, 30), (TP(TRADES, 1), 0)]
        assert consumer._committed_offset[TP0] == 30
        assert consumer._new_offset(TP0) is None, "what was durable before the rebalance may be another's by now"

    asyncio.run(scenario())


def slow_to_seek(app: Any, thread: FakeThread) -> tuple[list[set[int]], asyncio.Event]:
    """Let each seek wait for the event; what was resumed is told by the list."""
    resumed: list[set[int]] = []
    slow = asyncio.Event()
    highwaters = thread.highwaters

    async def wait(*partitions: TP) -> Any:
        await slow.wait()
        return await highwaters(*partitions)

    async def resume(partitions: Any) -> dict[int, int]:
        resumed.append(set(partitions))
        return dict.fromkeys(partitions, 0)

    thread.highwaters, app.resume = wait, resume
    return resumed, slow


def test_a_seek_that_a_rebalance_overtakes_does_not_let_go_what_the_later_one_takes_up():
    """Trap: recovery and the fetcher seek independently, and a rebalance may come while either waits for offsets."""

    async def scenario() -> None:
        app = our_app()
        consumer, thread = consumer_of(app, 0)
        resumed, slow = slow_to_seek(app, thread)
        thread.committed = {TP0: None}
        older = asyncio.create_task(consumer.perform_seek())
        await ticks()
        app.consumer_generation_id += 1
        grown = FakeThread(0, 1)
        thread.owned, thread.earliest, thread.end = grown.owned, grown.earliest, grown.end
        thread.committed = dict.fromkeys(grown.owned)
        newer = asyncio.create_task(consumer.perform_seek())
        await ticks()
        slow.set()
        await asyncio.gather(older, newer)
        assert resumed == [{0, 1}]
        assert set(consumer._next) == {TP0, TP(TRADES, 1)}

    asyncio.run(scenario())


def test_faust_closes_the_client_under_the_coordinator_and_ashi_leaves_it_to_the_thread_that_ends():
    """Trap: a stop during a rebalance closes the client in the wrong loop, and the coordinator waits for ever."""
    consumer, thread = consumer_of(our_app(), 0)
    closed: list[str] = []
    thread.close = lambda: closed.append("closed")
    driver.Consumer.close(consumer)
    assert closed == ["closed"]
    consumer.close()
    assert closed == ["closed"]


def test_a_seek_that_a_rebalance_has_taken_the_partitions_from_takes_nothing_up():
    """Trap: between what a rebalance takes away and what it gives nothing tells that they are not ours any more."""

    async def scenario() -> None:
        app = our_app()
        consumer, thread = consumer_of(app, 0)
        resumed, slow = slow_to_seek(app, thread)
        overtaken = asyncio.create_task(consumer.perform_seek())
        await ticks()
        app.on_rebalance_start()
        slow.set()
        await overtaken
        assert (resumed, thread.sought, dict(consumer._next)) == ([], [], {})
        app.consumer_generation_id += 1
        await consumer.perform_seek()
        assert resumed == [{0}]

    asyncio.run(scenario())


def test_going_back_in_a_partition_that_a_rebalance_has_taken_away_is_no_error():
    """Trap: partitions may be taken away between a decision to seek and the seek."""

    async def scenario() -> None:
        consumer, thread = consumer_of(our_app(), 0)

        async def not_assigned(_: Any) -> None:
            raise IllegalStateError("no current assignment")

        thread.seek_wait = not_assigned
        consumer._next = {TP0: 90}
        await consumer.rewind(0, 40)
        assert TP0 not in consumer._next

    asyncio.run(scenario())


def test_a_seek_that_fails_while_the_flow_is_stopped_does_not_end_the_worker():
    """Trap: partitions may be taken away while the fetcher goes back to where it was."""

    async def scenario() -> None:
        consumer, thread = consumer_of(our_app(), 0)

        async def not_assigned(*_: Any) -> Any:
            raise IllegalStateError("partition is not assigned")

        thread.call_thread = not_assigned
        consumer._next = {TP0: 40}
        consumer.flow_active = False
        await consumer._seek_while_stopped(spans_of({TP0: records(41, 42)}))

    asyncio.run(scenario())


def test_a_fetch_while_the_flow_is_stopped_takes_up_nothing_and_goes_back_to_what_it_has_dropped():
    """Trap: Faust seeks there as recovery does. The flow is stopped while tables are restored, too, and a state taken
    up from half of its rows looks like one that has lost some: a worker would end of it, and advise to reconfigure.
    """
    changelog = TP(changelog_topic(MARKERS_TABLE), 0)

    async def scenario() -> None:
        app = our_app()
        consumer, thread = consumer_of(app, 0, 1)
        resumed: list[Any] = []

        async def resume(partitions: Any) -> dict[int, int]:
            resumed.append(partitions)
            return dict.fromkeys(partitions, 0)

        app.resume = resume
        gone_back: list[dict[TP, int]] = []

        async def call_thread(_function: Any, first: dict[TP, int]) -> None:
            gone_back.append(first)

        async def fetch_into_a_rebalance(*_: Any) -> dict[TP, Span]:
            consumer.flow_active = False
            return spans_of(thread.fetched)

        thread.call_thread, thread.getmany = call_thread, fetch_into_a_rebalance
        thread.fetched = {}
        assert await fetched_by(consumer) == []
        assert gone_back == []
        # Recovery has sought the first partition since, and not yet the second.
        consumer.flow_active = True
        consumer._next = {TP0: 40}
        thread.fetched = {TP0: records(40, 42), TP(TRADES, 1): records(7, 9), changelog: records(3, 5)}
        assert await fetched_by(consumer) == []
        assert gone_back == [{TP0: 40, changelog: 3}]
        assert resumed == []

    asyncio.run(scenario())


def test_a_producer_that_could_not_be_connected_is_stopped_like_any_other():
    """Trap: Faust stops what has not started, and a child that fails then leaves its clients open."""
    nobody = {"ASHI_KAFKA_BOOTSTRAP": "127.0.0.1:1", "ASHI_KAFKA_COMPRESSION": "none"}

    async def scenario() -> None:
        producer = our_app(settings=Settings.from_environment(nobody)).producer
        with pytest.raises(KafkaConnectionError):
            await producer.start()
        await producer.on_stop()

    asyncio.run(scenario())


def test_no_chunk_is_delivered_after_a_rebalance_began_while_a_fetch_is_handed_out():
    """Trap: a fetch is handed out piece by piece, and a rebalance can begin after each."""

    changelog = TP(changelog_topic(MARKERS_TABLE), 0)

    async def pieces(change: Any) -> tuple[list[TP], list[tuple[TP, int]]]:
        """What is handed out, and what is sought, when this happens after the first piece."""
        app = our_app()
        consumer, thread = consumer_of(app, 0, 1, 2)
        consumer._active_partitions.add(changelog)
        consumer._next = dict.fromkeys(thread.owned, 0)
        thread.fetched = {tp: [record(0, tp.partition)] for tp in sorted(thread.owned)}
        thread.fetched[TP(TRADES, 1)] = [record(5, 1)]  # a hole
        thread.fetched[changelog] = [record(0, 0, changelog.topic)]
        handed_out: list[TP] = []
        async for tp, _ in consumer.getmany(1.0):
            handed_out.append(tp)
            if len(handed_out) == 1:
                change(app, consumer)
        return handed_out, thread.sought

    def new_generation(app: Any, _consumer: Any) -> None:
        app.consumer_generation_id += 1

    def stopped_flow(_app: Any, consumer: Any) -> None:
        consumer.stop_flow()

    def paused(_app: Any, consumer: Any) -> None:
        consumer._active_partitions -= {TP(TRADES, 1), TP(TRADES, 2), changelog}

    def buffer_full(_app: Any, consumer: Any) -> None:
        consumer.on_buffer_full(TP(TRADES, 2))  # what was fetched already is still handed out

    everything = [TP0, TP(TRADES, 2), changelog], [(TP(TRADES, 1), 0)]
    assert asyncio.run(pieces(lambda *_: None)) == everything
    assert asyncio.run(pieces(buffer_full)) == everything
    for change in (new_generation, stopped_flow, paused):
        assert asyncio.run(pieces(change)) == ([TP0], [])


def test_no_chunk_is_delivered_when_a_rebalance_began_while_the_log_was_looked_into():
    """Trap: whatever is awaited while a fetch is handed out, a rebalance can begin meanwhile."""

    async def scenario(change: Any) -> list[Any]:
        app = our_app()
        consumer, thread = consumer_of(app)
        consumer._next[TP0] = 5
        thread.fetched = {TP0: records(0, 9)}  # from before what comes next

        async def is_continued(*_: Any) -> bool:
            change(app, consumer)
            return True

        app.is_continued = is_continued  # type: ignore[assignment]
        items = await fetched_by(consumer)
        assert items or consumer._next[TP0] == 5
        return items

    def new_generation(app: Any, _consumer: Any) -> None:
        app.consumer_generation_id += 1

    assert len(asyncio.run(scenario(lambda *_: None))) == 1
    assert asyncio.run(scenario(new_generation)) == []
    assert asyncio.run(scenario(lambda _, consumer: consumer.stop_flow())) == []


class FakeClient:
    """The Kafka client in the consumer's thread: where it reads each partition on from."""

    def __init__(self, **positions: int) -> None:
        self.positions = {TP(changelog_topic(MARKERS_TABLE), int(name[1:])): at for name, at in positions.items()}

    def assignment(self) -> set[TP]:
        return set(self.positions)

    async def position(self, tp: TP) -> int:
        return self.positions[tp]

    def seek(self, tp: TP, offset: int) -> None:
        self.positions[tp] = offset


def test_what_was_fetched_while_the_flow_was_stopped_is_not_delivered_but_sought_anew():
    """Trap: a fetch that began before a rebalance ends in it, and has moved the position."""

    async def scenario() -> None:
        app = our_app()
        consumer, thread = consumer_of(app)
        consumer._next[TP0] = 0
        client = FakeClient()
        client.positions[TP0] = 9
        thread._ensure_consumer = lambda: client

        async def getmany(*_: Any) -> dict[TP, Span]:
            consumer.stop_flow()
            return {TP0: span(0, 9)}

        thread.getmany = getmany
        assert await fetched_by(consumer) == []
        assert client.positions == {TP0: 0}

    asyncio.run(scenario())


def test_faust_loses_changelog_records_that_a_fetch_drops_and_ashi_reads_them_again():
    """Trap: a fetch that ends while the flow is stopped may have moved a changelog that recovery has sought already.

    Recovery then waits for offsets that have gone by: until somebody writes to that partition, perhaps for ever.
    """
    topic = changelog_topic(MARKERS_TABLE)
    dropped = {TP(topic, number): [record(offset, number, topic) for offset in range(5, 9)] for number in range(3)}

    async def scenario(app: Any) -> dict[TP, int]:
        consumer, thread = consumer_of(app)
        # Partition 1 has been sought to an earlier place meanwhile, partition 2 has been given away.
        client = FakeClient(p0=9, p1=2)
        thread._ensure_consumer = lambda: client

        async def getmany(*_: Any) -> Any:
            consumer.stop_flow()
            fetched = {**dropped, TP0: records(0, 9)}
            return spans_of(fetched) if isinstance(app, AggregateApp) else fetched

        thread.getmany = getmany
        assert await fetched_by(consumer) == []
        return client.positions

    assert asyncio.run(scenario(plain_app())) == {TP(topic, 0): 9, TP(topic, 1): 2}
    assert asyncio.run(scenario(our_app())) == {TP(topic, 0): 5, TP(topic, 1): 2}


def test_faust_changes_the_partitions_of_a_fetch_that_waits_and_ashi_does_not():
    """Trap: a rebalance empties the set that a waiting fetch was given, and for aiokafka an empty one means all."""

    async def scenario(app: Any) -> set[TP]:
        consumer, thread = consumer_of(app)
        asked: list[set[TP]] = []

        async def getmany(active: set[TP], _timeout: float) -> dict[TP, list[Any]]:
            consumer.pause_partitions(thread.owned)
            asked.append(set(active))
            return {}

        thread.getmany = getmany
        await fetched_by(consumer)
        return asked[0]

    assert asyncio.run(scenario(plain_app())) == set()
    assert asyncio.run(scenario(our_app())) == {TP0}


def test_the_end_of_a_partition_that_a_rebalance_has_taken_away_is_not_known():
    """Trap: aiokafka asserts that one asks only for partitions that are assigned."""

    async def scenario() -> None:
        client = aiokafka.AIOKafkaConsumer(bootstrap_servers="127.0.0.1:1")
        consumer, thread = consumer_of(our_app())
        thread.highwater = client.highwater
        with pytest.raises(AssertionError):
            client.highwater(TP0)
        assert consumer.end_of(0) is None
        thread.highwater = {TP0: 7}.get
        assert consumer.end_of(0) == 7

    asyncio.run(scenario())


# What is committed


@pytest.mark.parametrize("skipped_because", ["generation", "flow"])
@pytest.mark.parametrize("compiled", [True, False])
def test_faust_throws_chunks_away_at_a_rebalance_and_ashi_does_not_commit_them(monkeypatch, compiled, skipped_because):
    """Trap: an event of an earlier generation is thrown away; pure Python acknowledges it, even with `noack()`."""
    if not compiled:
        monkeypatch.setattr(faust.streams, "_CStreamIterator", None)
    elif faust.streams._CStreamIterator is None:
        pytest.skip("Faust is installed without its compiled parts")

    async def thrown_away(app: Any) -> ConsumerMessage:
        consumer_of(app)
        stale = message(6, generation=app.consumer_generation_id - (skipped_because == "generation"))
        stream = stream_of(app, stale).noack()
        if skipped_because == "flow":
            app.flow_control.suspend()
        reading = asyncio.create_task(anext(stream.events().__aiter__()))
        await ticks()
        assert stream.channel.queue.empty()
        assert not reading.done(), "Faust no longer throws such events away"
        reading.cancel()
        await asyncio.wait([reading])
        return stale

    async def scenario() -> None:
        faust_app = plain_app()
        stale = await thrown_away(faust_app)
        assert stale.acked == (not compiled), "Faust treats what it throws away differently"
        assert faust_app.consumer._new_offset(TP0) == (None if compiled else 7)
        app = our_app()
        await thrown_away(app)
        app.consumer.ack(message(6))  # what the one of the two does, and the other may
        assert list(app.consumer._filter_tps_with_pending_acks()) == [TP0]
        assert app.consumer._new_offset(TP0) is None

    asyncio.run(scenario())


def test_faust_stalls_over_the_offsets_of_chunks_and_ashi_commits_what_is_durable():
    """Trap: Faust looks for runs of consecutive numbers, and takes the inside of a chunk for a gap of its own."""

    async def committed_by(consumer: Any, durable: bool) -> int:
        # Each commit comes after two chunks, as it does whenever chunks come faster than commits.
        for number in range(1, 41):
            await drain(consumer, message(number * 1_000 - 1))
            if durable:
                consumer.mark_durable(0, number * 1_000)
            if number % 2 == 0:
                await consumer.commit()
        return consumer._thread.commits[-1][TP0]

    async def scenario() -> None:
        faust_consumer, _ = consumer_of(plain_app())
        assert await committed_by(faust_consumer, durable=False) < 30_000, "Faust can commit chunks by itself"
        consumer, _ = consumer_of(our_app())
        assert await committed_by(consumer, durable=True) == 40_000
        assert consumer._acked[TP0] == []
        assert not consumer._gap[TP0]

    asyncio.run(scenario())


def test_only_what_is_marked_durable_is_committed_and_only_once():
    """Trap: an acknowledgement says that Faust is done with a chunk, not that its effects are safe."""

    async def scenario() -> None:
        consumer, thread = consumer_of(our_app())
        consumer.ack(message(9))
        await consumer.commit()
        assert thread.commits == []
        consumer.mark_durable(0, 7)
        consumer.ack(message(14))
        await consumer.commit()
        await consumer.commit()
        assert thread.commits == [{TP0: 7}]
        # The changelogs are Faust's affair.
        other = TP(changelog_topic(MARKERS_TABLE), 0)
        consumer._acked[other] = [0, 1, 2]
        consumer._committed_offset[other] = None
        assert consumer._new_offset(other) == 3
        await consumer._add_gap(other, 3, 4)
        assert len(consumer._gap[other]) == 1

    asyncio.run(scenario())


def test_faust_forgets_acknowledged_offsets_at_a_rebalance_and_ashi_makes_them_durable_before():
    """Trap: what was acknowledged and not yet committed is dropped when partitions are revoked."""

    async def scenario() -> None:
        faust_consumer, _ = consumer_of(plain_app())
        faust_consumer.ack(message(0))

        async def nothing(*_: Any) -> None:
            return None

        faust_consumer._on_partitions_revoked = nothing
        await faust_consumer.on_partitions_revoked({TP0})
        assert faust_consumer._new_offset(TP0) is None, "Faust keeps what was acknowledged"

        app = our_app()
        consumer, thread = consumer_of(app)
        chunk_message = message(6)
        consumer.track_message(chunk_message)

        async def checkpoint() -> None:
            consumer.mark_durable(0, 7)
            consumer.ack(chunk_message)

        async def wait_for_ack(timeout: float) -> None:  # noqa: ASYNC109
            raise AssertionError("it waits for acknowledgements that only a checkpoint gives")

        app.pipeline.checkpoint = checkpoint
        consumer._wait_for_ack = wait_for_ack
        await consumer.wait_empty()
        assert thread.commits == [{TP0: 7}]

    asyncio.run(scenario())


def test_a_revoked_partition_is_let_go_and_its_chunks_change_nothing_any_more():
    """Trap: a chunk that was handed over before a rebalance is worked on after it."""

    async def scenario() -> None:
        app = our_app()
        consumer, _ = consumer_of(app)
        await consumer.perform_seek()

        async def nothing(*_: Any) -> None:
            return None

        consumer._on_partitions_revoked = nothing
        await consumer.on_partitions_revoked({TP0})
        acknowledged: list[bool] = []

        async def acknowledge() -> None:
            acknowledged.append(True)

        symbol = next(f"binance:S{n}" for n in range(99) if partition_of(f"binance:S{n}".encode(), PARTITIONS) == 0)
        value = encode_trade(trade(symbol, 0))
        await app.pipeline.on_chunk(Chunk(0, 0, 1, [Record(0, symbol.encode(), value, 0)]), acknowledge)
        await app.pipeline.checkpoint()
        assert acknowledged == [True], "else Faust would wait for it at the next rebalance"
        assert app._producer.sent == []
        assert consumer._durable == {}

    asyncio.run(scenario())


def test_a_chunk_that_does_not_continue_the_last_one_is_refused_and_read_again():
    """Trap: chunks that Faust threw away leave a hole behind them."""

    async def scenario() -> None:
        broker = Broker(partitions=1)
        broker.publish([trade("binance:A", n * MINUTE, n) for n in range(10)])
        worker = HeldWorker(broker, TIMEFRAMES, RULES)
        await worker.start()
        acknowledged: list[int] = []

        async def acknowledge() -> None:
            acknowledged.append(1)

        await worker.pipeline.on_chunk(Chunk(0, 4, 10, broker.trades[0][4:]), acknowledge)
        assert worker.rewound == [(0, 0)]
        assert worker.topics == []
        assert acknowledged == [1]
        await worker.pipeline.checkpoint()
        assert worker.durable == {}

    asyncio.run(scenario())


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


# The producer


def test_fausts_producer_is_idempotent_only_in_transactions_and_ashis_always_is():
    """Trap: without idempotence a retry repeats or reorders records; Faust's partitioner depends on its settings."""

    async def scenario() -> None:
        assert "enable_idempotence" not in driver.Producer._settings_extra(plain_app().producer)
        made = plain_app().producer._new_producer()
        assert made._txn_manager is None, "Faust's producer is idempotent"
        await made.stop()

        producer = our_app().producer
        assert type(producer) is transport.Producer
        made = producer._new_producer()
        assert made._txn_manager is not None
        assert made._sender._acks == -1
        assert made._partitioner is murmur2_partitioner
        await made.stop()

    asyncio.run(scenario())


def test_faust_knows_no_prefix_of_topics_and_no_rack_and_ashis_clients_do():
    """Trap: a setting of every client must be set in Faust's by hand."""

    async def scenario() -> None:
        settings = Settings.from_environment({"ASHI_TOPIC_PREFIX": "staging.", "ASHI_KAFKA_RACK": "eu-1a"})
        app = our_app(settings=settings)
        consumer = app.consumer._thread._create_consumer(asyncio.get_running_loop())
        assert consumer._client_rack == "eu-1a"
        assert consumer._client._get_conn.__name__ == "connect_and_name", "it would read somebody else's trades"
        producer = app.producer._new_producer()
        assert producer.client._get_conn.__name__ == "connect_and_name", "it would write into somebody else's candles"
        await consumer.stop()
        await producer.stop()

    asyncio.run(scenario())


def test_faust_throttles_at_a_hundred_buffered_messages_and_ashi_sends_past_the_buffer():
    """Trap: what goes through `send_soon` waits in a buffer that stops all processing when it is full."""

    async def scenario() -> None:
        assert ProducerBuffer.max_messages == 100, "look at how Faust's producer buffer throttles now"
        app = our_app()
        consumer_of(app)
        app.producer.batches = RecordBatches(app._producer, app.settings)
        pending = await app.send(CANDLES, 0, [(b"k", b"v", [("h", b"1")])] * 200)
        await ticks()
        assert app._producer.buffer.pending.empty()
        assert app._producer.sent == [(CANDLES, {"key": None, "value": 200, "partition": 0})]
        app._producer.futures[0].set_result("acknowledged")
        assert await pending == "acknowledged", "what is awaited is the broker's acknowledgement"

    asyncio.run(scenario())


def test_fausts_threaded_producer_resolves_another_future_and_ashi_does_not_use_it():
    """Trap: with `producer_threaded=True` whoever awaits the message he was given waits for ever."""

    async def scenario() -> None:
        app = plain_app()
        producer = FakeProducer(app)
        promise = FutureMessage(PendingMessage(app.topic("t"), b"k", b"v", 0, None, [], None, None, None))
        threaded = SimpleNamespace(app=app, _producer=producer)
        await driver.ThreadedProducer.publish_message(threaded, promise)
        producer.futures[0].set_result(SimpleNamespace(topic_partition=TP("t", 0), offset=0))
        await ticks()
        assert not promise.done(), "the threaded producer resolves the promise: it could be used"
        assert our_app().producer.threaded_producer is None

    asyncio.run(scenario())


def test_faust_sends_outside_the_transaction_to_topics_it_does_not_read_and_ashi_uses_versions():
    """Trap: with exactly_once, what is sent to a topic the application does not read escapes the transaction."""

    async def scenario() -> None:
        app = plain_app()
        app._producer = producer = FakeProducer(app)
        thread = driver.AIOKafkaConsumerThread(app.consumer)
        thread._consumer = SimpleNamespace(_client=SimpleNamespace(cluster=ClusterMetadata()))
        app.consumer._thread = thread
        transactions = app.consumer.transactions
        transactions.producer = SimpleNamespace(send=lambda *args, **options: sending(args, options))

        async def sending(args: Any, options: Any) -> None:
            producer.sent.append((args[0], options))

        await transactions.send(CANDLES, b"k", b"v", None, None, None)
        assert producer.sent == [(CANDLES, {"transactional_id": None})], "Faust's transactions cover all topics"
        assert not our_app().in_transaction

    asyncio.run(scenario())


def test_fausts_prometheus_monitor_measures_nothing_and_ashi_does_not_use_it():
    """Trap: its latencies count from the end of what they measure."""
    metrics = MagicMock()
    monitor = PrometheusMonitor(metrics)
    long_ago = monitor.time() - 1_000
    monitor.on_rebalance_end(plain_app(), {"time_start": long_ago, "time_return": long_ago})
    (observed_ms,) = metrics.rebalance_done_latency.observe.call_args.args
    assert abs(observed_ms) < 10_000, "the monitor now says how long a rebalance took"
    assert not isinstance(our_app().monitor, PrometheusMonitor)


# A worker that is dead and does not know


@pytest.mark.parametrize("work", ["chunk", "checkpoint"])
def test_a_worker_that_stood_still_beyond_its_session_ends_before_it_sends_anything(work):
    """Trap: no fencing with at_least_once: a worker that Kafka has declared dead can still write."""

    class LostError(BaseException):
        pass

    def lost() -> None:
        raise LostError

    async def scenario(away_s: float) -> HeldWorker:
        now = [1_000.0]
        broker = Broker(partitions=1)
        broker.publish([trade("binance:A", n * MINUTE, n) for n in range(5)])
        worker = HeldWorker(broker, TIMEFRAMES, RULES)
        worker.pipeline._session_guard = SessionGuard(6_000_000, clock=lambda: now[0], lost=lost)
        await worker.start()
        if work == "checkpoint":
            await worker.read_all(0)
            worker.acknowledge_all()
        now[0] += away_s
        try:
            if work == "chunk":
                await worker.read_all(0)
            else:
                checkpoint = asyncio.create_task(worker.pipeline.checkpoint())
                await ticks()
                if not checkpoint.done():
                    checkpoint.cancel()
                else:
                    await checkpoint
        except LostError:
            assert worker.topics == []
            raise
        return worker

    async def ended(away_s: float) -> bool:
        try:
            worker = await scenario(away_s)
        except LostError:
            return True
        assert worker.topics
        return False

    assert not asyncio.run(ended(5.9))
    assert asyncio.run(ended(6.1))


def test_standing_still_is_measured_from_check_to_check_and_reported_once():
    """Trap: a process that was stopped cannot notice it but by its clock."""
    now = [0.0]
    losses: Counter[str] = Counter()
    session_guard = SessionGuard(6_000_000, clock=lambda: now[0], lost=lambda: losses.update(["lost"]))
    for _ in range(10):
        now[0] += 5.0
        session_guard.check()
    assert not losses
    now[0] += 6.5
    session_guard.check()
    session_guard.check()
    assert losses == {"lost": 1}


# A worker whose agent has died


def test_faust_restarts_an_agent_that_fails_and_ashis_takes_the_application_down():
    """Trap: an agent that dies is restarted, or leaves a worker that looks alive."""
    faust_app = plain_app()
    assert faust_app.conf.agent_supervisor is mode.OneForOneSupervisor
    faust_agent = faust_app.agent(faust_app.channel(), name="plain")(_nothing)
    assert faust_agent._get_supervisor_strategy() is mode.OneForOneSupervisor, "look at agents' supervisors"
    assert our_app().agents["aggregate"]._get_supervisor_strategy() is mode.CrashingSupervisor


async def _nothing(stream: Any) -> None:
    async for _ in stream:
        pass


FAILING_WORKER = """
import sys
from ashi_aggregate.pipeline import Pipeline
from ashi_aggregate.worker import run_aggregate
from ashi.runtime.settings import Settings

async def on_chunk(self, chunk, acknowledge):
    raise RuntimeError("this chunk cannot be folded")

Pipeline.on_chunk = on_chunk
sys.exit(run_aggregate(Settings.from_environment()))
"""


def test_a_worker_whose_recovery_stands_still_does_not_count_as_alive():
    """Trap: a recovery that waits for records that never come waits for ever, and everything else goes on."""
    app = our_app()
    recovery = app.tables.recovery
    markers = TP(changelog_topic(MARKERS_TABLE), 0)
    recovery.active_highwaters[markers], recovery.active_offsets[markers] = 9, 3
    recovery.in_recovery = True
    app.consumer.resume_flow()
    recovering = _progress(app)
    app.pipeline.checkpoints += 1
    assert _progress(app) == recovering
    recovery.active_offsets[markers] = 4
    assert _progress(app) != recovering

    recovery.in_recovery = False
    before = _progress(app)
    assert before == _progress(app)
    app.pipeline.checkpoints += 1
    assert _progress(app) != before


UNFIT_MEMBER = """
import sys
from faust.assignor.partition_assignor import PartitionAssignor
from ashi_aggregate.worker import run_aggregate
from ashi.runtime.settings import Settings

def metadata(self, topics):
    raise RuntimeError("this member cannot describe itself")

PartitionAssignor.metadata = metadata
sys.exit(run_aggregate(Settings.from_environment()))
"""


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (FAILING_WORKER, "this chunk cannot be folded"),
        # Before there is anything to read nobody asks the client how its membership goes.
        (UNFIT_MEMBER, "this member cannot describe itself"),
    ],
)
def test_an_agent_or_a_part_of_the_client_that_fails_ends_the_worker_with_the_reason(
    kafka_settings, tmp_path, program, reason
):
    """Trap: an agent that dies leaves a worker that looks alive; a broken shutdown leaves one that hangs."""
    log = tmp_path / "worker.log"
    with log.open("wb") as output:
        worker = spawn(
            [sys.executable, "-c", program],
            env=os.environ
            | {
                "ASHI_KAFKA_BOOTSTRAP": kafka_settings.kafka_bootstrap,
                "ASHI_SESSION_TIMEOUT": "6s",
                "ASHI_METRICS_PORT": "0",
            },
            stdout=output,
            stderr=output,
            cwd=Path(__file__).parents[2],
        )
    try:

        async def publish() -> None:
            producer = make_producer(kafka_settings)
            await producer.start()
            sent = trade("binance:A", 0)
            await producer.send_and_wait(TRADES, key=sent.symbol.encode(), value=encode_trade(sent))
            await producer.stop()

        asyncio.run(publish())
        status = worker.wait(45)
    finally:
        stop_all([worker], 10)
    text = log.read_text()
    assert status == 1, text[-3000:]
    assert reason in text

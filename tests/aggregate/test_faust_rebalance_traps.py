"""The traps of docs/faust.md about fetches that a rebalance overtakes: each twice, as in `test_faust_traps`."""

from __future__ import annotations

import asyncio
from typing import Any

import aiokafka
import pytest
from aiokafka.errors import KafkaConnectionError
from faust.types import TP
from faust_apps import (
    TP0,
    our_app,
    plain_app,
    record,
)
from faust_fakes import consumer_of, fetched_by, records, span, spans_of

from ashi.contracts.topics import MARKERS_TABLE, TRADES, changelog_topic
from ashi.runtime.kafka.consuming.spans import Span
from ashi.runtime.settings import Settings
from ashi_aggregate.faust.app import AggregateApp


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

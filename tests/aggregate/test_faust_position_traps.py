"""The traps of docs/faust.md about positions, holes and seeks: each twice, as in `test_faust_traps`."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import IllegalStateError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust_apps import (
    TP0,
    our_app,
    plain_app,
    ticks,
)
from faust_fakes import FakeThread, consumer_of, drain, fetched_by, message, records, span, spans_of

from ashi.contracts import StateError
from ashi.contracts.topics import TRADES
from ashi.runtime.kafka.consuming.spans import Span
from ashi_aggregate.partition import PartitionOffsets

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

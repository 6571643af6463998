"""The traps of docs/faust.md about what is committed: each twice, as in `test_faust_traps`."""

from __future__ import annotations

import asyncio
from typing import Any

import faust
import pytest
from faust.types import TP
from faust.types.tuples import ConsumerMessage
from faust_apps import (
    MINUTE,
    PARTITIONS,
    RULES,
    TIMEFRAMES,
    TP0,
    our_app,
    plain_app,
    ticks,
)
from faust_fakes import HeldWorker, consumer_of, drain, message, stream_of, trade

from ashi.contracts import encode_trade
from ashi.contracts.topics import MARKERS_TABLE, changelog_topic
from ashi.runtime.kafka.connections.clients import partition_of
from ashi_aggregate.chunk import Chunk
from kafka_topics.simulated_log import Broker, Record

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

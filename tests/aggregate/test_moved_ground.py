"""The ground moves under the state: logs that are cut or replaced, rows that are lost. On a log in memory."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from moving_ground import MARKERS, TABLES, Kind, judge
from simulation import SECOND, TIMEFRAMES

import ashi.runtime.kafka.cluster.log_identity as log_identity
import ashi_aggregate.partition as partition_module
import ashi_aggregate.pipeline as pipeline_module
from ashi.contracts import Trade
from ashi.contracts.errors import StateError
from ashi.runtime.kafka.cluster.topic_ids import TopicIdentity
from ashi.runtime.kafka.connections.clients import partition_of
from ashi_aggregate.chunk import Chunk
from ashi_aggregate.core.codec import Marker, decode_marker
from ashi_aggregate.core.symbol import SymbolAggregator
from ashi_aggregate.core.window_state import WindowRules
from ashi_aggregate.partition import PartitionState, marker_key, witness_key
from ashi_aggregate.pipeline import Pipeline
from kafka_topics.simulated_log import Broker, Crash, Record, Worker
from oracle import stored
from samples.hypothesis_strategies import START

RULES = WindowRules(TIMEFRAMES[0])
SYMBOL = "binance:S0"
PARTITION = partition_of(SYMBOL.encode(), 2)
SEEDS = range(80)
SEEDS_TO_FAIL_WITHIN = 600

Patch = pytest.MonkeyPatch


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "refused"),
    [("cut", range(20, 60)), ("lost", range(1)), ("expired", range(5, 40))],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_no_trade_is_missing_from_its_candle_unless_every_start_says_so(kind, refused):
    """Where the log is whole nobody has to say anything: lost rows are made again."""
    assert sum(judge(seed, kind) for seed in SEEDS) in refused


def no_fingerprints(patch: Patch) -> None:
    patch.setattr(log_identity, "difference", lambda *_: None)
    patch.setattr(pipeline_module, "difference", lambda *_: None)


def no_look_before_a_fetch_of_another_leader_is_folded(patch: Patch) -> None:
    async def anything_goes(*_: Any) -> None:
        return None

    patch.setattr(Worker, "look_before", anything_goes)


def no_look_when_the_topics_id_changes(patch: Patch) -> None:
    async def anything_goes(*_: Any, **__: Any) -> None:
        return None

    patch.setattr(Pipeline, "check_log", anything_goes)


def no_look_at_a_resumption(patch: Patch) -> None:
    async def anything_goes(kafka: Worker, *_: Any) -> TopicIdentity:
        return await kafka.identity()

    patch.setattr(pipeline_module, "check_markers", anything_goes)


def only_what_is_durable_is_looked_at(patch: Patch) -> None:
    patch.setattr(PartitionState, "records_read", lambda self: self.trail.records)


def a_cut_that_was_noticed_is_forgotten(patch: Patch) -> None:
    patch.setattr(pipeline_module, "read_witness", lambda *_: None)


def no_list_of_the_rows(patch: Patch) -> None:
    patch.setattr(partition_module, "find_missing", lambda *_: None)


def no_look_at_how_far_rows_have_come(patch: Patch) -> None:
    find_missing = partition_module.find_missing

    def of_names(number: int, marker: Marker, *more: Any) -> str | None:
        listed = dict.fromkeys(marker.positions or {}, 0)
        return find_missing(number, msgspec.structs.replace(marker, positions=listed), *more)

    patch.setattr(partition_module, "find_missing", of_names)


def no_look_at_rows_without_a_marker(patch: Patch) -> None:
    patch.setattr(partition_module, "_without_unfinished", lambda _, rows, __: rows)


MUTATIONS: list[tuple[Callable[[Patch], None], Kind]] = [
    (no_fingerprints, "cut"),
    (no_look_before_a_fetch_of_another_leader_is_folded, "cut"),
    (no_look_when_the_topics_id_changes, "cut"),
    (no_look_at_a_resumption, "cut"),
    (only_what_is_durable_is_looked_at, "cut"),
    (a_cut_that_was_noticed_is_forgotten, "cut"),
    (no_list_of_the_rows, "lost"),
    (no_look_at_how_far_rows_have_come, "lost"),
    (no_look_at_rows_without_a_marker, "expired"),
]


RARE = {
    no_look_when_the_topics_id_changes: 70,
    only_what_is_durable_is_looked_at: 70,
    no_look_at_how_far_rows_have_come: 30,
    no_look_at_rows_without_a_marker: 120,
}
"""Where to begin to look for a history that needs it, so that the test need not run them all."""


def first_failure(kind: Kind, seeds: int, begin: int = 0) -> int | None:
    """The first seed whose history the judgement finds wrong."""
    for seed in range(begin, begin + seeds):
        try:
            judge(seed, kind)
        except (AssertionError, pytest.fail.Exception):
            return seed
    return None


@pytest.mark.slow
@pytest.mark.parametrize(("without", "kind"), MUTATIONS, ids=lambda each: getattr(each, "__name__", each))
def test_without_any_one_look_at_the_ground_some_history_goes_wrong(without, kind, monkeypatch):
    without(monkeypatch)
    assert first_failure(kind, SEEDS_TO_FAIL_WITHIN, RARE.get(without, 0)) is not None


class Deployment:
    """One symbol, and workers that read all of it in order."""

    def __init__(self) -> None:
        self.broker = Broker(partitions=2)
        self.broker.now_us = START
        self.numbers = itertools.count()
        self.as_it_was: list[Record] = []

    def publish(self, count: int) -> None:
        for _ in range(count):
            self.broker.now_us += 7 * SECOND
            number, at = next(self.numbers), self.broker.now_us
            trade = Trade(SYMBOL, str(number), Decimal(number + 1), Decimal(1), "buy", at, at, number)
            self.broker.publish([trade], at // 1000)

    async def worker(self) -> Worker:
        worker = Worker(self.broker, TIMEFRAMES, RULES)
        await worker.start()
        return worker

    async def work(self) -> None:
        await (await self.worker()).run_to_end()

    async def is_refused(self, match: str = "ashi aggregate reconfigure") -> None:
        """At every start, however long the log is."""
        for _ in range(3):
            self.publish(5)
            with pytest.raises(StateError, match=match):
                await self.worker()

    def marker(self) -> Marker:
        """The newest one."""
        written = self.broker.topics[MARKERS, PARTITION]
        values = [value for key, value, _ in written if key == marker_key(PARTITION) and value is not None]
        return max(map(decode_marker, values), key=lambda each: each.durable_offset)


async def cut_under_a_worker(keep_more: int) -> tuple[Deployment, Worker]:
    """A worker that has read 40 records, 20 of them not durable yet, of a log that is then cut and grows beyond."""
    deployment = Deployment()
    deployment.publish(20)
    worker = await deployment.worker()
    await worker.run_to_end()
    deployment.publish(20)
    await worker.read(PARTITION, 20)
    deployment.as_it_was = deployment.broker.trades[PARTITION].copy()
    deployment.broker.cut(PARTITION, 20 + keep_more)
    deployment.publish(100)
    return deployment, worker


def test_a_log_cut_above_the_marker_is_noticed_and_remembered():
    async def scenario() -> None:
        deployment, worker = await cut_under_a_worker(keep_more=5)
        with pytest.raises(StateError, match="offset 39 held a record"):
            await worker.read(PARTITION, 10)
        before = len(deployment.broker.messages("candles"))
        await worker.pipeline.checkpoint()
        records = deployment.broker.trades[PARTITION][40:60]
        await worker.pipeline.on_chunk(Chunk(PARTITION, 40, 60, records), worker.pipeline.checkpoint)
        assert not worker.in_flight, "a worker that knows goes on"
        assert len(deployment.broker.messages("candles")) == before
        await deployment.is_refused("offset 39 held a record")

    asyncio.run(scenario())


def test_the_marker_of_a_worker_that_has_not_noticed_does_not_hide_that_the_log_was_cut():
    async def scenario() -> None:
        deployment, worker = await cut_under_a_worker(keep_more=5)
        zombie = Worker(deployment.broker, TIMEFRAMES, RULES)
        await zombie.start()
        await zombie.read(PARTITION, 4)
        with pytest.raises(StateError):
            await worker.read(PARTITION, 10)
        await zombie.pipeline.checkpoint()  # beyond that worker's marker
        assert deployment.marker().durable_offset == 23
        await deployment.is_refused()

    asyncio.run(scenario())


def test_a_log_that_is_restored_with_what_was_read_is_gone_on_from():
    async def scenario() -> None:
        deployment, worker = await cut_under_a_worker(keep_more=5)
        with pytest.raises(StateError):
            await worker.read(PARTITION, 10)
        await deployment.is_refused()
        assert deployment.broker.messages(MARKERS)[-1][0] == witness_key(PARTITION)
        deployment.broker.trades[PARTITION] = deployment.as_it_was
        deployment.publish(10)
        await deployment.work()
        assert deployment.marker().durable_offset == 49

    asyncio.run(scenario())


@pytest.mark.parametrize("sign", ["election", "topic", "time"])
def test_a_log_cut_below_the_marker_is_noticed_by_a_worker_that_runs(sign):
    async def scenario() -> None:
        deployment, worker = await cut_under_a_worker(keep_more=-5)
        if sign != "election":
            deployment.broker.leader_epochs[PARTITION] = 0
        if sign == "topic":
            deployment.broker.topic_id = "second"
        if sign == "time":
            await worker.pipeline.check_log(everything=False)  # nothing says that there is anything to look at
        with pytest.raises(StateError, match=r"offset \d+ held a record of .* and now holds one"):
            await worker.pipeline.check_log(everything=sign == "time")
        await deployment.is_refused()

    asyncio.run(scenario())


def test_a_topic_of_another_id_is_the_same_log_if_its_records_are_and_else_not():
    async def scenario() -> None:
        deployment = Deployment()
        deployment.publish(40)
        await deployment.work()
        deployment.broker.topic_id = "restored"
        deployment.publish(10)
        await deployment.work()
        deployment.broker.topic_id = "emptied"
        deployment.broker.earliest[PARTITION] = 50  # nothing is left to compare
        await deployment.is_refused("topic with id restored, the topic has id emptied")

    asyncio.run(scenario())


def test_rows_that_are_made_again_go_on_from_where_they_have_come_to_and_not_from_the_beginning(monkeypatch):
    """The marker of before is taken away: it would count for more than those of the state that is made."""

    async def starts() -> list[int]:
        deployment = Deployment()
        deployment.publish(40)
        await deployment.work()
        deployment.broker.topics[TABLES[0], PARTITION].clear()
        deployment.broker.committed[PARTITION] = 40
        found = []
        for _ in range(3):  # killed each time, after a checkpoint in the middle
            worker = await deployment.worker()
            found.append(worker.next[PARTITION])
            await worker.read(PARTITION, 10)
            await worker.pipeline.checkpoint()
            deployment.broker.committed[PARTITION] = 40
        return found

    assert asyncio.run(starts()) == [0, 10, 20]

    async def leave_it(self: Pipeline, state: PartitionState) -> None:
        state.is_rebuilt = False

    monkeypatch.setattr(Pipeline, "_prepare", leave_it)
    assert asyncio.run(starts()) == [0, 0, 0]


def test_an_error_says_which_row_of_which_table_is_not_what_the_marker_lists():
    async def scenario() -> None:
        deployment = Deployment()
        deployment.publish(20)
        await deployment.work()
        half = len(deployment.broker.topics[TABLES[0], PARTITION])
        deployment.publish(20)
        await deployment.work()
        deployment.broker.earliest[PARTITION] = 5
        del deployment.broker.topics[TABLES[0], PARTITION][half:]
        await deployment.is_refused(
            f"{TABLES[0]}.* it lacks 1, .* that of {SYMBOL} at offset 39 or later, there is one"
        )
        deployment.broker.topics[TABLES[0], PARTITION].clear()
        await deployment.is_refused(f"that of {SYMBOL} at offset 39 or later, there is none")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("grows", "found"), [(0, "ends at offset 25, and the row of"), (100, "the row of .* has read a")]
)
def test_a_log_that_was_cut_before_a_row_ends_is_another_one_though_its_marker_stands(grows, found, monkeypatch):
    async def scenario() -> None:
        deployment = Deployment()
        deployment.publish(20)
        await deployment.work()
        deployment.publish(20)
        with monkeypatch.context() as patch:

            async def killed(*_: Any) -> None:
                raise Crash

            patch.setattr(Pipeline, "_write_marker", killed)
            with pytest.raises(Crash):  # when the rows are written
                await deployment.work()
        deployment.broker.cut(PARTITION, 25)
        deployment.publish(grows)
        for _ in range(3):
            with pytest.raises(StateError, match=found):
                await deployment.work()

    asyncio.run(scenario())


@pytest.mark.parametrize("first", [0, 10])
def test_without_a_marker_a_table_that_lost_its_rows_sends_no_candle_that_lacks_trades(first):
    """The log has lost the head that they began with; whether that was its beginning or not."""

    async def scenario() -> None:
        deployment = Deployment()
        deployment.publish(60)
        deployment.broker.earliest[PARTITION] = first
        await deployment.work()
        deployment.broker.earliest[PARTITION] = 40
        for topic in (MARKERS, TABLES[0]):
            deployment.broker.topics[topic, PARTITION].clear()
        if first == 0:
            await deployment.is_refused("log begins only at 40, after a row of theirs ends")
            return
        deployment.publish(20)
        await deployment.work()
        stored(deployment.broker.candles())  # no version has two contents

    asyncio.run(scenario())


def test_a_row_that_has_seen_records_keeps_the_append_time_of_those():
    trade = Trade(SYMBOL, "1", Decimal(1), Decimal(1), "buy", START, START, 1)
    symbol = SymbolAggregator(TIMEFRAMES, RULES)
    symbol.on_trades([trade], [8], START)
    symbol.on_trades([trade], [6], START + SECOND)
    assert {row.appended_at for row in symbol.state_rows()} == {START}


def test_a_worker_that_has_nothing_left_to_read_of_what_it_has_not_read_stops():
    """It stood still while all of that expired, and nothing comes after it that would show the hole."""

    async def scenario() -> None:
        deployment = Deployment()
        deployment.publish(20)
        worker = await deployment.worker()
        await worker.run_to_end()
        deployment.publish(20)
        deployment.broker.earliest[PARTITION] = 40
        await worker.pipeline.check_log(everything=True)  # what expired may be on its way to be folded
        with pytest.raises(StateError, match=f"records 20 to 39 of trades/{PARTITION} expired before they were"):
            await worker.pipeline.check_log(everything=True)

    asyncio.run(scenario())


def test_a_worker_that_gets_on_is_not_stopped_by_what_expires_behind_it():
    async def scenario() -> None:
        deployment = Deployment()
        deployment.publish(20)
        worker = await deployment.worker()
        await worker.run_to_end()
        for _ in range(3):
            deployment.publish(20)
            deployment.broker.earliest[PARTITION] = len(deployment.broker.trades[PARTITION]) - 10
            await worker.pipeline.check_log(everything=True)
            deployment.broker.earliest.clear()  # it had been fetched
            await worker.run_to_end()

    asyncio.run(scenario())


if __name__ == "__main__":
    for mutation, of in MUTATIONS:
        with pytest.MonkeyPatch.context() as patched:
            mutation(patched)
            print(mutation.__name__, of, first_failure(of, 2000))  # noqa: T201

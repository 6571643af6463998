"""The ground moves under the state: logs that are cut or replaced, rows that are lost. On a log in memory.

The judgement: no trade that stands in `trades` is missing from its candle unless every start of a worker says so.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from contextlib import suppress
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from simulation import SECOND, TIMEFRAMES

import ashi.runtime.kafka.log_identity as log_identity
import ashi_aggregate.partition as partition_module
from ashi.contracts import Trade
from ashi.contracts.errors import StateError
from ashi.contracts.topics import MARKERS_TABLE, changelog_topic, table_name
from ashi.runtime.kafka.clients import partition_of
from ashi.runtime.kafka.log_identity import difference, fingerprint_of
from ashi_aggregate.census import Census
from ashi_aggregate.core.codec import decode_marker
from ashi_aggregate.core.window_state import WindowRules
from oracle import candles_of, closed, stored, timely
from simulated_log import Broker, Crash, Worker
from strategies import START

RULES = WindowRules(TIMEFRAMES[0])
NAMES = [str(timeframe) for timeframe in TIMEFRAMES]
MARKERS = changelog_topic(MARKERS_TABLE)
TABLES = [changelog_topic(table_name(timeframe)) for timeframe in TIMEFRAMES]
SEEDS = range(120)

Patch = pytest.MonkeyPatch


class MissingTradesError(AssertionError):
    """Trades are missing from candles, and nobody has said so."""


class Ground:
    """A deployment of one seed: what is published, what workers do with it, and what becomes of both."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.broker = Broker(partitions=2)
        self.broker.now_us = START
        self.symbols = [f"binance:S{number}" for number in range(self.random.randint(1, 6))]
        self.numbers = itertools.count()

    def publish(self, count: int) -> None:
        for _ in range(count):
            self.broker.now_us += self.random.choice([SECOND, 7 * SECOND, 30 * SECOND])
            number, at = next(self.numbers), self.broker.now_us
            symbol = self.random.choice(self.symbols)
            trade = Trade(symbol, str(number), Decimal(number + 1), Decimal(1), "buy", at, at, number)
            self.broker.publish([trade], at // 1000)

    async def work(self, crash_after: int | None = None, chunks: int = 1_000) -> None:
        """A worker reads on in small chunks, is perhaps killed, and otherwise ends after so many chunks."""
        worker = Worker(
            self.broker,
            TIMEFRAMES,
            RULES,
            seed=self.random.randrange(10**6),
            crash_after=crash_after,
            quiet_close=False,
        )
        try:
            await worker.start()
            for number in range(chunks):
                size = self.random.randint(1, 6)
                if not any([await worker.read(partition, size) for partition in worker.next]):
                    break
                if number % 2:
                    await worker.pipeline.checkpoint()
            await worker.pipeline.checkpoint()
        except Crash:
            pass

    async def live(self) -> None:
        """Some workers, some of them killed in the middle of a checkpoint."""
        self.publish(self.random.randint(20, 60))
        for _ in range(self.random.randint(1, 3)):
            await self.work(self.random.choice([None, self.random.randint(5, 80)]), self.random.randint(2, 12))
            self.publish(self.random.randint(0, 8))

    async def judge(self) -> bool:
        """Whether workers refused, at each of three starts; else they have made all candles right."""
        refused = []
        for _ in range(3):
            self.publish(self.random.randint(0, 10))
            try:
                await self.work()
            except StateError as error:
                if "ashi aggregate reconfigure" not in str(error):
                    raise
                refused.append(True)
            else:
                refused.append(False)
        if any(refused):
            if not all(refused):
                raise MissingTradesError("some start goes on as if nothing had been")
            return True
        log = self.log()
        counted = timely(log, NAMES[0], RULES.horizon_us)
        wanted = closed(candles_of(counted, NAMES), log, RULES.lateness_us)
        found = stored(self.broker.candles())
        for key, value in wanted.items():
            # Where a state began anew and not with the log, windows from before are not sent, nor flat candles until a
            # symbol's first trade after it.
            expected = value["trade_count"] and key[2] >= self.edge(key[0])
            if found.get(key) != value and (key in found or expected):
                raise MissingTradesError(f"candle {key} lacks trades")
        return False

    def edge(self, symbol: str) -> int:
        """Up to where windows may lack trades whose records have expired, µs."""
        partition = partition_of(symbol.encode(), self.broker.partitions)
        begin, log = self.broker.earliest.get(partition, 0), self.broker.trades[partition]
        return log[begin].timestamp * 1000 + 60 * SECOND if begin and begin < len(log) else 0

    def log(self) -> list[Trade]:
        return [
            msgspec.json.decode(record.value or b"", type=Trade)
            for records in self.broker.trades.values()
            for record in records
        ]

    def durable(self, partition: int) -> int:
        """What the marker of a partition says; -1 without one."""
        values = [value for _, value, _ in self.broker.topics[MARKERS, partition]]
        return max((decode_marker(value).durable_offset for value in values), default=-1)

    def cut(self) -> None:
        """An election that is not clean, or a topic made anew: the log ends earlier, and others take the offsets."""
        for partition, log in self.broker.trades.items():
            # Above that nobody has read anything, or has and was killed before a checkpoint: nothing could tell.
            keep = self.random.randint(0, max(self.durable(partition), 0))
            if self.random.random() < 0.3:
                keep = 0
            del log[keep:]
        if self.random.random() < 0.3:
            self.broker.topic_id = "second"
        self.publish(self.random.choice([0, 5, 200]))

    def lose_rows(self) -> None:
        """Changelogs are deleted, emptied, or end earlier than they did; any subset of rows, tables, partitions."""
        way = self.random.choice(["table", "keys", "tail", "partition", "all rows", "markers", "everything"])
        chosen = self.random.choice(TABLES)
        for (topic, partition), log in self.broker.topics.items():
            if not topic.endswith("-changelog") or partition is None:
                continue
            rows = topic in TABLES
            match way:
                case "table" if topic == chosen:
                    kept: list[Any] = []
                case "keys" if topic == chosen:
                    kept = [each for each in log if hash(each[0]) % 2]
                case "tail" if topic == chosen:
                    kept = log[: self.random.randint(0, len(log))]
                case "partition" if rows and partition == 0:
                    kept = []
                case "all rows" if rows:
                    kept = []
                case "markers" if topic == MARKERS:
                    kept = []
                case "everything":
                    kept = []
                case _:
                    continue
            self.broker.topics[topic, partition] = kept
            self.broker.written_at[topic, partition] = [self.broker.now_us] * len(kept)

    def expire(self) -> None:
        """The head of the log goes, as far as it has been read."""
        for partition in self.broker.trades:
            self.broker.earliest[partition] = self.random.randint(0, self.durable(partition) + 1)


def run(seed: int, *, cut: bool, expired: bool = False) -> bool:
    async def history() -> bool:
        ground = Ground(seed)
        await ground.live()
        if cut:
            ground.cut()
        else:
            if expired:
                ground.expire()
            ground.lose_rows()
            with suppress(StateError):  # killed perhaps while it makes the rows again
                await ground.work(ground.random.randint(5, 200))
        return await ground.judge()

    return asyncio.run(history())


def fails(seeds: range, **how: bool) -> bool:
    for seed in seeds:
        try:
            run(seed, **how)
        except MissingTradesError:
            return True
    return False


def test_a_log_that_was_cut_or_replaced_is_noticed_at_every_start_however_long_it_is():
    outcomes = [run(seed, cut=True) for seed in SEEDS]
    assert sum(outcomes) > len(SEEDS) // 2


@pytest.mark.slow
def test_lost_rows_are_made_again_from_a_whole_log():
    assert not any(run(seed, cut=False) for seed in SEEDS)


def test_lost_rows_are_noticed_at_every_start_where_the_log_has_lost_its_head():
    outcomes = [run(seed, cut=False, expired=True) for seed in SEEDS]
    assert sum(outcomes) > len(SEEDS) // 4


def no_fingerprints(patch: Patch) -> None:
    patch.setattr(log_identity, "difference", lambda *_: None)


def no_look_at_rows_ahead_of_the_marker(patch: Patch) -> None:
    patch.setattr(partition_module.PartitionState, "check_ahead", lambda *_: None)


def no_count_of_the_rows(patch: Patch) -> None:
    patch.setattr(partition_module, "_find_missing", lambda *_: None)


def no_sum_over_positions(patch: Patch) -> None:
    agrees = partition_module.agrees

    def of_names(found: Census, wanted: Census) -> bool:
        return agrees(msgspec.structs.replace(found, positions=None), wanted)

    patch.setattr(partition_module, "agrees", of_names)


@pytest.mark.parametrize(
    ("without", "how"),
    [
        (no_fingerprints, {"cut": True}),
        (no_look_at_rows_ahead_of_the_marker, {"cut": True}),
        (no_count_of_the_rows, {"cut": False}),
        (no_sum_over_positions, {"cut": False}),
    ],
    ids=lambda each: getattr(each, "__name__", "-".join(each) if isinstance(each, dict) else None),
)
def test_without_any_one_look_at_the_ground_some_history_goes_wrong(without, how, monkeypatch):
    without(monkeypatch)
    assert fails(range(600), **how)


async def cut_under_a_worker(keep_more: int) -> tuple[Ground, Worker]:
    """A worker that has read 40 records, 20 of them not durable yet, of a log that is then cut and grows beyond."""
    ground = Ground(5)
    ground.symbols = ["binance:S0"]
    ground.publish(20)
    worker = Worker(ground.broker, TIMEFRAMES, RULES)
    await worker.start()
    await worker.run_to_end()
    ground.publish(20)
    partition = partition_of(b"binance:S0", 2)
    await worker.read(partition, 20)
    del ground.broker.trades[partition][20 + keep_more :]
    ground.broker.leader_epochs[partition] += 1
    ground.publish(100)
    return ground, worker


def test_a_log_cut_above_the_marker_is_remembered_once_it_was_noticed():
    async def scenario() -> None:
        ground, worker = await cut_under_a_worker(keep_more=5)
        partition = partition_of(b"binance:S0", 2)
        state = worker.pipeline._states[partition]
        assert state.last_record is not None
        last = fingerprint_of(state.last_record)
        await worker.pipeline.check_log(everything=True)  # what the marker knows still stands
        found = difference([last], ground.broker.standing(partition, [last.offset]))
        assert found is not None
        error = await worker.pipeline.condemn(partition, found)
        assert "offset 39 held a record" in str(error)
        before = len(ground.broker.messages("candles"))
        await worker.pipeline.checkpoint()
        await worker.read(partition, 10)
        assert len(ground.broker.messages("candles")) == before, "a worker that knows goes on"
        assert await ground.judge()

    asyncio.run(scenario())


@pytest.mark.parametrize("sign", ["election", "topic", "time"])
def test_a_log_cut_below_the_marker_is_noticed_by_a_worker_that_runs(sign):
    async def scenario() -> None:
        ground, worker = await cut_under_a_worker(keep_more=-5)
        if sign != "election":
            ground.broker.leader_epochs.clear()
        if sign == "topic":
            ground.broker.topic_id = "second"
        if sign == "time":
            await worker.pipeline.check_log(everything=False)  # nothing says that there is anything to look at
        with pytest.raises(StateError, match=r"offset 19 held a record of .* and now holds one"):
            await worker.pipeline.check_log(everything=sign == "time")
        assert await ground.judge()

    asyncio.run(scenario())


def test_a_topic_of_another_id_is_the_same_log_if_its_records_are_and_else_not():
    async def scenario() -> None:
        ground = Ground(6)
        ground.publish(40)
        await ground.work()
        ground.broker.topic_id = "restored"
        assert not await ground.judge()
        ground.broker.topic_id = "emptied"
        for partition, log in ground.broker.trades.items():
            ground.broker.earliest[partition] = len(log)  # nothing is left to compare
        with pytest.raises(StateError, match="topic with id restored, the topic has id emptied"):
            await ground.work()

    asyncio.run(scenario())


if __name__ == "__main__":
    for name, how in {"cut": {"cut": True}, "lost": {"cut": False}, "expired": {"cut": False, "expired": True}}.items():
        for seed in SEEDS:
            try:
                run(seed, **how)
            except (MissingTradesError, Exception) as error:
                print(name, seed, type(error).__name__, str(error)[:300])  # noqa: T201

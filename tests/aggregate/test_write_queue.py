"""Rows that wait: how many a checkpoint writes, which, and what the marker and the group's offset say meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from decimal import Decimal
from typing import Any

import pytest
from simulation import SECOND, TIMEFRAMES, History

from ashi.contracts import Trade
from ashi.contracts.errors import StateError
from ashi.contracts.topics import MARKERS_TABLE, changelog_topic, table_name
from ashi.runtime.metrics import aggregate as metrics
from ashi_aggregate.census import find_listed
from ashi_aggregate.core.codec import Marker, decode_marker, read_rank
from ashi_aggregate.core.window_state import WindowRules
from ashi_aggregate.partition import marker_key
from ashi_aggregate.pipeline import Pipeline
from ashi_aggregate.write_queue import (
    LONGEST_WAIT_S,
    REWRITE_AFTER_S,
    ROWS_PER_CHECKPOINT,
    WriteBudget,
    WritePace,
    WriteQueue,
)
from kafka_topics.simulated_log import Broker, Crash, SimulatedTable, Worker
from samples.hypothesis_strategies import START

RULES = WindowRules(TIMEFRAMES[0])
NEVER = 10**9
TABLES = [changelog_topic(table_name(timeframe)) for timeframe in TIMEFRAMES]
ONE_SYMBOL = WriteBudget(rows=1, longest_wait_s=NEVER)


class Market:
    """One partition; symbols trade one after the other, a record a second or so, at offsets 0, 1, 2, …"""

    def __init__(self, symbols: int, between_us: int = SECOND) -> None:
        self.between_us = between_us
        self.broker = Broker(partitions=1)
        self.broker.now_us = START
        self.symbols = [f"binance:S{number:02}" for number in range(symbols)]
        self.ids = 0

    def trade(self, *symbols: int, behind_s: int = 0) -> None:
        for symbol in symbols:
            self.broker.now_us += self.between_us
            at, self.ids = self.broker.now_us - behind_s * SECOND, self.ids + 1
            price = Decimal(100 + self.ids)
            trade = Trade(self.symbols[symbol], str(self.ids), price, Decimal(1), "buy", at, at, self.ids)
            self.broker.publish([trade], self.broker.append_time_ms())

    async def worker(self, budget: WriteBudget = ONE_SYMBOL, **options: Any) -> Worker:
        worker = Committing(self.broker, TIMEFRAMES, RULES, budget=budget, **options)
        await worker.start()
        return worker

    def marker(self) -> Marker:
        """The last one."""
        values = [value for key, value, _ in self.broker.messages(MARKERS) if key == marker_key(0)]
        return find_listed(0, decode_marker(values[-1]), SimulatedTable(MARKERS_TABLE, self.broker))

    def rows(self) -> list[dict[str, int]]:
        """How far the newest row of each symbol has come, by table."""
        return [newest(self.broker, table, 0) for table in TABLES]


MARKERS = changelog_topic(MARKERS_TABLE)


def newest(broker: Broker, topic: str, partition: int) -> dict[str, int]:
    positions: dict[str, int] = {}
    for key, value, _ in broker.topics[topic, partition]:
        symbol = (key or b"").decode()
        positions[symbol] = max(positions.get(symbol, -1), read_rank(value)[1])
    return positions


class Committing(Worker):
    """Offsets are committed at once."""

    def mark_durable(self, partition: int, end: int) -> None:
        self.broker.committed[partition] = end


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def pace(symbols: int, longest_wait_s: float = NEVER, now_s: float = 0.0) -> WritePace:
    """One that writes so many symbols' rows."""
    return WritePace(WriteBudget(symbols * len(TIMEFRAMES), longest_wait_s), len(TIMEFRAMES), now_s)


def test_of_large_rows_a_checkpoint_writes_fewer_as_the_last_ones_tell() -> None:
    pace = WritePace(WriteBudget(rows=30, longest_wait_s=NEVER, size=1_000), timeframes=3, now_s=0.0)
    queue = WriteQueue()
    for number in range(20):
        queue.changed(f"S{number}", 0.0, number)

    def chosen() -> int:
        return len(pace.choose({0: queue}, 0.0)[0])

    assert chosen() == 10, "nothing is known of them"
    pace.wrote(30, 30 * 10)
    assert chosen() == 10, "they are small"
    pace.wrote(30, 30 * 100)
    assert chosen() == 3, "ten of them are a thousand bytes"
    pace.wrote(9, 9 * 5_000)
    assert chosen() == 1, "one symbol's in any case"
    pace.wrote(0, 0)
    assert chosen() == 1, "where nothing was written nothing is learnt"
    pace.wrote(3, 3 * 33)
    assert chosen() == 10


def queue_of(*changes: tuple[str, float, int | None]) -> WriteQueue:
    queue = WriteQueue()
    for symbol, now_s, offset in changes:
        queue.changed(symbol, now_s, offset)
    return queue


def test_as_long_as_few_have_changed_all_are_written():
    queues = {0: queue_of(("a", 1, 5), ("b", 2, 7)), 3: queue_of(("c", 1.5, 0)), 4: WriteQueue()}
    assert pace(3).choose(queues, 2) == {0: ["a", "b"], 3: ["c"], 4: []}


def test_of_more_those_that_have_waited_longest_are_written_whatever_their_partition():
    queues = {0: queue_of(("a", 1, 5), ("b", 4, 7)), 3: queue_of(("c", 2, 0), ("d", 3, 1))}
    assert pace(2).choose(queues, 5) == {0: ["a"], 3: ["c"]}


def test_what_has_waited_for_too_long_is_written_however_many_are():
    queues = {0: queue_of(*((str(number), number, number) for number in range(20)))}
    assert pace(2, 10, now_s=15).choose(queues, 15) == {0: [str(number) for number in range(6)]}


def test_where_too_many_wait_each_checkpoint_writes_its_share_rather_than_one_of_them_all_that_are_due():
    queue = queue_of(*((str(number), 0, number) for number in range(1000)))
    written = []
    chooser = pace(1, 10, now_s=0)
    for half_seconds in range(1, 22):
        now_s = half_seconds / 2
        (symbols,) = chooser.choose({0: queue}, now_s).values()
        queue.written(symbols, now_s)
        written.append(len(symbols))
        for symbol in symbols:  # each changes again at once
            queue.changed(symbol, now_s, 1000)
    assert written == [50] * 21


def test_a_symbol_waits_since_its_first_change_and_its_first_record_holds_the_marker_back():
    queue = queue_of(("clock", 1, None), ("a", 2, 7), ("b", 3, 8))
    assert queue.durable_end(20) == 7
    queue.changed("a", 4, 12)
    queue.changed("clock", 5, 15)
    assert list(queue) == [(1, "clock"), (2, "a"), (3, "b")]
    queue.written(["a", "b"], 6)
    assert queue.durable_end(20) == 15
    queue.written(["clock"], 6)
    assert queue.durable_end(20) == 20
    assert not queue


def test_rows_are_due_again_in_the_order_in_which_they_were_written():
    queue = WriteQueue()
    queue.was_written(["a", "b", "c", "d"], 1000)
    queue.find_due(1000)
    assert not queue
    times: dict[str, float] = {}
    for now_s in range(1000, 1000 + round(REWRITE_AFTER_S) + 2):
        queue.find_due(now_s)
        for _, symbol in queue:
            times.setdefault(symbol, now_s - 1000)
    assert times == {"a": 31, "b": 61, "c": 91, "d": 121}, "spread over the time within which they are due"
    queue.written(["a"], 2000)
    queue.written(["b", "c", "d"], 2001)
    queue.find_due(2000 + REWRITE_AFTER_S + 0.5)
    assert list(queue) == [(2000 + REWRITE_AFTER_S + 0.5, "a")]


def test_with_few_symbols_every_checkpoint_writes_all_and_the_marker_says_so():
    async def scenario() -> None:
        market = Market(30)
        worker = await market.worker(WriteBudget())
        for _ in range(3):
            market.trade(*range(30), *range(30))
            while await worker.read(0, 7):
                pass
            await worker.pipeline.checkpoint()
            end = len(market.broker.trades[0])
            assert market.marker().durable_offset == end - 1
            assert market.broker.committed == {0: end}
            last = {symbol: end - 30 + number for number, symbol in enumerate(market.symbols)}
            assert market.rows() == [last, last]

    run(scenario())
    assert ROWS_PER_CHECKPOINT >= 3 * 300, "three timeframes of some hundred symbols are few"


def test_beyond_the_bound_the_marker_and_the_group_stop_before_the_first_record_that_a_row_lacks():
    async def scenario() -> None:
        market = Market(4)
        worker = await market.worker()
        market.trade(0, 1, 2, 0, 3, 1)
        while await worker.read(0, 2):
            pass
        ends = []
        for rows in range(1, 5):
            await worker.pipeline.checkpoint()
            marker = market.marker()
            ends.append(marker.durable_offset + 1)
            assert market.broker.committed == {0: ends[-1]}
            assert [len(table) for table in market.rows()] == [rows, rows], "two of one symbol at each checkpoint"
            assert marker.positions == market.rows()[0], "it lists those that are written, as far as they have come"
            assert marker.records[-1][0] == 5, "candles of all that was read are out: it must all go on to stand"
        assert ends == [1, 2, 4, 6]
        assert marker.positions == {"binance:S00": 3, "binance:S01": 5, "binance:S02": 2, "binance:S03": 4}
        before = len(market.broker.messages(MARKERS))
        await worker.pipeline.checkpoint()
        assert len(market.broker.messages(MARKERS)) == before, "then nothing is left to write"

    run(scenario())


def test_a_log_cut_where_rows_waited_is_another_one_as_candles_of_what_was_there_are_out():
    async def scenario() -> None:
        market = Market(4)
        worker = await market.worker()
        market.trade(0, 1, 2, 3)
        await worker.read(0, 4)
        await worker.pipeline.checkpoint()
        assert market.marker().durable_offset == 0
        assert market.rows() == [{"binance:S00": 0}] * 2, "no row has read what is cut off"
        market.broker.cut(0, 2)
        market.trade(0, 1, 2, 3)
        for _ in range(2):
            with pytest.raises(StateError, match="offset 3 held a record"):
                await market.worker()

    run(scenario())


def test_what_operators_see_of_it():
    def shown(gauge: Any) -> dict[str, float]:
        (family,) = gauge.collect()
        return {sample.labels["partition"]: sample.value for sample in family.samples}

    async def scenario() -> None:
        market = Market(3)
        worker = await market.worker()
        market.trade(0, 1, 2)
        await worker.read(0, 3)
        await worker.pipeline.checkpoint()
        assert (shown(metrics.position), shown(metrics.symbols_waiting)) == ({"0": 0}, {"0": 2})
        await worker.pipeline.settle()
        assert (shown(metrics.position), shown(metrics.symbols_waiting)) == ({"0": 2}, {"0": 0})
        await worker.pipeline.release()
        assert shown(metrics.symbols_waiting) == {}

    run(scenario())


def test_candles_and_corrections_do_not_wait_for_rows_and_are_sent_once():
    async def scenario() -> None:
        market = Market(3)
        worker = await market.worker()
        market.trade(0, 1, 2)
        market.broker.now_us += 70 * SECOND
        market.trade(0, 1, 2)
        market.trade(2, behind_s=70)  # a minute that has closed, of the symbol whose row is written last
        await worker.read(0, 6)
        await worker.read(0, 1)
        await worker.pipeline.checkpoint()
        assert [len(table) for table in market.rows()] == [1, 1]
        sent = [(each.symbol, each.version) for each in market.broker.candles() if each.timeframe == "1m"]
        assert sorted(sent) == [("binance:S00", 0), ("binance:S01", 1), ("binance:S02", 2), ("binance:S02", 6)]
        for _ in range(5):
            await worker.pipeline.checkpoint()
        assert [len(table) for table in market.rows()] == [3, 3]
        assert len([each for each in market.broker.candles() if each.timeframe == "1m"]) == 4

    run(scenario())


def test_records_that_are_folded_are_let_go_of_though_their_rows_wait():
    """Faust keeps what is not acknowledged, and waits for it when partitions are given away."""

    async def scenario() -> None:
        market = Market(5)
        worker = await market.worker()
        market.trade(*range(5))
        await worker.read(0, 5)
        state = worker.pipeline._states[0]
        assert len(state.chunks) == 1
        await worker.pipeline.checkpoint()
        assert not state.chunks
        assert len(state.unwritten) == 4

    run(scenario())


def test_before_partitions_are_given_away_every_row_is_written_and_of_what_comes_after_that_too():
    async def scenario() -> None:
        market = Market(5)
        worker = await market.worker()
        market.trade(*range(5))
        await worker.read(0, 5)
        await worker.pipeline.settle()
        assert [len(table) for table in market.rows()] == [5, 5]
        assert market.marker().durable_offset == 4
        market.trade(*range(5))  # what was in the agent's hands
        await worker.read(0, 5)
        await worker.pipeline.checkpoint()
        assert market.marker().durable_offset == 9
        await worker.start()
        market.trade(*range(5))
        await worker.read(0, 5)
        await worker.pipeline.checkpoint()
        assert market.marker().durable_offset == 10, "partitions that were taken up again are not given away"

    run(scenario())


def test_after_a_crash_rows_that_are_ahead_of_the_marker_are_neither_folded_nor_written_again():
    async def scenario() -> None:
        market = Market(6)
        first = await market.worker()
        market.trade(0, 1, 2, 3, 4, 5, 4, 5)
        await first.read(0, 100)
        await first.pipeline.checkpoint()
        second = await market.worker()
        assert second.next == {0: 1}
        second.pipeline._states[0].unwritten.written([], 0.0)
        written = Counter(table for table in TABLES for _ in market.broker.topics[table, 0])
        await second.read(0, 100)
        assert [symbol for _, symbol in second.pipeline._states[0].unwritten] == market.symbols[1:]
        await second.pipeline.settle()
        third = await market.worker()
        assert third.next == {0: 8}
        market.broker.committed[0] = 0  # so that all is read again
        fourth = await market.worker()
        assert fourth.next == {0: 0}
        await fourth.run_to_end()
        after = Counter(table for table in TABLES for _ in market.broker.topics[table, 0])
        assert {table: after[table] - written[table] for table in TABLES} == dict.fromkeys(TABLES, 5)
        assert market.marker().durable_offset == 7

    run(scenario())


async def killed_while_rows_wait_to_be_written_again() -> list[int]:
    """Trades in the candles of a minute whose one trade came while its row waited because it was due, and only so."""
    market = Market(3)
    worker = await market.worker()
    market.trade(0, 1, 2)
    await worker.read(0, 3)
    for _ in range(3):
        await worker.pipeline.checkpoint()
    market.broker.now_us += round(REWRITE_AFTER_S + 1) * SECOND
    await worker.pipeline.checkpoint()  # all three are due, and one is written
    market.trade(2)
    minute = market.broker.now_us - market.broker.now_us % (60 * SECOND)
    await worker.read(0, 1)
    await worker.pipeline.checkpoint()  # the second one is
    again = await market.worker()
    market.broker.now_us += 70 * SECOND
    market.trade(2)
    await again.run_to_end()
    found = [each for each in market.broker.candles() if (each.timeframe, each.open_time) == ("1m", minute)]
    return [each.trade_count for each in found if each.symbol == market.symbols[2]]


def test_a_row_that_was_only_due_and_then_takes_in_a_trade_holds_the_marker_back(monkeypatch):
    assert asyncio.run(killed_while_rows_wait_to_be_written_again()) == [1]
    original = WriteQueue.changed

    def remember_no_record(self: WriteQueue, symbol: str, now_s: float, offset: int | None = None) -> None:
        if symbol not in self._waiting:
            original(self, symbol, now_s, offset)

    monkeypatch.setattr(WriteQueue, "changed", remember_no_record)
    assert asyncio.run(killed_while_rows_wait_to_be_written_again()) == [0]


async def longest_between_writes(symbols: int, budget: WriteBudget) -> float:
    """The longest time, s, between two writes of a row, while three of the symbols trade."""
    market = Market(symbols)
    worker = await market.worker(budget)
    market.trade(*range(symbols))
    longest, last = 0, dict.fromkeys(market.symbols, START)
    topic = TABLES[0], 0
    while market.broker.now_us < START + 600 * SECOND:
        seen = len(market.broker.topics[topic])
        market.trade(*range(1, 4))
        await worker.read(0, 1000)
        await worker.pipeline.checkpoint()
        for key, _, _ in market.broker.topics[topic][seen:]:
            symbol = (key or b"").decode()
            longest = max(longest, market.broker.now_us - last[symbol])
            last[symbol] = market.broker.now_us
    return max(longest, *(market.broker.now_us - at for at in last.values())) / SECOND


@pytest.mark.parametrize("longest_wait_s", [LONGEST_WAIT_S, NEVER])
def test_a_row_that_has_not_changed_is_written_in_time_though_more_change_than_are_written(longest_wait_s, monkeypatch):
    budget = WriteBudget(1, longest_wait_s)
    within = REWRITE_AFTER_S + LONGEST_WAIT_S + 20  # it waits behind all others
    assert asyncio.run(longest_between_writes(5, budget)) <= within

    def the_one_that_has_changed_last(_: WritePace, queues: Any, __: float) -> dict[int, list[str]]:
        return {number: [symbol for _, symbol in queue][-1:] for number, queue in queues.items()}

    monkeypatch.setattr(WritePace, "choose", the_one_that_has_changed_last)
    assert asyncio.run(longest_between_writes(5, budget)) > within


def test_a_row_never_waits_for_longer_than_the_bound_however_many_change():
    async def scenario() -> None:
        market = Market(40, SECOND // 40)
        worker = await market.worker(WriteBudget(rows=1, longest_wait_s=10))
        for _ in range(30):
            market.trade(*range(40))
            await worker.read(0, 1000)
            await worker.pipeline.checkpoint()
            waiting = [market.broker.now_us / 1e6 - since_s for since_s, _ in worker.pipeline._states[0].unwritten]
            assert max(waiting) <= 10
            assert len(market.broker.trades[0]) - 1 - market.marker().durable_offset <= 11 * 40
        assert max(waiting) > 5, "they do wait"

    run(scenario())


class Watched(History):
    """A history that looks at what every marker says when it is written."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.written_up_to: dict[int, int] = {}
        self.looks = 0
        keep = self.broker.keep

        def keep_and_look(topic: str, partition: int | None, key: Any, value: Any, headers: Any) -> None:
            keep(topic, partition, key, value, headers)
            if partition is not None and (topic, key) == (MARKERS, marker_key(partition)) and value is not None:
                table = SimulatedTable(MARKERS_TABLE, self.broker)
                self.look(partition, find_listed(partition, decode_marker(value), table))

        self.broker.keep = keep_and_look  # type: ignore[method-assign]

    def worker(self, crash_after: int | None) -> Worker:
        worker = super().worker(crash_after)
        mark = worker.mark_durable

        def mark_and_look(partition: int, end: int) -> None:
            assert end <= self.written_up_to[partition], "the group's offset is beyond the marker"
            mark(partition, end)

        worker.mark_durable = mark_and_look  # type: ignore[method-assign]
        return worker

    def look(self, partition: int, marker: Marker) -> None:
        """Rows stand in the changelogs as far as it lists them, and lack nothing up to its offset."""
        self.looks += 1
        self.written_up_to[partition] = marker.durable_offset + 1
        rows = [newest(self.broker, table, partition) for table in TABLES]
        assert marker.positions is not None
        for symbol, position in marker.positions.items():
            assert all(table.get(symbol, -1) >= position for table in rows), "it lists a row that is not written"
        begin = self.broker.earliest.get(partition, 0)
        for record in self.broker.trades[partition][begin : marker.durable_offset + 1]:
            if record.value != b"garbage":
                symbol = (record.key or b"").decode()
                assert all(table.get(symbol, -1) >= record.offset for table in rows), "a row lacks a record before it"


def watch(seeds: range) -> int:
    looks = 0
    for seed in seeds:
        history = Watched(seed)
        asyncio.run(history.live())
        looks += history.looks
    return looks


@pytest.mark.slow
def test_what_a_marker_says_of_the_rows_is_true_when_it_is_written():
    assert watch(range(40)) > 200


def a_marker_of_all_that_was_read(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(WriteQueue, "durable_end", lambda _, end: end)


def a_marker_that_lists_rows_that_wait(patch: pytest.MonkeyPatch) -> None:
    write = Pipeline._write_marker

    async def list_all(self: Pipeline, state: Any, written: list[str]) -> None:
        await write(self, state, [*written, *(symbol for _, symbol in state.unwritten)])

    patch.setattr(Pipeline, "_write_marker", list_all)


def a_group_that_commits_all_that_was_read(patch: pytest.MonkeyPatch) -> None:
    acknowledge = Pipeline._acknowledge_chunks

    async def commit_all(self: Pipeline, state: Any) -> None:
        state.durable_end = state.next
        await acknowledge(self, state)

    patch.setattr(Pipeline, "_acknowledge_chunks", commit_all)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("without", "found"),
    [
        (a_marker_of_all_that_was_read, "a row lacks a record before it"),
        (a_marker_that_lists_rows_that_wait, "it lists a row that is not written"),
        (a_group_that_commits_all_that_was_read, "the group's offset is beyond the marker"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_a_marker_that_says_too_much_is_seen(without, found, monkeypatch):
    without(monkeypatch)
    with pytest.raises(AssertionError, match=found):
        watch(range(40))


def test_a_worker_killed_at_any_send_while_rows_wait_leaves_a_marker_that_is_true():
    """Each crash point of a run, with any part of what was in flight written."""

    async def crash_at(place: int) -> bool:
        market = Market(4)
        worker = await market.worker(WriteBudget(rows=2, longest_wait_s=NEVER), crash_after=place, seed=place)
        crashed = False
        try:
            for number in range(12):
                market.trade(0, number % 4, 1)
                market.broker.now_us += 20 * SECOND
                await worker.read(0, 5)
                await worker.pipeline.checkpoint()
        except Crash:
            crashed = True
        if any(key == marker_key(0) for key, _, _ in market.broker.messages(MARKERS)):
            history = Watched(0)
            history.broker = market.broker
            history.look(0, market.marker())
        return crashed

    places = 0
    while asyncio.run(crash_at(places)):
        places += 1
    assert places > 50

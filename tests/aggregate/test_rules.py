"""Every rule is needed: with all of them no history goes wrong, without any one of them some history does."""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Callable
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from simulation import COMPACTION_LAG, FLAT, SECOND, TIMEFRAMES, History, WrongCandlesError, simulate

import ashi_aggregate.core.symbol as symbol_module
import ashi_aggregate.partition as state_module
import ashi_aggregate.pipeline as pipeline_module
import ashi_aggregate.write_queue as write_queue_module
from ashi.contracts import Trade
from ashi.runtime.kafka.connections.clients import partition_of
from ashi_aggregate.clocks import BrokerClock, SteadyClock
from ashi_aggregate.core import aggregator as aggregator_module
from ashi_aggregate.core.aggregator import TimeframeAggregator
from ashi_aggregate.core.codec import decode_row, encode
from ashi_aggregate.core.symbol import SymbolAggregator
from ashi_aggregate.core.trade_ids import TradeIds
from ashi_aggregate.core.window_state import StateRow, WindowRules
from ashi_aggregate.native.kernel import KNOWN, RECORD, Kernel
from ashi_aggregate.output import Output
from ashi_aggregate.pipeline import Pipeline
from ashi_aggregate.quiet import QuietClose
from ashi_aggregate.write_queue import WriteQueue
from kafka_topics import simulated_log
from kafka_topics.simulated_log import Broker, Crash, Worker
from samples.hypothesis_strategies import START

SEEDS_WITH_ALL_RULES = 150
SEEDS_TO_FAIL_WITHIN = 400

Patch = pytest.MonkeyPatch


def forget_in_rows(patch: Patch, **fields: Any) -> None:
    """Rows are written without some of their fields."""

    def encode_less(state: Any) -> bytes:
        if not isinstance(state, StateRow):
            return encode(state)
        row = decode_row(encode(state))
        for name, value in fields.items():
            setattr(row, name, value)
        return encode(row)

    patch.setattr(pipeline_module, "encode", encode_less)


def rows_before_candles(patch: Patch) -> None:
    async def do_not_wait(self: Output) -> Any:
        sent, self._unacknowledged = self._unacknowledged, []
        return sent

    patch.setattr(Output, "acknowledged", do_not_wait)


def marker_before_rows(patch: Patch) -> None:
    nothing_counts_the_rows(patch)
    write_rows, write_marker = Pipeline._write_rows, Pipeline._write_marker
    hear = QuietClose.hear

    async def marker_first(self: Pipeline, state: Any, symbols: Any) -> None:
        state.unwritten.written(symbols, 0.0)
        await write_marker(self, state, symbols)

    async def rows_then(self: Pipeline, state: Any, symbols: Any) -> None:
        await write_rows(self, state, symbols)

    def hear_all(self: Any, marked: Any, acknowledged: Any) -> None:  # what was acknowledged last are rows here
        now = SimpleNamespace(timestamp=self._kafka.broker.append_time_ms(), timestamp_type=1)
        hear(self, marked, [now] * len(marked))

    patch.setattr(Pipeline, "_write_rows", marker_first)
    patch.setattr(Pipeline, "_write_marker", rows_then)
    patch.setattr(QuietClose, "hear", hear_all)


def windows_dropped_before_the_checkpoint(patch: Patch) -> None:
    original = SymbolAggregator.on_trades

    def on_trades(self: SymbolAggregator, *arguments: Any) -> Any:
        outcome = original(self, *arguments)
        for row in self.rows:
            for open_time in [time for time in row.row.windows if time < row.row.closed_until]:
                del row.row.windows[open_time]
        return outcome

    patch.setattr(SymbolAggregator, "on_trades", on_trades)


def no_last_close_in_the_row(patch: Patch) -> None:
    forget_in_rows(patch, dropped=None)


def no_append_time_in_the_row(patch: Patch) -> None:
    forget_in_rows(patch, appended_at=2**53)


def no_memory_of_what_has_closed(patch: Patch) -> None:
    forget_in_rows(patch, closed_until=0)


def no_ids_in_the_row(patch: Patch) -> None:
    forget_in_rows(patch, ids={})


def no_position_guard(patch: Patch) -> None:
    def on_trades(self: SymbolAggregator, trades: Any, offsets: Any, appended_at: int = 0) -> Any:
        for row in self.rows:
            row.row.appended_at = max(row.row.appended_at, appended_at)
        return self._fold_once(trades, offsets)

    patch.setattr(SymbolAggregator, "on_trades", on_trades)
    patch.setattr(TradeIds, "admit", lambda *_: True)  # the ids would hide it


def one_fold_for_rows_of_different_positions(patch: Patch) -> None:
    def on_trades(self: SymbolAggregator, trades: Any, offsets: Any, appended_at: int = 0) -> Any:
        seen = bisect.bisect_right(offsets, self.rows[0].row.applied_offset)
        if seen == len(offsets):
            return symbol_module.Outcome([], [], 0, 0)
        for row in self.rows:
            row.row.appended_at = max(row.row.appended_at, appended_at)
        return self._fold_once(trades, offsets, seen)

    patch.setattr(SymbolAggregator, "on_trades", on_trades)


def nothing_is_late(patch: Patch) -> None:
    patch.setattr(aggregator_module, "late_reason", lambda *_: None)
    patch.setattr(symbol_module, "late_reason", lambda *_: None)


def lateness_by_the_clock_at_the_end_of_the_chunk(patch: Patch) -> None:
    original = SymbolAggregator._fold_once

    def fold_once(self: SymbolAggregator, trades: Any, offsets: Any, seen: int = 0) -> Any:
        clock = max(trade.traded_at for trade in trades[seen:])
        self.rows[0].row.stream_time = max(self.rows[0].row.stream_time, clock)
        return original(self, trades, offsets, seen)

    patch.setattr(SymbolAggregator, "_fold_once", fold_once)


def natively_nothing_is_late(patch: Patch) -> None:
    original = Kernel.fold

    def fold(self: Kernel, scanned: Any, rules: Any, known: bytearray, **more: Any) -> Any:
        for at in range(0, len(known), KNOWN.size):
            fields = list(KNOWN.unpack_from(known, at))
            fields[2] = 0
            KNOWN.pack_into(known, at, *fields)
        return original(self, scanned, rules._replace(horizon_us=10**15), known, **more)

    patch.setattr(Kernel, "fold", fold)


def natively_lateness_goes_by_the_clock_at_the_end_of_the_chunk(patch: Patch) -> None:
    original = Kernel.fold

    def fold(self: Kernel, scanned: Any, rules: Any, known: bytearray, **more: Any) -> Any:
        columns = RECORD.iter_unpack(bytes(scanned.records)[: scanned.record_count * RECORD.size])
        latest = max(column[2] for column in columns)
        for at in range(0, len(known), KNOWN.size):
            fields = list(KNOWN.unpack_from(known, at))
            fields[1] = max(fields[1], latest)
            KNOWN.pack_into(known, at, *fields)
        return original(self, scanned, rules, known, **more)

    patch.setattr(Kernel, "fold", fold)


def nothing_counts_the_rows(patch: Patch) -> None:
    """The state is not compared with what its marker says. Not itself a rule here: it would hide that others lack."""
    patch.setattr(state_module, "find_missing", lambda *_: None)


def recovery_keeps_the_last_write(patch: Patch) -> None:
    nothing_counts_the_rows(patch)
    patch.setattr(simulated_log, "rank_of", lambda _: (0, 0))


def chunks_need_not_continue_each_other(patch: Patch) -> None:
    on_chunk, read = Pipeline.on_chunk, simulated_log.Worker.read

    async def take_any(self: Pipeline, chunk: Any, acknowledge: Any) -> None:
        self._states[chunk.partition].next = chunk.begin
        await on_chunk(self, chunk, acknowledge)

    async def skip_some(self: simulated_log.Worker, partition: int, count: int) -> bool:
        if self.random.random() < 0.1:
            self.next[partition] = min(self.next[partition] + 2, len(self.broker.trades[partition]))
        return await read(self, partition, count)

    patch.setattr(Pipeline, "on_chunk", take_any)
    patch.setattr(simulated_log.Worker, "read", skip_some)


def resumption_at_the_end_of_the_log(patch: Patch) -> None:
    original = state_module.load_partition

    async def load(number: int, offsets: Any, **arguments: Any) -> Any:
        state = await original(number, offsets, **arguments)
        state.next = min(offsets.end, state.next + 1)
        return state

    patch.setattr(pipeline_module, "load_partition", load)


def a_chunk_closes_windows_before_all_of_it_is_in(patch: Patch) -> None:
    add, close_due = TimeframeAggregator._add, TimeframeAggregator.close_due

    def add_and_close(self: Any, symbol: str, folds: Any) -> None:
        for fold in folds:
            add(self, symbol, [fold])
            self.advance(fold.offset, fold.last[0])
            self.early = [*getattr(self, "early", []), *close_due(self, self.row.stream_time)]

    def close(self: Any, clock: int) -> Any:
        early, self.early = getattr(self, "early", []), []
        return early + close_due(self, clock)

    patch.setattr(TimeframeAggregator, "_add", add_and_close)
    patch.setattr(TimeframeAggregator, "close_due", close)


def no_corrections(patch: Patch) -> None:
    patch.setattr(SymbolAggregator, "corrections", lambda _: [])


def flat_candles_are_not_corrected(patch: Patch) -> None:
    original = TimeframeAggregator.corrections
    patch.setattr(
        TimeframeAggregator, "corrections", lambda self: [candle for candle in original(self) if candle.trade_count]
    )


def no_left_edge(patch: Patch) -> None:
    patch.setattr(pipeline_module, "find_complete_from", lambda *_: 0)


def ids_are_kept_for_the_horizon_only(patch: Patch) -> None:
    patch.setattr(
        TimeframeAggregator, "ids_needed_from", lambda self, clock: clock - self.rules.horizon_us + 30_000_000
    )


def settings_change_without_a_new_epoch(patch: Patch) -> None:
    original = History.worker

    def worker(self: History, crash_after: int | None) -> Any:
        self.rules = symbol_module.WindowRules(
            self.rules.finest, self.rules.lateness_us, self.rules.horizon_us + 60_000_000, max_flat=8
        )
        return original(self, crash_after)

    patch.setattr(History, "worker", worker)


def readers_keep_the_last_candle(patch: Patch) -> None:
    def last(candles: Any) -> Any:
        kept = {(c.symbol, c.timeframe, c.open_time): c for c in candles}
        skipped = {"symbol", "timeframe", "open_time", "version"}
        return {
            key: {field: getattr(c, field) for field in c.__struct_fields__ if field not in skipped}
            for key, c in kept.items()
        }

    patch.setattr("simulation.stored", last)


def quiet_windows_close_by_the_wall_clock_alone(patch: Patch) -> None:
    patch.setattr(BrokerClock, "now_us", lambda *_: None)


def quiet_windows_close_before_the_brokers_clock_is_known(patch: Patch) -> None:
    patch.setattr(state_module.PartitionState, "marked_at", property(lambda _: 0.0, lambda *_: None), raising=False)


def quiet_windows_close_by_the_brokers_clock_alone(patch: Patch) -> None:
    patch.setattr(SteadyClock, "now_us", lambda _: 2**60)


def the_wall_clock_may_step_back(patch: Patch) -> None:
    patch.setattr(SteadyClock, "now_us", SteadyClock.wall_us)


def the_marker_says_all_that_was_read(patch: Patch) -> None:
    patch.setattr(WriteQueue, "durable_end", lambda _, end: end)


def rows_that_wait_are_forgotten(patch: Patch) -> None:
    original = WriteQueue.written

    def written(self: WriteQueue, symbols: Any, now_s: float) -> None:
        original(self, symbols, now_s)
        self._waiting.clear()

    patch.setattr(WriteQueue, "written", written)


def a_row_that_waits_remembers_the_last_record_it_has_taken_in(patch: Patch) -> None:
    original = WriteQueue.changed

    def changed(self: WriteQueue, symbol: str, now_s: float, offset: int | None = None) -> None:
        before = self._waiting.get(symbol)
        original(self, symbol, now_s, offset)
        if before is not None and offset is not None:
            self._waiting[symbol] = before._replace(offset=offset)

    patch.setattr(WriteQueue, "changed", changed)


RULES: list[Callable[[Patch], None]] = [
    rows_before_candles,
    marker_before_rows,
    windows_dropped_before_the_checkpoint,
    no_last_close_in_the_row,
    no_append_time_in_the_row,
    no_memory_of_what_has_closed,
    no_ids_in_the_row,
    no_position_guard,
    one_fold_for_rows_of_different_positions,
    nothing_is_late,
    lateness_by_the_clock_at_the_end_of_the_chunk,
    natively_nothing_is_late,
    natively_lateness_goes_by_the_clock_at_the_end_of_the_chunk,
    recovery_keeps_the_last_write,
    chunks_need_not_continue_each_other,
    resumption_at_the_end_of_the_log,
    no_corrections,
    flat_candles_are_not_corrected,
    no_left_edge,
    ids_are_kept_for_the_horizon_only,
    settings_change_without_a_new_epoch,
    readers_keep_the_last_candle,
    quiet_windows_close_by_the_wall_clock_alone,
    quiet_windows_close_before_the_brokers_clock_is_known,
    quiet_windows_close_by_the_brokers_clock_alone,
    the_wall_clock_may_step_back,
    the_marker_says_all_that_was_read,
    rows_that_wait_are_forgotten,
    a_row_that_waits_remembers_the_last_record_it_has_taken_in,
]


RARE = {
    no_last_close_in_the_row: 110,
    no_memory_of_what_has_closed: 110,
    recovery_keeps_the_last_write: 80,
    readers_keep_the_last_candle: 20,
    the_wall_clock_may_step_back: 180,
}
"""Rules that only some rare history needs: where to begin to look, so that the test need not run them all."""


def first_failure(seeds: int, begin: int = 0) -> int | None:
    """The first seed whose candles the comparison finds wrong. Any other error is one of the test, and raised."""
    for seed in range(begin, begin + seeds):
        try:
            simulate(seed)
        except WrongCandlesError:
            return seed
    return None


@pytest.mark.slow
def test_with_all_rules_no_history_goes_wrong():
    assert first_failure(SEEDS_WITH_ALL_RULES) is None


async def late_row_of_a_dead_worker(lag_us: int, minutes: int) -> bool:
    """Whether the candles are right after a worker, declared dead, wrote rows late and compaction kept the last ones.

    Another worker takes over so many minutes after that. Random histories hardly ever come to this: the dead worker
    also has to end between its rows and its marker.
    """
    history = History(2)
    history.rules = WindowRules(TIMEFRAMES[0], max_flat=FLAT)
    history.quiet_close = False
    history.symbols = history.symbols[:1]
    broker = history.broker
    while len(history.log) < 20:
        history.publish()
    dead = history.worker(crash_after=None)
    await dead.start()
    for partition in dead.next:
        await dead.read(partition, 5)
    owner = history.worker(crash_after=None)
    await owner.start()
    await owner.run_to_end()
    broker.now_us += 10 * SECOND
    dead.crash_after = len(TIMEFRAMES) + sum(len(each.corrections()) for each in _aggregators(dead))
    with pytest.raises(Crash):
        await dead.pipeline.checkpoint()
    for _ in range(minutes):
        broker.compact(lag_us)
        broker.now_us += 60 * SECOND
        await owner.pipeline.checkpoint()
    broker.compact(lag_us)
    last = history.worker(crash_after=None)
    await last.start()
    while len(history.log) < 60:
        broker.now_us += 20 * SECOND
        history.publish()
    await last.run_to_end()
    try:
        history.check()
    except WrongCandlesError:
        return False
    return True


async def late_windows_out_of_order() -> bool:
    """Whether the candles are right after one chunk has brought trades of two windows before a symbol's first.

    The later window's first, and nothing of the symbol has closed yet: random histories hardly ever come to that.
    """
    history = History(2)
    history.rules = WindowRules(TIMEFRAMES[0], horizon_us=600 * SECOND, max_flat=FLAT)
    history.quiet_close = False
    history.symbols = history.symbols[:1]
    (symbol,) = history.symbols
    for number, seconds in enumerate((310, 250, 190, 600)):
        at = START + seconds * SECOND
        history.broker.now_us = max(history.broker.now_us, at)
        history._append(Trade(symbol, str(number), Decimal(5 + number), Decimal(1), "buy", at, at, number))
    worker = history.worker(crash_after=None)
    await worker.start()
    partition = partition_of(symbol.encode(), history.broker.partitions)
    for records in (1, 2, 1):
        await worker.read(partition, records)
        await worker.pipeline.checkpoint()
    try:
        history.check()
    except WrongCandlesError:
        return False
    return True


def test_a_chunk_is_folded_whole_before_windows_close(monkeypatch):
    assert asyncio.run(late_windows_out_of_order())
    a_chunk_closes_windows_before_all_of_it_is_in(monkeypatch)
    assert not asyncio.run(late_windows_out_of_order())


def _aggregators(worker: Any) -> list[SymbolAggregator]:
    return [
        SymbolAggregator(TIMEFRAMES, each.rules, [decode_row(encode(row.row)) for row in each.rows])
        for state in worker.pipeline._states.values()
        for each in state.symbols.values()
    ]


def test_rows_are_written_again_in_time_for_compaction_not_to_leave_only_the_late_one_of_a_dead_worker(monkeypatch):
    for minutes in (0, 1, 4, 8):
        assert asyncio.run(late_row_of_a_dead_worker(COMPACTION_LAG, minutes))
    nothing_counts_the_rows(monkeypatch)
    assert not asyncio.run(late_row_of_a_dead_worker(0, 0))
    monkeypatch.setattr(write_queue_module, "REWRITE_AFTER_S", 2**40)
    assert not asyncio.run(late_row_of_a_dead_worker(COMPACTION_LAG, 8))


async def frozen_worker() -> list[Any]:
    """The candles that a worker sends when it goes on after it stood still, and what it had not read has expired.

    All but the first of the five trades of a minute have expired. No candle of that minute may leave the worker.
    """
    broker = Broker(partitions=1)
    broker.now_us = START
    trades = [
        Trade("binance:A", str(n), Decimal(5), Decimal(1), None, START + n * SECOND, START + n * SECOND, n)
        for n in range(5)
    ]
    broker.publish(trades[:1], broker.append_time_ms())
    worker = Worker(broker, TIMEFRAMES, WindowRules(TIMEFRAMES[0]), quiet_close=True)
    await worker.start()
    await worker.run_to_end()
    worker.fetched_end = {0: 1}
    broker.now_us += 100 * SECOND
    broker.publish(trades[1:], broker.append_time_ms())
    broker.earliest[0] = 5
    await worker.pipeline.checkpoint()
    return broker.candles()


def test_a_worker_that_stood_still_closes_nothing_by_an_end_of_the_log_from_before(monkeypatch):
    assert not asyncio.run(frozen_worker())

    async def as_of_the_last_fetch(self: Worker, partitions: Any) -> dict[int, int]:
        return self.fetched_end

    monkeypatch.setattr(Worker, "ask_ends", as_of_the_last_fetch)
    assert asyncio.run(frozen_worker())[0].trade_count == 1


@pytest.mark.parametrize("without", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.slow
def test_without_any_one_rule_some_history_goes_wrong(without, monkeypatch):
    without(monkeypatch)
    assert first_failure(SEEDS_TO_FAIL_WITHIN, RARE.get(without, 0)) is not None


if __name__ == "__main__":
    for rule in RULES:
        with pytest.MonkeyPatch.context() as patch:
            rule(patch)
            print(rule.__name__, first_failure(2000))  # noqa: T201

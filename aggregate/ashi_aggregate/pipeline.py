"""Chunks in, candles out, and the checkpoint that makes both durable. Its I/O is behind two small protocols."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

from ashi.contracts.candle import Candle
from ashi.contracts.errors import StateError
from ashi.contracts.records import SINCE_HEADER, time_in
from ashi.contracts.timeframe import Timeframe
from ashi.contracts.topics import TRADES
from ashi.contracts.trade import MAX_AHEAD_US
from ashi.runtime.kafka.cluster.log_identity import Difference, Fingerprint, difference, fingerprint_of
from ashi.runtime.kafka.consuming.lag import LagWatch
from ashi.runtime.logs import get_logger
from ashi.runtime.metrics import aggregate as metrics
from ashi.runtime.wall_clock import now_us
from ashi_aggregate.chunk import Chunk, LogRecord, SymbolTrades
from ashi_aggregate.core.codec import encode
from ashi_aggregate.core.symbol import LateTrade, SymbolAggregator
from ashi_aggregate.core.window_state import WindowRules, find_complete_from
from ashi_aggregate.delays import AWAITED_US, Awaited
from ashi_aggregate.fencing import SessionGuard, since_boot_s
from ashi_aggregate.greatest import Greatest
from ashi_aggregate.live import LiveCandles
from ashi_aggregate.log_check import LogWatch, check_markers, other_log, witness_of
from ashi_aggregate.native.columns import SymbolColumns
from ashi_aggregate.native.decoder import NativeDecoder
from ashi_aggregate.output import Output
from ashi_aggregate.partition import (
    PartitionOffsets,
    PartitionState,
    load_partition,
    marker_key,
    read_marker,
    read_witness,
    witness_key,
)
from ashi_aggregate.prepare import Preparation
from ashi_aggregate.protocols import Acknowledge, KafkaLog, StateTable
from ashi_aggregate.quiet import GOES_ON_S, QuietClose
from ashi_aggregate.step_lock import StepLock
from ashi_aggregate.write_queue import BUDGET, WriteBudget, WritePace

FOLDED_AT_ONCE: Final = 64
"""So many symbols are folded before the next ones: what is known of them stays in the processor's cache meanwhile."""
SYMBOLS_AT_ONCE: Final = 500
"""So many rows of a table are encoded before others have their turn: some milliseconds, and less than a megabyte."""

_log = get_logger(__name__)


class Pipeline:
    """The work of one aggregate worker. Folding and checkpoints exclude each other; decoding goes on meanwhile."""

    def __init__(
        self,
        *,
        timeframes: Sequence[Timeframe],
        rules: WindowRules,
        quiet_close: bool,
        partitions: int,
        tables: Sequence[StateTable],
        markers: StateTable,
        kafka: KafkaLog,
        session_guard: SessionGuard,
        live: LiveCandles | None = None,
        begin: Mapping[int, int] | None = None,
        whole_from: int | None = None,
        budget: WriteBudget = BUDGET,
        named: Callable[[str], str] = str,
        now_us: Callable[[], int] = now_us,
        monotonic_s: Callable[[], float] = since_boot_s,
    ) -> None:
        """Tables are in the order of `timeframes`, the finest first.

        `live`: what tells of candles in progress, if anything does. `begin`: the offset at which a new state begins to
        read each partition; by default where the log begins; `whole_from`: as in the epoch. `budget`: what a checkpoint
        writes, but for those before partitions are given away. `named`: what a topic is called in Kafka, for people who
        look for it there.
        """
        self.checkpoints = 0
        """How many have been completed: the sign of life of a worker, busy or idle."""
        self._timeframes = timeframes
        self._rules = rules
        self._tables = tables
        self._markers = markers
        self._kafka = kafka
        self._output = Output(kafka, rules, timeframes)
        self._quiet = QuietClose(kafka, self._output, enabled=quiet_close, now_us=now_us, since_boot_s=monotonic_s)
        self._preparation = Preparation(self._output, rules, now_us)
        self._session_guard = session_guard
        self._live = live
        self._begin = begin or {}
        self._whole_from = whole_from
        self._pace = WritePace(budget, len(timeframes), monotonic_s())
        self._partitions = partitions
        self._named = named
        self._now_us = now_us
        self._monotonic_s = monotonic_s
        self._decoder = NativeDecoder(partitions)
        self._states: dict[int, PartitionState] = {}
        self._lock = StepLock()
        self._watch = LogWatch()
        self._condemned: StateError | None = None
        self._gives_away = False
        self._lags = LagWatch()
        self._row_bytes, self._id_intervals = Greatest(metrics.row_bytes), Greatest(metrics.id_intervals)

    async def resume(self, partitions: Mapping[int, PartitionOffsets]) -> dict[int, int]:
        """Take up the partitions given, and only those; returns the offset to read each on from.

        Raises StateError when going on would lose trades.
        """
        self._refuse_grown(partitions)
        async with self._lock:
            markers, witnesses = (
                {number: found for number in partitions if (found := read(self._markers, number, self._rules.epoch))}
                for read in (read_marker, read_witness)
            )
            self._watch.identity = await check_markers(self._kafka, markers, witnesses)
            await self._replace_states(
                {
                    number: await load_partition(
                        number,
                        offsets,
                        timeframes=self._timeframes,
                        rules=self._rules,
                        tables=self._tables,
                        marker=markers.get(number),
                        begin=self._begin.get(number),
                        whole_from=self._whole_from,
                        now_s=self._monotonic_s(),
                        named=self._named,
                    )
                    for number, offsets in partitions.items()
                }
            )
            for state in self._states.values():
                # Of a state that begins anew nobody waits for the past, nor for very old candles of another.
                is_new = state.is_rebuilt or state.number not in markers
                state.awaited = Awaited(self._now_us() - (0 if is_new else AWAITED_US))
                await self._prepare(state)
                if self._live is not None:
                    self._live.took_up(state)
            await self._output.acknowledged()
            starts = {number: state.next for number, state in self._states.items()}
            _log.info("resumed", partitions=starts)
            return starts

    async def _prepare(self, state: PartitionState) -> None:
        state.trail.topic_id = self._watch.identity.topic_id or state.trail.topic_id
        if state.is_rebuilt:
            # It says what is not there; a marker of the state that is built now would be behind it, and lose.
            self._session_guard.check()
            await self._output.put(self._markers, state.number, [(marker_key(state.number), None)])

    def known_records(self, partition: int) -> list[Fingerprint]:
        """The last record that the state of a partition has read, as it must still stand in the log."""
        state = self._states.get(partition)
        return [] if state is None else state.trail.records[-1:]

    async def check_continued(self, partition: int, begin: int, known: Sequence[Fingerprint]) -> None:
        """Look whether the log goes on at `begin`, and the records known still stand in it.

        Raises StateError when it is another log, BrokerError when Kafka does not say.
        """
        standing = (await self._kafka.standing({partition: [each.offset for each in known]}))[partition]
        found = difference(known, standing)
        if found is not None:
            raise await self.condemn(partition, found)
        if standing.end < begin:
            raise other_log(partition, f"it ends at offset {standing.end}, and was read up to {begin}")

    async def check_log(self, *, everything: bool) -> None:
        """Look whether `trades` is still the log that was read; cheap while neither its id nor a leader changes.

        `everything`: look at the last record of each partition in any case. Raises StateError when it is another log,
        BrokerError when Kafka does not say.
        """
        states = dict(self._states)
        for number, found in (await self._watch.look(self._kafka, states, everything=everything)).items():
            if self._states.get(number) is states[number]:
                raise await self.condemn(number, found) if isinstance(found, Difference) else found
        # The group does not always tell: of a group of static members nobody may watch how many partitions there are.
        self._refuse_grown(self._watch.identity.leader_epochs)

    def _refuse_grown(self, partitions: Iterable[int]) -> None:
        if any(number >= self._partitions for number in partitions):
            raise StateError(
                f"topic {self._named(TRADES)} has grown beyond {self._partitions} partitions, so its symbols have "
                "moved: stop all aggregate workers, then run `ashi aggregate reconfigure`"
            )

    async def condemn(self, partition: int, found: Difference) -> StateError:
        """Remember that a partition's log is not the one that was read, for every start to come; gives the error.

        Nothing is folded or written from here on.
        """
        async with self._lock:
            state = self._states.get(partition)
            if state is not None and self._condemned is None:
                self._session_guard.check()
                witness = witness_of(found.expected, self._rules.epoch, self._watch.identity.topic_id)
                await self._output.put(self._markers, partition, [(witness_key(partition), encode(witness))])
                await self._output.acknowledged()
            self._condemned = other_log(partition, str(found))
            return self._condemned

    async def look_at_lag(self) -> None:
        """Ask Kafka where the partitions end, and show how far behind that they are folded."""
        boot_us = int(self._monotonic_s() * 1_000_000)
        looked_at = {
            number: (state, state.next, max(state.read_at, state.appended_at), state.clock.now_us(boot_us))
            for number, state in self._states.items()
        }
        wall_us = self._now_us()
        ends = await self._kafka.ask_ends(looked_at) if looked_at else {}
        for number, end in ends.items():
            state, at, read_until, broker_us = looked_at[number]
            if self._states.get(number) is not state:
                continue  # a rebalance came in between
            lag = self._lags.look(number, at=at, end=end, read_until=read_until, now=broker_us or wall_us)
            metrics.aggregate_lag_records.labels(number).set(lag.records)
            if lag.seconds is not None:
                metrics.aggregate_lag_seconds.labels(number).set(lag.seconds)

    async def release(self) -> None:
        """Let go of all partitions: others have them from now on."""
        async with self._lock:
            await self._replace_states({})
            _log.info("released all partitions")

    async def _replace_states(self, states: dict[int, PartitionState]) -> None:
        forgotten = [acknowledge for state in self._states.values() for acknowledge in state.chunks]
        self._states = states
        self._lags = LagWatch()
        self._lock.begin_anew()
        self._gives_away = False
        self._show_positions()
        # They will be read again: acknowledging only lets Faust forget them, a commit needs `mark_durable`.
        for acknowledge in forgotten:
            await acknowledge()

    def _show_positions(self) -> None:
        """Of the partitions that are ours and of no others: what another worker does with them is for it to say."""
        metrics.position.clear()
        metrics.checkpoint_timestamp_seconds.clear()
        metrics.clock_offset_seconds.clear()
        metrics.symbols_waiting.clear()
        metrics.event_timestamp_seconds.clear()
        metrics.aggregate_lag_records.clear()
        metrics.aggregate_lag_seconds.clear()
        for state in self._states.values():
            _show_position(state)

    async def on_chunk(self, chunk: Chunk, acknowledge: Acknowledge) -> None:
        """Fold a chunk and send the candles it closed. It is acknowledged at the next checkpoint."""
        try:
            await self._on_chunk(chunk, acknowledge)
        except Exception:
            _log.error("chunk cannot be aggregated", partition=chunk.partition, begin=chunk.begin, end=chunk.end)
            raise

    async def _on_chunk(self, chunk: Chunk, acknowledge: Acknowledge) -> None:
        by_symbol, rejected = self._decoder.decode(chunk)
        async with self._lock:
            self._session_guard.check()
            if self._condemned is not None or self._lock.is_broken:
                return
            state = self._states.get(chunk.partition)
            if state is None or chunk.begin != state.next:
                await self._refuse(chunk, acknowledge, state)
                return
            if state.ahead:
                state.check_ahead(chunk.records)
            if not chunk.records:
                self._count(state, chunk, acknowledge)
                return
            if state.begins_at is None:
                state.begins_at = chunk.records[0].timestamp * 1000 + MAX_AHEAD_US
            elif chunk.begin == 0 and state.begins_at == 0:
                state.begins_at = time_in(chunk.records[0].headers, SINCE_HEADER) or 0
            candles, late = self._fold(state, by_symbol, state.begins_at)
            self._count(state, chunk, acknowledge)
            state.last_record = chunk.records[-1]
            self._quiet.saw(state, chunk.records[-1])
            await self._output.send_candles(candles, "closed", state.awaited)
            await self._quiet.close_seen(state, chunk.records[-1])
            await self._output.send_late(chunk, late)
            await self._output.send_rejected(chunk, rejected)

    @staticmethod
    def _count(state: PartitionState, chunk: Chunk, acknowledge: Acknowledge) -> None:
        """It is folded: only now may a checkpoint say so, as folding may fail while one waits for its turn."""
        state.next = chunk.end
        state.chunks.append(acknowledge)

    def _fold(
        self, state: PartitionState, by_symbol: Mapping[str, SymbolTrades | SymbolColumns], begins_at: int
    ) -> tuple[list[Candle], list[tuple[LogRecord, LateTrade]]]:
        """Fold the trades of a chunk; the candles they closed, and those too late with the records they came in."""
        candles: list[Candle] = []
        late: list[tuple[LogRecord, LateTrade]] = []
        symbols = list(by_symbol)
        for begin in range(0, len(symbols), FOLDED_AT_ONCE):
            some = {symbol: by_symbol[symbol] for symbol in symbols[begin : begin + FOLDED_AT_ONCE]}
            self._fold_some(state, some, begins_at, candles, late)
        return candles, late

    def _fold_some(
        self,
        state: PartitionState,
        by_symbol: Mapping[str, SymbolTrades | SymbolColumns],
        begins_at: int,
        candles: list[Candle],
        late: list[tuple[LogRecord, LateTrade]],
    ) -> None:
        """Fold the trades of some symbols, and add what came of it to `candles` and `late`."""
        now_s = self._monotonic_s()
        aggregators = {
            symbol: self._aggregator_of(state, symbol, group, begins_at) for symbol, group in by_symbol.items()
        }
        unawaited = [symbol for symbol in by_symbol if symbol not in state.awaited]
        for symbol in unawaited:
            state.awaited.look(symbol, aggregators[symbol].rows[0].row)
        outcomes = self._decoder.fold(by_symbol, aggregators, self._rules)
        for symbol in unawaited:
            state.awaited.look(symbol, aggregators[symbol].rows[0].row)
        for symbol, group in by_symbol.items():
            outcome, row = outcomes[symbol], aggregators[symbol].rows[0].row
            state.event_at = max(state.event_at, row.stream_time)
            candles += outcome.candles
            late += [(group.record(trade.place), trade) for trade in outcome.late]
            if outcome.changed:
                state.folded.add(symbol)
                if self._live is not None:
                    state.live.changed(symbol, now_s)
                state.unwritten.changed(symbol, now_s, group.first_offset)
        metrics.trades_aggregated.labels(state.number).inc(sum(outcome.counted for outcome in outcomes.values()))
        if duplicates := sum(outcome.duplicates for outcome in outcomes.values()):
            metrics.records_skipped.labels("duplicate").inc(duplicates)

    def _aggregator_of(
        self, state: PartitionState, symbol: str, group: SymbolTrades | SymbolColumns, begins_at: int
    ) -> SymbolAggregator:
        aggregator = state.symbols.get(symbol)
        if aggregator is None:
            complete_from = find_complete_from(self._rules, begins_at, group.first_traded_at)
            aggregator = SymbolAggregator(self._timeframes, self._rules, complete_from=complete_from)
            state.symbols[symbol] = aggregator
        return aggregator

    async def tell_progress(self) -> float:
        """Send what is due of the candles in progress; gives after how long to do it again, s.

        No step, and none waits for it: it only looks at the state.
        """
        if self._live is None:
            return math.inf
        return GOES_ON_S if self.is_closing else await self._live.tell(self._own_states)

    async def prepare_candles(self) -> float:
        """Make candles of windows that will close soon, if they are many; gives after how long to do it again, s.

        No step, and none waits for it: it only looks at the state.
        """
        return await self._preparation.look(self._own_states)

    def _own_states(self) -> Collection[PartitionState]:
        """The states of our partitions; none where they may not count any more."""
        if self._gives_away or self._condemned is not None or self._lock.is_broken:
            return ()
        return self._states.values()

    @property
    def is_closing(self) -> bool:
        """Whether it is the end of a minute: candles are late by all else that is done now, and what can wait waits."""
        return self._quiet.is_under_way

    async def settle(self) -> None:
        """A checkpoint that leaves no row unwritten, as will all until partitions are taken up: they are given away."""
        self._gives_away = True
        await self.checkpoint()

    async def checkpoint(self) -> None:
        """Make what was folded so far durable, in the order that lets a crash happen anywhere.

        Candles, then the rows that say they were emitted, then the marker that says the rows are there, then the
        chunks. Each step waits until the one before it is acknowledged. All candles go out; of the rows only so many as
        `WriteBudget` says, and the marker says no more than they do.
        """
        async with self._lock:
            self._session_guard.check()
            if self._condemned is not None or self._lock.is_broken:
                return
            began = self._monotonic_s()
            await self._quiet.close_due(self._states.values())
            for state in self._states.values():
                await self._send_corrections(state)
            await self._output.acknowledged()
            chosen = self._choose_rows()
            changed = [state for state in self._states.values() if state.chunks or chosen[state.number]]
            for state in changed:
                state.drop_final(chosen[state.number])
                await self._write_rows(state, chosen[state.number])
            await self._output.acknowledged()
            for state in changed:
                await self._write_marker(state, chosen[state.number])
            asked = [state for state in self._states.values() if state not in changed and self._must_ask(state, began)]
            for state in asked:
                await self._put_marker(state)
            self._quiet.hear(changed + asked, await self._output.acknowledged())
            for state in changed:
                await self._acknowledge_chunks(state)
            for state in self._states.values():
                metrics.checkpoint_timestamp_seconds.labels(state.number).set_to_current_time()
            self.checkpoints += 1
            metrics.checkpoint_seconds.observe(self._monotonic_s() - began)

    async def _refuse(self, chunk: Chunk, acknowledge: Acknowledge, state: PartitionState | None) -> None:
        """A chunk that continues nothing: of a partition given away, or from before the last resumption."""
        metrics.records_skipped.labels("stale_chunk").inc(len(chunk.records))
        await acknowledge()
        if state is not None:
            _log.warning(
                "chunk does not continue the last one, reading again",
                partition=chunk.partition,
                begin=chunk.begin,
                expected=state.next,
            )
            await self._kafka.rewind(chunk.partition, state.next)

    async def _send_corrections(self, state: PartitionState) -> None:
        """Send the candles that late trades have changed since they were last sent."""
        corrected = [candle for symbol in sorted(state.folded) for candle in state.symbols[symbol].corrections()]
        state.folded.clear()
        await self._output.send_candles(corrected, "corrected")

    def _choose_rows(self) -> dict[int, list[str]]:
        """The symbols of each partition whose rows are to be written now."""
        now_s = self._monotonic_s()
        queues = {state.number: state.unwritten for state in self._states.values()}
        for queue in queues.values():
            queue.find_due(now_s)
        if self._gives_away:
            return {number: [symbol for _, symbol in queue] for number, queue in queues.items()}
        return self._pace.choose(queues, now_s)

    async def _write_rows(self, state: PartitionState, symbols: Sequence[str]) -> None:
        """Write the rows of these symbols as they are."""
        count = size = 0
        for begin in range(0, len(symbols), SYMBOLS_AT_ONCE):
            some = symbols[begin : begin + SYMBOLS_AT_ONCE]
            for place, (table, timeframe) in enumerate(zip(self._tables, self._timeframes, strict=True)):
                rows = [(symbol.encode(), encode(state.symbols[symbol].rows[place].row)) for symbol in some]
                sizes = [len(row) for _, row in rows]
                count, size = count + len(sizes), size + sum(sizes)
                self._row_bytes.see(sizes, self._monotonic_s())
                await self._output.put(table, state.number, rows)
                metrics.rows_written.labels(str(timeframe)).inc(len(rows))

            self._id_intervals.see((len(state.symbols[symbol].rows[0].ids) for symbol in some), self._monotonic_s())
        self._pace.wrote(count, size)

    async def _write_marker(self, state: PartitionState, written: Sequence[str]) -> None:
        """`written`: the symbols whose rows have been written since the last one, and acknowledged."""
        if state.last_record is not None:
            state.trail.add(fingerprint_of(state.last_record))
            state.last_record = None
        state.note_written(written, self._monotonic_s())
        state.durable_end = state.unwritten.durable_end(state.next)
        await self._put_marker(state)

    async def _put_marker(self, state: PartitionState) -> None:
        records = state.marker_records(self._rules.epoch, self._markers.rows(state.number), self._monotonic_s())
        await self._output.put(self._markers, state.number, records)

    def _must_ask(self, state: PartitionState, now_s: float) -> bool:
        """Whether the last marker is due to be repeated, for the sake of its append time."""
        if not self._quiet.must_ask(state, now_s):
            return False
        return read_marker(self._markers, state.number, self._rules.epoch) is not None

    async def _acknowledge_chunks(self, state: PartitionState) -> None:
        """Let the offsets be committed up to which all is durable, and let go of all chunks: they are folded.

        Of what is not durable yet, rows and candles wait here, and no record.
        """
        self._kafka.mark_durable(state.number, state.durable_end)
        for acknowledge in state.chunks:
            await acknowledge()
        state.chunks.clear()
        _show_position(state)


def _show_position(state: PartitionState) -> None:
    metrics.position.labels(state.number).set(state.durable_end - 1)
    metrics.symbols_waiting.labels(state.number).set(len(state.unwritten))
    if state.event_at:
        metrics.event_timestamp_seconds.labels(state.number).set(state.event_at / 1e6)

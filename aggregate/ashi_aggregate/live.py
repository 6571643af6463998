"""Candles in progress to topic `candles.live`: what the windows that have not closed hold, now and then.

They help whoever watches, and nothing depends on them. So they wait for whatever else a worker does, and nothing waits
for them: they take no part in steps, in checkpoints or in what those wait for, and have a producer of their own.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from ashi.contracts.candle import CANDLE_SCHEMA, encode_candle
from ashi.contracts.errors import BrokerError, StateError
from ashi.contracts.records import live_key
from ashi.runtime.kafka.connections.clients import partition_of
from ashi.runtime.kafka.producing.dead_letters import message_headers
from ashi.runtime.logs import get_logger, get_weather_logger
from ashi.runtime.metrics import aggregate as metrics
from ashi_aggregate.clocks import REMEMBERED_US
from ashi_aggregate.cpu_share import CpuShare
from ashi_aggregate.fencing import SessionGuard, since_boot_s

if TYPE_CHECKING:
    from ashi.runtime.kafka.producing.record_batches import OutgoingRecord
    from ashi_aggregate.core.symbol import SymbolAggregator
    from ashi_aggregate.partition import PartitionState
    from ashi_aggregate.protocols import KafkaLog, LatestLog

LOOK_SOON_S: Final = 0.025
"""After so long it is looked again whether something may be sent, while something waits."""
LOOK_EVERY_S: Final = 0.13
"""At most so long while nothing waits. What is due by then goes out together: a request costs as 100 updates do."""
LOOK_MARGIN_S: Final = 0.005
"""Half the interval and this is how often it is looked. What was told in a round has rested in the next but one."""
BYTES_AT_ONCE: Final = 192 * 1024
"""So much is encoded before others have their turn, three milliseconds, and sent at once."""
SYMBOLS_AT_ONCE: Final = 500
"""So many are looked at before others have their turn, of all partitions, should there be nothing to tell of them."""
REQUEST_S: Final = 0.0005
"""CPU time that it takes to send what has been encoded, and to hear that it was taken, about."""
WITHIN_REACH_US: Final = 2_000_000
"""A worker whose last record was appended longer ago, and which has not come to the end of the log, is catching up."""
OWED_US: Final = 60_000_000
"""Of symbols that traded so soon before the last record of a partition, whoever had it before may owe an update."""
PAUSE_S: Final = 1.0
"""After Kafka has not taken an update of a partition, for that one; for all, after it cannot be reached."""

_HEADERS: Final = message_headers(CANDLE_SCHEMA)

_log = get_logger(__name__)
_weather = get_weather_logger(__name__)


@dataclass(slots=True)
class _Turn:
    """How much may still be done before others have their turn."""

    size: int
    symbols: int


class LiveCandles:
    """Tells of each symbol that has changed, at most once in an interval: all that changed, in every timeframe.

    The symbols that wait have their turn in the order in which they became due, as far as the share of the CPU goes;
    where it is too little for all, their turn comes later, which is the interval stretched. Of a partition one batch is
    on its way at a time: what changes meanwhile waits, and is told as it is then. One whose updates Kafka does not take
    holds up no other.

    An update is what its version says, the fold of the window's trades up to that offset, so one that comes late or
    twice misleads nobody: the closed candle's version is never less.
    """

    def __init__(
        self,
        kafka: KafkaLog,
        log: LatestLog,
        session_guard: SessionGuard,
        *,
        interval_us: int,
        share: CpuShare | None = None,
        now_s: Callable[[], float] = since_boot_s,
    ) -> None:
        self._kafka = kafka
        self._log = log
        self._session_guard = session_guard
        self._interval_s = interval_us / 1e6
        self._share = share or CpuShare()
        self._now_s = now_s
        self._on_its_way: set[PartitionState] = set()
        self._paused_until_s = 0.0

    def took_up(self, state: PartitionState) -> None:
        """A partition has been taken up: what whoever had it before may not have told is told."""
        times = state.symbols.append_times()
        from_us = max(times.values(), default=0) - OWED_US
        for symbol, appended_at in times.items():
            if appended_at >= from_us:
                state.live.changed(symbol, self._now_s())

    async def tell(self, own: Callable[[], Collection[PartitionState]]) -> float:
        """Send what is due; gives after how long to do it again, s.

        `own`: the partitions whose state counts, asked for again before each batch. Raises nothing for what Kafka does
        not take, nor for a row that cannot be read.
        """
        if self._now_s() < self._paused_until_s or not await self._is_connected():
            return LOOK_EVERY_S
        for state in own():
            state.live.wake(self._now_s(), self._interval_s)
        first_due_s = min((due_since for due_since, _ in self._waiting(own())), default=self._now_s())
        metrics.live_interval_seconds.set(self._interval_s + self._now_s() - first_due_s)
        while self._share.has_left() and (chosen := self._find_next(own())):
            if not self._tell_some(chosen):
                return LOOK_EVERY_S
            await asyncio.sleep(0)
        if self._waiting(own()):
            return LOOK_SOON_S
        return min(self._interval_s / 2 + LOOK_MARGIN_S, LOOK_EVERY_S)

    async def _is_connected(self) -> bool:
        if not self._log.is_connected:
            try:
                await self._log.connect()
            except BrokerError as error:
                self._pause_all(error)
                return False
        return True

    def _pause_all(self, error: BrokerError) -> None:
        self._paused_until_s = self._now_s() + PAUSE_S
        _warn(error)

    def _waiting(self, states: Collection[PartitionState]) -> list[tuple[float, PartitionState]]:
        """The partitions of which there is something to tell now, each with since when (monotonic, s)."""
        return [
            (due_since, state)
            for state in states
            if (due_since := state.live.due_since) is not None
            and state.live.paused_until_s <= self._now_s()
            and self._is_within_reach(state)
        ]

    def _find_next(self, states: Collection[PartitionState]) -> list[PartitionState]:
        """The partitions in which symbols wait and of which nothing is on its way, the longest wait first."""
        waiting = self._waiting([state for state in states if state not in self._on_its_way])
        return [state for _, state in sorted(waiting, key=lambda each: (each[0], each[1].number))]

    def _is_within_reach(self, state: PartitionState) -> bool:
        """Whether what is known of a partition is about all there is: a worker that catches up has better to do.

        What stood in the log when the partition was taken up has been told by whoever had it then.
        """
        if state.next < state.live_from:
            return False
        now_us = int(self._now_s() * 1_000_000)
        # Only markers tell what the broker's clock says now: records may be old, and as if they had just come.
        if state.marked_at is not None and now_us - state.marked_at * 1e6 <= REMEMBERED_US:
            broker_now = state.clock.now_us(now_us)
            if broker_now is not None and broker_now - state.read_at <= WITHIN_REACH_US:
                return True
        end = self._kafka.end_of(state.number)
        return end is not None and state.next >= end

    def _tell_some(self, states: Sequence[PartitionState]) -> bool:
        """Send a batch of each of these partitions, as far as they go at once; False when Kafka cannot take any now."""
        self._session_guard.check()
        began_s = time.thread_time()
        try:
            partitions = self._log.partitions()
        except BrokerError as error:
            self._pause_all(error)
            return False
        turn = _Turn(BYTES_AT_ONCE, SYMBOLS_AT_ONCE)
        is_sent = False
        for state in states:
            if turn.size <= 0 or turn.symbols <= 0:
                break
            symbols, records = self._take_some(state, partitions, turn)
            if symbols:
                is_sent = True
                self._on_its_way.add(state)
                self._log.post(records).add_done_callback(partial(self._settle, state, symbols))
        took_s = time.thread_time() - began_s + (REQUEST_S if is_sent else 0.0)
        self._share.took(took_s)
        metrics.live_seconds.inc(took_s)
        return True

    def _take_some(
        self, state: PartitionState, partitions: int, turn: _Turn
    ) -> tuple[list[str], dict[int, list[OutgoingRecord]]]:
        """The symbols whose turn it is, and what is to be told of them by partition of the topic, which has so many."""
        symbols: list[str] = []
        records: dict[int, list[OutgoingRecord]] = defaultdict(list)
        updates: Counter[str] = Counter()
        queue, now_s = state.live, self._now_s()
        while len(queue) and turn.size > 0 and turn.symbols > 0:
            turn.symbols -= 1
            symbol = queue.take()
            aggregator = _look_at(state, symbol)
            candles = [] if aggregator is None else aggregator.candles_in_progress(queue.told_up_to(symbol))
            if aggregator is None or not candles:  # all that came was late, or had come before, or has closed
                continue
            queue.told(symbol, aggregator.applied_offset, now_s)
            symbols.append(symbol)
            of_partition = records[partition_of(symbol.encode(), partitions)]
            for candle in candles:
                value = encode_candle(candle)
                turn.size -= len(value)
                of_partition.append((live_key(symbol, candle.timeframe), value, _HEADERS))
                updates[candle.timeframe] += 1
        for timeframe, count in updates.items():
            metrics.live_updates.labels(timeframe).inc(count)
        return symbols, records

    def _settle(self, state: PartitionState, symbols: Sequence[str], sent: asyncio.Future[None]) -> None:
        """What was on its way of a partition's symbols has been taken, or has not been."""
        self._on_its_way.discard(state)
        error = None if sent.cancelled() else sent.exception()
        if error is None and not sent.cancelled():
            return
        state.live.not_told(symbols, self._now_s())
        if error is not None:
            state.live.paused_until_s = self._now_s() + PAUSE_S
            _warn(error)


def _look_at(state: PartitionState, symbol: str) -> SymbolAggregator | None:
    """Its aggregator; None where its row cannot be read. To end the worker for that is up to whoever needs the row."""
    try:
        return state.symbols.look_at(symbol)
    except StateError as error:
        _log.error(
            "the state of a symbol cannot be read, its candles in progress are not sent",
            partition=state.number,
            symbol=symbol,
            error=str(error),
        )
        return None


def _warn(error: BaseException) -> None:
    _weather.warning("candles in progress cannot be sent, trying again", error=str(error))

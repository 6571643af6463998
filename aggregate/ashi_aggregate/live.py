"""Candles in progress to topic `candles.live`: what the windows that have not closed hold, now and then.

They help whoever watches, and nothing depends on them. So they wait for whatever else a worker does, and nothing waits
for them: they take no part in steps, in checkpoints or in what those wait for, and have a producer of their own.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from ashi.contracts.candle import CANDLE_SCHEMA, encode_candle
from ashi.contracts.errors import BrokerError
from ashi.contracts.records import live_key
from ashi.runtime.kafka.clients import partition_of
from ashi.runtime.kafka.dead_letters import message_headers
from ashi.runtime.logs import get_weather_logger
from ashi.runtime.metrics import aggregate as metrics
from ashi_aggregate.clocks import REMEMBERED_US
from ashi_aggregate.cpu_share import CpuShare
from ashi_aggregate.fencing import SessionGuard, since_boot_s

if TYPE_CHECKING:
    from ashi.runtime.kafka.record_batches import OutgoingRecord
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
"""So many are looked at before others have their turn, should there be nothing to tell of them."""
REQUEST_S: Final = 0.0005
"""CPU time that it takes to send what has been encoded, and to hear that it was taken, about."""
WITHIN_REACH_US: Final = 2_000_000
"""A worker whose last record was appended longer ago, and which has not come to the end of the log, is catching up."""
OWED_US: Final = 60_000_000
"""Of symbols that traded so soon before the last record of a partition, whoever had it before may owe an update."""
PAUSE_S: Final = 1.0
"""After Kafka has not taken an update, or cannot be reached."""

_HEADERS: Final = message_headers(CANDLE_SCHEMA)

_weather = get_weather_logger(__name__)


class LiveCandles:
    """Tells of each symbol that has changed, at most once in an interval: all that changed, in every timeframe.

    The symbols that wait have their turn in the order in which they became due, as far as the share of the CPU goes;
    where it is too little for all, their turn comes later, which is the interval stretched. Of a partition one batch is
    on its way at a time: what changes meanwhile waits, and is told as it is then.

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

        `own`: the partitions whose state counts, asked for again before each batch. Raises StateError where a row
        cannot be read, and nothing for what Kafka does not take.
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
                self._pause(error)
                return False
        return True

    def _pause(self, error: BaseException) -> None:
        self._paused_until_s = self._now_s() + PAUSE_S
        _weather.warning("candles in progress cannot be sent, trying again", error=str(error))

    def _waiting(self, states: Collection[PartitionState]) -> list[tuple[float, PartitionState]]:
        """The partitions of which there is something to tell now, each with since when (monotonic, s)."""
        return [
            (due_since, state)
            for state in states
            if (due_since := state.live.due_since) is not None and self._is_within_reach(state)
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
            self._pause(error)
            return False
        records: dict[int, list[OutgoingRecord]] = defaultdict(list)
        taken: dict[PartitionState, list[str]] = {}
        size = 0
        for state in states:
            if size >= BYTES_AT_ONCE:
                break
            symbols, more = self._take_some(state, partitions, records, BYTES_AT_ONCE - size)
            size += more
            if symbols:
                taken[state] = symbols
        if taken:
            self._on_its_way |= taken.keys()
            self._log.post(records).add_done_callback(partial(self._settle, taken))
        took_s = time.thread_time() - began_s + (REQUEST_S if taken else 0.0)
        self._share.took(took_s)
        metrics.live_seconds.inc(took_s)
        return True

    def _take_some(
        self, state: PartitionState, partitions: int, records: Mapping[int, list[OutgoingRecord]], most: int
    ) -> tuple[list[str], int]:
        """The symbols whose turn it is, about as many as make `most` bytes, and how many these are.

        What is to be told of them goes to `records`, by the partition of the topic, of which there are so many.
        """
        symbols: list[str] = []
        updates: Counter[str] = Counter()
        queue, now_s, size = state.live, self._now_s(), 0
        for _ in range(min(len(queue), SYMBOLS_AT_ONCE)):
            if size >= most:
                break
            symbol = queue.take()
            aggregator = state.symbols.look_at(symbol)
            candles = aggregator.candles_in_progress(queue.told_up_to(symbol))
            if not candles:  # all that came was late, or had come before, or has closed
                continue
            queue.told(symbol, aggregator.applied_offset, now_s)
            symbols.append(symbol)
            of_partition = records[partition_of(symbol.encode(), partitions)]
            for candle in candles:
                value = encode_candle(candle)
                size += len(value)
                of_partition.append((live_key(symbol, candle.timeframe), value, _HEADERS))
                updates[candle.timeframe] += 1
        for timeframe, count in updates.items():
            metrics.live_updates.labels(timeframe).inc(count)
        return symbols, size

    def _settle(self, taken: Mapping[PartitionState, Sequence[str]], sent: asyncio.Future[None]) -> None:
        """What was on its way of these symbols has been taken, or has not been."""
        self._on_its_way -= taken.keys()
        if sent.cancelled() or (error := sent.exception()) is None:
            return
        for state, symbols in taken.items():
            state.live.not_told(symbols, self._now_s())
        self._pause(error)

"""The windows of quiet markets: closed by the clock, as far as this machine's and the broker's agree."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Final, NamedTuple

from ashi.contracts.candle import Candle
from ashi.runtime.logs import get_logger
from ashi_aggregate.chunk import LogRecord
from ashi_aggregate.clocks import ClockReport, SteadyClock
from ashi_aggregate.output import CANDLES_AT_ONCE, Output
from ashi_aggregate.partition import PartitionState
from ashi_aggregate.protocols import Acknowledged, KafkaLog

APPEND_TIME: Final = 1
"""The timestamp type of a record that has the time at which the broker appended it."""

CLOSE_EVERY_US: Final = 25_000
"""After a record has closed windows of a partition, only one appended so much later closes further ones: at the end
of a minute some fall due at each moment, and each look goes through all that will be."""

MANY: Final = 100
"""So many symbols of a partition that are due at once are the end of a minute, and others follow at once."""
GOES_ON_S: Final = 0.05
"""So long after that others may follow."""
LONGEST_S: Final = 1.0
"""Longer than that it is no end of a minute, but a worker that closes windows all the time."""

ASK_AGAIN_S: Final = 10.0
"""After so long the end of a log that was not reached is asked for anew: it may have been cut there."""

_log = get_logger(__name__)


class _Asked(NamedTuple):
    """The end that a log had, or one behind it, at the time `now_us` (µs), and when it was asked for (monotonic, s)."""

    end: int
    now_us: int
    asked_s: float


class QuietClose:
    """Closes them as records come, or else at checkpoints, and hears the brokers' clocks from append times."""

    def __init__(
        self,
        kafka: KafkaLog,
        output: Output,
        *,
        enabled: bool,
        now_us: Callable[[], int],
        since_boot_s: Callable[[], float],
    ) -> None:
        """Not `enabled`, it closes nothing; the distance of the clocks is told all the same."""
        self._kafka = kafka
        self._output = output
        self._enabled = enabled
        self._since_boot_s = since_boot_s
        self._clock = SteadyClock(now_us, since_boot_s)
        self._report = ClockReport()
        self._said_no_append_time = False
        self._asked: dict[PartitionState, _Asked] = {}
        self._under_way_s = -math.inf, -math.inf

    @property
    def is_under_way(self) -> bool:
        """Whether the windows of many symbols are being closed, and those of others wait for their turn."""
        (began_s, last_s), now_s = self._under_way_s, self._since_boot_s()
        return now_s - last_s < GOES_ON_S and now_s - began_s < LONGEST_S

    def saw(self, state: PartitionState, last: LogRecord) -> None:
        """The last record of a chunk: up to when has been read, and what time it is if it came since the taking up."""
        if last.timestamp_type == APPEND_TIME:
            state.read_at = last.timestamp * 1000
        if _tells_time(state, last):
            state.clock.saw(last.timestamp * 1000, self._clock.since_boot_us())

    def must_ask(self, state: PartitionState, now_s: float) -> bool:
        """Whether the last marker is due (monotonic, s) to be repeated, for the sake of its append time."""
        return self._enabled and state.must_ask_clock(now_s)

    def hear(self, marked: Sequence[PartitionState], acknowledged: Sequence[Acknowledged]) -> None:
        """The append times of the markers of these partitions tell the brokers' clocks."""
        boot = self._clock.since_boot_us()
        for state, marker in zip(marked, acknowledged, strict=True):
            state.marked_at = self._since_boot_s()
            if marker.timestamp_type == APPEND_TIME:
                state.clock.saw(marker.timestamp * 1000, boot)
            elif self._enabled and not self._said_no_append_time:
                self._said_no_append_time = True
                _log.warning(
                    "topics of the state do not take Kafka's time, so a wrong clock of this machine is noticed only by "
                    "the trades that come: `ashi topics check` says how to set it"
                )
            if (broker_now := state.clock.now_us(boot)) is not None:
                self._report.report(state.number, self._clock.wall_us() - broker_now)

    async def close_seen(self, state: PartitionState, last: LogRecord) -> None:
        """Close what is due by the time at which `last` was appended: it has been read, so all before it has been.

        Beside markets that trade all the time this is at once, where the end of the log is always further on.
        """
        if not self._enabled or not _tells_time(state, last):
            return
        now = min(self._clock.now_us(), last.timestamp * 1000)
        if now - state.closed_at >= CLOSE_EVERY_US and await self._close(state, now):
            state.closed_at = now

    async def close_due(self, states: Collection[PartitionState]) -> None:
        """Close what is due by a time, once everything has been read that was appended before it.

        That time and the end of the log at it are remembered until they are reached: where records come without a
        pause, whoever asks for the end when he has come there finds it further on each time.
        """
        if not self._enabled:
            return
        self._asked = {state: asked for state in states if (asked := self._asked.get(state)) is not None}
        await self._ask(states)
        for state, asked in list(self._asked.items()):
            if state.next < asked.end:
                continue
            del self._asked[state]
            await self._close(state, asked.now_us)

    async def _ask(self, states: Collection[PartitionState]) -> None:
        """Ask for the ends of partitions with windows to close, and of those whose end was not reached for long."""
        now, now_s = self._clock.now_us(), self._since_boot_s()
        times: dict[PartitionState, int] = {}
        for state in states:
            if state not in self._asked:
                time = self._time_of(state, now)
                if time is not None and state.symbols.find_due(time):
                    times[state] = time
            elif now_s - self._asked[state].asked_s >= ASK_AGAIN_S and (time := self._time_of(state, now)) is not None:
                times[state] = time
        # What the last fetch said may be from before this process stood still, when much was unread that is gone now.
        ends = await self._kafka.ask_ends([state.number for state in times]) if times else {}
        for state, time in times.items():
            end, before = ends.get(state.number), self._asked.get(state)
            if end is None:
                continue
            if before is None or end < before.end:  # else it goes on to wait for the one that it knows
                self._asked[state] = _Asked(end, time, now_s)
            else:
                self._asked[state] = before._replace(asked_s=now_s)

    async def _close(self, state: PartitionState, now_us: int) -> bool:
        """Close what is due at `now_us` (µs); whether something was."""
        candles: list[Candle] = []
        due = state.symbols.find_due(now_us)
        self._note(due)
        now_s, awaited = self._since_boot_s(), state.awaited
        for symbol, clock in due:
            state.unwritten.changed(symbol, now_s)
            if symbol not in awaited:
                awaited.look(symbol, state.symbols.look_at(symbol).rows[0].row)
            closed = state.symbols.close_due(symbol, clock)
            if candles and len(candles) + len(closed) > CANDLES_AT_ONCE:
                await self._output.send_candles(candles, "closed", awaited)
                candles = []
            candles += closed
        await self._output.send_candles(candles, "closed", awaited)
        self._note(due)
        return bool(due)

    def _note(self, due: Sequence[object]) -> None:
        if len(due) >= MANY:
            (began_s, last_s), now_s = self._under_way_s, self._since_boot_s()
            self._under_way_s = (began_s if now_s - last_s < GOES_ON_S else now_s), now_s

    def _time_of(self, state: PartitionState, now: int) -> int | None:
        """The time (µs) that quiet windows of a partition may close by now.

        `now` (µs) counts as far as the broker's clock agrees, which is not known before a marker has been written.
        """
        if self._kafka.end_of(state.number) is None or state.marked_at is None:
            return None
        broker_now = state.clock.now_us(self._clock.since_boot_us())
        # Where the state's topics do not take the append time, and nothing has come yet, there is no other clock.
        return self._clock.wall_us() if broker_now is None else min(now, broker_now)


def _tells_time(state: PartitionState, record: LogRecord) -> bool:
    return record.offset >= state.live_from and record.timestamp_type == APPEND_TIME

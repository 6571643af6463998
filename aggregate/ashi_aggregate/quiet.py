"""The windows of quiet markets: closed by the clock, as far as this machine's and the broker's agree."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from ashi.contracts.candle import Candle
from ashi.runtime.logs import get_logger
from ashi_aggregate.chunk import LogRecord
from ashi_aggregate.clocks import ClockReport, SteadyClock
from ashi_aggregate.output import CANDLES_AT_ONCE, Output
from ashi_aggregate.partition import PartitionState
from ashi_aggregate.protocols import Acknowledged, KafkaLog

APPEND_TIME: Final = 1
"""The timestamp type of a record that has the time at which the broker appended it."""

_log = get_logger(__name__)


class QuietClose:
    """Closes them at each checkpoint, and hears the brokers' clocks from append times."""

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

    def saw(self, state: PartitionState, last: LogRecord) -> None:
        """The last record of a chunk: it tells the broker's time if it came since the partition was taken up."""
        if last.offset >= state.live_from and last.timestamp_type == APPEND_TIME:
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

    async def close_due(self, states: Collection[PartitionState]) -> None:
        """Close what is due, while nothing is unread that could still belong to it."""
        if not self._enabled:
            return
        now = self._clock.now_us()
        due = {state: symbols for state in states if (symbols := self._find_due(state, now))}
        # What the last fetch said may be from before this process stood still, when much was unread that is gone now.
        ends = await self._kafka.ask_ends([state.number for state in due]) if due else {}
        for state, symbols in due.items():
            if state.number not in ends or state.next < ends[state.number]:
                continue
            candles: list[Candle] = []
            for symbol, clock in symbols:
                state.unwritten.changed(symbol, self._since_boot_s())
                candles += state.symbols[symbol].close_due(clock)
                if len(candles) >= CANDLES_AT_ONCE:
                    await self._output.send_candles(candles, "closed")
                    candles = []
            await self._output.send_candles(candles, "closed")

    def _find_due(self, state: PartitionState, now: int) -> list[tuple[str, int]]:
        """The quiet symbols of a partition that have windows to close, each with the time (µs) that they close by.

        `now` (µs) counts as far as the broker's clock agrees, which is not known before a marker has been written.
        """
        end = self._kafka.end_of(state.number)
        if end is None or state.next < end or state.marked_at is None:
            return []
        broker_now = state.clock.now_us(self._clock.since_boot_us())
        # Where the state's topics do not take the append time, and nothing has come yet, there is no other clock.
        now = self._clock.wall_us() if broker_now is None else min(now, broker_now)
        return state.symbols.find_due(now)

"""How far the trades have come on their way through the stages, and whether one of them stands still."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ashi.contracts.topics import AGGREGATE_APP, CANDLES, TRADES
from ashi.runtime.kafka.cluster.offsets import committed_offsets, end_offsets, left_to_read

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from ashi.runtime.settings import Settings

STALL_BOUND_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Progress:
    """Records that the stages have put into Kafka and taken out of it; what is taken out is durable."""

    published: int
    aggregated: int
    emitted: int
    stored: int

    @property
    def all_aggregated(self) -> bool:
        """Whether every trade published so far has been aggregated."""
        return self.aggregated == self.published

    @property
    def all_stored(self) -> bool:
        """Whether every candle emitted so far is in the store."""
        return self.stored == self.emitted

    def __str__(self) -> str:
        return (
            f"trades: {self.published:,} published, {self.aggregated:,} aggregated; "
            f"candles: {self.emitted:,} emitted, {self.stored:,} stored"
        )


async def read_progress(settings: Settings, sink_group: str) -> Progress:
    """Ask Kafka. Raises BrokerError.

    In the order of the flow: a candle is emitted before its trades are committed. So when all trades had been
    published before the call, and all of them have been aggregated, then the candles seen here are all there will be.
    """
    trades = await end_offsets(settings, TRADES)
    aggregated = await _done(settings, TRADES, AGGREGATE_APP, trades)
    candles = await end_offsets(settings, CANDLES)
    return Progress(
        sum(trades.values()), aggregated, sum(candles.values()), await _done(settings, CANDLES, sink_group, candles)
    )


async def _done(settings: Settings, topic: str, group: str, ends: Mapping[int, int]) -> int:
    committed = await committed_offsets(settings, group, topic)
    # The log is ours and begins at 0, so offsets count records. Commits may be ahead of an older look at the ends.
    done = {partition: min(committed.get(partition, 0), end) for partition, end in ends.items()}
    if any(0 < done[partition] < end for partition, end in ends.items()):  # by markers alone, it may be
        left = await left_to_read(settings, topic, done, ends)
        done = {partition: ends[partition] - count for partition, count in left.items()}
    return sum(done.values())


class StallWatch:
    """Tells of work that is there and is not being done."""

    def __init__(self, bound_s: float = STALL_BOUND_S, clock: Callable[[], float] = time.monotonic) -> None:
        self.bound_s = bound_s
        self._clock = clock
        self._seen: dict[str, tuple[Hashable, float]] = {}

    def stalled(self, stage: str, mark: Hashable, *, busy: bool) -> bool:
        """Whether `stage` has had work for `bound_s` seconds while its `mark`, which changes with its work, did not."""
        known, since = self._seen.get(stage, (None, 0.0))
        now = self._clock()
        if not busy or stage not in self._seen or known != mark:
            self._seen[stage] = (mark, now)
            return False
        return now - since >= self.bound_s
